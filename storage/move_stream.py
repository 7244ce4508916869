"""What a move sends: a snapshot of the partition, then the writes made since, in chunks.

The digest is kept of what the target will hold once it has received all that was taken from here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from keyplane.storage.v1 import storage_pb2 as pb
from storage.digest import Digest
from storage.layout import split_item_key
from storage.shard import Shard, Tail
from wire.ports import Engine, Snapshot


class Chunk(NamedTuple):
    entries: list[pb.StoredEntry]
    data_bytes: int


class MoveStream:
    """Begun between two batches of writes: what was committed before is in the snapshot, what comes
    after is in the shard's tail.
    """

    def __init__(self, engine: Engine, shard: Shard, chunk_bytes: int) -> None:
        self._shard = shard
        self._chunk_bytes = chunk_bytes
        self._snapshot: Snapshot | None = engine.snapshot()
        self._entries: Iterator[tuple[bytes, bytes]] = self._snapshot.scan(*shard.item_range())
        self._tail = shard.tail = Tail()
        self.digest = Digest()

    @property
    def tail_writes(self) -> int:
        """Writes that are still to be sent."""
        return len(self._tail.entries)

    @property
    def tail_bytes(self) -> int:
        return self._tail.data_bytes

    def take_snapshot(self) -> Chunk | None:
        """The next part of the snapshot, or None at its end. Raises EngineError."""
        entries = []
        size = 0
        for key, value in self._entries:
            self.digest.add(key, value)
            entries.append(_entry(key, value))
            size += len(key) + len(value)
            if size >= self._chunk_bytes:
                break
        if not entries:
            self._close_snapshot()
            return None
        return Chunk(entries, size)

    def take_tail(self) -> Chunk:
        """The oldest writes that are still to be sent."""
        tail = self._tail
        entries = []
        size = 0
        for key, old, new in tail.entries:
            self.digest.replace(key, old, new)
            entries.append(_entry(key, new))
            size += len(key) + len(new or b"")
            if size >= self._chunk_bytes:
                break
        del tail.entries[: len(entries)]
        tail.data_bytes -= size
        return Chunk(entries, size)

    def close(self) -> None:
        self._close_snapshot()
        self._shard.tail = None

    def _close_snapshot(self) -> None:
        self._entries = iter(())
        if self._snapshot is not None:
            self._snapshot.close()
            self._snapshot = None


def _entry(key: bytes, value: bytes | None) -> pb.StoredEntry:
    key_hash, encoded = split_item_key(key)
    return pb.StoredEntry(key=pb.ItemKey(hash=key_hash, encoded=encoded), value=value)
