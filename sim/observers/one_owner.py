"""I1: no two nodes acknowledge writes for one key in overlapping epochs.

Checked twice: on every acknowledgement, in the order in which storage nodes give them, and on what
living nodes hold, where two that serve one hash at once are wrong even before anybody writes.
"""

from __future__ import annotations

from itertools import pairwise

from keyplane.model.partition import Partition
from keyplane.storage.v1 import storage_pb2 as storage
from sim.network import SimCall
from sim.observers.base import Observer
from sim.process import SimProcess
from sim.world import World
from storage.ownership import State
from wire.ports import Reply

EXECUTE = "/keyplane.storage.v1.StorageService/Execute"


class OneOwner(Observer):
    def __init__(self, world: World) -> None:
        super().__init__(world)
        # (table id, hash) to epoch, partition and node of the last acknowledged write.
        self._last: dict[tuple[int, int], tuple[int, int, str]] = {}

    def on_answer(self, call: SimCall, server: SimProcess, reply: Reply) -> None:
        if reply.error is not None or call.method != EXECUTE:
            return
        request = storage.ExecuteRequest.FromString(call.payload)
        kind = request.WhichOneof("op")
        if kind == "write":
            hashes = [request.write.key.hash]
        elif kind == "batch_write":
            response = storage.ExecuteResponse.FromString(reply.payload)
            hashes = [
                write.key.hash
                for write, result in zip(
                    request.batch_write.writes, response.batch_write.results, strict=True
                )
                if not result.reason
            ]
        else:
            return
        node = self.world.storage(server.name).node.state
        holding = node.ownership.get(request.partition_id)
        if holding is None:
            self.world.violate(
                "I1",
                f"{server.name} acknowledged a write for partition {request.partition_id},"
                " which it does not hold",
                f"p{request.partition_id}",
                server.name,
            )
        claim = (request.epoch, request.partition_id, server.name)
        for key_hash in hashes:
            place = (holding.partition.table_id, key_hash)
            before = self._last.get(place, (0, 0, ""))
            if before != claim and claim[0] <= before[0]:
                self.world.violate(
                    "I1",
                    f"{server.name} acknowledged a write to hash {key_hash:#x} in partition"
                    f" {claim[1]} at epoch {claim[0]}, after {before[2]} had acknowledged one in"
                    f" partition {before[1]} at epoch {before[0]}",
                    f"p{claim[1]}",
                    f"p{before[1]}",
                    server.name,
                    before[2],
                )
            self._last[place] = claim

    def beat(self) -> None:
        serving: list[tuple[Partition, str]] = []
        for name, member in self.world.storage_members().items():
            if self.world.has_booted(name):
                serving += [
                    (holding.partition, name)
                    for holding in member.node.state.ownership
                    if holding.state is State.SERVING
                ]
        serving.sort(key=lambda each: (each[0].table_id, each[0].start))
        for (left, one), (right, other) in pairwise(serving):
            if left.table_id == right.table_id and right.start < left.end:
                self.world.violate(
                    "I1",
                    f"{one} serves partition {left.partition_id} at epoch {left.epoch} while"
                    f" {other} serves partition {right.partition_id} at epoch {right.epoch},"
                    " which overlaps it",
                    f"p{left.partition_id}",
                    f"p{right.partition_id}",
                )
