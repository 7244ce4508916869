"""Storage nodes whose disks are slow or full, and that die in the middle of a move."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from conftest import Play
from fault_scenario import Scenario, Spares
from fault_scene import Scene, wait_until

from keyplane.history.operation import Kind, Outcome
from wire.faults import FaultKind

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]


def slow_disk(scene: Scene) -> None:
    scene.inject(FaultKind.SLOW_DISK, scene.victim, delay_s=0.2)
    scene.wait(2.0, 20.0)
    scene.heal()


def full_disk(scene: Scene) -> None:
    """The node refuses writes, goes on reading, and needs no restart."""
    scene.inject(FaultKind.FULL_DISK, scene.victim)
    full_at = time.monotonic()
    scene.wait(2.0, 20.0)
    during = [each for each in list(scene.load.operations) if each.invoked_at > full_at]
    scene.heal()
    there = [each for each in during if scene.owners[each.key] == scene.victim]
    written = [each for each in there if each.kind is Kind.PUT and each.outcome is Outcome.OK]
    assert not written
    reads = [each for each in there if not each.is_write]
    assert reads
    assert all(each.outcome is Outcome.OK for each in reads)


def dies_in_a_move(point: str, is_target: bool) -> Callable[[Scene], None]:
    """One end kills itself at a persisted step, and is started again."""

    def act(scene: Scene) -> None:
        dying = scene.other if is_target else scene.victim
        partition, target = scene.partition_of_victim(), scene.other
        scene.inject(FaultKind.CRASH_POINT, dying, point=point)
        moving = scene.move(partition, target)
        wait_until(lambda: scene.cluster.life()[dying] == "dead", f"{dying} is at {point}")
        scene.wait(0.5, 5.0)
        scene.revive()
        scene.notes.append(f"move: {scene.end_of(moving)}")

    return act


SCENARIOS = [
    Scenario("slow-disk", "its writes are late, and nothing else", slow_disk, Spares.EVERYBODY),
    Scenario(
        "full-disk", "one node refuses writes, reads on, and heals without a restart",
        full_disk, Spares.OTHER_NODES,
    ),
    Scenario(
        "source-dies-during-move", "before the point of no return the source serves on",
        dies_in_a_move("storage.move.snapshot_sent", is_target=False),
    ),
    Scenario(
        "source-dies-after-handover", "after the point of no return the target takes over",
        dies_in_a_move("storage.move.handover", is_target=False),
    ),
    Scenario(
        "target-dies-during-move", "a target that comes back does not serve what it must not",
        dies_in_a_move("storage.move.confirmed", is_target=True),
    ),
    Scenario(
        "target-dies-activated", "a target that serves already serves on",
        dies_in_a_move("storage.move.activated", is_target=True),
    ),
]  # fmt: skip


@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
def test_disks(scenario: Scenario, play: Play) -> None:
    play(scenario)
