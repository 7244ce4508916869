"""Telling the targets of moves that were given up that they may forget what they have received.

A target that has confirmed keeps a whole copy until it is told, so the source goes on trying until
the target has heard it.
"""

from __future__ import annotations

from keyplane.storage.v1 import storage_pb2 as pb
from storage.ownership import Move
from storage.state import NodeState
from wire.ports import Reply

_METHOD = "/keyplane.storage.v1.TransferService/AbandonMove"

# Targets that are still to be told. Past it the oldest is given up: it finds out from the next move
# of the same hashes.
PENDING_MAX = 1_000

# Between tries: doubles from the first to the last of these.
RETRY_S_MIN = 0.5
RETRY_S_MAX = 60.0


class Abandoner:
    def __init__(self, state: NodeState) -> None:
        self._state = state
        # By partition id and run, oldest first.
        self._pending: dict[tuple[int, int], Move] = {}

    def __len__(self) -> int:
        return len(self._pending)

    def add(self, move: Move, partition_id: int) -> None:
        if (partition_id, move.run) in self._pending:
            return
        self._pending[partition_id, move.run] = move
        if len(self._pending) > PENDING_MAX:
            del self._pending[next(iter(self._pending))]
        self._tell(partition_id, move, RETRY_S_MIN)

    def _tell(self, partition_id: int, move: Move, retry_s: float) -> None:
        state = self._state
        if (partition_id, move.run) not in self._pending:
            return
        request = pb.AbandonMoveRequest(
            operation_id=move.operation_id, partition_id=partition_id, run=move.run
        )

        def ended(reply: Reply) -> None:
            if reply.error is None:
                self._pending.pop((partition_id, move.run), None)
            else:
                later_s = min(RETRY_S_MAX, retry_s * 2)
                state.clock.call_later(retry_s, lambda: self._tell(partition_id, move, later_s))

        deadline = state.clock.now() + state.config.moves.call_timeout_s
        state.transport.call(
            move.peer.address, _METHOD, request.SerializeToString(), deadline, ended
        )
