"""Networks that lose, delay and double messages between living processes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from conftest import Play
from fault_scenario import Scenario, Spares
from fault_scene import Scene

from wire.faults import Direction, FaultKind

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]


def router_cut_from_one_node(direction: Direction) -> Callable[[Scene], None]:
    """All other paths are well: the other router has both, this one the other nodes."""

    def act(scene: Scene) -> None:
        scene.inject(FaultKind.PARTITION, "router-1", scene.victim, direction)
        scene.wait(2.0, 20.0)
        scene.heal()

    return act


def between_routers_and_storage(
    kind: FaultKind, probability: float = 1.0, **parameters: float
) -> Callable[[Scene], None]:
    def act(scene: Scene) -> None:
        scene.inject(kind, "router", "storage", probability=probability, **parameters)
        scene.wait(2.0, 30.0)
        scene.heal()

    return act


def slow_node(scene: Scene) -> None:
    """200 ms more for each call of it, and for each to it, whoever makes them."""
    scene.inject(FaultKind.LATENCY, scene.victim, delay_s=0.1)
    scene.wait(2.0, 20.0)
    scene.heal()


def node_cut_from_metadata(scene: Scene) -> None:
    """It is not heard from, and serves on."""
    scene.inject(FaultKind.PARTITION, scene.victim, "metadata")
    scene.wait(1.5, 20.0)
    scene.heal()


def router_cut_from_clients(scene: Scene) -> None:
    """Nothing reaches it and nothing leaves it."""
    scene.inject(FaultKind.PARTITION, "router-1")
    scene.wait(2.0, 20.0)
    scene.heal()


def source_cut_from_target(scene: Scene) -> None:
    """In the middle of a move. It is given up, or ends when the two are connected again."""
    slow = scene.inject(FaultKind.LATENCY, scene.victim, scene.other, delay_s=0.05)
    moving = scene.move(scene.partition_of_victim(), scene.other)
    scene.wait(0.15)
    cut = scene.inject(FaultKind.PARTITION, scene.victim, scene.other)
    scene.wait(2.0, 20.0)
    scene.heal(slow, cut)
    scene.notes.append(f"move: {scene.end_of(moving)}")


SCENARIOS = [
    Scenario(
        "router-cut-from-one-node", "the other router reaches it",
        router_cut_from_one_node(Direction.BOTH), Spares.EVERYBODY,
    ),
    Scenario(
        "one-way-router-to-storage", "the other router reaches it",
        router_cut_from_one_node(Direction.TO_PEER), Spares.EVERYBODY,
    ),
    Scenario(
        "one-way-storage-to-router", "what was done unheard is not done twice",
        router_cut_from_one_node(Direction.FROM_PEER), Spares.EVERYBODY,
    ),
    Scenario("slow-storage-node", "its keys are late, and no others", slow_node, Spares.EVERYBODY),
    Scenario(
        "drop-10-percent", "retries under their tokens make up for it",
        between_routers_and_storage(FaultKind.DROP, 0.1),
    ),
    Scenario(
        "duplicates", "a request that comes twice is done once",
        between_routers_and_storage(FaultKind.DUPLICATE, 0.5, delay_s=0.2), Spares.EVERYBODY,
    ),
    Scenario(
        "latency-with-jitter", "requests that overtake each other do no harm",
        between_routers_and_storage(FaultKind.LATENCY, delay_s=0.005, jitter_s=0.06),
        Spares.EVERYBODY,
    ),
    Scenario(
        "node-cut-from-metadata", "a node that is not heard from serves on",
        node_cut_from_metadata, Spares.EVERYBODY,
    ),
    Scenario(
        "router-cut-from-clients", "clients leave a router that is silent",
        router_cut_from_clients, Spares.EVERYBODY,
    ),
    Scenario(
        "source-cut-from-target", "a move ends, and one node owns the range",
        source_cut_from_target, Spares.NOBODY,
    ),
]  # fmt: skip


@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
def test_network(scenario: Scenario, play: Play) -> None:
    play(scenario)
