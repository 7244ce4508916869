"""Creating a table: its partitions are opened on the storage nodes, then its map is committed.

Given up, it drops the table from every node it can reach; a node it cannot reach drops it when it
is back, since the table's tombstone stays in the database.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from keyplane.catalog.v1 import catalog_pb2 as catalog_pb
from keyplane.metadata.v1 import metadata_pb2 as pb
from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.tenants import tenant_of
from keyplane.storage.v1 import storage_pb2 as storage
from metadata.catalog import Catalog
from metadata.change import Change, EvenPartitions, MapChange
from metadata.kinds.begin import counted, new_operation, once
from metadata.kinds.dropping import drop_everywhere
from metadata.kinds.script import (
    Abort,
    Advance,
    OnOutcome,
    Retry,
    Script,
    World,
    after_error,
    cancelled,
    fail,
    finish,
    start,
)
from metadata.operations import RESULT_IDS_SHOWN_MAX, Operation, State
from metadata.peers import OPEN_PARTITIONS, Question
from metadata.placement import nodes_by_room
from metadata.plans import CreatePlan, Kind
from metadata.records import KeyAttribute, OnDemand, TableRecord, Throughput
from metadata.writer import Decision


def begin(world: World, catalog: Catalog, request: pb.CreateTableRequest) -> Decision[Operation]:
    """Of a request whose fields have been checked."""
    count = request.partitions or 1

    def create() -> Change:
        held = catalog.by_name.get(request.table)
        _require_room(world, catalog, request.table, held)
        table = TableRecord(
            table_id=catalog.counters.table_id,
            name=request.table,
            partition_key=KeyAttribute(request.partition_key.name, request.partition_key.type),
            sort_key=KeyAttribute(request.sort_key.name, request.sort_key.type)
            if request.HasField("sort_key")
            else None,
            hash_seed=world.rng.getrandbits(64),
            durability=request.durability or catalog_pb.DURABILITY_PROCESS,
            capacity_mode=request.capacity_mode or catalog_pb.CAPACITY_MODE_UNLIMITED,
            provisioned=Throughput.of(request),
            state=catalog_pb.TABLE_STATE_CREATING,
            map_version=held.map_version if held else 0,
            created_at=world.now,
            partitions_min=count,
            on_demand=OnDemand().updated(request.on_demand).warmed(Throughput.of(request)),
        )
        nodes = nodes_by_room(catalog, world.registry)[:count]
        plan = CreatePlan(catalog.counters.partition_id, count, tuple(nodes))
        operation = new_operation(
            world,
            catalog,
            Kind.CREATE_TABLE,
            plan,
            arguments=f"create table {request.table}",
            table=table,
        )
        counters = counted(catalog.counters, partitions=count, tables=1)
        return Change(counters, tables=(table,), operations=(operation,))

    return once(world, catalog, "", "", create)


def _require_room(world: World, catalog: Catalog, name: str, held: TableRecord | None) -> None:
    if held is not None and not held.deleted:
        raise KeyplaneError(
            Reason.TABLE_EXISTS, f"there is a table {name!r} already; delete it or choose a name"
        )
    if held is not None and catalog.operations_on(held.table_id):
        raise KeyplaneError(
            Reason.TABLE_BUSY,
            f"the former table {name!r} is still being deleted; try again soon",
            retry_after_s=1.0,
        )
    tenant = catalog.tenant(tenant_of(name))
    allowed = tenant.limits.get("tables")
    if allowed is not None and catalog.tables_of(tenant.tenant_id) >= allowed:
        raise KeyplaneError(
            Reason.LIMIT_EXCEEDED,
            f"tenant {tenant.tenant_id!r} has {allowed} tables, as many as it may; delete some, or"
            " have the operator allow more: keyplane tenant limits",
        )
    live = sum(not table.deleted for table in catalog.by_name.values())
    if live >= world.config.tables_max:
        raise KeyplaneError(
            Reason.OVERLOADED, f"there are {live} tables, which is the most; delete some"
        )


def _open(world: World, operation: Operation, on_outcome: OnOutcome) -> None:
    plan = _plan(operation)
    if plan.undo_reason:
        _undo(world, operation, on_outcome)
        return

    def answered(error: KeyplaneError | None) -> None:
        on_outcome(after_error(error) if error else Advance(committed))

    def committed(catalog: Catalog, operation: Operation) -> Change:
        table = catalog.tables[operation.table_id]
        active = replace(
            table, state=catalog_pb.TABLE_STATE_ACTIVE, map_version=table.map_version + 1
        )
        partitions = _partitions(operation)
        shown = range(plan.first_partition_id, plan.first_partition_id + plan.count)
        return Change(
            catalog.counters,
            tables=(active,),
            operations=(operation.become_committed(world.now, shown[:RESULT_IDS_SHOWN_MAX]),),
            map=MapChange(table.table_id, (), partitions),
        )

    world.peers.ask_all(_questions(world, operation), answered)


def _questions(world: World, operation: Operation) -> Iterator[Question]:
    table = replace(
        world.catalog.tables[operation.table_id], state=catalog_pb.TABLE_STATE_ACTIVE
    ).to_proto()
    partitions = _partitions(operation)
    for node_id in partitions.node_ids:
        of_node = partitions.of_node(node_id)
        for first in range(0, len(of_node), world.config.open_chunk):
            chunk = of_node[first : first + world.config.open_chunk]
            request = storage.OpenPartitionsRequest(
                operation_id=operation.operation_id,
                table=table,
                partitions=[partition.to_proto() for partition in chunk],
            )
            yield Question(node_id, OPEN_PARTITIONS, request)


def _undo(world: World, operation: Operation, on_outcome: OnOutcome) -> None:
    plan = _plan(operation)
    why = KeyplaneError(Reason[plan.undo_reason], plan.undo_message)
    drop_everywhere(world, world.catalog.tables[operation.table_id], Abort(why), on_outcome)


def _abort(world: World, catalog: Catalog, operation: Operation, error: KeyplaneError) -> Change:
    plan = _plan(operation)
    if operation.state is State.RUNNING and not plan.undo_reason:
        undo = replace(plan, undo_reason=error.reason.name, undo_message=error.message)
        undoing = operation.become_running(world.now, undo, "taking it back")
        return Change(catalog.counters, operations=(undoing,))
    table = catalog.tables[operation.table_id]
    tombstone = replace(
        table, state=catalog_pb.TABLE_STATE_DELETED, map_version=table.map_version + 1
    )
    return replace(fail(world, catalog, operation, error), tables=(tombstone,))


def _gives_up(operation: Operation, error: KeyplaneError, perhaps_done: bool) -> bool:
    """Whatever is wrong: it can be undone. Undoing is not given up."""
    return not _plan(operation).undo_reason


def _cancel(world: World, operation: Operation, on_outcome: OnOutcome) -> None:
    if _plan(operation).undo_reason:
        on_outcome(
            Retry(KeyplaneError(Reason.ILLEGAL_TRANSITION, "it is being taken back already"))
        )
    else:
        on_outcome(Abort(cancelled()))


def _plan(operation: Operation) -> CreatePlan:
    assert isinstance(operation.plan, CreatePlan)
    return operation.plan


def _partitions(operation: Operation) -> EvenPartitions:
    plan = _plan(operation)
    return EvenPartitions(operation.table_id, plan.first_partition_id, plan.count, plan.node_ids)


SCRIPT = Script(
    steps={State.PENDING: start, State.RUNNING: _open, State.COMMITTED: finish},
    abort=_abort,
    gives_up=_gives_up,
    cancel={State.RUNNING: _cancel},
)
