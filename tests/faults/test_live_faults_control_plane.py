"""The Metadata Store away, late or hanging: I6, requests never notice, and I8, operations end."""

from __future__ import annotations

import pytest
from conftest import Play
from fault_scenario import Scenario, Spares
from fault_scene import KEYS, TABLE, Scene

from keyplane import Client
from wire.faults import FaultKind

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]


def paused_through_a_move(scene: Scene) -> None:
    """The two nodes finish it between them."""
    slow = scene.inject(FaultKind.LATENCY, scene.victim, scene.other, delay_s=0.03)
    moving = scene.move(scene.partition_of_victim(), scene.other)
    paused = scene.inject(FaultKind.PAUSE, "metadata")
    scene.wait(1.5, 20.0)
    scene.heal(paused)
    scene.heal(slow)
    assert scene.end_of(moving) == "succeeded"


def killed_during_a_merge(scene: Scene) -> None:
    left, right, *_ = scene.partitions()
    merging = scene.merge(left, right)
    scene.inject(FaultKind.KILL, "metadata")
    scene.wait(1.0, 10.0)
    scene.heal()
    assert scene.end_of(merging) == "succeeded"


def lag_during_splits(scene: Scene) -> None:
    lag = scene.inject(FaultKind.METADATA_LAG, "metadata", delay_s=0.5)
    splitting = [scene.split(partition) for partition in scene.partitions()[:2]]
    assert {scene.end_of(split) for split in splitting} == {"succeeded"}
    scene.wait(0.0, 20.0)
    scene.heal(lag)


def dead_while_nodes_restart(scene: Scene) -> None:
    """Every other process is restarted while it is away. Requests for what a storage node has wait
    for that node, and for nobody else."""
    scene.inject(FaultKind.METADATA_DOWN, "metadata")
    scene.wait(0.5, 60.0)
    for name in ("memds-1", "router-1", scene.victim):
        scene.cluster.restart(name)
    scene.wait(0.5, 60.0)
    scene.heal()


def new_router_alone(scene: Scene) -> None:
    """It starts with MemDS and the Metadata Store gone, from what storage nodes say."""
    scene.inject(FaultKind.KILL, "metadata")
    scene.inject(FaultKind.KILL, "memds")
    router = scene.cluster.add_router()
    with Client([router.address]) as client:
        for number in range(KEYS):
            client.put_item(TABLE, {"id": f"{scene.name}/new/{number}"})
    scene.heal()


SCENARIOS = [
    Scenario(
        "metadata-paused-through-move", "a move does not need it",
        paused_through_a_move, Spares.EVERYBODY,
    ),
    Scenario(
        "metadata-killed-during-merge", "it takes the merge up again",
        killed_during_a_merge, Spares.EVERYBODY,
    ),
    Scenario(
        "metadata-lag-during-splits", "routers do not wait for the map",
        lag_during_splits, Spares.EVERYBODY,
    ),
    Scenario(
        "control-plane-dead", "two minutes without it, with everything restarted meanwhile",
        dead_while_nodes_restart, Spares.OTHER_NODES,
    ),
    Scenario(
        "new-router-alone", "a router starts with nothing but storage nodes to ask",
        new_router_alone, Spares.EVERYBODY,
    ),
]  # fmt: skip


@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
def test_control_plane(scenario: Scenario, play: Play) -> None:
    play(scenario)
