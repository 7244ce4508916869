"""What each kind of fault means, on its own and with others of its target."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from sim_stage import EXAMPLES, OTHER_POINT, POINT, Stage, fault

from sim.network import Link
from sim.topology import METADATA
from sim.world import World
from wire import crashpoints
from wire.faults import Direction, FaultKind
from wire.ports import Batch


@pytest.fixture
def stage() -> Iterator[Stage]:
    stage = Stage()
    with stage.world:
        yield stage


# --- processes ----------------------------------------------------------------------------------


def test_a_restart_does_not_bring_back_what_another_fault_keeps_down(stage: Stage) -> None:
    stage.driver.inject(fault(FaultKind.KILL, "storage-1"))
    stage.driver.inject(fault(FaultKind.RESTART, "storage-1", 2))
    stage.world.run_for(1.0)
    assert not stage.lives("storage-1")
    stage.driver.heal("fault-1")
    assert stage.lives("storage-1")


def test_kill_and_power_loss_at_once_keep_it_down_until_both_are_over(stage: Stage) -> None:
    stage.driver.inject(fault(FaultKind.KILL, "storage-1"))
    stage.driver.inject(fault(FaultKind.POWER_LOSS, "storage-1", 2))
    stage.driver.heal("fault-1")
    assert not stage.lives("storage-1")
    stage.driver.heal("fault-2")
    assert stage.lives("storage-1")


@pytest.mark.parametrize("power", [False, True])
def test_the_machine_of_a_dead_process_can_lose_power_too(stage: Stage, power: bool) -> None:
    """What the process had written and not synced was safe until then."""
    engine = stage.world.storage("storage-1").engine
    engine.commit(Batch({b"probe": b""}), False, lambda _: None)
    stage.world.run_for(0.1)
    stage.driver.inject(fault(FaultKind.KILL, "storage-1"))
    if power:
        stage.driver.inject(fault(FaultKind.POWER_LOSS, "storage-1", 2))
    assert (engine.get(b"probe") is None) == power
    assert list(stage.world.power_losses) == [stage.world.now] * power


def test_a_pause_does_not_outlive_the_process(stage: Stage) -> None:
    """As on a live cluster: the signal was for the process, and the next has not got it."""
    stage.driver.inject(fault(FaultKind.PAUSE, "storage-1"))
    stage.driver.inject(fault(FaultKind.RESTART, "storage-1", 2))
    stage.world.run_for(1.0)
    assert stage.world.has_booted("storage-1")
    stage.driver.heal("fault-1")
    stage.world.run_for(1.0)
    assert stage.lives("storage-1")


@pytest.mark.parametrize(("unnoticed", "seen_s"), [(0.0, 6.0), (1.0, 1.0)])
def test_a_pause_is_noticed_by_the_clock_or_not(
    stage: Stage, unnoticed: float, seen_s: float
) -> None:
    process = stage.world.process("client-1")
    assert process is not None
    began_at = process.clock.now()
    stage.driver.inject(fault(FaultKind.PAUSE, "client-1", unnoticed=unnoticed))
    stage.world.run_for(5.0)
    stage.driver.heal("fault-1")
    stage.world.run_for(1.0)
    assert process.clock.now() - began_at == pytest.approx(seen_s * process.clock.rate)


def test_a_skewed_clock_stays_so_over_a_restart_and_then_runs_as_it_did(stage: Stage) -> None:
    def rate() -> float:
        process = stage.world.process("storage-1")
        assert process is not None
        return process.clock.rate

    natural = rate()
    assert natural != 1.0
    stage.driver.inject(fault(FaultKind.SKEW, "storage-1", rate=1.25))
    stage.driver.inject(fault(FaultKind.RESTART, "storage-1", 2))
    assert rate() == 1.25
    stage.driver.heal("fault-1")
    assert rate() == natural


# --- crash points -------------------------------------------------------------------------------


def test_whoever_gets_to_a_crash_point_first_dies_there_once(stage: Stage) -> None:
    stage.driver.inject(fault(FaultKind.CRASH_POINT, "", point=POINT, down_s=2.0))
    assert stage.reach("storage-1", OTHER_POINT)
    assert not stage.reach("storage-2")
    assert stage.driver.active == []
    assert stage.reach("storage-1")
    stage.world.run_for(1.9)
    assert not stage.lives("storage-2")
    stage.world.run_for(0.2)
    assert stage.reach("storage-2")


def test_a_crash_point_with_a_target_waits_for_that_process(stage: Stage) -> None:
    stage.driver.inject(fault(FaultKind.CRASH_POINT, "storage-2", point=POINT))
    assert stage.reach("storage-1")
    assert stage.reach("storage-1")
    assert not stage.reach("storage-2")


def test_a_crash_point_that_is_healed_kills_nobody(stage: Stage) -> None:
    stage.driver.inject(fault(FaultKind.CRASH_POINT, "", point=POINT))
    stage.driver.heal("fault-1")
    assert stage.reach("storage-1")


def test_two_faults_of_one_crash_point_kill_two(stage: Stage) -> None:
    for number in (1, 2):
        stage.driver.inject(fault(FaultKind.CRASH_POINT, "", number, point=POINT))
    assert not stage.reach("storage-1")
    assert not stage.reach("storage-2")
    stage.world.run_for(1.0)
    assert stage.reach("storage-1")


def test_who_died_at_a_crash_point_stays_down_while_another_fault_keeps_it_so(
    stage: Stage,
) -> None:
    stage.driver.inject(fault(FaultKind.CRASH_POINT, "", point=POINT, down_s=0.1))
    assert not stage.reach("storage-1")
    stage.driver.inject(fault(FaultKind.KILL, "storage-1", 2))
    stage.world.run_for(1.0)
    assert not stage.lives("storage-1")
    stage.driver.heal("fault-2")
    assert stage.lives("storage-1")


def test_no_crash_point_outlives_its_world() -> None:
    stage = Stage()
    stage.driver.inject(fault(FaultKind.CRASH_POINT, "", point=POINT))
    stage.world.close()
    with Stage().world as world:
        process = world.process("storage-1")
        assert process is not None
        process.clock.call_soon(lambda: crashpoints.crashpoint(POINT))
        world.run_for(0.1)
        assert process.alive


# --- the network --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("direction", "peer", "cut"),
    [
        (Direction.BOTH, "b", {"a>b", "b>a"}),
        (Direction.TO_PEER, "b", {"a>b"}),
        (Direction.FROM_PEER, "b", {"b>a"}),
        (Direction.BOTH, "", {"a>b", "a>c", "b>a", "c>a"}),
        (Direction.TO_PEER, "", {"a>b", "a>c"}),
        (Direction.FROM_PEER, "", {"b>a", "c>a"}),
    ],
)
def test_a_fault_of_the_network_touches_its_direction_alone(
    stage: Stage, direction: Direction, peer: str, cut: set[str]
) -> None:
    names = {"a": "router-1", "b": "storage-1", "c": "memds-1"}
    stage.driver.inject(
        fault(FaultKind.PARTITION, "router-1", direction=direction, peer=names.get(peer, ""))
    )
    found = {
        f"{source}>{target}"
        for source in names
        for target in names
        if source != target and stage.world.network.transit(names[source], names[target]) is None
    }
    assert found == cut


def test_faults_of_one_link_add_up(stage: Stage) -> None:
    """Delays are added; what gets through one loss meets the next."""
    for number, each in enumerate(
        (
            fault(FaultKind.LATENCY, "router-1", delay_s=1.0, jitter_s=0.5),
            fault(FaultKind.LATENCY, "router-1", delay_s=2.0),
            fault(FaultKind.DROP, "router-1", probability=0.5),
            fault(FaultKind.DROP, "router-1", peer="storage-1", probability=0.5),
            fault(FaultKind.DUPLICATE, "storage-1", probability=0.3),
            fault(FaultKind.DUPLICATE, "router-1", probability=0.2),
        )
    ):
        stage.driver.inject(replace(each, id=f"fault-{number}"))
    expected = Link(loss=0.75, duplication=0.3, delay_s=3.0, jitter_s=0.5)
    assert stage.driver.link("router-1", "storage-1") == expected
    assert stage.driver.link("storage-1", "router-1") == expected


# --- memcached and the database -----------------------------------------------------------------


def shown(world: World, name: str, value: bytes) -> bytes | None:
    memcached = world.memcached[name]
    memcached.store({"probe": value})
    return memcached.read(["probe"]).values.get("probe")


def test_a_flush_empties_a_node_and_so_does_going_down(stage: Stage) -> None:
    for number, kind in enumerate((FaultKind.MEMDS_FLUSH, FaultKind.MEMDS_DOWN)):
        assert shown(stage.world, "memds-1", b"1") == b"1"
        stage.driver.inject(fault(kind, "memds-1", number))
        assert stage.world.memcached["memds-1"].values == {}
        stage.driver.heal(f"fault-{number}")


def test_a_second_stale_fault_does_not_show_what_came_after_the_first(stage: Stage) -> None:
    shown(stage.world, "memds-1", b"old")
    stage.driver.inject(fault(FaultKind.MEMDS_STALE, "memds-1"))
    assert shown(stage.world, "memds-1", b"new") == b"old"
    stage.driver.inject(fault(FaultKind.MEMDS_STALE, "memds-1", 2))
    assert shown(stage.world, "memds-1", b"newer") == b"old"


def test_damage_comes_in_every_form_and_with_its_probability(stage: Stage) -> None:
    """Shorter, one bit changed, another key's value, garbage; by a chance of the fault's own."""
    value, other = b"a value of some length", b"the value of another key"
    memcached = stage.world.memcached["memds-1"]
    memcached.flush()
    memcached.store({"probe": value, "other": other})

    def read(probability: float) -> list[bytes]:
        stage.driver.inject(fault(FaultKind.MEMDS_CORRUPT, "memds-1", probability=probability))
        values = [memcached.read(["probe"]).values["probe"] for _ in range(400)]
        stage.driver.heal("fault-1")
        return values

    damaged = read(1.0)
    cut = [each for each in damaged if len(each) < len(value) and value.startswith(each)]
    flipped = [
        each
        for each in damaged
        if len(each) == len(value)
        and sum((a ^ b).bit_count() for a, b in zip(each, value, strict=True)) == 1
    ]
    swapped = [each for each in damaged if each == other]
    assert all(len(form) > 20 for form in (cut, flipped, swapped))
    assert len(cut) + len(flipped) + len(swapped) < 380
    assert damaged == read(1.0)
    assert 40 < sum(each != value for each in read(0.25)) < 160


@pytest.mark.parametrize("kind", [FaultKind.METADATA_LAG, FaultKind.DATABASE_ERROR])
def test_what_is_wrong_with_the_database_outlives_the_metadata_store(
    stage: Stage, kind: FaultKind
) -> None:
    """Also if it was dead when that began."""
    stage.driver.inject(fault(FaultKind.METADATA_DOWN, METADATA, 9))
    stage.driver.inject(EXAMPLES[kind][0])
    during = stage.state()["database"]
    stage.driver.heal("fault-9")
    stage.world.run_for(3.0)
    assert stage.world.metadata.core.ready
    assert stage.state()["database"] == during != (0.0, False)
