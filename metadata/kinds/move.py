"""Moving a partition to another node."""

from __future__ import annotations

from keyplane.metadata.v1 import metadata_pb2 as pb
from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.partition import Partition
from keyplane.storage.v1 import storage_pb2 as storage
from metadata.catalog import Catalog
from metadata.change import Change
from metadata.kinds.begin import counted, new_operation, once, require_partitions_free
from metadata.kinds.map_change import map_changed
from metadata.kinds.moving import ask_to_cancel, ask_to_move, ask_to_release, moved_to
from metadata.kinds.script import Advance, OnOutcome, Script, Transition, World, start, succeed
from metadata.operations import Operation, State
from metadata.placement import require_reachable, require_up
from metadata.plans import Kind, MovePlan
from metadata.records import TableRecord
from metadata.writer import Decision


def begin(
    world: World, catalog: Catalog, request: pb.MovePartitionRequest, why: str = ""
) -> Decision[Operation]:
    """why: the planner's reason."""
    arguments = (
        f"move partition {request.partition_id} of {request.table} to {request.target_node_id}"
    )

    def move() -> Change:
        table = catalog.table(request.table)
        partition = catalog.partition(table, request.partition_id)
        require_partitions_free(catalog, table, [partition])
        catalog.node(request.target_node_id)
        if partition.leader == request.target_node_id:
            raise KeyplaneError(
                Reason.INVALID_ARGUMENT,
                f"partition {partition.partition_id} is on {partition.leader!r} already",
            )
        require_up(catalog, world.registry, request.target_node_id)
        require_reachable(world.registry, partition.leader)
        operation = new_move(
            world,
            catalog,
            table,
            partition,
            request.target_node_id,
            arguments,
            request.request_id,
            why=why,
        )
        return Change(counted(catalog.counters), operations=(operation,))

    return once(world, catalog, request.request_id, arguments, move)


def new_move(
    world: World,
    catalog: Catalog,
    table: TableRecord,
    partition: Partition,
    target: str,
    arguments: str,
    request_id: str = "",
    parent: str = "",
    why: str = "",
) -> Operation:
    """A PENDING move. parent: the drain that wants it. why: the planner's reason."""
    return new_operation(
        world,
        catalog,
        Kind.MOVE,
        MovePlan(partition.leader, parent, why),
        arguments=arguments,
        request_id=request_id,
        table=table,
        partitions=[partition],
        node_id=target,
    )


def _move(world: World, operation: Operation, on_outcome: OnOutcome) -> None:
    table = world.catalog.tables[operation.table_id]
    partition = world.catalog.partition(table, operation.partition_ids[0])

    def committed(answer: storage.MovePartitionResponse) -> Transition:
        def commit(catalog: Catalog, operation: Operation) -> Change:
            moved = moved_to(partition, operation.node_id)
            done = operation.become_committed(
                world.now, [moved.partition_id], answer.fence_ms, f"{answer.items_sent} items moved"
            )
            return map_changed(catalog, done, [partition], [moved])

        return commit

    ask_to_move(world, operation.operation_id, partition, operation.node_id, committed, on_outcome)


def _release(world: World, operation: Operation, on_outcome: OnOutcome) -> None:
    ask_to_release(
        world,
        operation.operation_id,
        operation.partition_ids[0],
        _plan(operation).source,
        succeed(world),
        on_outcome,
    )


def _cancel(world: World, operation: Operation, on_outcome: OnOutcome) -> None:
    source = _plan(operation).source
    ask_to_cancel(world, operation.operation_id, operation.partition_ids[0], source, on_outcome)


def _leave_data(world: World, operation: Operation, on_outcome: OnOutcome) -> None:
    """Cancelling a move that is done all but for its cleaning up, because its source is gone."""
    source = _plan(operation).source
    on_outcome(Advance(succeed(world, f"node {source!r} may still hold a copy of the data")))


def _plan(operation: Operation) -> MovePlan:
    assert isinstance(operation.plan, MovePlan)
    return operation.plan


SCRIPT = Script(
    steps={State.PENDING: start, State.RUNNING: _move, State.COMMITTED: _release},
    cancel={State.RUNNING: _cancel, State.COMMITTED: _leave_data},
)
