"""The source's end of a move. It drives: no other process is needed to finish or to abort one.

    PREPARING ──► SNAPSHOT ──► TAIL ──► FENCED ══► HANDOVER ──► DONE
        └─────────────┴──────────┴────────┴──► ABORTED

The double arrow is the point of no return: before it is on disk the source may serve again at any
time, and does so after a crash; from then on only the target may, and the source goes on trying to
tell it so, after a crash too. Until the target has been told nobody serves, so two nodes never do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from google.protobuf.message import Message

from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.partition import Partition
from keyplane.model.retry import Backoff
from keyplane.storage.v1 import storage_pb2 as pb
from storage.move_stream import Chunk, MoveStream
from storage.move_tokens import milliseconds
from storage.ownership import Move, State
from storage.peer import Peer
from storage.records import put_holding
from storage.shard import Shard
from storage.state import NodeState
from storage.writes import Step
from wire import crashpoints
from wire.ports import Batch, EngineError

_M = TypeVar("_M", bound=Message)

crashpoints.declare(
    "storage.move.started",
    "storage.move.snapshot_sent",
    "storage.move.fenced",
    "storage.move.handover",
    "storage.move.answered",
    "storage.move.retired",
)


class MoveSource:
    """One attempt to move one partition away.

    on_end: called once, when the move is DONE or ABORTED.
    """

    def __init__(
        self, state: NodeState, shard: Shard, move: Move, on_end: Callable[[MoveSource], None]
    ) -> None:
        self._state = state
        self._config = state.config.moves
        self._shard = shard
        self.move = move
        self._on_end = on_end
        partition = shard.partition
        self.moved = Partition(
            partition.partition_id,
            partition.table_id,
            partition.start,
            partition.end,
            partition.epoch + 1,
            move.peer.node_id,
            (move.peer.node_id,),
        )
        self.phase: pb.MovePhase.ValueType = pb.MOVE_PHASE_PREPARING
        self.items_sent = 0
        self.bytes_sent = 0
        self.fence_ms = 0.0
        self.error: KeyplaneError | None = None
        self._peer = Peer(self._config, state.clock, state.transport, state.rng, move.peer.address)
        self._backoff = Backoff(self._config.retry_s_min, self._config.retry_s_max)
        self._activations = 0
        self._stream: MoveStream | None = None
        self._chunks = 0
        # Chunks of the tail among them.
        self._rounds = 0
        # The step past which it cannot be aborted is in the write queue.
        self._committed = False

    def __repr__(self) -> str:
        phase = pb.MovePhase.Name(self.phase).removeprefix("MOVE_PHASE_").lower()
        return f"move of {self.moved.partition_id} to {self.moved.leader}: {phase}"

    @property
    def partition_id(self) -> int:
        return self.moved.partition_id

    @property
    def ended(self) -> bool:
        return self.phase in (pb.MOVE_PHASE_DONE, pb.MOVE_PHASE_ABORTED)

    @property
    def abortable(self) -> bool:
        return not (self._committed or self.ended)

    # --- Prepare -------------------------------------------------------------------------------

    def start(self) -> None:
        """Notes the attempt on disk, so that a later one is told apart from it, and begins."""
        self._shard.moving = True

        def plan() -> Step:
            holding = self._state.ownership.serving(self.partition_id).become_moving(self.move)
            batch = Batch()
            put_holding(batch, holding)

            def apply() -> None:
                self._state.ownership.install([holding])
                crashpoints.crashpoint("storage.move.started")
                self._prepare()

            return Step(batch, apply)

        self._state.queue.change(plan, self.abort)

    def _prepare(self) -> None:
        request = pb.PrepareMoveRequest(
            operation_id=self.move.operation_id,
            table=self._shard.table,
            partition=self.moved.to_proto(),
            run=self.move.run,
            source=self._state.node.to_proto(),
        )
        self._call(
            "PrepareMove",
            request,
            pb.PrepareMoveResponse,
            lambda _: self._between_requests(self._begin_stream),
        )

    # --- Snapshot and tail ---------------------------------------------------------------------

    def _begin_stream(self) -> None:
        self._stream = MoveStream(
            self._state.engine, self._state.tokens.memory, self._shard, self._config.chunk_bytes
        )
        self.phase = pb.MOVE_PHASE_SNAPSHOT
        self._send_snapshot(self._stream)

    def _send_snapshot(self, stream: MoveStream) -> None:
        try:
            chunk = stream.take_snapshot()
        except EngineError as error:
            self.abort(KeyplaneError(Reason.CORRUPT, f"the snapshot cannot be read: {error}"))
            return
        if chunk is None:
            crashpoints.crashpoint("storage.move.snapshot_sent")
            self.phase = pb.MOVE_PHASE_TAIL
            self._send_tail(stream)
            return
        pause_s = chunk.data_bytes / self._config.rate_bytes_s
        self._send(stream, chunk, lambda: self._later(pause_s, lambda: self._send_snapshot(stream)))

    def _send_tail(self, stream: MoveStream) -> None:
        """Then the tokens, as far as there are any yet, and fences when little is left to send."""
        config = self._config
        settled = self._rounds >= config.tail_rounds_max and stream.tail_bytes <= config.chunk_bytes
        if stream.tail_writes > config.fence_lag_writes and not settled:
            self._rounds += 1
            self._send(stream, stream.take_tail(), lambda: self._send_tail(stream))
            return
        tokens = stream.take_remembered(self._state.clock.now())
        if tokens is None:
            self._between_requests(lambda: self._fence(stream))
        elif tokens.remembered:
            self._send(stream, tokens, lambda: self._send_tail(stream))
        else:
            self._later(0.0, lambda: self._send_tail(stream))

    def _send(self, stream: MoveStream, chunk: Chunk, then: Callable[[], None]) -> None:
        self._chunks += 1
        request = pb.ReceiveItemsRequest(
            operation_id=self.move.operation_id,
            partition_id=self.partition_id,
            chunk=self._chunks,
            entries=chunk.entries,
            run=self.move.run,
            remembered=chunk.remembered,
        )

        def sent(_: pb.ReceiveItemsResponse) -> None:
            self.items_sent += len(chunk.entries)
            self.bytes_sent += chunk.data_bytes
            if stream.tail_bytes > self._config.tail_bytes_max:
                self.abort(
                    KeyplaneError(
                        Reason.OVERLOADED,
                        "writes come faster than the target takes them; move the partition when"
                        " it is less busy, or split it first",
                    )
                )
            else:
                then()

        self._call("ReceiveItems", request, pb.ReceiveItemsResponse, sent)

    # --- Fence ---------------------------------------------------------------------------------

    def _fence(self, stream: MoveStream) -> None:
        """Writes wait from here on. All before are committed, and in the tail or sent."""
        self.phase = pb.MOVE_PHASE_FENCED
        self._shard.gate = self._state.closed_gate()
        self._later(self._config.fence_s_max, self._fence_expired)
        crashpoints.crashpoint("storage.move.fenced")
        self._send_rest(stream)

    def _fence_expired(self) -> None:
        if self.abortable:
            self.abort(
                KeyplaneError(
                    Reason.NODE_UNAVAILABLE,
                    f"node {self.moved.leader} did not confirm within"
                    f" {self._config.fence_s_max} s of the fence; try again",
                )
            )

    def _send_rest(self, stream: MoveStream) -> None:
        if stream.tail_writes:
            self._send(stream, stream.take_tail(), lambda: self._send_rest(stream))
        else:
            self._confirm(stream)

    def _confirm(self, stream: MoveStream) -> None:
        now = self._state.clock.now()
        covers_since = self._state.tokens.covers_since(self._shard)
        request = pb.ConfirmMoveRequest(
            operation_id=self.move.operation_id,
            partition_id=self.partition_id,
            item_count=stream.digest.count,
            digest=stream.digest.to_bytes(),
            last_version=self._shard.version,
            remembered=stream.take_last_remembered(now),
            memory_covers_ms=milliseconds(now - covers_since),
            run=self.move.run,
        )
        self._call("ConfirmMove", request, pb.ConfirmMoveResponse, lambda _: self._hand_over())

    # --- The point of no return, and after -----------------------------------------------------

    def _hand_over(self) -> None:
        """Whether or not this commit fails, it may be on disk: from here on only forward."""
        self._committed = True

        def plan() -> Step:
            holding = self._state.ownership.serving(self.partition_id).become_handover()
            batch = Batch()
            put_holding(batch, holding)

            def apply() -> None:
                self._state.ownership.install([holding])
                self._shard.handed_over = True
                self._close_stream()
                self.phase = pb.MOVE_PHASE_HANDOVER
                crashpoints.crashpoint("storage.move.handover")
                self._activate()

            return Step(batch, apply)

        self._insist(plan)

    def resume(self) -> None:
        """Goes on after a restart that found the partition in HANDOVER."""
        self._committed = True
        self._shard.moving = True
        self.phase = pb.MOVE_PHASE_HANDOVER
        self._activate()

    def _activate(self) -> None:
        request = pb.ActivateMoveRequest(
            operation_id=self.move.operation_id,
            partition_id=self.partition_id,
            run=self.move.run,
            epoch=self.moved.epoch,
        )
        self._peer.call(
            "ActivateMove",
            request,
            pb.ActivateMoveResponse,
            self._activated,
            self._not_activated,
            1,
        )

    def _not_activated(self, error: KeyplaneError) -> None:
        """Nobody else can finish this move, so it is tried for as long as it takes."""
        if self._shard.retired:
            self._end_dropped()
            return
        self._state.log.warning("target is not active yet", move=repr(self), error=str(error))
        delay_s = self._backoff.delay_s(self._activations, self._state.rng.random())
        self._activations += 1
        self._later(delay_s, self._activate)

    def _activated(self, _: pb.ActivateMoveResponse) -> None:
        """The target serves. Until that is noted here too, a restart asks it again."""
        crashpoints.crashpoint("storage.move.answered")

        def plan() -> Step:
            holding = self._state.ownership.get(self.partition_id)
            if holding is None or holding.state is not State.HANDOVER:
                # The table was dropped meanwhile.
                return Step(Batch(), self._end_dropped)
            gate = self._shard.gate
            assert gate is not None
            self.fence_ms = (self._state.clock.now() - gate.closed_at) * 1000
            peer = self.move.peer
            move = Move(self.move.operation_id, self.move.run, peer, fence_ms=self.fence_ms)
            retired = holding.become_retired(move.operation_id, (self.moved,), (peer,), move)
            batch = Batch()
            put_holding(batch, retired)

            def apply() -> None:
                self._state.ownership.install([retired])
                crashpoints.crashpoint("storage.move.retired")
                self._state.close_shard(self.partition_id)
                self._end(pb.MOVE_PHASE_DONE)

            return Step(batch, apply)

        self._insist(plan)

    def _end_dropped(self) -> None:
        self.error = KeyplaneError(Reason.TABLE_NOT_FOUND, "the table was deleted meanwhile")
        self._end(pb.MOVE_PHASE_ABORTED)

    def _insist(self, plan: Callable[[], Step]) -> None:
        """Makes a step, again and again until the disk takes it."""

        def refused(error: KeyplaneError) -> None:
            if self._shard.retired:
                self._end_dropped()
                return
            self._state.log.warning("move waits for the disk", move=repr(self), error=str(error))
            self._state.clock.call_later(
                self._config.retry_s_max, lambda: self._state.queue.change(plan, refused)
            )

        self._state.queue.change(plan, refused)

    def stop(self) -> None:
        """Neither ends the move nor goes on with it."""
        self._peer.close()
        self._close_stream()

    # --- Giving up -----------------------------------------------------------------------------

    def abort(self, error: KeyplaneError) -> None:
        """Serves on as if nothing had been. Does nothing past the point of no return."""
        if not self.abortable:
            return
        self.error = error
        self._close_stream()
        gate, self._shard.gate = self._shard.gate, None
        self._end(pb.MOVE_PHASE_ABORTED)
        if gate is not None:
            gate.open()
        self._note_abort(error)

    def _note_abort(self, error: KeyplaneError) -> None:
        """On disk, so that a late repetition of the call does not start the move again."""

        def plan() -> Step:
            holding = self._state.ownership.get(self.partition_id)
            batch = Batch()
            if holding is None or holding.state is not State.SERVING or holding.move != self.move:
                return Step(batch, lambda: None)
            move = Move(self.move.operation_id, self.move.run, self.move.peer, error)
            noted = holding.become_moving(move)
            put_holding(batch, noted)
            return Step(batch, lambda: self._state.ownership.install([noted]))

        self._state.queue.change(plan, lambda _: None)

    # --- Shared --------------------------------------------------------------------------------

    def _call(
        self, method: str, request: Message, response: type[_M], on_ok: Callable[[_M], None]
    ) -> None:
        config = self._config
        patience_s = 0.0 if self.phase == pb.MOVE_PHASE_FENCED else config.call_patience_s
        self._peer.call(
            method, request, response, on_ok, self.abort, config.call_attempts, patience_s
        )

    def _between_requests(self, action: Callable[[], None]) -> None:
        def act() -> None:
            if self._shard.retired:
                self.abort(KeyplaneError(Reason.TABLE_NOT_FOUND, "the table was deleted"))
            elif not self.ended:
                action()

        self._state.queue.change(lambda: Step(Batch(), act), self.abort)

    def _later(self, delay_s: float, action: Callable[[], None]) -> None:
        def act() -> None:
            if not self.ended:
                action()

        self._state.clock.call_later(delay_s, act)

    def _close_stream(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _end(self, phase: pb.MovePhase.ValueType) -> None:
        self.phase = phase
        self._peer.close()
        self._shard.moving = False
        self._on_end(self)
