"""Between rows of the database and the records in memory."""

from __future__ import annotations

from keyplane.model.partition import Partition
from metadata.capacity_changes import CapacityChanges
from metadata.operations import Operation, State
from metadata.plans import Kind, plan_from_json, plan_to_json
from metadata.records import KeyAttribute, NodeRecord, OnDemand, TableRecord, Throughput
from metadata.schema import NodeRow, OperationRow, TableRow, TenantRow
from metadata.tenants import TenantRecord, users_from_json, users_to_json


def table_to_row(table: TableRecord) -> TableRow:
    sort_key, provisioned, on_demand = table.sort_key, table.provisioned, table.on_demand
    return TableRow(
        table_id=table.table_id,
        name=table.name,
        partition_key=table.partition_key.name,
        partition_key_type=table.partition_key.type,
        sort_key=sort_key.name if sort_key else None,
        sort_key_type=sort_key.type if sort_key else None,
        hash_seed=table.hash_seed,
        durability=table.durability,
        capacity_mode=table.capacity_mode,
        read_units=provisioned.read_units if provisioned else None,
        write_units=provisioned.write_units if provisioned else None,
        max_read_units=on_demand.max_read_units,
        max_write_units=on_demand.max_write_units,
        warm_read_units=on_demand.warm_read_units,
        warm_write_units=on_demand.warm_write_units,
        capacity_changes=table.changes.to_json(),
        state=table.state,
        map_version=table.map_version,
        created_at=table.created_at,
        partitions_min=table.partitions_min,
    )


def table_from_row(row: TableRow) -> TableRecord:
    sort_key = None
    if row.sort_key is not None and row.sort_key_type is not None:
        sort_key = KeyAttribute(row.sort_key, row.sort_key_type)  # type: ignore[arg-type]
    provisioned = None
    if row.read_units is not None and row.write_units is not None:
        provisioned = Throughput(row.read_units, row.write_units)
    return TableRecord(
        table_id=row.table_id,
        name=row.name,
        partition_key=KeyAttribute(row.partition_key, row.partition_key_type),  # type: ignore[arg-type]
        sort_key=sort_key,
        hash_seed=row.hash_seed,
        durability=row.durability,  # type: ignore[arg-type]
        capacity_mode=row.capacity_mode,  # type: ignore[arg-type]
        provisioned=provisioned,
        state=row.state,  # type: ignore[arg-type]
        map_version=row.map_version,
        created_at=row.created_at,
        partitions_min=row.partitions_min,
        on_demand=OnDemand(
            row.max_read_units, row.max_write_units, row.warm_read_units, row.warm_write_units
        ),
        changes=CapacityChanges.from_json(row.capacity_changes),
    )


def node_to_row(node: NodeRecord) -> NodeRow:
    return NodeRow(node_id=node.node_id, address=node.address, zone=node.zone, state=node.state)


def node_from_row(row: NodeRow) -> NodeRecord:
    return NodeRecord(row.node_id, row.address, row.zone, row.state)  # type: ignore[arg-type]


def tenant_to_row(tenant: TenantRecord) -> TenantRow:
    return TenantRow(
        tenant_id=tenant.tenant_id,
        account=tenant.account,
        state=tenant.state,
        limits=dict(tenant.limits),
        created_at=tenant.created_at,
        users=users_to_json(tenant.users),
    )


def tenant_from_row(row: TenantRow) -> TenantRecord:
    return TenantRecord(
        row.tenant_id,
        row.account,
        row.state,  # type: ignore[arg-type]
        row.limits,
        row.created_at,
        users_from_json(row.users),
    )


def operation_to_row(operation: Operation) -> OperationRow:
    return OperationRow(
        operation_id=operation.operation_id,
        sequence=operation.sequence,
        kind=operation.kind.value,
        state=operation.state.value,
        arguments=operation.arguments,
        request_id=operation.request_id or None,
        table_name=operation.table,
        table_id=operation.table_id,
        partition_ids=list(operation.partition_ids),
        result_ids=list(operation.result_ids),
        node_id=operation.node_id,
        plan=plan_to_json(operation.plan),
        reason=operation.reason,
        message=operation.message,
        progress=operation.progress,
        fence_ms=operation.fence_ms,
        created_at=operation.created_at,
        updated_at=operation.updated_at,
        resumed_count=operation.resumed_count,
    )


def operation_from_row(row: OperationRow) -> Operation:
    kind = Kind(row.kind)
    return Operation(
        operation_id=row.operation_id,
        sequence=row.sequence,
        kind=kind,
        state=State(row.state),
        arguments=row.arguments,
        request_id=row.request_id or "",
        table=row.table_name,
        table_id=row.table_id,
        partition_ids=tuple(row.partition_ids),
        result_ids=tuple(row.result_ids),
        node_id=row.node_id,
        plan=plan_from_json(kind, row.plan),
        reason=row.reason,
        message=row.message,
        progress=row.progress,
        fence_ms=row.fence_ms,
        created_at=row.created_at,
        updated_at=row.updated_at,
        resumed_count=row.resumed_count,
    )


def partition_to_row(partition: Partition) -> dict[str, object]:
    """A mapping rather than a row object: partitions are inserted by the million."""
    return {
        "partition_id": partition.partition_id,
        "table_id": partition.table_id,
        "first_hash": partition.start,
        "last_hash": partition.end - 1,
        "epoch": partition.epoch,
        "leader": partition.leader,
        "replicas": ",".join(partition.replicas or (partition.leader,)),
    }
