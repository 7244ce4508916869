"""The target's end of a move: it obeys the source, and refuses what belongs to another attempt.

Attempts are ordered by (epoch, run). While items arrive, everything may be dropped at any time.
Once the target has confirmed that all is there, the source may have passed the point of no return,
so only its word (activate, abandon, or a later attempt) ends the wait.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.partition import Partition
from keyplane.storage.v1 import storage_pb2 as pb
from storage.answer import Answer
from storage.digest import Digest
from storage.layout import item_key, item_range
from storage.move_tokens import from_wire
from storage.ownership import Holding, Move, NodeRef, State
from storage.records import (
    Progress,
    delete_holding,
    load_progress,
    put_holding,
    put_progress,
    put_table,
)
from storage.state import NodeState
from storage.stored import read_version
from storage.tokens import Remembered
from storage.writes import Step
from wire import crashpoints
from wire.ports import Batch

crashpoints.declare("storage.move.prepared", "storage.move.confirmed", "storage.move.activated")


@dataclass(slots=True)
class _Arrival:
    """What has come of a partition; nothing is known of it if that was in an earlier process."""

    move: Move
    heard_at: float
    chunks: int = 0
    digest: Digest = field(default_factory=Digest)
    # Until they are complete.
    remembered: list[Remembered] = field(default_factory=list)
    all_remembered: bool = True


class MoveTarget:
    def __init__(self, state: NodeState) -> None:
        self._state = state
        self._arrivals: dict[int, _Arrival] = {}
        for holding in state.ownership:
            if holding.state is State.CONFIRMED:
                assert holding.move is not None
                arrival = _Arrival(holding.move, state.clock.now())
                self._arrivals[holding.partition.partition_id] = arrival

    def prepare(
        self, request: pb.PrepareMoveRequest, answer: Answer[pb.PrepareMoveResponse]
    ) -> None:
        """Makes room for a partition; whatever an older attempt left behind goes."""
        state = self._state
        partition = Partition.from_proto(request.partition)
        move = Move(request.operation_id, request.run, NodeRef.from_proto(request.source))

        def plan() -> Step:
            if partition.table_id in state.tables:
                state.table(partition.table_id)
            if partition.leader != state.node.node_id:
                raise KeyplaneError(
                    Reason.MALFORMED_REQUEST,
                    f"partition {partition.partition_id} is meant for node {partition.leader!r},"
                    f" this is {state.node.node_id!r}",
                )
            if self._is_prepared(partition, move):
                return Step(Batch(), lambda: answer.ok(pb.PrepareMoveResponse()))
            return self._make_room(request, partition, move, answer)

        state.queue.change(plan, answer.fail)

    def receive(
        self, request: pb.ReceiveItemsRequest, answer: Answer[pb.ReceiveItemsResponse]
    ) -> None:
        """Stores a chunk. Repeated chunks are answered, not applied."""
        state = self._state

        def plan() -> Step:
            holding, arrival = self._arriving(request)
            if request.chunk <= arrival.chunks:
                return Step(Batch(), lambda: answer.ok(pb.ReceiveItemsResponse()))
            if request.chunk != arrival.chunks + 1:
                raise KeyplaneError(
                    Reason.ILLEGAL_TRANSITION,
                    f"chunk {request.chunk} came after chunk {arrival.chunks}",
                )
            batch = Batch()
            digest = arrival.digest.copy()
            self._apply_entries(holding.partition, request, batch, digest)
            remembered = self._remembered(holding.partition, request, batch)

            def apply() -> None:
                arrival.heard_at = state.clock.now()
                arrival.chunks = request.chunk
                arrival.digest = digest
                arrival.remembered += remembered
                arrival.all_remembered &= len(remembered) == len(request.remembered)
                answer.ok(pb.ReceiveItemsResponse())

            return Step(batch, apply, sync=False)

        state.queue.change(plan, answer.fail)

    def confirm(
        self, request: pb.ConfirmMoveRequest, answer: Answer[pb.ConfirmMoveResponse]
    ) -> None:
        """Compares what is here with what the source has, and syncs it."""
        state = self._state

        def plan() -> Step:
            known = state.ownership.get(request.partition_id)
            if known is not None and known.state is State.CONFIRMED and _is_of(known, request):
                return Step(Batch(), lambda: answer.ok(pb.ConfirmMoveResponse()))
            holding, arrival = self._arriving(request)
            digest = arrival.digest
            if (digest.count, digest.to_bytes()) != (request.item_count, request.digest):
                raise KeyplaneError(
                    Reason.DIGEST_MISMATCH,
                    f"{digest.count} items arrived with digest {digest.to_bytes().hex()}, but"
                    f" {request.item_count} were sent with {request.digest.hex()}",
                )
            batch = Batch()
            last = self._remembered(holding.partition, request, batch)
            covers_since = state.clock.now()
            if arrival.all_remembered and len(last) == len(request.remembered):
                covers_since -= request.memory_covers_ms / 1000
            confirmed = holding.become_confirmed(state.tokens.stamp(covers_since))
            put_holding(batch, confirmed)
            progress = Progress(request.last_version, digest.count, digest.data_bytes)
            put_progress(batch, request.partition_id, progress)

            def apply() -> None:
                state.ownership.install([confirmed])
                state.tokens.arrived([*arrival.remembered, *last])
                arrival.remembered = []
                crashpoints.crashpoint("storage.move.confirmed")
                answer.ok(pb.ConfirmMoveResponse())

            return Step(batch, apply)

        state.queue.change(plan, answer.fail)

    def activate(
        self, request: pb.ActivateMoveRequest, answer: Answer[pb.ActivateMoveResponse]
    ) -> None:
        """Begins to serve. The source has recorded that it never will again."""
        state = self._state

        def plan() -> Step:
            holding = state.ownership.get(request.partition_id)
            if holding is None or holding.partition.epoch < request.epoch:
                raise _foreign(request)
            state.table(holding.partition.table_id)
            response = pb.ActivateMoveResponse(partition=holding.partition.to_proto())
            if not holding.receiving:
                return Step(Batch(), lambda: answer.ok(response))
            if not _is_of(holding, request):
                raise _foreign(request)
            serving = holding.become_serving()
            progress = load_progress(state.engine, request.partition_id)
            batch = Batch()
            put_holding(batch, serving)

            def apply() -> None:
                state.ownership.install([serving])
                del self._arrivals[request.partition_id]
                state.open_shard(serving, progress)
                crashpoints.crashpoint("storage.move.activated")
                answer.ok(response)

            return Step(batch, apply)

        state.queue.change(plan, answer.fail)

    def abandon(
        self, request: pb.AbandonMoveRequest, answer: Answer[pb.AbandonMoveResponse]
    ) -> None:
        state = self._state

        def plan() -> Step:
            holding = state.ownership.get(request.partition_id)
            if holding is None or not holding.receiving or not _is_of(holding, request):
                return Step(Batch(), lambda: answer.ok(pb.AbandonMoveResponse()))
            return self._forget(holding, lambda: answer.ok(pb.AbandonMoveResponse()))

        state.queue.change(plan, answer.fail)

    def forget_idle(self) -> None:
        """Drops what has not been heard of for long, or since before this process started."""
        now = self._state.clock.now()
        for holding in list(self._state.ownership):
            if holding.state is not State.INCOMING:
                continue
            arrival = self._arrivals.get(holding.partition.partition_id)
            idle_s = float("inf") if arrival is None else now - arrival.heard_at
            if idle_s > self._state.config.moves.incoming_idle_s:
                self._forget_later(holding)

    # --- Parts of steps ------------------------------------------------------------------------

    def _is_prepared(self, partition: Partition, move: Move) -> bool:
        """Whether this very attempt has been prepared, and nothing has come yet."""
        holding = self._state.ownership.get(partition.partition_id)
        arrival = self._arrivals.get(partition.partition_id)
        return (
            holding is not None
            and holding.state is State.INCOMING
            and holding.partition == partition
            and holding.move == move
            and arrival is not None
            and arrival.chunks == 0
        )

    def _make_room(
        self,
        request: pb.PrepareMoveRequest,
        partition: Partition,
        move: Move,
        answer: Answer[pb.PrepareMoveResponse],
    ) -> Step:
        state = self._state
        table_id, partition_id = partition.table_id, partition.partition_id
        before = self._tombstone(partition, move)
        incoming = Holding.incoming(partition, move, before)
        stale = self._older_arrivals(partition)
        stale_ids = [each.partition.partition_id for each in stale]
        restored = [each.before for each in stale if each.before is not None]
        removed = sorted({*stale_ids} - {each.partition.partition_id for each in restored})
        state.ownership.check([incoming, *restored], removed)
        batch = Batch(delete_ranges=[item_range(table_id, partition.start, partition.end)])
        for each in stale:
            self._clear(batch, each, overlook=[partition_id, *stale_ids])
        put_holding(batch, incoming)
        state.tokens.write_arrival(batch, partition)
        if table_id not in state.tables:
            put_table(batch, request.table)

        def apply() -> None:
            state.tables.setdefault(table_id, request.table)
            state.ownership.install([incoming, *restored], removed)
            state.tokens.drop(partition)
            for stale_id in stale_ids:
                self._arrivals.pop(stale_id, None)
            self._arrivals[partition_id] = _Arrival(move, state.clock.now())
            crashpoints.crashpoint("storage.move.prepared")
            answer.ok(pb.PrepareMoveResponse())

        return Step(batch, apply)

    def _tombstone(self, partition: Partition, move: Move) -> Holding | None:
        """What to return to if this attempt is abandoned.

        Raises KeyplaneError(ILLEGAL_TRANSITION) if the attempt is not newer than what is here.
        """
        known = self._state.ownership.get(partition.partition_id)
        if known is None:
            return None
        if known.receiving:
            assert known.move is not None
            newer = (partition.epoch, move.run) > (known.partition.epoch, known.move.run)
            lost = known.state is State.INCOMING and known.move == move
            if newer or (lost and partition.partition_id not in self._arrivals):
                return known.before
        elif not known.live and partition.epoch > known.partition.epoch:
            # Its data is about to be deleted with everything else in the range.
            return known.become_released()
        raise KeyplaneError(
            Reason.ILLEGAL_TRANSITION,
            f"partition {partition.partition_id} is {known.state.value} on node"
            f" {self._state.node.node_id} at epoch {known.partition.epoch}: this attempt to move it"
            " here is outdated",
        )

    def _older_arrivals(self, partition: Partition) -> list[Holding]:
        """Other partitions in the way that were on their way here and no longer exist.

        Whatever else is in the way is left for `OwnershipTable.check` to refuse.
        """
        return [
            other
            for other in self._state.ownership.live_within(
                partition.table_id, partition.start, partition.end
            )
            if other.receiving
            and other.partition.partition_id != partition.partition_id
            and other.partition.epoch < partition.epoch
        ]

    def _arriving(self, request: _Delivery) -> tuple[Holding, _Arrival]:
        holding = self._state.ownership.get(request.partition_id)
        arrival = self._arrivals.get(request.partition_id)
        if (
            holding is None
            or holding.state is not State.INCOMING
            or not _is_of(holding, request)
            or arrival is None
        ):
            raise _foreign(request)
        return holding, arrival

    def _apply_entries(
        self,
        partition: Partition,
        request: pb.ReceiveItemsRequest,
        batch: Batch,
        digest: Digest,
    ) -> None:
        for entry in request.entries:
            if not partition.covers(entry.key.hash) or not entry.key.encoded:
                raise KeyplaneError(
                    Reason.MALFORMED_REQUEST,
                    f"an entry with hash {entry.key.hash:#018x} came for partition"
                    f" {partition.partition_id}, which does not hold it",
                )
            key = item_key(partition.table_id, entry.key.hash, entry.key.encoded)
            value = entry.value if entry.HasField("value") else None
            if value is not None:
                read_version(value)
            old = batch.writes[key] if key in batch.writes else self._state.engine.get(key)
            digest.replace(key, old, value)
            batch.writes[key] = value

    def _remembered(
        self, partition: Partition, request: _Delivery, batch: Batch
    ) -> list[Remembered]:
        """What the source remembers, which goes to disk here too."""
        found = from_wire(partition, request.remembered, self._state.clock.now())
        self._state.tokens.write(batch, found)
        return found

    def _forget(self, holding: Holding, then: Callable[[], None]) -> Step:
        partition_id = holding.partition.partition_id
        before = holding.become_abandoned()
        batch = Batch()
        self._clear(batch, holding, overlook=[partition_id])

        def apply() -> None:
            self._arrivals.pop(partition_id, None)
            self._state.ownership.install([before] if before else [], [partition_id])
            then()

        return Step(batch, apply)

    def _forget_later(self, holding: Holding) -> None:
        def plan() -> Step:
            if self._state.ownership.get(holding.partition.partition_id) is not holding:
                return Step(Batch(), lambda: None)
            return self._forget(holding, lambda: None)

        self._state.queue.change(plan, lambda _: None)

    def _clear(self, batch: Batch, holding: Holding, overlook: list[int]) -> None:
        """Deletes what has arrived of a partition, and all trace of the attempt."""
        partition = holding.partition
        gaps = self._state.ownership.gaps(
            partition.table_id, partition.start, partition.end, overlook
        )
        batch.delete_ranges += [item_range(partition.table_id, start, end) for start, end in gaps]
        delete_holding(batch, partition.partition_id)
        if holding.before is not None:
            put_holding(batch, holding.before)


_Delivery: TypeAlias = pb.ReceiveItemsRequest | pb.ConfirmMoveRequest
_Attempt: TypeAlias = _Delivery | pb.ActivateMoveRequest | pb.AbandonMoveRequest


def _is_of(holding: Holding, request: _Attempt) -> bool:
    """Whether a call belongs to the attempt that a holding is part of."""
    move = holding.move
    return move is not None and (move.operation_id, move.run) == (
        request.operation_id,
        request.run,
    )


def _foreign(request: _Attempt) -> KeyplaneError:
    return KeyplaneError(
        Reason.ILLEGAL_TRANSITION,
        f"this node is not receiving partition {request.partition_id} in run {request.run} of"
        f" operation {request.operation_id}: it was abandoned, or the node has restarted",
    )
