"""The Engine port in memory: what a node keeps, and what it loses, without a disk.

It outlives the process that uses it, as files do: after `crash` or `power_loss` a new node is built
over the same engine and finds what a real one would find.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterator

from wire.ports import Batch, Clock, EngineError

_Done = Callable[[EngineError | None], None]


class MemoryEngine:
    """A sorted dictionary with the durability of a disk.

    clock: of the process that uses it.
    fail_with: makes every commit fail until it is None again.
    keeps_failed: so many of the next batches that fail are on disk all the same, unseen until the
        process dies and the next one reads them. Others leave no trace.
    commit_s: virtual seconds that a commit takes; its batch becomes visible at the end.
    """

    def __init__(self, clock: Clock, commit_s: float = 0.0) -> None:
        self._clock = clock
        self.commit_s = commit_s
        self.fail_with: EngineError | None = None
        self.keeps_failed = 0
        self.commits = 0
        self._view = _View({})
        # Batches that are applied but not synced, in order, on top of what is.
        self._unsynced: list[Batch] = []
        self._synced: dict[bytes, bytes] = {}
        # Commits of a process that has died are neither applied nor answered.
        self._life = 0
        # Among the unsynced: batches that failed and can come back.
        self._failed = 0
        # When the last commit begun ends, so that the next does not overtake it.
        self._busy_until = 0.0

    def get(self, key: bytes) -> bytes | None:
        return self._view.get(key)

    def scan(
        self, start: bytes, end: bytes, backward: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        return self._view.scan(start, end, backward)

    def commit(self, batch: Batch, sync: bool, on_done: _Done) -> None:
        life = self._life

        def finish() -> None:
            if life != self._life:
                return
            error = self.fail_with
            if error is None:
                self._apply(batch, sync)
            elif self.keeps_failed:
                self.keeps_failed -= 1
                self._unsynced.append(batch)
                self._failed += 1
            on_done(error)

        now = self._clock.now()
        self._busy_until = max(self._busy_until, now + self.commit_s)
        self._clock.call_later(self._busy_until - now, finish)

    def snapshot(self) -> _View:
        return _View(dict(self._view.entries))

    def use(self, clock: Clock) -> None:
        """Hands the engine to the process that follows on one that has died."""
        self._clock = clock
        self._busy_until = 0.0

    def close(self) -> None:
        """Nothing to give back; what was written stays for the next process."""

    def crash(self) -> None:
        """The process dies: what was committed stays, what was in flight is gone."""
        self._life += 1
        if self._failed:
            entries = dict(self._synced)
            for batch in self._unsynced:
                _apply_to(entries, batch)
            self._view = _View(entries)
            self._failed = 0

    def power_loss(self) -> None:
        """The machine dies: only what was synced stays."""
        self._life += 1
        self._unsynced.clear()
        self._failed = 0
        self._view = _View(dict(self._synced))

    def _apply(self, batch: Batch, sync: bool) -> None:
        self.commits += 1
        self._view.apply(batch)
        self._unsynced.append(batch)
        if sync:
            for each in self._unsynced:
                _apply_to(self._synced, each)
            self._unsynced.clear()


class _View:
    """Entries and their order."""

    def __init__(self, entries: dict[bytes, bytes]) -> None:
        self.entries = entries
        self._keys = sorted(entries)

    def get(self, key: bytes) -> bytes | None:
        return self.entries.get(key)

    def scan(
        self, start: bytes, end: bytes, backward: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        keys = self._keys[bisect_left(self._keys, start) : bisect_left(self._keys, end)]
        # Both taken now: an iterator keeps seeing what was there when it was made.
        found = [(key, self.entries[key]) for key in keys]
        return iter(found[::-1] if backward else found)

    def close(self) -> None:
        self.entries = {}
        self._keys = []

    def apply(self, batch: Batch) -> None:
        for start, end in batch.delete_ranges:
            low, high = bisect_left(self._keys, start), bisect_left(self._keys, end)
            for key in self._keys[low:high]:
                del self.entries[key]
            del self._keys[low:high]
        for key, value in batch.writes.items():
            if value is None:
                if self.entries.pop(key, None) is not None:
                    del self._keys[bisect_left(self._keys, key)]
            else:
                if key not in self.entries:
                    insort(self._keys, key)
                self.entries[key] = value


def _apply_to(entries: dict[bytes, bytes], batch: Batch) -> None:
    for start, end in batch.delete_ranges:
        for key in [key for key in entries if start <= key < end]:
            del entries[key]
    for key, value in batch.writes.items():
        if value is None:
            entries.pop(key, None)
        else:
            entries[key] = value
