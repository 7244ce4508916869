"""Splitting a partition in two at a key hash, on the node that serves it."""

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
from metadata.kinds.script import (
    Abort,
    Advance,
    OnOutcome,
    Script,
    World,
    after_error,
    finish,
    if_untouched,
    start,
)
from metadata.operations import Operation, State
from metadata.peers import SPLIT_PARTITION, SUGGEST_SPLIT
from metadata.placement import require_reachable
from metadata.plans import Kind, SplitPlan, SplitPurpose
from metadata.writer import Decision

_PURPOSES = {
    SplitPurpose.ASKED: storage.SPLIT_PURPOSE_UNSPECIFIED,
    SplitPurpose.HEAT: storage.SPLIT_PURPOSE_HEAT,
    SplitPurpose.SIZE: storage.SPLIT_PURPOSE_SIZE,
}


def begin(
    world: World,
    catalog: Catalog,
    request: pb.SplitPartitionRequest,
    purpose: SplitPurpose = SplitPurpose.ASKED,
    why: str = "",
) -> Decision[Operation]:
    """purpose, why: of the planner, which names no hash."""
    split_hash = request.split_hash if request.HasField("split_hash") else None
    where = f"{split_hash:#018x}" if split_hash is not None else "where it suggests"
    arguments = f"split partition {request.partition_id} of {request.table} at {where}"

    def split() -> Change:
        table = catalog.table(request.table)
        parent = catalog.partition(table, request.partition_id)
        require_partitions_free(catalog, table, [parent])
        if split_hash is not None:
            _require_inside(parent, split_hash)
        elif parent.end - parent.start < 2:
            raise _outside(parent, "it covers a single key hash and cannot be split")
        require_reachable(world.registry, parent.leader)
        left_id = catalog.counters.partition_id
        operation = new_operation(
            world,
            catalog,
            Kind.SPLIT,
            SplitPlan(split_hash, left_id, left_id + 1, purpose, why),
            arguments=arguments,
            request_id=request.request_id,
            table=table,
            partitions=[parent],
        )
        return Change(counted(catalog.counters, partitions=2), operations=(operation,))

    return once(world, catalog, request.request_id, arguments, split)


def _choose(world: World, operation: Operation, on_outcome: OnOutcome) -> None:
    """Asks the storage node for a hash, unless the request named one."""
    if _plan(operation).split_hash is not None:
        start(world, operation, on_outcome)
        return
    parent = _parent(world.catalog, operation)

    def answered(answer: storage.SuggestSplitResponse | KeyplaneError) -> None:
        if isinstance(answer, KeyplaneError):
            on_outcome(after_error(answer))
            return
        try:
            _require_inside(parent, answer.split_hash)
        except KeyplaneError as error:
            on_outcome(Abort(error))
            return
        on_outcome(Advance(lambda catalog, operation: chosen(catalog, operation, answer)))

    def chosen(
        catalog: Catalog, operation: Operation, answer: storage.SuggestSplitResponse
    ) -> Change:
        plan = replace(_plan(operation), split_hash=answer.split_hash)
        progress = f"at {answer.split_hash:#018x}, by {answer.basis}"
        running = operation.become_running(world.now, plan, progress)
        return Change(catalog.counters, operations=(running,))

    request = storage.SuggestSplitRequest(
        partition_id=parent.partition_id,
        epoch=parent.epoch,
        purpose=_PURPOSES[_plan(operation).purpose],
    )
    world.peers.ask(parent.leader, SUGGEST_SPLIT, request, answered)


def _split(world: World, operation: Operation, on_outcome: OnOutcome) -> None:
    parent = _parent(world.catalog, operation)
    left, right = _children(parent, _plan(operation))

    def answered(answer: storage.SplitPartitionResponse | KeyplaneError) -> None:
        if isinstance(answer, KeyplaneError):
            on_outcome(after_error(answer))
        else:
            on_outcome(check_answer([left, right], [answer.left, answer.right], Advance(committed)))

    def committed(catalog: Catalog, operation: Operation) -> Change:
        done = operation.become_committed(world.now, [left.partition_id, right.partition_id])
        return map_changed(catalog, done, [parent], [left, right])

    request = storage.SplitPartitionRequest(
        operation_id=operation.operation_id,
        partition_id=parent.partition_id,
        epoch=parent.epoch,
        split_hash=right.start,
        left_id=left.partition_id,
        right_id=right.partition_id,
    )
    world.peers.ask(parent.leader, SPLIT_PARTITION, request, answered)


def _children(parent: Partition, plan: SplitPlan) -> tuple[Partition, Partition]:
    assert plan.split_hash is not None
    epoch = parent.epoch + 1
    left = replace(parent, partition_id=plan.left_id, end=plan.split_hash, epoch=epoch)
    right = replace(parent, partition_id=plan.right_id, start=plan.split_hash, epoch=epoch)
    return left, right


def _parent(catalog: Catalog, operation: Operation) -> Partition:
    return catalog.partition(catalog.tables[operation.table_id], operation.partition_ids[0])


def _plan(operation: Operation) -> SplitPlan:
    assert isinstance(operation.plan, SplitPlan)
    return operation.plan


def _require_inside(parent: Partition, split_hash: int) -> None:
    if not parent.start < split_hash < parent.end:
        raise _outside(
            parent,
            f"a split hash must be above {parent.start:#018x} and below {parent.end:#018x}, "
            f"and {split_hash:#018x} is not",
        )


def _outside(parent: Partition, message: str) -> KeyplaneError:
    return KeyplaneError(
        Reason.SPLIT_KEY_OUTSIDE_RANGE, f"partition {parent.partition_id}: {message}"
    )


def _gives_up(operation: Operation, error: KeyplaneError, perhaps_done: bool) -> bool:
    """Also when there is no load any more to say where it is."""
    return error.reason is Reason.LOAD_UNKNOWN or if_untouched(operation, error, perhaps_done)


SCRIPT = Script(
    steps={State.PENDING: _choose, State.RUNNING: _split, State.COMMITTED: finish},
    gives_up=_gives_up,
)
