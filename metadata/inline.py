"""A ledger in the caller's own thread: for SQLite in tests and in the seeded world."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from keyplane.model.errors import KeyplaneError
from metadata.catalog import Catalog
from metadata.change import Change
from metadata.database import Database
from wire.ports import Clock

_T = TypeVar("_T")


class InlineLedger:
    """Implements `metadata.ledger.Ledger`: asks the database at once, and answers later."""

    def __init__(self, clock: Clock, database: Database) -> None:
        self._clock = clock
        self._database = database

    def open(self, on_done: Callable[[Catalog | KeyplaneError], None]) -> None:
        self._run(self._database.open, on_done)

    def settle(self, on_done: Callable[[Catalog | KeyplaneError | None], None]) -> None:
        self._run(self._database.settle, on_done)

    def commit(self, change: Change, on_done: Callable[[KeyplaneError | None], None]) -> None:
        self._run(lambda: self._database.write(change), on_done)

    def close(self) -> None:
        self._database.close()

    def _run(self, work: Callable[[], _T], on_done: Callable[[_T | KeyplaneError], None]) -> None:
        result: _T | KeyplaneError
        try:
            result = work()
        except KeyplaneError as error:
            result = error
        outcome = result
        self._clock.call_soon(lambda: on_done(outcome))
