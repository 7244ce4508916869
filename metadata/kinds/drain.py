"""Draining a node: its partitions move elsewhere, a few at once, each by its own operation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

from keyplane.catalog.v1 import catalog_pb2 as catalog_pb
from keyplane.metadata.v1 import metadata_pb2 as pb
from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.partition import Partition
from metadata.catalog import Catalog
from metadata.change import Change
from metadata.kinds.begin import counted, new_operation, once, require_partitions_free
from metadata.kinds.move import new_move
from metadata.kinds.script import (
    Abort,
    Advance,
    Again,
    OnOutcome,
    Script,
    World,
    cancelled,
    fail,
    finish,
    never,
)
from metadata.operations import Operation, State
from metadata.placement import nodes_by_room, require_reachable
from metadata.plans import CreatePlan, DrainPlan, Kind
from metadata.records import NodeRecord, TableRecord
from metadata.writer import Decision


def begin(world: World, catalog: Catalog, request: pb.DrainNodeRequest) -> Decision[Operation]:
    arguments = f"drain node {request.node_id}"

    def drain() -> Change:
        node = catalog.node(request.node_id)
        for operation in catalog.active.values():
            if operation.kind is Kind.DRAIN and operation.node_id == node.node_id:
                raise KeyplaneError(
                    Reason.OPERATION_EXISTS,
                    f"node {node.node_id!r} is being drained already, by {operation.operation_id}",
                    metadata={"operation_id": operation.operation_id},
                )
        require_reachable(world.registry, node.node_id)
        total = len(catalog.led_by(node.node_id))
        # Even if it leads none now: a table that is being created may still bring it some.
        others = [each for each in catalog.nodes if each != node.node_id]
        if not any(world.registry.is_up(each) for each in others):
            raise KeyplaneError(
                Reason.NO_STORAGE_NODES,
                f"there is no other node that could take the partitions of {node.node_id!r}; "
                "start one",
            )
        operation = new_operation(
            world,
            catalog,
            Kind.DRAIN,
            DrainPlan(total),
            arguments=arguments,
            request_id=request.request_id,
            node_id=node.node_id,
        )
        return Change(counted(catalog.counters), operations=(operation,))

    return once(world, catalog, request.request_id, arguments, drain)


def _start(world: World, operation: Operation, on_outcome: OnOutcome) -> None:
    def running(catalog: Catalog, operation: Operation) -> Change:
        return Change(
            catalog.counters,
            nodes=(_node(catalog, operation, catalog_pb.NODE_STATE_DRAINING),),
            operations=(operation.become_running(world.now),),
        )

    on_outcome(Advance(running))


def _drain(world: World, operation: Operation, on_outcome: OnOutcome) -> None:
    """Starts moves where there is room for them, or waits for those under way."""

    def drained(catalog: Catalog, operation: Operation) -> Change:
        total = _plan(operation).total
        return Change(
            catalog.counters,
            nodes=(_node(catalog, operation, catalog_pb.NODE_STATE_DRAINED),),
            operations=(
                operation.become_committed(world.now, progress=f"{total} partitions moved"),
            ),
        )

    def started(catalog: Catalog, operation: Operation) -> Change:
        return _start_moves(world, catalog, operation)

    catalog = world.catalog
    moving = [each for each in catalog.active.values() if each.parent == operation.operation_id]
    settled = not moving and not _touches(catalog, operation.node_id)
    if settled and not catalog.led_by(operation.node_id):
        on_outcome(Advance(drained))
    elif len(moving) < world.config.drain_moves_max and _may_start(world, operation):
        on_outcome(Advance(started))
    else:
        on_outcome(Again(world.config.move_poll_s, _progress(world, catalog, operation)))


def _may_start(world: World, operation: Operation) -> bool:
    """Whether there is a partition to move, a node to take it, and no need to wait a while."""
    catalog = world.catalog
    ended = [each for each in catalog.children(operation.operation_id) if each.state.ended]
    if ended and ended[-1].state is State.FAILED:
        patience = world.config.retry_max_s
        if world.now - ended[-1].updated_at < patience:
            return False
    has_target = any(world.registry.is_up(node_id) for node_id in catalog.nodes)
    return has_target and next(_movable(catalog, operation.node_id), None) is not None


def _start_moves(world: World, catalog: Catalog, operation: Operation) -> Change:
    moving = sum(each.parent == operation.operation_id for each in catalog.active.values())
    room = max(0, world.config.drain_moves_max - moving)
    targets = nodes_by_room(catalog, world.registry)
    moves: list[Operation] = []
    for table, partition in islice(_movable(catalog, operation.node_id), room):
        target = targets[len(moves) % len(targets)]
        move = new_move(
            world,
            catalog,
            table,
            partition,
            target,
            arguments=f"move partition {partition.partition_id} of {table.name} to {target}",
            parent=operation.operation_id,
        )
        moves.append(replace(move, sequence=move.sequence + len(moves)))
    running = operation.become_running(world.now, progress=_progress(world, catalog, operation))
    return Change(counted(catalog.counters, operations=len(moves)), operations=(running, *moves))


def _movable(catalog: Catalog, node_id: str) -> Iterator[tuple[TableRecord, Partition]]:
    """Partitions of a node that no operation holds."""
    for partition_id, table_id in catalog.led_by(node_id).items():
        table = catalog.tables[table_id]
        partition = catalog.partition(table, partition_id)
        try:
            require_partitions_free(catalog, table, [partition])
        except KeyplaneError:
            continue
        yield table, partition


def _touches(catalog: Catalog, node_id: str) -> bool:
    """Whether an operation could still bring partitions to the node, or needs it."""
    return any(
        operation.node_id == node_id and operation.kind in (Kind.MOVE, Kind.MERGE)
        for operation in catalog.active.values()
    ) or any(
        operation.kind is Kind.CREATE_TABLE and _creates_on(operation, node_id)
        for operation in catalog.active.values()
    )


def _creates_on(operation: Operation, node_id: str) -> bool:
    return isinstance(operation.plan, CreatePlan) and node_id in operation.plan.node_ids


def _progress(world: World, catalog: Catalog, operation: Operation) -> str:
    total = _plan(operation).total
    left = len(catalog.led_by(operation.node_id))
    moved = f"{max(0, total - left)} of {total} partitions moved"
    has_target = any(world.registry.is_up(node_id) for node_id in catalog.nodes)
    return moved if has_target else f"{moved}; waiting for a node that is up"


def _abort(world: World, catalog: Catalog, operation: Operation, error: KeyplaneError) -> Change:
    """The node takes partitions again; moves under way are operations of their own and go on."""
    node = _node(catalog, operation, catalog_pb.NODE_STATE_UP)
    return replace(fail(world, catalog, operation, error), nodes=(node,))


def _cancel(world: World, operation: Operation, on_outcome: OnOutcome) -> None:
    on_outcome(Abort(cancelled()))


def _node(
    catalog: Catalog, operation: Operation, state: catalog_pb.NodeState.ValueType
) -> NodeRecord:
    return replace(catalog.nodes[operation.node_id], state=state)


def _plan(operation: Operation) -> DrainPlan:
    assert isinstance(operation.plan, DrainPlan)
    return operation.plan


SCRIPT = Script(
    steps={State.PENDING: _start, State.RUNNING: _drain, State.COMMITTED: finish},
    abort=_abort,
    gives_up=never,
    cancel={State.RUNNING: _cancel},
)
