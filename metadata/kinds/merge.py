"""Merging two neighbours into one; the right one moves to the left one's node first if need be.

While it is RUNNING, neighbours on two nodes go through MOVE and MERGE, others through MERGE only.
A merge that is refused after its move leaves the right partition where it moved to: the map is
true, and the two are still neighbours.
"""

from __future__ import annotations

from dataclasses import replace

from keyplane.metadata.v1 import metadata_pb2 as pb
from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.partition import Partition
from keyplane.storage.v1 import storage_pb2 as storage
from metadata.catalog import Catalog
from metadata.change import Change
from metadata.kinds.begin import counted, new_operation, once, require_partitions_free
from metadata.kinds.map_change import check_answer, map_changed
from metadata.kinds.moving import ask_to_cancel, ask_to_move, ask_to_release, moved_to
from metadata.kinds.script import (
    Advance,
    OnOutcome,
    Retry,
    Script,
    Step,
    Transition,
    World,
    after_error,
    if_untouched,
    start,
    succeed,
)
from metadata.operations import Operation, State
from metadata.peers import MERGE_PARTITIONS
from metadata.placement import require_reachable, require_up
from metadata.plans import Kind, MergePlan, MergeStage
from metadata.writer import Decision


def begin(
    world: World, catalog: Catalog, request: pb.MergePartitionsRequest, why: str = ""
) -> Decision[Operation]:
    """why: the planner's reason."""
    arguments = f"merge partitions {request.left_id} and {request.right_id} of {request.table}"

    def merge() -> Change:
        table = catalog.table(request.table)
        left = catalog.partition(table, request.left_id)
        right = catalog.partition(table, request.right_id)
        if left.end != right.start:
            raise KeyplaneError(
                Reason.NOT_NEIGHBOURS,
                f"partition {left.partition_id} does not end where {right.partition_id} begins; "
                "name two neighbours, the lower one as left",
            )
        require_partitions_free(catalog, table, [left, right])
        require_reachable(world.registry, left.leader)
        apart = left.leader != right.leader
        if apart:
            require_up(catalog, world.registry, left.leader)
            require_reachable(world.registry, right.leader)
        operation = new_operation(
            world,
            catalog,
            Kind.MERGE,
            MergePlan(
                catalog.counters.partition_id,
                MergeStage.MOVE if apart else MergeStage.MERGE,
                right.leader,
                why,
            ),
            arguments=arguments,
            request_id=request.request_id,
            table=table,
            partitions=[left, right],
            node_id=left.leader,
        )
        return Change(counted(catalog.counters, partitions=1), operations=(operation,))

    return once(world, catalog, request.request_id, arguments, merge)


def _run(world: World, operation: Operation, on_outcome: OnOutcome) -> None:
    _STAGES[_plan(operation).stage](world, operation, on_outcome)


def _move(world: World, operation: Operation, on_outcome: OnOutcome) -> None:
    _, right = _pair(world.catalog, operation)

    def moved(answer: storage.MovePartitionResponse) -> Transition:
        def commit(catalog: Catalog, operation: Operation) -> Change:
            plan = replace(_plan(operation), stage=MergeStage.MERGE)
            running = replace(
                operation.become_running(world.now, plan, "right partition moved"),
                fence_ms=answer.fence_ms,
            )
            return map_changed(catalog, running, [right], [moved_to(right, operation.node_id)])

        return commit

    ask_to_move(world, _move_id(operation), right, operation.node_id, moved, on_outcome)


def _merge(world: World, operation: Operation, on_outcome: OnOutcome) -> None:
    left, right = _pair(world.catalog, operation)
    merged = replace(
        left,
        partition_id=_plan(operation).merged_id,
        end=right.end,
        epoch=max(left.epoch, right.epoch) + 1,
    )

    def answered(answer: storage.MergePartitionsResponse | KeyplaneError) -> None:
        if isinstance(answer, KeyplaneError):
            on_outcome(after_error(answer))
        else:
            on_outcome(check_answer([merged], [answer.merged], Advance(committed)))

    def committed(catalog: Catalog, operation: Operation) -> Change:
        done = operation.become_committed(world.now, [merged.partition_id])
        return map_changed(catalog, done, [left, right], [merged])

    request = storage.MergePartitionsRequest(
        operation_id=operation.operation_id,
        left_id=left.partition_id,
        left_epoch=left.epoch,
        right_id=right.partition_id,
        right_epoch=right.epoch,
        merged_id=merged.partition_id,
    )
    world.peers.ask(left.leader, MERGE_PARTITIONS, request, answered)


def _release(world: World, operation: Operation, on_outcome: OnOutcome) -> None:
    """Lets the node that the right partition came from delete the data, if it came from another."""
    if not _came_from_afar(operation):
        on_outcome(Advance(succeed(world)))
        return
    ask_to_release(
        world,
        _move_id(operation),
        operation.partition_ids[1],
        _plan(operation).right_from,
        succeed(world),
        on_outcome,
    )


def _leave_data(world: World, operation: Operation, on_outcome: OnOutcome) -> None:
    """Cancelling a merge that is done all but for its cleaning up."""
    message = f"node {_plan(operation).right_from!r} may still hold a copy of the data"
    on_outcome(Advance(succeed(world, message)))


def _gives_up(operation: Operation, error: KeyplaneError, perhaps_done: bool) -> bool:
    """Not once the right partition has moved: the data it left behind must be released."""
    moved = _plan(operation).stage is MergeStage.MERGE and _came_from_afar(operation)
    return not moved and if_untouched(operation, error, perhaps_done)


def _cancel(world: World, operation: Operation, on_outcome: OnOutcome) -> None:
    plan = _plan(operation)
    if plan.stage is not MergeStage.MOVE:
        on_outcome(
            Retry(
                KeyplaneError(
                    Reason.ILLEGAL_TRANSITION, "the merge itself has begun and will be finished"
                )
            )
        )
        return
    ask_to_cancel(
        world, _move_id(operation), operation.partition_ids[1], plan.right_from, on_outcome
    )


def _pair(catalog: Catalog, operation: Operation) -> tuple[Partition, Partition]:
    table = catalog.tables[operation.table_id]
    left_id, right_id = operation.partition_ids
    return catalog.partition(table, left_id), catalog.partition(table, right_id)


def _came_from_afar(operation: Operation) -> bool:
    return _plan(operation).right_from != operation.node_id


def _move_id(operation: Operation) -> str:
    """The move is an operation of its own to the source."""
    return f"{operation.operation_id}.move"


def _plan(operation: Operation) -> MergePlan:
    assert isinstance(operation.plan, MergePlan)
    return operation.plan


_STAGES: dict[MergeStage, Step] = {MergeStage.MOVE: _move, MergeStage.MERGE: _merge}

SCRIPT = Script(
    steps={State.PENDING: start, State.RUNNING: _run, State.COMMITTED: _release},
    gives_up=_gives_up,
    cancel={State.RUNNING: _cancel, State.COMMITTED: _leave_data},
)
