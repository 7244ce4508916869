"""One life of a process: its death, its clock, and the time it does not see."""

from __future__ import annotations

import pytest

from sim.process import SimProcess, address_of, name_of
from sim.scheduler import Scheduler


@pytest.fixture
def scheduler() -> Scheduler:
    return Scheduler()


def timers(
    process: SimProcess, scheduler: Scheduler, *delays_s: float
) -> list[tuple[float, float]]:
    """Sets timers. Returns the list that gets (virtual time, own time) of each that fires."""
    fired: list[tuple[float, float]] = []
    for delay_s in delays_s:
        process.clock.call_later(
            delay_s, lambda: fired.append((scheduler.now, process.clock.now()))
        )
    return fired


def test_everybody_who_waits_for_its_death_is_told_once_in_order(scheduler: Scheduler) -> None:
    """Also somebody who no longer wants to know by then is left in peace."""
    process = SimProcess(scheduler, "a", 1)
    told: list[str] = []

    def first() -> None:
        told.append("first")

    def second() -> None:
        told.append("second")

    def third() -> None:
        told.append("third")

    for each in (first, second, third):
        process.on_death[each] = None
    del process.on_death[second]
    process.kill()
    process.kill()
    assert told == ["first", "third"]


def test_a_stop_that_is_noticed_makes_the_clock_jump(scheduler: Scheduler) -> None:
    """As SIGSTOP and SIGCONT: timers that came due meanwhile fire at once, in order, late."""
    process = SimProcess(scheduler, "a", 1, started_at=100.0)
    fired = timers(process, scheduler, 1.0, 2.0, 6.0)
    scheduler.after(0.5, process.stop)
    scheduler.after(5.0, lambda: process.resume(unnoticed=False))
    scheduler.run_until(10.0)
    assert fired == [(5.0, 105.0), (5.0, 105.0), (6.0, 106.0)]
    assert process.clock.now() == 110.0


def test_a_stop_that_is_not_noticed_leaves_every_timer_the_time_it_had(
    scheduler: Scheduler,
) -> None:
    """As a suspended machine: by its own clock nothing has happened at all."""
    process = SimProcess(scheduler, "a", 1, started_at=100.0)
    fired = timers(process, scheduler, 1.0, 2.0, 6.0)
    scheduler.after(0.5, process.stop)
    scheduler.after(5.0, lambda: process.resume(unnoticed=True))
    scheduler.run_until(20.0)
    assert fired == [(5.5, 101.0), (6.5, 102.0), (10.5, 106.0)]
    assert process.clock.now() == 115.5


def test_several_stops_add_up_for_timers_set_before_them(scheduler: Scheduler) -> None:
    process = SimProcess(scheduler, "a", 1)
    fired = timers(process, scheduler, 4.0)
    for at, unnoticed in ((1.0, True), (3.0, True), (5.0, False)):
        scheduler.after(at, process.stop)
        scheduler.after(at + 1.0, lambda unnoticed=unnoticed: process.resume(unnoticed))
    scheduler.run_until(20.0)
    assert fired == [(6.0, 4.0)]
    assert process.stops == 3


def test_what_comes_from_outside_does_not_wait_for_a_clock_that_stood_still(
    scheduler: Scheduler,
) -> None:
    """A message is there as soon as the process goes on; only its own timers lose no time."""
    process = SimProcess(scheduler, "a", 1)
    seen: list[float] = []
    process.stop()
    scheduler.after(1.0, lambda: seen.append(scheduler.now), process)
    scheduler.after(5.0, lambda: process.resume(unnoticed=True))
    scheduler.run_until(9.0)
    assert seen == [5.0]


def test_a_second_stop_and_a_second_resume_do_nothing(scheduler: Scheduler) -> None:
    process = SimProcess(scheduler, "a", 1)
    process.stop()
    scheduler.run_until(1.0)
    process.stop()
    scheduler.run_until(3.0)
    process.resume(unnoticed=True)
    process.resume(unnoticed=True)
    assert process.clock.now() == 0.0
    assert (process.stops, process.lag) == (1, 3.0)


@pytest.mark.parametrize("rate", [0.5, 1.0, 1.25])
def test_a_skewed_clock_runs_at_its_rate_and_so_do_its_timers(
    scheduler: Scheduler, rate: float
) -> None:
    process = SimProcess(scheduler, "a", 1, rate, started_at=7.0)
    fired = timers(process, scheduler, 10.0)
    scheduler.run_until(40.0)
    assert fired == [(10.0 / rate, 17.0)]
    assert process.clock.now() == 7.0 + 40.0 * rate
    assert process.clock.wall() == 1_000_000_000.0 + process.clock.now()


def test_a_change_of_rate_does_not_make_the_clock_jump(scheduler: Scheduler) -> None:
    process = SimProcess(scheduler, "a", 1)
    scheduler.run_until(10.0)
    process.clock.run_at(0.5)
    assert process.clock.now() == 10.0
    scheduler.run_until(20.0)
    assert process.clock.now() == 15.0


def test_a_clock_whose_rate_changes_while_it_stands_still_does_not_go_back(
    scheduler: Scheduler,
) -> None:
    """A monotonic clock never shows less than it has shown, whatever is done to it at once."""
    process = SimProcess(scheduler, "a", 1, started_at=50.0)
    fired = timers(process, scheduler, 1.0)
    process.stop()
    scheduler.run_until(5.0)
    process.clock.run_at(1.25)
    scheduler.run_until(10.0)
    process.resume(unnoticed=True)
    assert process.clock.now() == 50.0
    scheduler.run_until(14.0)
    assert process.clock.now() == 55.0
    assert [at for at, _ in fired] == [11.0]


def test_a_name_has_one_address_in_every_life(scheduler: Scheduler) -> None:
    lives = [SimProcess(scheduler, "storage-1", life) for life in (1, 2)]
    assert {life.address for life in lives} == {address_of("storage-1")}
    assert name_of(lives[0].address) == "storage-1"


def test_it_says_what_it_is(scheduler: Scheduler) -> None:
    process = SimProcess(scheduler, "storage-1", 2)
    assert repr(process) == "SimProcess(storage-1, life 2, alive)"
    process.stop()
    assert repr(process) == "SimProcess(storage-1, life 2, stopped)"
    process.kill()
    assert repr(process) == "SimProcess(storage-1, life 2, dead)"
