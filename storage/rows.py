"""Items in memory as they are in the engine: the ones that were read or written lately.

A read through RocksDB takes microseconds even where everything lies in its own memory: a search in
a skip list, or a bloom filter, an index and a block for each level. What is here takes one lookup.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

# What an entry takes beside its bytes: two objects and its place in a dictionary, about.
ENTRY_BYTES: Final = 150

# Larger values are not kept: they would displace many, and gain little.
VALUE_BYTES_MAX: Final = 32 << 10


# What is gone is freed two entries at a time, with each that comes: all of it at once would make
# requests wait for tens of milliseconds.
_FREED_AT_A_TIME: Final = 2


class RowCache:
    """Keys to values, in two halves: when the young one is full it becomes the old one, and what
    was in that is gone. What is found in the old half moves to the young one.
    """

    def __init__(self, bytes_max: int, prefix: bytes) -> None:
        """bytes_max: of keys, values and what holds them. prefix: of the keys that are worth
        keeping when they are only written; all are when they are read.
        """
        self._half = bytes_max // 2
        self._prefix = prefix
        self._young: dict[bytes, bytes] = {}
        self._old: dict[bytes, bytes] = {}
        # What is still to be freed.
        self._gone: dict[bytes, bytes] = {}
        # Of the young half.
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def get(self, key: bytes) -> bytes | None:
        """None: it is not here, which says nothing of the engine."""
        found = self._young.get(key)
        if found is None and self._old:
            found = self._old.pop(key, None)
            if found is not None:
                self.put(key, found)
        return found

    def put(self, key: bytes, value: bytes) -> None:
        """What was read from the engine just now."""
        size = _size(key, value)
        if len(value) > VALUE_BYTES_MAX or size > self._half:
            return
        if self._bytes + size > self._half:
            self._turn()
        self._young[key] = value
        self._bytes += size
        for _ in range(_FREED_AT_A_TIME):
            if self._gone:
                self._gone.popitem()

    def replace(self, key: bytes, value: bytes | None) -> None:
        """What the engine has under the key from now on. None: nothing."""
        young = self._young
        before = young.get(key)
        if before is None:
            old = self._old.pop(key, None) if self._old else None
            if value is not None and (old is not None or key.startswith(self._prefix)):
                self.put(key, value)
        elif value is None or len(value) > VALUE_BYTES_MAX:
            self._bytes -= _size(key, before)
            del young[key]
        else:
            # In its place: to take it out and put it in would make the dictionary grow.
            self._bytes += len(value) - len(before)
            young[key] = value
            if self._bytes > self._half:
                self._turn()

    def _turn(self) -> None:
        """The young half is full."""
        self._gone, self._old, self._young = self._old, self._young, {}
        self._bytes = 0

    def replace_all(self, writes: Mapping[bytes, bytes | None]) -> None:
        """As `replace`, of each."""
        for key, value in writes.items():
            self.replace(key, value)

    def drop_all(self, keys: Iterable[bytes]) -> None:
        for key in keys:
            self.replace(key, None)

    def clear(self) -> None:
        self._young.clear()
        self._old.clear()
        self._gone.clear()
        self._bytes = 0


def _size(key: bytes, value: bytes) -> int:
    return len(key) + len(value) + ENTRY_BYTES
