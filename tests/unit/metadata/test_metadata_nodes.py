"""Which nodes are alive, and what routers are told about nodes and maps."""

from __future__ import annotations

from pathlib import Path

import pytest
from metadata_world import CLUSTER, World

from cache import memds_keys
from cache.envelope import Kind, open_sealed
from keyplane.catalog.v1 import catalog_pb2 as catalog
from keyplane.metadata.v1 import metadata_pb2 as pb
from metadata.config import NODE_LOADS_MAX, MetadataConfig
from metadata.nodes import NodeRegistry


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path)
    world.done(world.create())
    return world


def states(world: World) -> dict[str, catalog.NodeState.ValueType]:
    answer = world.ask("ListNodes", pb.ListNodesRequest(), pb.ListNodesResponse)
    return {each.node.node_id: each.node.state for each in answer.nodes}


def test_a_silent_node_is_suspect_until_it_is_heard_again(world: World) -> None:
    world.fleet.nodes["b"].kill()
    world.run(4)
    assert states(world)["b"] == catalog.NODE_STATE_UP
    world.run(4)
    assert states(world)["b"] == catalog.NODE_STATE_SUSPECT
    world.fleet.nodes["b"].start()
    world.run(2)
    assert states(world)["b"] == catalog.NODE_STATE_UP


def test_a_restarted_store_gives_every_node_its_grace(world: World) -> None:
    """A node that was dead before is not known to be, until it has been silent for a while."""
    world.fleet.nodes["b"].kill()
    world.run(10)
    world.restart()
    world.run(3)
    assert states(world)["b"] == catalog.NODE_STATE_UP
    world.run(5)
    assert states(world)["b"] == catalog.NODE_STATE_SUSPECT


def test_a_store_that_was_paused_suspects_nobody(tmp_path: Path) -> None:
    """Its clock jumped by a minute in which no heartbeat could arrive: everybody gets grace."""

    class PausedClock:
        def __init__(self, world: World) -> None:
            self.skipped = 0.0
            self.call_later = world.clock.call_later
            self.call_soon = world.clock.call_soon
            self.wall = world.clock.wall
            self._world = world

        def now(self) -> float:
            return self._world.clock.now() + self.skipped

    world = World(tmp_path)
    clock = PausedClock(world)
    registry = NodeRegistry(MetadataConfig(), clock, lambda _: None)
    registry.open(world.core.catalog)
    clock.skipped = 60.0
    world.run(2)
    assert not registry.is_suspect("a")
    world.run(7)
    assert registry.is_suspect("a")


def test_a_heartbeat_of_a_stranger_asks_it_to_register(world: World) -> None:
    request = pb.HeartbeatRequest(node_id="stranger")
    assert not world.ask("Heartbeat", request, pb.HeartbeatResponse).known
    assert world.ask("Heartbeat", pb.HeartbeatRequest(node_id="a"), pb.HeartbeatResponse).known


def test_a_node_that_comes_back_elsewhere_is_called_there(world: World) -> None:
    """Registering again replaces the address, in the database too."""
    peer = world.fleet.nodes["a"]
    peer.kill()
    peer.address = "elsewhere:7000"
    peer.start()
    world.register("a")
    world.done(world.split(1))
    world.check()


def test_loads_are_summed_for_the_partitions_a_node_still_leads(world: World) -> None:
    loads = [
        pb.PartitionLoad(partition_id=partition_id, reads_per_second=10, writes_per_second=1)
        for partition_id in (1, 4, 999)
    ]
    request = pb.HeartbeatRequest(node_id="a", loads=loads)
    world.ask("Heartbeat", request, pb.HeartbeatResponse)
    answer = world.ask("ListNodes", pb.ListNodesRequest(), pb.ListNodesResponse)
    (status,) = [each for each in answer.nodes if each.node.node_id == "a"]
    assert (status.partition_count, status.reads_per_second, status.writes_per_second) == (2, 20, 2)


def test_remembered_loads_are_bounded(world: World) -> None:
    """I9: the longest unheard are forgotten first."""
    registry = NodeRegistry(MetadataConfig(), world.clock, lambda _: None)
    registry.open(world.core.catalog)
    for partition_id in range(NODE_LOADS_MAX + 10):
        registry.heard("a", [pb.PartitionLoad(partition_id=partition_id)])
    assert registry.load("a", 9) is None
    assert registry.load("a", 10) is not None


# --- What is published -------------------------------------------------------------------------


def root(world: World) -> catalog.MapRoot:
    value = world.memds[0].values[memds_keys.root(CLUSTER, "orders")]
    return catalog.MapRoot.FromString(open_sealed(Kind.ROOT, value))


def directory(world: World) -> catalog.NodeDirectory:
    value = world.memds[0].values[memds_keys.nodes(CLUSTER)]
    return catalog.NodeDirectory.FromString(open_sealed(Kind.NODES, value))


def test_the_map_is_published_after_every_change(world: World) -> None:
    """Version by version; a deleted table leaves its tombstone."""
    world.run(1)
    assert (root(world).version, root(world).partition_count) == (1, 4)
    world.done(world.split(1))
    world.run(1)
    assert (root(world).version, root(world).partition_count) == (2, 5)
    world.done(world.delete())
    world.run(1)
    assert root(world).table.state == catalog.TABLE_STATE_DELETED
    assert root(world).version == 3


def test_the_directory_only_ever_goes_forward(world: World) -> None:
    """Over silences, registrations, drains and restarts; each of them shows in it."""
    versions = []

    def note() -> dict[str, catalog.NodeState.ValueType]:
        world.run(1)
        published = directory(world)
        versions.append(published.version)
        return {node.node_id: node.state for node in published.nodes}

    assert set(note().values()) == {catalog.NODE_STATE_UP}
    world.fleet.nodes["b"].kill()
    world.run(7)
    assert note()["b"] == catalog.NODE_STATE_SUSPECT
    world.fleet.nodes["b"].start()
    world.run(2)
    assert note()["b"] == catalog.NODE_STATE_UP
    world.restart()
    note()
    world.done(world.drain("a"))
    assert note()["a"] == catalog.NODE_STATE_DRAINED
    assert versions == sorted(set(versions))
