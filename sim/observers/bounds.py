"""I9: every queue, cache and count stays within its named bound.

Looked at whenever work comes in too: a bound is often passed for some milliseconds only.
"""

from __future__ import annotations

from sim.network import SimCall
from sim.observers.base import Observer
from sim.observers.one_owner import EXECUTE
from sim.process import SimProcess
from sim.topology import METADATA
from sim.workload import BATCH_KEYS


class Bounds(Observer):
    def on_request(self, call: SimCall, server: SimProcess) -> None:
        name = server.name
        if not self.world.has_booted(name):
            return
        if call.method == EXECUTE:
            self._check_queues(name)
        elif name in self.world.routers:
            self._check_router(name)

    def beat(self) -> None:
        for name in self.world.routers:
            if self.world.has_booted(name):
                self._check_router(name)
        for name, member in self.world.storage_members().items():
            if not self.world.has_booted(name):
                continue
            self._check_queues(name)
            bound = self.world.topology.writes.tokens_max
            self._check(name, "remembered tokens", len(member.node.state.tokens.memory), bound)
        if self.world.has_booted(METADATA) and self.world.metadata.core.ready:
            catalog = self.world.metadata.core.catalog
            config = self.world.topology.metadata
            self._check(METADATA, "operations", len(catalog.active), config.operations_active_max)

    def _check_router(self, name: str) -> None:
        in_flight = self.world.routers[name].core.in_flight
        self._check(name, "requests in flight", in_flight, self.world.topology.router.inflight_max)

    def _check_queues(self, name: str) -> None:
        member, topology = self.world.storage(name), self.world.topology
        # One request more than the bound may be let in, with all its writes.
        bound = topology.writes.queue_writes_max + BATCH_KEYS - 1
        queued = int(member.metrics.read("storage_writes_queued"))
        self._check(name, "queued writes", queued, bound)
        for shard in member.node.state.shards.values():
            if shard.gate is not None:
                self._check(
                    name, "requests at a fence", len(shard.gate), topology.moves.fence_queue_max
                )

    def _check(self, process: str, what: str, number: int, bound: int) -> None:
        if number > bound:
            self.world.violate(
                "I9", f"{process} has {number} {what}; the bound is {bound}", process
            )
