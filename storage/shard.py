"""A partition while it is served: what changes with every request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from mypy_extensions import mypyc_attr

from keyplane.catalog.v1 import catalog_pb2 as catalog
from keyplane.model.limits import PARTITION_READ_UNITS, PARTITION_WRITE_UNITS
from keyplane.model.partition import Partition
from keyplane.model.tenants import prefix_of, tenant_of
from storage.gate import Gate
from storage.heat import Heat
from storage.layout import item_range
from storage.limits import PartitionLimits
from storage.records import Progress

_UNLIMITED = (catalog.CAPACITY_MODE_UNSPECIFIED, catalog.CAPACITY_MODE_UNLIMITED)


@mypyc_attr(acyclic=True)
class TailEntry:
    """A committed write that the target of a move has yet to see. None: no entry."""

    __slots__ = ("key", "new", "old")

    def __init__(self, key: bytes, old: bytes | None, new: bytes | None) -> None:
        self.key = key
        self.old = old
        self.new = new


@dataclass(slots=True)
class Tail:
    """Writes since a move's snapshot, oldest first."""

    entries: list[TailEntry] = field(default_factory=list)
    data_bytes: int = 0

    def append(self, entry: TailEntry) -> None:
        self.entries.append(entry)
        self.data_bytes += len(entry.key) + len(entry.new or b"")


@dataclass(slots=True, eq=False)
class Shard:
    """Run-time state of a partition in state SERVING or HANDOVER.

    version: the last one given out. It is never given out again, even if its write failed.
    items, data_bytes: of the partition's entries in the engine; None until they have been counted.
    moving: a move away is under way, so it can be neither split nor merged.
    gate: closed while the partition is fenced. tail: kept while a move is sending.
    handed_over: past a move's point of no return, when even reads must wait.
    retired: the partition is no longer served here, whatever a request that waited may think.
    remembers_since: what was done to its items after that moment of this process's clock is in the
        node's memory of writes, but for what that has forgotten.
    synced: a write must survive power loss before it is acknowledged.
    unsettled: its progress is in the node's log, not under its own key.
    opened_at: by this process's clock. limits: on what it admits; None if there are none.
    read_units, write_units: what it admits a second, if there are.
    tenant: whose table it is; empty for the local one's.
    partition_id, epoch, table_id, start, end, inner_start, inner_end: of the partition, at hand for
        every request. What all need comes first: it shares a line or two of processor cache.
    """

    partition_id: int = field(init=False)
    epoch: int = field(init=False)
    table_id: int = field(init=False)
    inner_start: int = field(init=False)
    inner_end: int = field(init=False)
    tenant: str = field(init=False)
    gate: Gate | None = field(init=False, default=None)
    limits: PartitionLimits | None = field(init=False, default=None)
    heat: Heat
    partition: Partition
    table: catalog.Table
    version: int = 0
    items: int = 0
    data_bytes: int = 0
    counted: bool = True
    remembers_since: float = float("-inf")
    opened_at: float = 0.0
    read_units: float = PARTITION_READ_UNITS
    write_units: float = PARTITION_WRITE_UNITS
    moving: bool = False
    tail: Tail | None = None
    handed_over: bool = False
    retired: bool = False
    unsettled: bool = False
    synced: bool = field(init=False)
    start: int = field(init=False)
    end: int = field(init=False)

    def __post_init__(self) -> None:
        partition = self.partition
        self.partition_id, self.epoch = partition.partition_id, partition.epoch
        self.table_id, self.start, self.end = partition.table_id, partition.start, partition.end
        self.inner_start, self.inner_end = partition.inner_start, partition.inner_end
        self.tenant = prefix_of(tenant_of(self.table.name))
        self.take(self.table, self.opened_at)

    def take(self, table: catalog.Table, now: float) -> None:
        """New settings of its table."""
        self.table = table
        self.synced = table.durability == catalog.DURABILITY_POWER
        if table.capacity_mode in _UNLIMITED:
            self.limits = None
        elif self.limits is None:
            units = self.read_units, self.write_units
            self.limits = PartitionLimits(self.partition_id, table.name, *units, now)

    def replace(self, parents: Sequence[Shard]) -> None:
        """Goes on where the partitions of a split or merge ended, with the part of their load that
        is in its range, and of what they might still have admitted: there never is more of that
        than before.
        """
        if self.limits is not None:
            self.limits.start_empty()
        for parent in parents:
            width = min(self.end, parent.end) - max(self.start, parent.start)
            by_range = width / (parent.end - parent.start)
            share = self.heat.inherit(parent.heat, self.start, self.end, by_range)
            if self.limits is not None and parent.limits is not None:
                self.limits.inherit(parent.limits, share)

    def beat(self, elapsed_s: float) -> None:
        """Ends a beat of `elapsed_s` seconds of its load."""
        self.heat.beat(elapsed_s)
        if self.limits is not None:
            self.limits.beat(elapsed_s)

    def after(self, growth: Growth | None) -> Progress:
        """How far it has come with a batch that is about to be committed."""
        items, data_bytes = self.items, self.data_bytes
        if growth is not None:
            items, data_bytes = items + growth.items, data_bytes + growth.data_bytes
        return Progress(self.version, items, data_bytes, self.counted)

    def item_range(self) -> tuple[bytes, bytes]:
        """Half-open range of the partition's engine keys."""
        return item_range(self.table_id, self.start, self.end)


class Growth:
    """Items and bytes by which a shard grows with a batch."""

    __slots__ = ("data_bytes", "items")

    def __init__(self) -> None:
        self.items = 0
        self.data_bytes = 0
