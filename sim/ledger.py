"""The Metadata Store's database as the seeded world has it: real SQLite, virtual time, faults."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from keyplane.model.errors import KeyplaneError
from metadata.catalog import Catalog
from metadata.change import Change
from metadata.memory import FragileDatabase
from wire.ports import Clock

_T = TypeVar("_T")

# A synced commit of a small transaction, in virtual seconds.
COMMIT_S = 0.002


@dataclass(slots=True)
class Trouble:
    """What is wrong with a database, whoever uses it.

    lag_s: added to every call. failing: commits fail with DATABASE_ERROR, made or not as the seed
    has it, since a broken connection does not say.
    """

    lag_s: float = 0.0
    failing: bool = False


class SimLedger:
    """Implements `metadata.ledger.Ledger`.

    Every call takes time, and what it asks for is done at the end of it: a process that dies before
    leaves the database as it was, one that dies after leaves the change made and nobody told.

    """

    def __init__(
        self, clock: Clock, database: FragileDatabase, rng: random.Random, trouble: Trouble
    ) -> None:
        self._clock = clock
        self._database = database
        self._rng = rng
        self._trouble = trouble

    def open(self, on_done: Callable[[Catalog | KeyplaneError], None]) -> None:
        self._run(self._database.open, on_done)

    def settle(self, on_done: Callable[[Catalog | KeyplaneError | None], None]) -> None:
        self._run(self._database.settle, on_done)

    def commit(self, change: Change, on_done: Callable[[KeyplaneError | None], None]) -> None:
        def write() -> KeyplaneError | None:
            if self._trouble.failing:
                self._database.write_untold(change, made=self._rng.random() < 0.5)
            self._database.write(change)
            return None

        self._run(write, on_done)

    def close(self) -> None:
        self._database.close()

    def _run(self, work: Callable[[], _T], on_done: Callable[[_T | KeyplaneError], None]) -> None:
        def act() -> None:
            result: _T | KeyplaneError
            try:
                result = work()
            except KeyplaneError as error:
                result = error
            # Told in an event of its own, so that a death can come between.
            self._clock.call_later(COMMIT_S / 2, lambda: on_done(result))

        self._clock.call_later(COMMIT_S / 2 + self._trouble.lag_s, act)
