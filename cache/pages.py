"""Pages: runs of adjacent partitions in columns, named by what is in them.

A page is what MemDS stores, and also what a map looks up in: 256 partitions cost about 8 KB in
memory. Where one page ends and the next begins depends only on the partitions themselves
(content-defined chunking, as deduplicating backups use it), so a split changes one page, seldom
two, whoever paginates and however often they restart.

A page of a node's report covers only what that node serves. Between two of its partitions there may
be hashes that it says nothing about: a gap, which is a row with partition id 0.
"""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from operator import lt

import xxhash
from google.protobuf.message import DecodeError

from cache.envelope import Kind, open_sealed, seal
from keyplane.catalog.v1 import catalog_pb2 as pb
from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.partition import Partition, end_from_wire, end_to_wire

# Most partitions of one page.
PAGE_PARTITIONS_MAX = 256

# Most rows: partitions, and a gap between each two.
PAGE_ROWS_MAX = 2 * PAGE_PARTITIONS_MAX - 1

# A page ends after a partition whose start hashes to seven zero bits, which every 128th does. Where
# none does in time, it ends after the one with the lowest hash: that choice, too, is seldom changed
# by a partition more or less, while cutting at a count would shift every page up to the next end.
_BOUNDARY_MASK = (1 << 7) - 1

DIGEST_BYTES = 16

_GAP_ID = 0


class Page:
    """Partitions that follow each other. Immutable; see `paginate` and `decode_page`.

    starts, partition_ids, epochs: one entry per row, by rising start. A row ends where the next
        begins, the last one at `end`.
    payload, digest: the serialized `MapPage`, and its xxh3-128, which names the page.
    made: the rows' Partition objects, made when first asked for. `forget` lets them go.
    """

    __slots__ = (
        *("_replica_sets", "_set_indexes", "count", "digest", "end", "epochs", "has_gaps"),
        *("made", "partition_ids", "payload", "start", "starts", "table_id"),
    )

    def __init__(self, message: pb.MapPage, payload: bytes) -> None:
        """Raises KeyplaneError(MAP_INVALID) on columns that are not a run of partitions."""
        self.table_id: int = message.table_id
        self.starts = array("Q", message.starts)
        self.end = end_from_wire(message.end)
        self.partition_ids = array("Q", message.partition_ids)
        self.epochs = array("Q", message.epochs)
        self._replica_sets = tuple(
            tuple(map(sys.intern, replica_set.node_ids)) for replica_set in message.replica_sets
        )
        _check_rows(message, self.end)
        self.start = self.starts[0]
        self._set_indexes = bytes(message.replica_set_indexes)
        self.count = len(self.starts) - self.partition_ids.count(_GAP_ID)
        self.has_gaps = self.count < len(self.starts)
        self.payload = payload
        self.digest: bytes = xxhash.xxh3_128_digest(payload)
        self.made: list[Partition | None] = [None] * len(self.starts)

    @property
    def value(self) -> bytes:
        """The page as MemDS stores it."""
        return seal(Kind.PAGE, self.payload)

    def __len__(self) -> int:
        """Partitions, without gaps."""
        return self.count

    @property
    def looked_ahead(self) -> bool:
        """Whether it was cut for its size, at a place that depends on partitions after it too."""
        return bool(_cut_hash(self.starts[-1]) & _BOUNDARY_MASK)

    def __repr__(self) -> str:
        return f"Page([{self.start:#x}, {self.end:#x}), {self.count} partitions)"

    def floor(self, key_hash: int) -> Partition | None:
        """The partition that covers a hash of [start, end). None in a gap."""
        return self.partition(bisect_right(self.starts, key_hash) - 1)

    def partition(self, row: int) -> Partition | None:
        """The partition of one row. None if the row is a gap."""
        partition = self.made[row]
        if partition is None and self.partition_ids[row] != _GAP_ID:
            partition = self.made[row] = self._make(row)
        return partition

    def partitions(self) -> Iterator[Partition]:
        """All of them, by rising start. Objects made for this are not kept."""
        for row, made in enumerate(self.made):
            if made is not None:
                yield made
            elif self.partition_ids[row] != _GAP_ID:
                yield self._make(row)

    def forget(self) -> None:
        """Lets go of the Partition objects made so far."""
        self.made = [None] * len(self.starts)

    def _make(self, row: int) -> Partition:
        following = row + 1
        replicas = self._replica_sets[self._set_indexes[row]]
        return Partition(
            self.partition_ids[row],
            self.table_id,
            self.starts[row],
            self.starts[following] if following < len(self.starts) else self.end,
            self.epochs[row],
            replicas[0],
            replicas,
        )


class Paginator:
    """Cuts partitions that arrive by rising start into pages."""

    def __init__(self, table_id: int) -> None:
        self.pages: list[Page] = []
        self._table_id = table_id
        self._run: list[Partition] = []
        self._hashes: list[int] = []

    @property
    def open_at(self) -> int | None:
        """Where the page begins that is not closed yet. What was before it has no influence on it.

        None between two pages.
        """
        return self._run[0].start if self._run else None

    def add(self, partition: Partition) -> None:
        """Raises KeyplaneError(MAP_INVALID) on an overlap and on a partition of another table."""
        run, hashes = self._run, self._hashes
        if partition.table_id != self._table_id:
            raise _invalid(f"partition {partition.partition_id} belongs to another table")
        if run and partition.start < run[-1].end:
            raise _invalid(
                f"partitions {run[-1].partition_id} and {partition.partition_id} overlap"
            )
        run.append(partition)
        hashes.append(_cut_hash(partition.start))
        if not hashes[-1] & _BOUNDARY_MASK:
            self._cut(len(run))
        elif len(run) == PAGE_PARTITIONS_MAX:
            self._cut(hashes.index(min(hashes)) + 1)

    def close(self) -> None:
        """Ends the page that is open, if one is."""
        if self._run:
            self._cut(len(self._run))

    def _cut(self, count: int) -> None:
        self.pages.append(_encode(self._table_id, self._run[:count]))
        del self._run[:count], self._hashes[:count]


def paginate(table_id: int, partitions: Iterable[Partition]) -> list[Page]:
    """Pages that hold partitions given by rising start. Gaps between them are kept as gaps.

    Raises KeyplaneError(MAP_INVALID) on an overlap and on a partition of another table.
    """
    paginator = Paginator(table_id)
    for partition in partitions:
        paginator.add(partition)
    paginator.close()
    return paginator.pages


def decode_page(value: bytes, digest: bytes) -> Page:
    """The page that was stored under `digest`.

    Raises KeyplaneError: CORRUPT or FOREIGN_FORMAT as `open_sealed`, CORRUPT too for a page that
    belongs under another digest, MAP_INVALID for columns that are not a run of partitions.
    """
    return page_from_payload(open_sealed(Kind.PAGE, value), digest)


def page_from_payload(payload: bytes, digest: bytes) -> Page:
    """As decode_page, of a serialized `MapPage` without its frame."""
    if xxhash.xxh3_128_digest(payload) != digest:
        raise KeyplaneError(Reason.CORRUPT, f"this is not page {digest.hex()}")
    try:
        message = pb.MapPage.FromString(payload)
    except DecodeError as error:
        raise KeyplaneError(Reason.CORRUPT, f"page {digest.hex()} cannot be parsed") from error
    return Page(message, payload)


def _encode(table_id: int, run: Sequence[Partition]) -> Page:
    starts: list[int] = []
    partition_ids: list[int] = []
    epochs: list[int] = []
    set_indexes: list[int] = []
    replica_sets: dict[tuple[str, ...], int] = {}
    reached = run[0].start
    for partition in run:
        if partition.start > reached:
            starts.append(reached)
            partition_ids.append(_GAP_ID)
            epochs.append(0)
            set_indexes.append(0)
        starts.append(partition.start)
        partition_ids.append(partition.partition_id)
        epochs.append(partition.epoch)
        set_indexes.append(replica_sets.setdefault(_leader_first(partition), len(replica_sets)))
        reached = partition.end
    message = pb.MapPage(
        table_id=table_id,
        starts=starts,
        end=end_to_wire(reached),
        partition_ids=partition_ids,
        epochs=epochs,
        replica_sets=[pb.ReplicaSet(node_ids=node_ids) for node_ids in replica_sets],
        replica_set_indexes=set_indexes,
    )
    return Page(message, message.SerializeToString(deterministic=True))


def _cut_hash(start: int) -> int:
    """Decides whether a page ends with the partition that starts there."""
    return xxhash.xxh3_64_intdigest(start.to_bytes(8, "big"))


def _leader_first(partition: Partition) -> tuple[str, ...]:
    leader, replicas = partition.leader, partition.replicas
    if replicas and replicas[0] == leader:
        return replicas
    return (leader, *(node_id for node_id in replicas if node_id != leader))


def _check_rows(message: pb.MapPage, end: int) -> None:
    starts, ids, epochs = message.starts, message.partition_ids, message.epochs
    indexes, sets = message.replica_set_indexes, message.replica_sets
    rows = len(starts)
    if not 0 < rows <= PAGE_ROWS_MAX or not rows == len(ids) == len(epochs) == len(indexes):
        raise _invalid("columns of different lengths, or none, or too many rows")
    if not all(map(lt, starts, islice(starts, 1, None))) or starts[-1] >= end:
        raise _invalid("ranges do not rise")
    if not ids[0] or not ids[-1]:
        raise _invalid("a page begins and ends with a partition")
    distinct, gaps = set(ids), sum(1 for partition_id in ids if partition_id == _GAP_ID)
    if len(distinct) - bool(gaps) != rows - gaps or rows - gaps > PAGE_PARTITIONS_MAX:
        raise _invalid("a partition id occurs twice, or there are too many partitions")
    if sum(1 for epoch in epochs if not epoch) != gaps:
        raise _invalid("a partition without an epoch")
    if not message.table_id or not sets or len(sets) > PAGE_PARTITIONS_MAX:
        raise _invalid("no table id, or no or too many replica sets")
    if max(indexes) >= len(sets) or not all(s.node_ids and all(s.node_ids) for s in sets):
        raise _invalid("a replica set is missing or names no node")


def _invalid(message: str) -> KeyplaneError:
    return KeyplaneError(Reason.MAP_INVALID, f"not a valid page: {message}")
