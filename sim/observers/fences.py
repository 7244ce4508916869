"""I8: only a move that is under way fences a partition.

One that is given up opens its fence. Looked at with every request too: the next attempt fences the
partition again, and would hide what the last one left behind.
"""

from __future__ import annotations

from keyplane.storage.v1 import storage_pb2 as storage
from sim.network import SimCall
from sim.observers.base import Observer
from sim.observers.one_owner import EXECUTE
from sim.process import SimProcess
from storage.shard import Shard


class Fences(Observer):
    def on_request(self, call: SimCall, server: SimProcess) -> None:
        if call.method == EXECUTE and self.world.has_booted(server.name):
            partition_id = storage.ExecuteRequest.FromString(call.payload).partition_id
            shard = self.world.storage(server.name).node.state.shards.get(partition_id)
            if shard is not None:
                self._check(server.name, partition_id, shard)

    def beat(self) -> None:
        for name, member in self.world.storage_members().items():
            if self.world.has_booted(name):
                for partition_id, shard in member.node.state.shards.items():
                    self._check(name, partition_id, shard)

    def _check(self, node: str, partition_id: int, shard: Shard) -> None:
        if shard.gate is not None and not shard.moving:
            self.world.violate(
                "I8",
                f"{node} holds partition {partition_id} behind a fence, and no move is under way",
                f"p{partition_id}",
                node,
            )
