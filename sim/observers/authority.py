"""I1, from within: only a node that serves a partition, at that epoch, carries anything out for it.

That holds for reads too: what has been handed over may be written elsewhere already.
"""

from __future__ import annotations

from keyplane.storage.v1 import storage_pb2 as storage
from sim.network import SimCall
from sim.observers.base import Observer
from sim.observers.one_owner import EXECUTE
from sim.process import SimProcess
from storage.ownership import State
from wire.ports import Reply


class Authority(Observer):
    def on_answer(self, call: SimCall, server: SimProcess, reply: Reply) -> None:
        if reply.error is not None or call.method != EXECUTE:
            return
        request = storage.ExecuteRequest.FromString(call.payload)
        holding = self.world.storage(server.name).node.state.ownership.get(request.partition_id)
        if holding is None:
            serves = "which it does not hold"
        elif holding.state is not State.SERVING:
            serves = f"which is {holding.state.value} there"
        elif holding.partition.epoch != request.epoch:
            serves = f"which it serves at epoch {holding.partition.epoch}"
        else:
            return
        self.world.violate(
            "I1",
            f"{server.name} carried out a request for partition {request.partition_id} at epoch"
            f" {request.epoch}, {serves}",
            f"p{request.partition_id}",
            server.name,
        )
