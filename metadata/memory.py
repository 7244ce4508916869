"""A database in memory that outlives the Metadata Store that writes it, as a disk would.

It is real SQLite under the real schema. Making the schema takes longer than a whole simulated
minute, so it is made once and copied.
"""

from __future__ import annotations

import sqlite3
from functools import cache
from typing import NoReturn

from sqlalchemy import Engine

from keyplane.model.errors import KeyplaneError, Reason
from metadata.change import Change
from metadata.database import Database, make_engine

_URL = "sqlite://"

# Engines not in use. One keeps its compiled statements, which is most of what a fresh one costs.
_idle: list[Engine] = []


class MemoryDatabase:
    """One database. A store that dies leaves it as committed; the next one opens it again."""

    def __init__(self) -> None:
        self._engine: Engine | None = _idle.pop() if _idle else make_engine(_URL)
        _fill(self._engine, _empty_schema())

    def open(self) -> FragileDatabase:
        """For one life of a Metadata Store. Raises ValueError once the database is discarded."""
        if self._engine is None:
            raise ValueError("this database is discarded; make a new one")
        return FragileDatabase(_URL, engine=self._engine)

    def discard(self) -> None:
        """Gives the memory back. Nothing may use the database any more."""
        if self._engine is not None:
            _idle.append(self._engine)
            self._engine = None


class FragileDatabase(Database):
    """A database whose connection can break around a commit, which leaves open what was done."""

    def write_untold(self, change: Change, made: bool) -> NoReturn:
        """The connection breaks, with `made` after the commit. Raises DATABASE_ERROR."""
        position = self._position
        if made:
            self.write(change)
            self._position = position
        raise KeyplaneError(
            Reason.DATABASE_ERROR, "the connection to the database broke", retry_after_s=1.0
        )


@cache
def _empty_schema() -> bytes:
    engine = make_engine(_URL)
    Database(_URL, engine=engine).migrate()
    content = _content(engine)
    engine.dispose()
    return content


def _content(engine: Engine) -> bytes:
    with engine.connect() as connection:
        return _driver(connection.connection.driver_connection).serialize()


def _fill(engine: Engine, content: bytes) -> None:
    pooled = engine.raw_connection()
    try:
        _driver(pooled.driver_connection).deserialize(content)
    finally:
        pooled.close()


def _driver(connection: object) -> sqlite3.Connection:
    assert isinstance(connection, sqlite3.Connection)
    return connection
