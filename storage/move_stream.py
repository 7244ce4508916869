"""What a move sends: a snapshot of the partition, the writes made since, and the write tokens.

The digest is kept of what the target will hold once it has received all that was taken from here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from keyplane.storage.v1 import storage_pb2 as pb
from storage.digest import Digest
from storage.layout import split_item_key, token_names
from storage.move_tokens import to_wire
from storage.shard import Shard, Tail
from storage.tokens import Remembered, TokenMemory
from wire.ports import Engine, Snapshot


class Chunk(NamedTuple):
    entries: Sequence[pb.StoredEntry] = ()
    data_bytes: int = 0
    remembered: Sequence[pb.RememberedWrite] = ()


class MoveStream:
    """Begun between two batches of writes: what was committed before is in the snapshot, what comes
    after is in the shard's tail.
    """

    def __init__(self, engine: Engine, tokens: TokenMemory, shard: Shard, chunk_bytes: int) -> None:
        """tokens: the node's."""
        self._tokens = tokens
        self._shard = shard
        self._chunk_bytes = chunk_bytes
        self._snapshot: Snapshot | None = engine.snapshot()
        self._entries: Iterator[tuple[bytes, bytes]] = self._snapshot.scan(*shard.item_range())
        self._tail = shard.tail = Tail()
        # Tokens that are still to be looked at; those of writes done since are for the end.
        self._unread: list[list[Remembered]] | None = None
        self._read_until = float("-inf")
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
        """The next part of the tokens remembered when this was first called, or None at its end. It
        is empty if it has none of the partition's.
        """
        if self._unread is None:
            self._unread = self._tokens.parts()[::-1]
            self._read_until = self._tokens.newest
        if not self._unread:
            return None
        return Chunk(remembered=self._wire(self._unread.pop(), now))

    def take_last_remembered(self, now: float) -> list[pb.RememberedWrite]:
        """Those that have come since, once no more can."""
        return self._wire(self._tokens.since(self._read_until), now)

    def _wire(self, results: Iterable[Remembered], now: float) -> list[pb.RememberedWrite]:
        """What of the results is remembered, and of the partition."""
        partition = self._shard.partition
        low, high = token_names(partition.table_id, partition.start, partition.end)
        return [
            to_wire(result, now)
            for result in results
            if low <= result.name < high and self._tokens.knows(result)
        ]

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
