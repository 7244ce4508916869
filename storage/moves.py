"""Moves away from this node: the calls that start, watch and cancel them, and those under way."""

from __future__ import annotations

from collections import OrderedDict

from keyplane.model.errors import KeyplaneError, Reason
from keyplane.storage.v1 import storage_pb2 as pb
from storage.abandon import Abandoner
from storage.move_source import MoveSource
from storage.ownership import Holding, Move, NodeRef, State
from storage.state import NodeState


class Moves:
    def __init__(self, state: NodeState) -> None:
        self._state = state
        # By partition id.
        self._active: dict[int, MoveSource] = {}
        # Outcomes by operation and partition id, oldest first.
        self._ended: OrderedDict[tuple[str, int], pb.MovePartitionResponse] = OrderedDict()
        self._abandoner = Abandoner(state)
        self._outcomes = state.metrics.counter(
            "storage_moves", "Moves away from this node that have ended, by outcome", "outcome"
        )
        self._fence_s = state.metrics.histogram(
            "storage_fence_seconds", "Time for which writes waited in finished moves"
        )
        state.metrics.gauge(
            "storage_moves_active", "Moves away that are under way", lambda: len(self._active)
        )

    def __len__(self) -> int:
        return len(self._active)

    def move(self, request: pb.MovePartitionRequest) -> pb.MovePartitionResponse:
        """Starts a move, or tells how far it is.

        Raises KeyplaneError: PARTITION_NOT_FOUND, PARTITION_BUSY, STALE_ROUTE or INVALID_ARGUMENT.
        """
        known = self._find(request.operation_id, request.partition_id)
        if known is not None:
            return known
        source = self._start(request)
        return _progress(source)

    def cancel(self, request: pb.CancelMoveRequest) -> pb.CancelMoveResponse:
        """Gives a move up unless it is too late. One that is unknown counts as given up, and stays
        so: the call that would have started it may have been overtaken by this one.
        """
        cancelled = KeyplaneError(Reason.CANCELLED, "the move was cancelled")
        active = self._active.get(request.partition_id)
        if active is not None and active.move.operation_id == request.operation_id:
            active.abort(cancelled)
            return pb.CancelMoveResponse(phase=active.phase)
        known = self._find(request.operation_id, request.partition_id)
        if known is None:
            known = _aborted(cancelled)
            self._keep(request.operation_id, request.partition_id, known)
        return pb.CancelMoveResponse(phase=known.phase)

    def resume(self) -> None:
        """After a restart: finishes what is past the point of no return, drops what is not."""
        for holding in list(self._state.ownership):
            move = holding.move
            if move is None:
                continue
            if holding.state is State.HANDOVER:
                shard = self._state.shards[holding.partition.partition_id]
                source = MoveSource(self._state, shard, move, self._end)
                self._active[source.partition_id] = source
                source.resume()
            elif self._was_source(holding):
                self._abandoner.add(move, holding.partition.partition_id)

    def stop(self) -> None:
        """For a shutdown: leaves every move as a crash would, for the next start to deal with."""
        for source in self._active.values():
            source.stop()

    def _was_source(self, holding: Holding) -> bool:
        """A serving partition's last move may also be the one that brought it here."""
        move = holding.move
        return (
            holding.state is State.SERVING
            and move is not None
            and move.operation_id != holding.operation_id
        )

    def _find(self, operation_id: str, partition_id: int) -> pb.MovePartitionResponse | None:
        """Progress or outcome of a move, from memory or from what is on disk."""
        active = self._active.get(partition_id)
        if active is not None and active.move.operation_id == operation_id:
            return _progress(active)
        ended = self._ended.get((operation_id, partition_id))
        if ended is not None:
            return ended
        holding = self._state.ownership.get(partition_id)
        if holding is None or holding.move is None or holding.move.operation_id != operation_id:
            return None
        if holding.state is State.RETIRED and holding.successors:
            return pb.MovePartitionResponse(
                phase=pb.MOVE_PHASE_DONE,
                moved=holding.successors[0].to_proto(),
                fence_ms=holding.move.fence_ms,
            )
        if holding.move.error is not None:
            return _aborted(holding.move.error)
        return None

    def _start(self, request: pb.MovePartitionRequest) -> MoveSource:
        state = self._state
        partition_id = request.partition_id
        target = NodeRef.from_proto(request.target)
        shard = state.serving_shard(partition_id)
        holding = state.ownership.serving(partition_id)
        if shard.moving:
            raise KeyplaneError(
                Reason.PARTITION_BUSY, f"partition {partition_id} is being moved already"
            )
        if shard.partition.epoch != request.epoch:
            raise KeyplaneError(
                Reason.STALE_ROUTE,
                f"partition {partition_id} is at epoch {shard.partition.epoch},"
                f" not {request.epoch}",
                details=(state.ownership.hint(holding),),
            )
        if target.node_id == state.node.node_id:
            raise KeyplaneError(
                Reason.INVALID_ARGUMENT, f"partition {partition_id} is on that node already"
            )
        if len(self._active) >= state.config.moves.moves_max:
            raise KeyplaneError(
                Reason.PARTITION_BUSY,
                f"this node drives {len(self._active)} moves already; try again when one has ended",
            )
        run = holding.move.run + 1 if holding.move is not None else 1
        move = Move(request.operation_id, run, target)
        source = MoveSource(state, shard, move, self._end)
        self._active[partition_id] = source
        state.log.info("move begins", partition=partition_id, target=target.node_id, run=run)
        source.start()
        return source

    def _keep(
        self, operation_id: str, partition_id: int, outcome: pb.MovePartitionResponse
    ) -> None:
        """Remembers an outcome for callers that ask again."""
        self._ended[operation_id, partition_id] = outcome
        if len(self._ended) > self._state.config.moves.outcomes_max:
            self._ended.popitem(last=False)

    def _end(self, source: MoveSource) -> None:
        del self._active[source.partition_id]
        self._keep(source.move.operation_id, source.partition_id, _progress(source))
        outcome = "done" if source.phase == pb.MOVE_PHASE_DONE else "aborted"
        self._outcomes.inc(outcome)
        if source.error is not None:
            self._abandoner.add(source.move, source.partition_id)
        else:
            self._fence_s.observe(source.fence_ms / 1000)
        self._state.log.info(
            "move ended",
            partition=source.partition_id,
            target=source.moved.leader,
            outcome=outcome,
            error=str(source.error or ""),
            fence_ms=round(source.fence_ms, 1),
        )


def _progress(source: MoveSource) -> pb.MovePartitionResponse:
    if source.phase == pb.MOVE_PHASE_ABORTED:
        assert source.error is not None
        response = _aborted(source.error)
    else:
        response = pb.MovePartitionResponse(phase=source.phase)
    response.items_sent = source.items_sent
    response.bytes_sent = source.bytes_sent
    if source.phase == pb.MOVE_PHASE_DONE:
        response.moved.CopyFrom(source.moved.to_proto())
        response.fence_ms = source.fence_ms
    return response


def _aborted(error: KeyplaneError) -> pb.MovePartitionResponse:
    return pb.MovePartitionResponse(
        phase=pb.MOVE_PHASE_ABORTED, reason=error.reason.name, message=error.message
    )
