"""A disk that takes its time."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from wire.faults import FaultKind
from wire.injection.table import FaultTable
from wire.ports import Batch, Clock, Engine, EngineError, Snapshot


class FaultyEngine:
    """Implements `wire.ports.Engine` around another: slow-disk makes commits begin later."""

    def __init__(self, inner: Engine, table: FaultTable, clock: Clock) -> None:
        self._inner = inner
        self._table = table
        self._clock = clock
        # When the last commit that waits is due; later ones go behind it, whatever has healed.
        self._last_due = float("-inf")
        table.allow(FaultKind.SLOW_DISK)

    def get(self, key: bytes) -> bytes | None:
        return self._inner.get(key)

    def scan(
        self, start: bytes, end: bytes, backward: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        return self._inner.scan(start, end, backward)

    def commit(
        self, batch: Batch, sync: bool, on_done: Callable[[EngineError | None], None]
    ) -> None:
        now = self._clock.now()
        due = max(now + self._table.delay_s(FaultKind.SLOW_DISK), self._last_due)
        if due <= now:
            self._inner.commit(batch, sync, on_done)
            return
        self._last_due = due
        self._clock.call_later(due - now, lambda: self._inner.commit(batch, sync, on_done))

    def snapshot(self) -> Snapshot:
        return self._inner.snapshot()

    def close(self) -> None:
        self._inner.close()
