"""Partitions: a range of key hashes, its id, its epoch and its nodes."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from mypy_extensions import mypyc_attr

from keyplane.catalog.v1 import catalog_pb2 as pb
from keyplane.model.errors import KeyplaneError, Reason

# Key hashes are unsigned 64-bit integers: the keyspace is [0, KEYSPACE_END).
KEYSPACE_BITS: Final = 64
KEYSPACE_END = 1 << KEYSPACE_BITS

# On the wire an end of 2**64 does not fit its field and is written as 0.
_END_ON_WIRE = 0

# A coarse hash is one without its last bits. It fits a machine word of compiled code, where a whole
# one is an object somewhere in memory.
COARSE_BITS: Final = 2


@mypyc_attr(acyclic=True)
@dataclass(frozen=True, slots=True)
class Partition:
    """Who serves the key hashes in [start, end) of one table.

    A partition id names one range for ever: a split or merge retires ids and makes new ones. The
    epoch rises along the history of every hash, so of two partitions that claim a hash the one with
    the higher epoch is newer. That comparison decides freshness everywhere; time never does.

    inner_start, inner_end: coarse hashes in [inner_start, inner_end) are in it whatever their last
        bits are. Requests look at these first, and at the exact ends only near an end.
    """

    partition_id: int
    table_id: int
    start: int
    end: int
    epoch: int
    leader: str
    # Left out: the leader alone.
    replicas: tuple[str, ...] = ()
    inner_start: int = field(init=False, repr=False, compare=False)
    inner_end: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.replicas:
            object.__setattr__(self, "replicas", (self.leader,))
        object.__setattr__(self, "inner_start", -(-self.start >> COARSE_BITS))
        object.__setattr__(self, "inner_end", self.end >> COARSE_BITS)

    def covers(self, key_hash: int) -> bool:
        return self.start <= key_hash < self.end

    def overlaps(self, other: Partition) -> bool:
        return self.start < other.end and other.start < self.end

    def to_proto(
        self, state: pb.PartitionState.ValueType = pb.PARTITION_STATE_ACTIVE
    ) -> pb.Partition:
        return pb.Partition(
            partition_id=self.partition_id,
            table_id=self.table_id,
            start=self.start,
            end=end_to_wire(self.end),
            epoch=self.epoch,
            leader=self.leader,
            replicas=self.replicas,
            state=state,
        )

    @classmethod
    def from_proto(cls, message: pb.Partition) -> Partition:
        """Raises KeyplaneError(MALFORMED_REQUEST) on an empty range, a zero id or no leader."""
        partition = cls(
            message.partition_id,
            message.table_id,
            message.start,
            end_from_wire(message.end),
            message.epoch,
            message.leader,
            tuple(message.replicas),
        )
        if partition.start >= partition.end:
            raise _malformed(f"range [{partition.start:#x}, {partition.end:#x}) is empty")
        if not (partition.partition_id and partition.table_id and partition.epoch):
            raise _malformed("partition id, table id and epoch start at 1")
        if partition.leader not in partition.replicas or "" in partition.replicas:
            raise _malformed(f"leader {partition.leader!r} is not one of the replicas")
        return partition


def end_to_wire(end: int) -> int:
    """The end of a range as its fixed64 field holds it."""
    return _END_ON_WIRE if end == KEYSPACE_END else end


def end_from_wire(end: int) -> int:
    """The end of a range from its fixed64 field."""
    return KEYSPACE_END if end == _END_ON_WIRE else end


def even_ranges(count: int) -> list[tuple[int, int]]:
    """The keyspace cut into `count` >= 1 ranges whose sizes differ by at most one hash."""
    bounds = [index * KEYSPACE_END // count for index in range(count + 1)]
    return list(pairwise(bounds))


def _malformed(message: str) -> KeyplaneError:
    return KeyplaneError(Reason.MALFORMED_REQUEST, f"malformed partition: {message}")
