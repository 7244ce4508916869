"""Faults: each can be done and healed, alone and together with others of its kind."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from sim_stage import EXAMPLES, POINT, Stage, fault
from sim_world import SMALL

from keyplane.model.errors import KeyplaneError, Reason
from sim import Scenario
from wire.faults import Fault, FaultKind

# Over as soon as they are done.
MOMENTARY = {FaultKind.RESTART, FaultKind.MEMDS_FLUSH}


@pytest.fixture
def stage() -> Iterator[Stage]:
    stage = Stage()
    with stage.world:
        yield stage


# --- every kind ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FaultKind, ids=lambda kind: kind.value)
def test_a_fault_changes_something_and_healing_it_restores_exactly_that(
    stage: Stage, kind: FaultKind
) -> None:
    """Kinds that are over at once leave the world as it was, too."""
    before = stage.state()
    stage.driver.inject(EXAMPLES[kind][0])
    during = stage.state()
    assert stage.driver.active == [EXAMPLES[kind][0]]
    assert (during == before) == (kind in MOMENTARY)
    stage.world.run_for(0.7)
    stage.driver.heal("fault-1")
    assert stage.state() == before
    assert stage.driver.active == []


@pytest.mark.parametrize("kind", FaultKind, ids=lambda kind: kind.value)
def test_of_two_faults_that_overlap_the_end_of_one_does_not_end_the_other(
    stage: Stage, kind: FaultKind
) -> None:
    """Under the second alone all is as if the first had never been, and then as before."""
    first, second = EXAMPLES[kind]
    before = stage.state()
    stage.driver.inject(second)
    alone = stage.state()
    stage.driver.heal(second.id)
    stage.driver.inject(first)
    stage.world.run_for(0.3)
    stage.driver.inject(second)
    stage.world.run_for(0.3)
    stage.driver.heal(first.id)
    assert stage.state() == alone
    stage.driver.heal(second.id)
    assert stage.state() == before


def test_heal_all_ends_every_fault_at_once(stage: Stage) -> None:
    before = stage.state()
    for number, (each, _) in enumerate(EXAMPLES.values()):
        stage.driver.inject(replace(each, id=f"fault-{number}"))
    stage.world.run_for(0.3)
    stage.driver.heal_all()
    assert stage.driver.active == []
    assert stage.state() == before


def test_to_heal_what_is_not_in_force_does_nothing(stage: Stage) -> None:
    before = stage.state()
    stage.driver.heal("fault-77")
    assert stage.state() == before


def test_a_fault_heals_by_itself_when_its_time_is_up(stage: Stage) -> None:
    until = stage.world.now + 2.0
    stage.driver.inject(fault(FaultKind.MEMDS_DOWN, "memds-1", until=until))
    stage.world.run_for(1.9)
    assert stage.world.memcached["memds-1"].down
    stage.world.run_for(0.2)
    assert not stage.world.memcached["memds-1"].down


def test_the_time_of_a_fault_healed_early_does_not_end_a_later_one_of_its_id(
    stage: Stage,
) -> None:
    stage.driver.inject(fault(FaultKind.MEMDS_DOWN, "memds-1", until=stage.world.now + 2.0))
    stage.driver.heal("fault-1")
    stage.driver.inject(fault(FaultKind.MEMDS_DOWN, "memds-1"))
    stage.world.run_for(5.0)
    assert stage.world.memcached["memds-1"].down


# --- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "remedy"),
    [
        (fault(FaultKind.KILL, "storage-9"), r"to 'storage-9'; .* storage-1, storage-2"),
        (fault(FaultKind.KILL, "client-1"), r"kill cannot be done to 'client-1'"),
        (fault(FaultKind.SLOW_DISK, "router-1", delay_s=1.0), r"to: storage-1, storage-2$"),
        (fault(FaultKind.MEMDS_DOWN, "storage-1"), r"it can to: memds-1, memds-2$"),
        (fault(FaultKind.METADATA_LAG, "storage-1", delay_s=1.0), r"it can to: metadata$"),
        (fault(FaultKind.PAUSE, "memds-1"), r"it can to: metadata, .* client-1, operator$"),
        (fault(FaultKind.PARTITION, "router-1", peer="x"), r"no process 'x' .* memds-1"),
        (fault(FaultKind.KILL, "storage-1", peer="router-1"), r"kill takes no peer"),
        (fault(FaultKind.SKEW, "storage-1"), r"skew needs the parameter rate"),
        (fault(FaultKind.SKEW, "storage-1", rate=0.0), r"above 0"),
        (fault(FaultKind.SLOW_DISK, "storage-1", delay_s=-1.0), r"from 0 on, not -1"),
        (fault(FaultKind.SLOW_DISK, "storage-1", delay_s=float("nan")), r"not nan"),
        (fault(FaultKind.PAUSE, "storage-1", delay_s=1.0), r"it has: unnoticed$"),
        (fault(FaultKind.KILL, "storage-1", delay_s=1.0), r"it has: none$"),
        (fault(FaultKind.DROP, "storage-1", probability=0.0), r"above 0 and at most 1, not 0"),
        (fault(FaultKind.CRASH_POINT, "", point="nowhere"), rf"'nowhere'; .*{POINT}"),
    ],
    ids=lambda value: str(value) if isinstance(value, Fault) else "",
)
def test_what_cannot_be_done_is_refused_with_what_can(
    stage: Stage, wrong: Fault, remedy: str
) -> None:
    before = stage.state()
    with pytest.raises(KeyplaneError, match=remedy) as raised:
        stage.driver.inject(wrong)
    assert raised.value.reason is Reason.INVALID_ARGUMENT
    assert stage.driver.active == []
    assert stage.state() == before


def test_an_id_in_use_is_refused_until_it_is_healed(stage: Stage) -> None:
    stage.driver.inject(EXAMPLES[FaultKind.DROP][0])
    with pytest.raises(KeyplaneError, match="in force already; heal it first"):
        stage.driver.inject(EXAMPLES[FaultKind.DROP][0])


@pytest.mark.parametrize(
    ("kind", "target", "remedy"),
    [
        ("earthquake", "storage-1", "no kind of fault is called 'earthquake'; .* kill, pause"),
        ("kill", "storage-9", "storage-1, storage-2"),
    ],
)
def test_a_scenario_refuses_it_when_it_is_planned(kind: str, target: str, remedy: str) -> None:
    """Not in the middle of a run, as if it were a bug of what is tested."""
    with pytest.raises(KeyplaneError, match=remedy):
        Scenario(topology=SMALL).fault(kind, target, at=1.0)
