"""Observers of constant work, operations, bounds and MemDS: each fires on what it watches for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from sim_plants import fires, scene, seen, served
from sim_world import SMALL

from cache import memds_keys
from cache.config import ReaderConfig
from metadata.config import MetadataConfig
from metadata.operations import State as OperationState
from router.config import RouterConfig
from sim import Scenario
from sim.observers.bounds import Bounds
from sim.observers.constant_work import ConstantWork
from sim.observers.fences import Fences
from sim.observers.operations import Operations
from sim.observers.whole_maps import WholeMaps
from sim.topology import CLUSTER
from storage.config import MoveConfig, WriteConfig

# --- I7 -----------------------------------------------------------------------------------------

QUICK = replace(SMALL, reader=ReaderConfig(CLUSTER, beat_s=0.1))


@pytest.mark.parametrize("factor", [0.0, 2.0])
def test_a_router_that_asks_memds_more_or_less_than_its_beat_is_noticed(factor: float) -> None:
    def plant(scenario: Scenario) -> None:
        requests = scenario.world.memds_requests
        counted = requests["router-1"]

        def again() -> None:
            nonlocal counted
            grown = requests["router-1"] - counted
            counted += int(grown * factor)
            requests["router-1"] = counted
            scenario.world.scheduler.after(0.2, again)

        again()

    scenario = scene(ConstantWork, QUICK)
    scenario.at(0.0, lambda: plant(scenario))
    violation = scenario.run(10.0).violation
    assert fires(violation, "I7", "where its beat makes 40.00", "router-1")


def test_windows_in_which_a_router_was_away_say_nothing() -> None:
    scenario = scene(ConstantWork, QUICK)
    scenario.fault("restart", "router-1", at=1.0)
    scenario.fault("pause", "router-1", at=3.0, seconds=1.0)
    scenario.fault("skew", "router-2", at=3.0, seconds=2.0, rate=0.5)
    result = scenario.run(16.0)
    assert result.held, result


# --- I8 -----------------------------------------------------------------------------------------


def split_done(scenario: Scenario) -> str:
    """The operation id of a split that has ended."""
    return next(
        operation.operation_id
        for operation in scenario.world.metadata.core.catalog.operations.values()
        if operation.state is OperationState.SUCCEEDED and operation.request_id
    )


def test_an_operation_that_has_ended_and_changes_is_noticed() -> None:
    scenario = scene(Operations)

    def plant() -> None:
        operations: Any = scenario.world.metadata.core.catalog.operations
        ended = split_done(scenario)
        operations[ended] = replace(operations[ended], state=OperationState.FAILED)

    scenario.at(0.5, lambda: scenario.operator.split("orders"))
    scenario.at(3.0, plant)
    violation = scenario.run(5.0).violation
    assert fires(violation, "I8", "ended as succeeded and is failed now")


def test_a_request_that_began_two_operations_is_noticed() -> None:
    scenario = scene(Operations)

    def plant() -> None:
        operations: Any = scenario.world.metadata.core.catalog.operations
        ended = split_done(scenario)
        operations["twin"] = replace(operations[ended], operation_id="twin")

    scenario.at(0.5, lambda: scenario.operator.split("orders"))
    scenario.at(3.0, plant)
    violation = scenario.run(5.0).violation
    assert fires(violation, "I8", "and twin too", "twin")


def test_an_operation_that_is_not_over_when_all_is_calm_is_noticed() -> None:
    """A node is dead, so that a move to it cannot go on; the observer is told that all is calm."""
    scenario = scene(Operations)
    name = "storage-2"
    scenario.at(1.0, lambda: scenario.world.kill(name))
    scenario.at(1.0, lambda: scenario.operator.move("orders", name, at=0.0))
    scenario.at(3.0, lambda: Operations(scenario.world).calm())
    violation = scenario.run(4.0).violation
    assert fires(violation, "I8", "long after the last fault")


def test_a_node_that_serves_less_than_the_map_says_is_noticed() -> None:
    def plant(scenario: Scenario) -> None:
        name, shard = served(scenario)
        del scenario.world.storage(name).node.state.shards[shard.partition.partition_id]
        Operations(scenario.world).calm()

    assert fires(seen(Operations, plant), "I8", "what storage nodes serve is not what the map says")


def test_a_fence_without_a_move_is_noticed() -> None:
    def plant(scenario: Scenario) -> None:
        name, shard = served(scenario)
        shard.gate = scenario.world.storage(name).node.state.closed_gate()

    assert fires(seen(Fences, plant), "I8", "behind a fence, and no move is under way")


def test_a_map_with_a_gap_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where storage nodes agree with it."""

    def plant(scenario: Scenario) -> None:
        name, shard = served(scenario)
        lost = shard.partition
        del scenario.world.storage(name).node.state.shards[lost.partition_id]
        for map in scenario.world.metadata.core.catalog.maps.values():
            kept = [each for each in map.partitions() if each != lost]
            monkeypatch.setattr(type(map), "partitions", lambda *_, kept=kept: iter(kept))
        Operations(scenario.world).calm()

    violation = seen(Operations, plant)
    assert violation is not None
    assert violation.invariant == "I8"
    assert "gap" in violation.message or "ends at" in violation.message


# --- I9 -----------------------------------------------------------------------------------------


@contextmanager
def bounded(scenario: Scenario, **configs: Any) -> Iterator[None]:
    """The observer takes these for the bounds; the processes have those of the topology."""
    topology = scenario.world.topology
    scenario.world.topology = replace(topology, **configs)
    yield
    scenario.world.topology = topology


@pytest.mark.parametrize(
    ("what", "configs"),
    [
        ("requests in flight", {"router": RouterConfig(inflight_max=0)}),
        ("remembered tokens", {"writes": WriteConfig(tokens_max=0)}),
        ("operations", {"metadata": MetadataConfig(operations_active_max=0)}),
        ("requests at a fence", {"moves": MoveConfig(fence_queue_max=-1)}),
    ],
)
def test_what_is_beyond_its_bound_is_noticed(what: str, configs: dict[str, Any]) -> None:
    """Each number is the one that the processes really have, against a bound that it exceeds."""
    scenario = scene(Bounds, replace(SMALL, moves=MoveConfig(rate_bytes_s=200.0)))

    def look() -> None:
        with bounded(scenario, **configs):
            Bounds(scenario.world).beat()

    scenario.at(0.5, lambda: scenario.operator.move("orders", "storage-2", at=0.0))
    scenario.at(0.5, lambda: scenario.operator.move("orders", "storage-1", at=0.9))
    for number in range(200):
        scenario.at(0.6 + number / 100, look)
    violation = scenario.run(3.0).violation
    assert fires(violation, "I9", what)


def test_writes_that_queue_beyond_their_bound_are_noticed() -> None:
    def plant(scenario: Scenario) -> None:
        state = scenario.world.storage("storage-1").node.state
        state.queue._queued_writes = 1_000_000

    assert fires(seen(Bounds, plant), "I9", "queued writes; the bound is", "storage-1")


# --- I5, in MemDS -------------------------------------------------------------------------------


def test_a_root_without_its_page_is_noticed() -> None:
    def plant(scenario: Scenario) -> None:
        observer = WholeMaps(scenario.world)
        observer.beat()
        values = scenario.world.memcached["memds-1"].values
        prefix = memds_keys.page(CLUSTER, b"")
        del values[next(key for key in values if key.startswith(prefix))]
        observer.beat()

    assert fires(seen(WholeMaps, plant), "I5", "memds-1 holds", "memds-1")


def test_a_node_that_was_seen_empty_is_not_whole_for_that() -> None:
    """It lacks nothing that it names, as it names nothing; what comes back comes in any order."""

    def plant(scenario: Scenario) -> None:
        observer = WholeMaps(scenario.world)
        observer.beat()
        memcached = scenario.world.memcached["memds-1"]
        before = dict(memcached.values)
        memcached.flush()
        observer.beat()
        root = memds_keys.root(CLUSTER, "orders")
        memcached.store({root: before[root]})
        observer.beat()

    assert seen(WholeMaps, plant) is None


def test_a_node_that_was_emptied_may_lack_pages_until_it_is_whole_again() -> None:
    scenario = scene(WholeMaps)
    scenario.fault("memds-flush", "memds-1", at=1.0)
    scenario.fault("memds-down", "memds-2", at=2.0, seconds=1.0)
    assert scenario.run(5.0).held
