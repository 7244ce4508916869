"""A database in memory that outlives the Metadata Store that writes it, as a disk would.

It is real SQLite under the real schema. Making the schema takes longer than a whole simulated
minute, so it is made once and copied.
"""

from __future__ import annotations

import sqlite3
from functools import cache

from sqlalchemy import Engine

from metadata.database import Database, make_engine

_URL = "sqlite://"

# Engines not in use. One keeps its compiled statements, which is most of what a fresh one costs.
_idle: list[Engine] = []


class MemoryDatabase:
    """One database. A store that dies leaves it as committed; the next one opens it again."""

    def __init__(self) -> None:
        self._engine: Engine | None = _idle.pop() if _idle else make_engine(_URL)
        _fill(self._engine, _empty_schema())

    def open(self) -> Database:
        """For one life of a Metadata Store. Raises ValueError once the database is discarded."""
        if self._engine is None:
            raise ValueError("this database is discarded; make a new one")
        return Database(_URL, engine=self._engine)

    def discard(self) -> None:
        """Gives the memory back. Nothing may use the database any more."""
        if self._engine is not None:
            _idle.append(self._engine)
            self._engine = None


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
