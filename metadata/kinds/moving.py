"""Having a partition moved: the source does it by itself, this starts it and asks how far it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.partition import Partition
from keyplane.storage.v1 import storage_pb2 as storage
from metadata.kinds.map_change import check_answer
from metadata.kinds.script import (
    Abort,
    Advance,
    Again,
    OnOutcome,
    Outcome,
    Retry,
    Transition,
    World,
    after_error,
    cancelled,
)
from metadata.peers import CANCEL_MOVE, MOVE_PARTITION, RELEASE_MOVED

_TOO_LATE = KeyplaneError(
    Reason.ILLEGAL_TRANSITION,
    "the move has passed the point of no return and will be finished; move it back afterwards",
)


def moved_to(partition: Partition, node_id: str) -> Partition:
    """The partition as its new node serves it."""
    return replace(partition, leader=node_id, replicas=(node_id,), epoch=partition.epoch + 1)


def ask_to_move(
    world: World,
    move_id: str,
    partition: Partition,
    target: str,
    committed: Callable[[storage.MovePartitionResponse], Transition],
    on_outcome: OnOutcome,
) -> None:
    """One call to the source. Ends in `committed` once the target serves the partition.

    move_id: names the move to the source, over any number of calls.
    """

    def answered(answer: storage.MovePartitionResponse | KeyplaneError) -> None:
        if isinstance(answer, KeyplaneError):
            on_outcome(after_error(answer))
        elif answer.phase == storage.MOVE_PHASE_DONE:
            expected = moved_to(partition, target)
            then = Advance(committed(answer))
            on_outcome(check_answer([expected], [answer.moved], then))
        elif answer.phase == storage.MOVE_PHASE_ABORTED:
            on_outcome(Abort(_aborted(answer)))
        else:
            on_outcome(Again(world.config.move_poll_s, _progress(answer)))

    request = storage.MovePartitionRequest(
        operation_id=move_id,
        partition_id=partition.partition_id,
        epoch=partition.epoch,
        target=world.catalog.node(target).to_proto(),
    )
    world.peers.ask(partition.leader, MOVE_PARTITION, request, answered)


def ask_to_release(
    world: World,
    move_id: str,
    partition_id: int,
    source: str,
    released: Transition,
    on_outcome: OnOutcome,
) -> None:
    """Lets the source delete what it no longer serves."""

    def answered(answer: storage.ReleaseMovedResponse | KeyplaneError) -> None:
        if isinstance(answer, KeyplaneError):
            outcome = after_error(answer)
            # A source that refuses for good has nothing left to release.
            on_outcome(Advance(released) if isinstance(outcome, Abort) else outcome)
        else:
            on_outcome(Advance(released))

    request = storage.ReleaseMovedRequest(operation_id=move_id, partition_id=partition_id)
    world.peers.ask(source, RELEASE_MOVED, request, answered)


def ask_to_cancel(
    world: World, move_id: str, partition_id: int, source: str, on_outcome: OnOutcome
) -> None:
    """Ends in an Abort if the source gave the move up, in a Retry with the reason if not."""

    def answered(answer: storage.CancelMoveResponse | KeyplaneError) -> None:
        on_outcome(_after_cancel(answer))

    request = storage.CancelMoveRequest(operation_id=move_id, partition_id=partition_id)
    world.peers.ask(source, CANCEL_MOVE, request, answered)


def _after_cancel(answer: storage.CancelMoveResponse | KeyplaneError) -> Outcome:
    if isinstance(answer, KeyplaneError):
        return Retry(answer)
    return Abort(cancelled()) if answer.phase == storage.MOVE_PHASE_ABORTED else Retry(_TOO_LATE)


def _aborted(answer: storage.MovePartitionResponse) -> KeyplaneError:
    reason = Reason.__members__.get(answer.reason, Reason.INTERNAL)
    return KeyplaneError(reason, answer.message or "the source gave the move up")


def _progress(answer: storage.MovePartitionResponse) -> str:
    phase = storage.MovePhase.Name(answer.phase).removeprefix("MOVE_PHASE_").lower()
    return f"{phase}: {answer.items_sent} items, {answer.bytes_sent} bytes"
