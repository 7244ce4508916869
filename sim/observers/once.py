"""I2, from within: a write that is tried again gets the answer that it got at first.

Whatever storage nodes answered to a write, under its token, stands: one that was carried out is not
carried out again, and one that was refused for its condition is not carried out later. Clients can
see the difference only where somebody has written the same item in between.
"""

from __future__ import annotations

from keyplane.model.errors import Reason
from keyplane.storage.v1 import storage_pb2 as storage
from sim.network import SimCall
from sim.observers.base import Observer
from sim.observers.one_owner import EXECUTE
from sim.process import SimProcess
from sim.world import World
from wire.ports import Reply

_Token = tuple[bytes, int]


class Once(Observer):
    def __init__(self, world: World) -> None:
        super().__init__(world)
        # What was answered to a put: its version, or 0 if its condition failed.
        self._answers: dict[_Token, int] = {}
        self._losses = 0

    def on_answer(self, call: SimCall, server: SimProcess, reply: Reply) -> None:
        if call.method != EXECUTE:
            return
        refused = reply.error is not None and reply.error.reason is Reason.CONDITION_FAILED
        if reply.error is not None and not refused:
            return
        request = storage.ExecuteRequest.FromString(call.payload)
        kind = request.WhichOneof("op")
        if kind == "write":
            result = storage.WriteResult()
            if not refused:
                result = storage.ExecuteResponse.FromString(reply.payload).write
            self._note(server.name, request.write, result)
        elif kind == "batch_write" and not refused:
            response = storage.ExecuteResponse.FromString(reply.payload)
            for write, result in zip(
                request.batch_write.writes, response.batch_write.results, strict=True
            ):
                if not result.reason:
                    self._note(server.name, write, result)

    def _note(self, node: str, write: storage.WriteOp, result: storage.WriteResult) -> None:
        if len(self.world.power_losses) > self._losses:
            # What was lost with the power may be done anew.
            self._losses = len(self.world.power_losses)
            self._answers.clear()
        if write.WhichOneof("action") != "put":
            return
        token = (write.token.client_id, write.token.sequence)
        first = self._answers.setdefault(token, result.version)
        if first != result.version:
            self.world.violate(
                "I2",
                f"{node} answers a write with {_said(result.version)}, which was answered with"
                f" {_said(first)} before: token {token[0].hex()[:8]} {token[1]}",
                node,
            )


def _said(version: int) -> str:
    return f"version {version}" if version else "a failed condition"
