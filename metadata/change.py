"""A change: everything that one transaction does, as a value.

The database and the memory of the Metadata Store both change by applying the same value, first the
one, then the other. There is no second way to change either.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

from keyplane.model.partition import KEYSPACE_END, Partition
from metadata.operations import Operation
from metadata.records import NodeRecord, PlannerMode, TableRecord
from metadata.tenants import TenantRecord


@dataclass(frozen=True, slots=True)
class Counters:
    """The next free number of each series. Numbers are never given out twice."""

    table_id: int = 1
    partition_id: int = 1
    operation: int = 1
    # How often tenants have changed: the version of what servers are told of them.
    tenants: int = 0


@dataclass(frozen=True, slots=True)
class MapChange:
    """Partitions of one table that leave its map and that enter it."""

    table_id: int
    removed: Sequence[Partition]
    added: Sequence[Partition]


@dataclass(frozen=True, slots=True)
class Change:
    """tables, nodes, operations, tenants: new or changed records, whole.

    A table that becomes DELETED loses its partitions. `map` needs the table's record, with a higher
    map_version, among `tables`.
    forgotten_operations, forgotten_tables, forgotten_tenants: ids of ended operations, of
    tombstones and of tenants to drop.
    planner: what it does from here on; None leaves it at that.
    """

    counters: Counters
    tables: tuple[TableRecord, ...] = ()
    nodes: tuple[NodeRecord, ...] = ()
    operations: tuple[Operation, ...] = ()
    map: MapChange | None = None
    forgotten_operations: tuple[str, ...] = ()
    forgotten_tables: tuple[int, ...] = ()
    planner: PlannerMode | None = None
    tenants: tuple[TenantRecord, ...] = ()
    forgotten_tenants: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EvenPartitions(Sequence[Partition]):
    """The partitions of a new table, made when looked at: a million of them take no memory.

    Partition i has id first_id + i, the i-th of `size` even ranges, and is led by node i mod n.
    """

    table_id: int
    first_id: int
    size: int
    node_ids: tuple[str, ...]

    def __len__(self) -> int:
        return self.size

    @overload
    def __getitem__(self, index: int) -> Partition: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Partition]: ...

    def __getitem__(self, index: int | slice) -> Partition | Sequence[Partition]:
        if isinstance(index, slice):
            return [self._make(i) for i in range(*index.indices(self.size))]
        return self._make(range(self.size)[index])

    def __iter__(self) -> Iterator[Partition]:
        return map(self._make, range(self.size))

    def of_node(self, node_id: str) -> list[Partition]:
        first = self.node_ids.index(node_id)
        return [self._make(i) for i in range(first, self.size, len(self.node_ids))]

    def _make(self, index: int) -> Partition:
        leader = self.node_ids[index % len(self.node_ids)]
        return Partition(
            self.first_id + index,
            self.table_id,
            index * KEYSPACE_END // self.size,
            (index + 1) * KEYSPACE_END // self.size,
            1,
            leader,
            (leader,),
        )
