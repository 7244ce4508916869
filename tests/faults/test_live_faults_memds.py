"""memcached nodes that are gone, empty, stale, slow or lie: I5, requests never notice."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from conftest import Play
from fault_scenario import Scenario, Spares
from fault_scene import Scene

from wire.faults import FaultKind

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]


def with_a_split(
    kind: FaultKind, target: str, probability: float = 1.0, **parameters: float
) -> Callable[[Scene], None]:
    """A fault of MemDS while the map changes: news reaches routers by storage nodes alone."""

    def act(scene: Scene) -> None:
        scene.inject(kind, target, probability=probability, **parameters)
        splitting = scene.split(scene.partition_of_victim())
        scene.wait(1.5, 20.0)
        assert scene.end_of(splitting) == "succeeded"
        scene.heal()

    return act


def all_lost_during_a_split(scene: Scene) -> None:
    splitting = scene.split(scene.partition_of_victim())
    scene.inject(FaultKind.KILL, "memds")
    assert scene.end_of(splitting) == "succeeded"
    scene.wait(1.0, 20.0)
    scene.heal()


def all_down(scene: Scene) -> None:
    scene.inject(FaultKind.MEMDS_DOWN, "memds")
    scene.wait(5.0, 60.0)
    scene.heal()


def flush_storm(scene: Scene) -> None:
    flushes = 0
    with scene.lasting(2.0, 30.0) as going_on:
        while going_on():
            scene.inject(FaultKind.MEMDS_FLUSH, "memds")
            scene.wait(0.1)
            flushes += 1
    scene.notes.append(f"{flushes} flushes")


SCENARIOS = [
    Scenario(
        "memds-lost-during-split", "routers learn from storage nodes",
        all_lost_during_a_split, Spares.EVERYBODY,
    ),
    Scenario(
        "memds-corrupt", "damage is noticed, and removes nothing",
        with_a_split(FaultKind.MEMDS_CORRUPT, "memds", 0.5), Spares.EVERYBODY,
    ),
    Scenario(
        "memds-one-stale", "the newer of two answers counts",
        with_a_split(FaultKind.MEMDS_STALE, "memds-1"), Spares.EVERYBODY,
    ),
    Scenario(
        "memds-all-stale", "a storage node's word outranks the map",
        with_a_split(FaultKind.MEMDS_STALE, "memds"), Spares.EVERYBODY,
    ),
    Scenario(
        "memds-slow", "nobody waits for it",
        with_a_split(FaultKind.MEMDS_SLOW, "memds", delay_s=0.5), Spares.EVERYBODY,
    ),
    Scenario("memds-all-down", "routers have the map", all_down, Spares.EVERYBODY),
    Scenario("flush-storm", "absence is not deletion", flush_storm, Spares.EVERYBODY),
]  # fmt: skip


@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
def test_memds(scenario: Scenario, play: Play) -> None:
    play(scenario)
