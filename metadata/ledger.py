"""The ledger port: how the core writes to the database without waiting for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from keyplane.model.errors import KeyplaneError
from metadata.catalog import Catalog
from metadata.change import Change


class Ledger(Protocol):
    """A database behind callbacks. One call at a time; errors are those of `Database`."""

    def open(self, on_done: Callable[[Catalog | KeyplaneError], None]) -> None:
        """Takes the database up for a new term and reads everything."""

    def settle(self, on_done: Callable[[Catalog | KeyplaneError | None], None]) -> None:
        """After a failed commit: None if it was not made, or everything anew if it was."""

    def commit(self, change: Change, on_done: Callable[[KeyplaneError | None], None]) -> None:
        """Makes a change, whole or not at all. After an error it is open which of the two."""

    def close(self) -> None: ...
