"""What a move sends: a snapshot of the partition, the writes made since, and the write tokens.

The digest is kept of what the target will hold once it has received all that was taken from here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from keyplane.storage.v1 import storage_pb2 as pb
from storage.digest import Digest
from storage.layout import split_item_key
from storage.move_tokens import to_wire
from storage.shard import Shard, Tail
from storage.tokens import Remembered
from wire.ports import Engine, Snapshot

# Remembered writes in one chunk: a few milliseconds of work at either end.
CHUNK_TOKENS = 2_000


class Chunk(NamedTuple):
    entries: Sequence[pb.StoredEntry] = ()
    data_bytes: int = 0
    remembered: Sequence[pb.RememberedWrite] = ()


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
        # When the youngest of the tokens that were sent was done.
        self._remembered_until = float("-inf")
        self._tokens: list[Remembered] | None = None
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
        for entry in tail.entries:
            self.digest.replace(entry.key, entry.old, entry.new)
            entries.append(_entry(entry.key, entry.new))
            size += len(entry.key) + len(entry.new or b"")
            if size >= self._chunk_bytes:
                break
        del tail.entries[: len(entries)]
        tail.data_bytes -= size
        return Chunk(entries, size)

    def take_remembered(self, now: float) -> Chunk | None:
        """The next part of the tokens remembered when this was first called, or None at its end."""
        if self._tokens is None:
            self._tokens = self._shard.tokens.since(self._remembered_until)
        taken, self._tokens = self._tokens[:CHUNK_TOKENS], self._tokens[CHUNK_TOKENS:]
        if not taken:
            return None
        self._remembered_until = taken[-1].done_at
        return Chunk(remembered=[to_wire(result, now) for result in taken])

    def take_last_remembered(self, now: float) -> list[pb.RememberedWrite]:
        """Those that have come since, once no more can."""
        last = self._shard.tokens.since(self._remembered_until)
        return [to_wire(result, now) for result in last]

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
