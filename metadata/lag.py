"""A database that is late."""

from __future__ import annotations

from collections.abc import Callable

from keyplane.model.errors import KeyplaneError
from metadata.catalog import Catalog
from metadata.change import Change
from metadata.ledger import Ledger
from wire.faults import FaultKind
from wire.injection import FaultTable
from wire.ports import Clock


class LaggingLedger:
    """Implements `metadata.ledger.Ledger` around another: metadata-lag makes commits begin later.

    There is one call at a time, so nothing can overtake what waits.
    """

    def __init__(self, inner: Ledger, table: FaultTable, clock: Clock) -> None:
        self._inner = inner
        self._table = table
        self._clock = clock
        table.allow(FaultKind.METADATA_LAG)

    def open(self, on_done: Callable[[Catalog | KeyplaneError], None]) -> None:
        self._inner.open(on_done)

    def settle(self, on_done: Callable[[Catalog | KeyplaneError | None], None]) -> None:
        self._inner.settle(on_done)

    def commit(self, change: Change, on_done: Callable[[KeyplaneError | None], None]) -> None:
        lag_s = self._table.delay_s(FaultKind.METADATA_LAG)
        if lag_s:
            self._clock.call_later(lag_s, lambda: self._inner.commit(change, on_done))
        else:
            self._inner.commit(change, on_done)

    def close(self) -> None:
        self._inner.close()
