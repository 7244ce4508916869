"""I9: every queue, cache and count stays within its named bound."""

from __future__ import annotations

from keyplane.model.limits import BATCH_WRITE_ITEMS_MAX
from sim.observers.base import Observer
from sim.topology import METADATA


class Bounds(Observer):
    def beat(self) -> None:
        topology = self.world.topology
        for name, router in self.world.routers.items():
            if self.world.has_booted(name):
                self._check(
                    name, "requests in flight", router.core.in_flight, topology.router.inflight_max
                )
        for name, member in self.world.storage_members().items():
            if not self.world.has_booted(name):
                continue
            state = member.node.state
            writes = topology.writes
            # One request more than the bound may be let in, with all its writes.
            queued = int(member.metrics.read("storage_writes_queued"))
            self._check(
                name, "queued writes", queued, writes.queue_writes_max + BATCH_WRITE_ITEMS_MAX
            )
            remembered = sum(len(shard.tokens) for shard in state.shards.values())
            # A memory gives up what is beyond its share with its next write, not before.
            self._check(name, "remembered tokens", remembered, 2 * writes.tokens_max)
            for shard in state.shards.values():
                if shard.gate is not None:
                    self._check(
                        name, "requests at a fence", len(shard.gate), topology.moves.fence_queue_max
                    )
        if self.world.has_booted(METADATA) and self.world.metadata.core.ready:
            catalog = self.world.metadata.core.catalog
            config = topology.metadata
            self._check(METADATA, "operations", len(catalog.active), config.operations_active_max)

    def _check(self, process: str, what: str, number: int, bound: int) -> None:
        if number > bound:
            self.world.violate(
                "I9", f"{process} has {number} {what}; the bound is {bound}", process
            )
