"""Wrong things, planted in a small world under load for one observer to notice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sim_world import SMALL

from cache.routes import RouteTable
from keyplane.model.partition import Partition
from keyplane.storage.v1 import storage_pb2 as storage
from sim import Observer, Scenario, Topology, WorkloadSpec
from sim.process import address_of
from sim.violation import Violation
from sim.world import World
from storage.shard import Shard
from wire.ports import Reply, ReplyFn, Request

Watcher = Callable[[World], Observer]
Plant = Callable[[Scenario], object]

BUSY = WorkloadSpec(lanes=4, think_s=0.1)


def scene(watcher: Watcher, topology: Topology = SMALL) -> Scenario:
    return Scenario(1, topology, BUSY, watchers=[watcher])


def seen(
    watcher: Watcher, plant: Plant, at: float = 2.0, topology: Topology = SMALL
) -> Violation | None:
    """What the observer finds when something is planted two seconds after the load began."""
    scenario = scene(watcher, topology)
    scenario.at(at, lambda: plant(scenario))
    return scenario.run(at + 2.0).violation


def fires(violation: Violation | None, invariant: str, message: str, *about: str) -> bool:
    assert violation is not None
    assert message in violation.message
    assert violation.about >= set(about)
    return violation.invariant == invariant


# --- the world, to be lied about ----------------------------------------------------------------


def served(scenario: Scenario) -> tuple[str, Shard]:
    """A storage node, and something that it serves."""
    for name, member in scenario.world.storage_members().items():
        for shard in member.node.state.shards.values():
            return name, shard
    raise AssertionError("nobody serves anything")


def other(scenario: Scenario, name: str) -> str:
    return next(each for each in scenario.world.topology.storage_names() if each != name)


def routes(scenario: Scenario) -> RouteTable:
    table = scenario.world.routers["router-1"].core.tables.get("orders")
    assert table is not None
    return table.routes


def call(
    scenario: Scenario, source: str, target: str, method: str, request: Any, answer: Reply
) -> None:
    """A message that somebody sends, and a lie that it is answered with."""
    world = scenario.world
    sender = world.process(source) or world.new_process(source)
    server = world.process(target)
    assert server is not None
    honest = server.handlers.get(method)

    def lie(_: Request, reply: ReplyFn) -> None:
        if honest is not None:
            server.handlers[method] = honest
        reply(answer)

    server.handlers[method] = lie
    world.transport(sender).call(
        address_of(target),
        method,
        request.SerializeToString(),
        sender.clock.now() + 5.0,
        lambda _: None,
    )


def write(partition: Partition, key_hash: int) -> storage.ExecuteRequest:
    request = storage.ExecuteRequest(partition_id=partition.partition_id, epoch=partition.epoch)
    request.write.key.hash = key_hash
    return request


ACKNOWLEDGED = Reply(
    storage.ExecuteResponse(write=storage.WriteResult(version=1)).SerializeToString()
)
