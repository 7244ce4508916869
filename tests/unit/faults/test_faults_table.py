"""The table of faults of one process: what it takes, what it refuses, and when faults end."""

from __future__ import annotations

from dataclasses import replace

import pytest

from keyplane.model.errors import KeyplaneError, Reason
from wire.faults import Direction, Fault, FaultKind
from wire.injection import FaultTable
from wire.injection.check import NETWORK_KINDS
from wire.injection.table import FAULTS_MAX
from wire.memory import VirtualClock

MEMDS = "127.0.0.1:11211"
STORAGE = "127.0.0.1:7001"

CUT = Fault("f-1", FaultKind.PARTITION, "router-1", peer="storage-1")
LATE = Fault("f-2", FaultKind.LATENCY, "router-1", parameters={"delay_s": 0.1})


def table_of(clock: VirtualClock) -> FaultTable:
    table = FaultTable(clock, "router-1")
    for kind in NETWORK_KINDS:
        table.allow(kind)
    table.allow_memds(MEMDS)
    return table


def test_a_fault_is_on_until_it_is_healed() -> None:
    table = table_of(VirtualClock())
    table.add(CUT, [STORAGE])
    table.add(LATE)
    assert table.faults() == [CUT, LATE]
    assert table.heal(["f-1", "unknown"]) == ["f-1"]
    assert table.faults() == [LATE]
    assert table.heal_all() == ["f-2"]
    assert not table.network


def test_a_fault_with_an_end_heals_by_itself_even_if_nobody_is_left_to_ask_for_it() -> None:
    clock = VirtualClock()
    table = table_of(clock)
    table.add(replace(LATE, until=5.0))
    clock.run_for(4.9)
    assert table.network
    clock.run_for(0.2)
    assert table.faults() == []


def test_healing_early_leaves_nothing_that_could_end_a_later_fault_of_that_name() -> None:
    clock = VirtualClock()
    table = table_of(clock)
    table.add(replace(LATE, until=5.0))
    table.heal(["f-2"])
    table.add(LATE)
    clock.run_for(10.0)
    assert table.faults() == [LATE]


def test_asked_again_for_the_same_fault_nothing_changes_and_another_is_refused() -> None:
    table = table_of(VirtualClock())
    table.add(LATE)
    table.add(LATE)
    assert table.faults() == [LATE]
    with pytest.raises(KeyplaneError, match="another fault has the id f-2") as caught:
        table.add(replace(LATE, parameters={"delay_s": 0.2}))
    assert caught.value.reason is Reason.INVALID_ARGUMENT
    assert table.faults() == [LATE]


def test_past_its_bound_a_fault_is_refused() -> None:
    """I9."""
    table = table_of(VirtualClock())
    for number in range(FAULTS_MAX):
        table.add(replace(LATE, id=f"n-{number}"))
    with pytest.raises(KeyplaneError, match="heal some") as caught:
        table.add(LATE)
    assert caught.value.reason is Reason.OVERLOADED
    assert len(table.faults()) == FAULTS_MAX


STALE = Fault("f-3", FaultKind.MEMDS_STALE, "memds-1")


@pytest.mark.parametrize(
    ("fault", "addresses", "remedy"),
    [
        (replace(LATE, probability=0.5), [], "drop is what loses"),
        (replace(LATE, probability=1.5), [], "at most 1"),
        (replace(LATE, probability=-0.1), [], "above 0"),
        (replace(LATE, probability=float("nan")), [], "above 0"),
        (replace(LATE, parameters={"delay_s": -1.0}), [], "from 0 to"),
        (replace(LATE, parameters={"delay_s": float("inf")}), [], "from 0 to"),
        (replace(LATE, parameters={}), [], "needs the parameter delay_s"),
        (replace(LATE, parameters={"delay_s": 1.0, "x": 1.0}), [], "it has: delay_s, jitter_s"),
        (replace(LATE, id="a b"), [], "no id of a fault"),
        (replace(LATE, target=""), [], "needs a target"),
        (replace(LATE, direction=Direction.TO_PEER), [], "needs a peer"),
        (replace(LATE, target="router-2"), [], "this is router-1"),
        (replace(LATE, point="storage.split"), [], "crash-point"),
        (replace(LATE, until=float("inf")), [], "number of seconds"),
        (CUT, [], "addresses"),
        (replace(LATE), [STORAGE], "the name of a peer"),
        (STALE, [], MEMDS),
        (STALE, ["127.0.0.1:1"], MEMDS),
        (replace(STALE, peer="storage-1"), [MEMDS], "takes no peer"),
        (Fault("f", FaultKind.KILL, "router-1"), [], "cannot do kill to itself; it can do: drop"),
        (Fault("f", FaultKind.FULL_DISK, "router-1"), [], "cannot do full-disk"),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused_with_what_would(
    fault: Fault, addresses: list[str], remedy: str
) -> None:
    """I10: and nothing has changed."""
    table = table_of(VirtualClock())
    with pytest.raises(KeyplaneError) as caught:
        table.add(fault, addresses)
    assert caught.value.reason is Reason.INVALID_ARGUMENT
    assert remedy in caught.value.message
    assert table.faults() == []


def test_a_kind_that_is_done_rather_than_looked_up_is_begun_and_ended() -> None:
    table = table_of(VirtualClock())
    done: list[str] = []
    table.allow(
        FaultKind.FULL_DISK,
        lambda fault: done.append(f"begin {fault.id}"),
        lambda fault: done.append(f"end {fault.id}, {len(table.of(fault.kind))} left"),
    )
    full = Fault("a", FaultKind.FULL_DISK, "router-1")
    table.add(full)
    table.add(full)
    table.add(replace(full, id="b"))
    table.heal(["a", "b"])
    assert done == ["begin a", "begin b", "end a, 0 left", "end b, 0 left"]
