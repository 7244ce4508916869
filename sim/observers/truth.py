"""What was ever true: every partition that a storage node has served.

A partition id names one range for ever, and whatever a router believes has been true at some time:
nothing corrupt, torn or invented becomes a route (I10), and no id is used twice (I8).
"""

from __future__ import annotations

from cache.partition_map import PartitionMap
from keyplane.model.partition import Partition
from sim.network import SimCall
from sim.observers.base import Observer
from sim.process import SimProcess
from sim.world import World
from wire.ports import Reply

_OWNERSHIP = "/keyplane.storage.v1.OwnershipService/"
_TRANSFER = "/keyplane.storage.v1.TransferService/"


class Truth(Observer):
    def __init__(self, world: World) -> None:
        super().__init__(world)
        # Partition id to its table and range.
        self._ranges: dict[int, tuple[int, int, int]] = {}
        # Everything that was served: id, epoch, leader.
        self._served: set[tuple[int, int, str]] = set()
        # Partitions checked already, by identity; held so that no identity is used again.
        self._checked: dict[int, Partition] = {}
        # Routes checked already, by router and table: what they were made of.
        self._seen: dict[tuple[str, str], tuple[PartitionMap | None, int]] = {}

    def on_answer(self, call: SimCall, server: SimProcess, reply: Reply) -> None:
        if reply.error is None and call.method.startswith((_OWNERSHIP, _TRANSFER)):
            self._learn(server.name)

    def beat(self) -> None:
        for name in self.world.storage_members():
            if self.world.has_booted(name):
                self._learn(name)
        for name, router in self.world.routers.items():
            if not self.world.has_booted(name):
                continue
            for table in router.core.tables.all():
                routes = table.routes
                made_of = (routes.map, routes.hints)
                if self._seen.get((name, table.name)) == made_of:
                    continue
                self._seen[name, table.name] = made_of
                for _, _, route in routes.routes():
                    self._check(name, route.partition)

    def _learn(self, node: str) -> None:
        for shard in self.world.storage(node).node.state.shards.values():
            partition = shard.partition
            self._served.add((partition.partition_id, partition.epoch, partition.leader))
            place = (partition.table_id, partition.start, partition.end)
            known = self._ranges.setdefault(partition.partition_id, place)
            if known != place:
                self.world.violate(
                    "I8",
                    f"partition id {partition.partition_id} is in use for a second time: {node}"
                    f" serves {place} under it, and {known} was served before",
                    f"p{partition.partition_id}",
                )

    def _check(self, router: str, partition: Partition) -> None:
        if id(partition) in self._checked:
            return
        self._checked[id(partition)] = partition
        place = (partition.table_id, partition.start, partition.end)
        served = (partition.partition_id, partition.epoch, partition.leader)
        if served not in self._served or self._ranges.get(partition.partition_id) != place:
            self.world.violate(
                "I10",
                f"{router} believes in {partition}, which nobody ever served",
                f"p{partition.partition_id}",
                router,
            )
