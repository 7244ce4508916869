"""Processes that die or hang under load, one at a time and at random."""

from __future__ import annotations

import pytest
from conftest import Play
from fault_scenario import Scenario, Spares
from fault_scene import Scene

from keyplane.cluster import Kind
from keyplane.history.operation import Outcome
from wire.faults import Direction, FaultKind

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]


def router_killed(scene: Scene) -> None:
    scene.inject(FaultKind.KILL, "router-1")
    scene.wait(1.0, 10.0)
    scene.heal()


def router_paused(scene: Scene) -> None:
    scene.inject(FaultKind.PAUSE, "router-1")
    scene.wait(2.0, 10.0)
    scene.heal()


def storage_killed(scene: Scene) -> None:
    scene.inject(FaultKind.KILL, scene.victim)
    scene.wait(1.0, 10.0)
    scene.heal()


def storage_paused(scene: Scene) -> None:
    scene.inject(FaultKind.PAUSE, scene.victim)
    scene.wait(2.0, 10.0)
    scene.heal()


def killed_at_random(*kinds: Kind) -> object:
    """One member after the other, each back before the next goes."""

    def act(scene: Scene) -> None:
        deaths = 0
        names = [name for kind in kinds for name in scene.members(kind)]
        with scene.lasting(3.0, 60.0) as going_on:
            while going_on():
                scene.inject(FaultKind.KILL, scene.rng.choice(names))
                scene.wait(scene.rng.uniform(0.0, 0.5))
                scene.heal()
                scene.wait(scene.rng.uniform(0.0, 0.5))
                deaths += 1
        scene.notes.append(f"{deaths} deaths")

    return act


def indefinite_writes(scene: Scene) -> None:
    """The victim does everything and its answers are lost, until clients give up."""
    lost = scene.inject(FaultKind.PARTITION, "router", scene.victim, Direction.FROM_PEER)
    scene.wait(4.0, 20.0)
    scene.heal(lost)
    operations = list(scene.load.operations)
    unknown = [each for each in operations if each.outcome is Outcome.UNKNOWN and each.is_write]
    assert unknown, "no write ended with an open outcome"
    assert all(each.reason for each in unknown)
    counted = [[each.outcome for each in operations].count(outcome) for outcome in Outcome]
    assert sum(counted) == len(operations)


SCENARIOS = [
    Scenario(
        "router-killed", "clients go on through the other router",
        router_killed, Spares.EVERYBODY,
    ),
    Scenario(
        "router-paused", "clients leave a router that hangs", router_paused, Spares.EVERYBODY
    ),
    Scenario(
        "storage-killed", "only its own keys wait for it", storage_killed, Spares.OTHER_NODES
    ),
    Scenario(
        "storage-paused", "only its own keys wait for it", storage_paused, Spares.OTHER_NODES
    ),
    Scenario(
        "routers-killed-at-random", "requests do not notice",
        killed_at_random(Kind.ROUTER), Spares.EVERYBODY,
    ),
    Scenario(
        "storage-killed-at-random", "no acknowledged write is lost",
        killed_at_random(Kind.STORAGE),
    ),
    Scenario(
        "memds-killed-at-random", "requests do not notice",
        killed_at_random(Kind.MEMDS), Spares.EVERYBODY,
    ),
    Scenario(
        "metadata-killed-at-random", "requests do not notice",
        killed_at_random(Kind.METADATA), Spares.EVERYBODY,
    ),
    Scenario(
        "anything-killed-at-random", "no acknowledged write is lost", killed_at_random(*Kind)
    ),
    Scenario(
        "indefinite-writes", "what may have been done is never reported as failed",
        indefinite_writes, Spares.OTHER_NODES,
    ),
]  # fmt: skip


@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
def test_processes(scenario: Scenario, play: Play) -> None:
    play(scenario)
