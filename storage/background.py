"""Scans that take many turns, so that no request waits for more than a few milliseconds of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice

from storage.shard import Shard
from storage.state import NodeState
from wire.ports import EngineError

# Between two turns of a background scan: leaves most of the time to requests.
PAUSE_S = 0.01


class ItemCounter:
    """Counts the items of partitions that a split has made, one partition at a time."""

    def __init__(self, state: NodeState) -> None:
        self._state = state
        self._waiting: deque[Shard] = deque()
        self._busy = False

    def look(self) -> None:
        """Takes up the partitions that have no count. Called on every beat."""
        if not self._busy:
            self._waiting = deque(s for s in self._state.shards.values() if not s.counted)
            self._next()

    def _next(self) -> None:
        self._busy = bool(self._waiting)
        if self._waiting:
            shard = self._waiting.popleft()
            # Between two batches the engine and the shard's own sums agree.
            self._state.queue.between(lambda: self._count(shard))

    def _count(self, shard: Shard) -> None:
        """What is written from here on changes the sums; what was written before is scanned."""
        snapshot = self._state.engine.snapshot()
        items_before, bytes_before = shard.items, shard.data_bytes
        items = data_bytes = 0

        def add(entries: list[tuple[bytes, bytes]]) -> bool:
            nonlocal items, data_bytes
            items += len(entries)
            data_bytes += sum(len(key) + len(value) for key, value in entries)
            return not shard.retired

        def done(complete: bool) -> None:
            snapshot.close()
            if complete:
                shard.items += items - items_before
                shard.data_bytes += data_bytes - bytes_before
                shard.counted = True
            self._next()

        scan_in_turns(self._state, snapshot.scan(*shard.item_range()), add, done)


def scan_in_turns(
    state: NodeState,
    entries: Iterator[tuple[bytes, bytes]],
    take: Callable[[list[tuple[bytes, bytes]]], bool],
    done: Callable[[bool], None],
) -> None:
    """Feeds entries to `take`, a few thousand at a turn, until it returns False or they end.

    done: told whether they came to their end.
    """

    def turn() -> None:
        try:
            portion = list(islice(entries, state.config.scan_turn_entries))
        except EngineError as error:
            state.log.warning("background scan failed", error=str(error))
            done(False)
            return
        if not portion:
            done(True)
        elif take(portion):
            state.clock.call_later(PAUSE_S, turn)
        else:
            done(False)

    turn()
