"""The Metadata Store's memory: everything the database holds, ready to be asked.

Reads are answered from here. It changes only by a `Change` that is already in the database; `stage`
checks a change and does the work that can fail, `install` cannot fail.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from cache.partition_map import PartitionMap
from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.partition import Partition
from keyplane.model.tenants import LOCAL, prefix_of, tenant_of
from metadata.change import Change, Counters
from metadata.operations import Operation
from metadata.plans import Kind
from metadata.records import NodeRecord, PlannerMode, TableRecord
from metadata.tenants import TenantRecord, local_tenant

# Operations on a table as a whole: no other operation on the table goes on beside them.
TABLE_KINDS = frozenset({Kind.CREATE_TABLE, Kind.DELETE_TABLE, Kind.UPDATE_TABLE})


@dataclass(frozen=True, slots=True)
class Staged:
    """A change that is known to fit, with the maps it leads to, by table id."""

    change: Change
    maps: Mapping[int, PartitionMap]


@dataclass(slots=True)
class Catalog:
    """term: how many Metadata Stores have taken up this database so far; this is the latest.

    by_name: the newest table of each name, tombstones too.
    maps: of active tables, by table id.
    tenants: by id; without `local`, while it has no users and no limits.
    node_changes: how often `nodes` has changed since the database was read.
    operations: by id, in order of creation. active: those that have not ended.
    planner: what the planner is to do.
    """

    term: int = 0
    counters: Counters = field(default_factory=Counters)
    tables: dict[int, TableRecord] = field(default_factory=dict)
    by_name: dict[str, TableRecord] = field(default_factory=dict)
    maps: dict[int, PartitionMap] = field(default_factory=dict)
    nodes: dict[str, NodeRecord] = field(default_factory=dict)
    node_changes: int = 0
    operations: dict[str, Operation] = field(default_factory=dict)
    active: dict[str, Operation] = field(default_factory=dict)
    planner: PlannerMode = PlannerMode.ON
    tenants: dict[str, TenantRecord] = field(default_factory=dict)
    _requests: dict[str, str] = field(default_factory=dict)
    # First hash of each partition, by table id and partition id.
    _starts: dict[int, dict[int, int]] = field(default_factory=dict)
    _led_by: dict[str, dict[int, int]] = field(default_factory=dict)
    _held_partitions: dict[int, str] = field(default_factory=dict)

    @classmethod
    def load(
        cls,
        term: int,
        counters: Counters,
        tables: Iterable[TableRecord],
        maps: Iterable[PartitionMap],
        nodes: Iterable[NodeRecord],
        operations: Iterable[Operation],
        planner: PlannerMode = PlannerMode.ON,
        tenants: Iterable[TenantRecord] = (),
    ) -> Catalog:
        """From a database: `operations` by rising sequence, a map for every active table."""
        catalog = cls(term=term, counters=counters, planner=planner)
        for table in tables:
            catalog._put_table(table)
        for map_ in maps:
            catalog.maps[map_.table.table_id] = map_
            catalog._index(map_.table.table_id, (), map_.partitions())
        catalog.nodes = {node.node_id: node for node in nodes}
        for operation in operations:
            catalog._put_operation(operation)
        catalog.tenants = {tenant.tenant_id: tenant for tenant in tenants}
        return catalog

    # --- Reading ---------------------------------------------------------------------------------

    def table(self, name: str) -> TableRecord:
        """Raises KeyplaneError(TABLE_NOT_FOUND), for a deleted table too."""
        table = self.by_name.get(name)
        if table is None or table.deleted:
            raise KeyplaneError(
                Reason.TABLE_NOT_FOUND,
                f"there is no table {name!r}; ListTables shows those there are",
            )
        return table

    def partition(self, table: TableRecord, partition_id: int) -> Partition:
        """Raises KeyplaneError(PARTITION_NOT_FOUND)."""
        start = self._starts.get(table.table_id, {}).get(partition_id)
        if start is None:
            raise KeyplaneError(
                Reason.PARTITION_NOT_FOUND,
                f"table {table.name!r} has no partition {partition_id} (any more); "
                "ListPartitions shows those it has",
            )
        return self.maps[table.table_id].floor(start)

    def operation(self, operation_id: str) -> Operation:
        """Raises KeyplaneError(OPERATION_NOT_FOUND)."""
        operation = self.operations.get(operation_id)
        if operation is None:
            raise operation_not_found(operation_id)
        return operation

    def operation_of_request(self, request_id: str) -> Operation | None:
        operation_id = self._requests.get(request_id)
        return self.operations[operation_id] if operation_id is not None else None

    def node(self, node_id: str) -> NodeRecord:
        """Raises KeyplaneError(NODE_NOT_FOUND)."""
        node = self.nodes.get(node_id)
        if node is None:
            raise KeyplaneError(
                Reason.NODE_NOT_FOUND,
                f"no storage node {node_id!r} has registered; ListNodes shows those that have",
            )
        return node

    def tenant(self, tenant_id: str) -> TenantRecord:
        """Raises KeyplaneError(TENANT_NOT_FOUND)."""
        tenant = self.tenants.get(tenant_id)
        if tenant is not None:
            return tenant
        if tenant_id == LOCAL:
            return local_tenant()
        raise KeyplaneError(
            Reason.TENANT_NOT_FOUND,
            f"there is no tenant {tenant_id!r}; ListTenants shows those there are",
        )

    def tables_of(self, tenant_id: str) -> int:
        """How many tables a tenant has, or has begun to create or to delete."""
        prefix = prefix_of(tenant_id)
        return sum(
            not table.deleted and tenant_of(name) == tenant_id
            for name, table in self.by_name.items()
            if name.startswith(prefix)
        )

    @property
    def key_count(self) -> int:
        """Keys of all users."""
        return sum(tenant.key_count for tenant in self.tenants.values())

    def led_by(self, node_id: str) -> Mapping[int, int]:
        """Partitions a node leads: partition id to table id."""
        return self._led_by.get(node_id, {})

    def holder(self, partition_id: int) -> str | None:
        """The operation that has not ended and is about this partition."""
        return self._held_partitions.get(partition_id)

    def operations_on(self, table_id: int) -> list[Operation]:
        """Operations on a table, or on partitions of it, that have not ended."""
        return [each for each in self.active.values() if each.table_id == table_id]

    def children(self, operation_id: str) -> list[Operation]:
        """Operations started by another one, ended ones too, oldest first."""
        return [each for each in self.operations.values() if each.parent == operation_id]

    # --- Changing --------------------------------------------------------------------------------

    def stage(self, change: Change) -> Staged:
        """Raises KeyplaneError(MAP_INVALID) if a map would have a gap or an overlap."""
        maps = {}
        for table in change.tables:
            if table.active:
                maps[table.table_id] = self._next_map(table, change)
        return Staged(change, maps)

    def install(self, staged: Staged) -> None:
        """Takes over a staged change. Nothing else may have changed since it was staged."""
        change = staged.change
        self.counters = change.counters
        self.planner = change.planner or self.planner
        if change.map is not None:
            self._index(change.map.table_id, change.map.removed, change.map.added)
        self.maps.update(staged.maps)
        for table in change.tables:
            self._put_table(table)
        for table_id in change.forgotten_tables:
            table = self.tables.pop(table_id)
            if self.by_name.get(table.name) == table:
                del self.by_name[table.name]
        for node in change.nodes:
            self.nodes[node.node_id] = node
            self.node_changes += 1
        for operation in change.operations:
            self._put_operation(operation)
        for tenant in change.tenants:
            self.tenants[tenant.tenant_id] = tenant
        for tenant_id in change.forgotten_tenants:
            del self.tenants[tenant_id]
        for operation_id in change.forgotten_operations:
            request_id = self.operations.pop(operation_id).request_id
            self._requests.pop(request_id, None)

    def _next_map(self, table: TableRecord, change: Change) -> PartitionMap:
        held = self.maps.get(table.table_id)
        if held is not None and held.version == table.map_version:
            return held
        removed: Sequence[Partition] = ()
        added: Sequence[Partition] = ()
        if change.map is not None and change.map.table_id == table.table_id:
            removed, added = change.map.removed, change.map.added
        if held is None:
            return PartitionMap.build(table.to_proto(), table.map_version, added)
        return held.replace(table.map_version, removed, added, table.to_proto())

    def _put_table(self, table: TableRecord) -> None:
        self.tables[table.table_id] = table
        newest = self.by_name.get(table.name)
        if newest is None or newest.table_id <= table.table_id:
            self.by_name[table.name] = table
        if table.deleted and table.table_id in self.maps:
            self._index(table.table_id, self.maps.pop(table.table_id).partitions(), ())
            self._starts.pop(table.table_id, None)

    def _put_operation(self, operation: Operation) -> None:
        operation_id = operation.operation_id
        self.operations[operation_id] = operation
        if operation.request_id:
            self._requests[operation.request_id] = operation_id
        if not operation.state.ended:
            self.active[operation_id] = operation
            self._held_partitions.update(dict.fromkeys(operation.partition_ids, operation_id))
            return
        if self.active.pop(operation_id, None) is not None:
            for partition_id in operation.partition_ids:
                del self._held_partitions[partition_id]

    def _index(
        self, table_id: int, removed: Iterable[Partition], added: Iterable[Partition]
    ) -> None:
        starts = self._starts.setdefault(table_id, {})
        for partition in removed:
            starts.pop(partition.partition_id, None)
            del self._led_by[partition.leader][partition.partition_id]
        for partition in added:
            starts[partition.partition_id] = partition.start
            led = self._led_by.setdefault(partition.leader, {})
            led[partition.partition_id] = table_id


def operation_not_found(operation_id: str) -> KeyplaneError:
    return KeyplaneError(
        Reason.OPERATION_NOT_FOUND,
        f"there is no operation {operation_id!r}; it may have ended long ago",
    )
