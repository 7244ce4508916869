"""Virtual time: events in order, of processes that may be dead or stopped."""

from __future__ import annotations

import pytest

from sim.process import SimProcess
from sim.scheduler import Event, Scheduler
from wire.memory_process import ProcessKilledError


@pytest.fixture
def scheduler() -> Scheduler:
    return Scheduler()


def test_events_at_one_time_run_in_the_order_in_which_they_were_asked_for(
    scheduler: Scheduler,
) -> None:
    """Whoever owns them, and also those that are asked for while that time is now."""
    seen: list[str] = []
    process = SimProcess(scheduler, "storage-1", 1)
    scheduler.after(1.0, lambda: seen.append("world"))
    scheduler.after(1.0, lambda: process.clock.call_soon(lambda: seen.append("soon")), process)
    process.clock.call_later(1.0, lambda: seen.append("timer"))
    scheduler.after(0.5, lambda: seen.append("earlier"))
    scheduler.run_until(1.0)
    assert seen == ["earlier", "world", "timer", "soon"]


def test_a_delay_below_zero_is_now_and_time_never_goes_back(scheduler: Scheduler) -> None:
    times: list[float] = []
    scheduler.run_until(3.0)
    scheduler.after(-1.0, lambda: times.append(scheduler.now))
    scheduler.run_until(2.0)
    assert times == []
    assert scheduler.now == 3.0
    scheduler.run_until(3.0)
    assert times == [3.0]


def test_a_cancelled_event_never_runs_not_even_one_that_is_due_already(
    scheduler: Scheduler,
) -> None:
    seen: list[str] = []
    second = scheduler.after(1.0, lambda: seen.append("second"))
    scheduler.after(1.0, lambda: seen.append("third"))
    first = scheduler.after(0.5, second.cancel)
    scheduler.run_until(2.0)
    first.cancel()
    assert seen == ["third"]
    assert scheduler.steps == 2


def test_nothing_of_a_dead_process_happens_any_more(scheduler: Scheduler) -> None:
    seen: list[str] = []
    process, other = SimProcess(scheduler, "a", 1), SimProcess(scheduler, "b", 1)
    process.clock.call_later(1.0, lambda: seen.append("a"))
    other.clock.call_later(1.0, lambda: seen.append("b"))
    scheduler.after(0.5, process.kill)
    scheduler.run_until(2.0)
    assert seen == ["b"]


def test_events_of_a_stopped_process_wait_for_it_and_keep_their_order(
    scheduler: Scheduler,
) -> None:
    """They run when it goes on, before anything that is asked for later, and others pass them."""
    seen: list[tuple[str, float]] = []
    process = SimProcess(scheduler, "a", 1)

    def note(name: str) -> None:
        seen.append((name, scheduler.now))

    process.stop()
    for name, at in (("first", 1.0), ("second", 1.0), ("third", 2.0)):
        scheduler.after(at, lambda name=name: note(name), process)
    scheduler.after(2.5, lambda: note("world"))
    cancelled = scheduler.after(1.5, lambda: note("cancelled"), process)
    scheduler.run_until(3.0)
    assert seen == [("world", 2.5)]
    cancelled.cancel()
    process.resume(unnoticed=False)
    scheduler.after(0.0, lambda: note("later"), process)
    scheduler.run_until(3.0)
    assert seen[1:] == [("first", 3.0), ("second", 3.0), ("third", 3.0), ("later", 3.0)]


def test_a_process_killed_while_it_is_stopped_does_nothing_when_it_is_resumed(
    scheduler: Scheduler,
) -> None:
    seen: list[str] = []
    process = SimProcess(scheduler, "a", 1)
    process.stop()
    scheduler.after(1.0, lambda: seen.append("parked"), process)
    scheduler.run_until(2.0)
    process.kill()
    process.resume(unnoticed=True)
    scheduler.run_until(9.0)
    assert seen == []


class Keeper:
    """An owner that is stopped, and keeps what comes meanwhile."""

    alive = True
    stopped = True
    lag = 0.0

    def __init__(self) -> None:
        self.kept: list[Event] = []

    def park(self, event: Event) -> None:
        self.kept.append(event)


def test_an_event_put_off_is_as_if_asked_for_now(scheduler: Scheduler) -> None:
    """It comes after those that are due at its new time already, and can still be cancelled."""
    seen: list[str] = []
    keeper = Keeper()
    for name in ("one", "two"):
        scheduler.after(1.0, lambda name=name: seen.append(name), keeper)
    scheduler.after(2.0, lambda: seen.append("world"))
    scheduler.run_until(1.5)
    keeper.stopped = False
    one, two = keeper.kept
    scheduler.put_off(one, 0.5, None)
    scheduler.put_off(two, 0.5, None)
    two.cancel()
    scheduler.run_until(3.0)
    assert seen == ["world", "one"]


def test_run_while_ends_with_the_event_that_makes_it_so(scheduler: Scheduler) -> None:
    """True if the condition ended it, and time then stands at that event."""
    seen: list[int] = []
    for number in range(1, 6):
        scheduler.after(float(number), lambda number=number: seen.append(number))
    assert scheduler.run_while(lambda: len(seen) < 3, end=10.0)
    assert (seen, scheduler.now) == ([1, 2, 3], 3.0)


def test_run_while_ends_at_the_end_when_there_is_nothing_left(scheduler: Scheduler) -> None:
    scheduler.after(20.0, lambda: None)
    assert not scheduler.run_while(lambda: True, end=10.0)
    assert scheduler.now == 10.0
    assert not scheduler.run_while(lambda: True, end=30.0)
    assert scheduler.now == 30.0


def test_run_while_runs_nothing_when_it_is_so_already(scheduler: Scheduler) -> None:
    scheduler.after(0.0, lambda: pytest.fail("nothing was to run"))
    assert scheduler.run_while(lambda: False, end=10.0)
    assert scheduler.now == 0.0


def test_a_crash_in_the_middle_of_a_step_unwinds_that_process_alone(
    scheduler: Scheduler,
) -> None:
    """What it had begun is lost with it; whoever else has something due at that time does it."""
    seen: list[str] = []
    process, other = SimProcess(scheduler, "a", 1), SimProcess(scheduler, "b", 1)

    def step() -> None:
        assert scheduler.running is process
        process.clock.call_soon(lambda: seen.append("begun"))
        seen.append("before")
        process.die()

    process.clock.call_later(1.0, step)
    process.clock.call_later(1.0, lambda: seen.append("next"))
    other.clock.call_later(1.0, lambda: seen.append("other"))
    scheduler.run_until(2.0)
    assert seen == ["before", "other"]
    assert not process.alive
    assert other.alive
    assert scheduler.running is None


def test_any_other_exception_ends_the_run_and_leaves_who_ran(scheduler: Scheduler) -> None:
    """What nobody expects is a finding, and it is told whose."""
    process = SimProcess(scheduler, "a", 1)

    def step() -> None:
        raise RuntimeError("a bug")

    process.clock.call_soon(step)
    with pytest.raises(RuntimeError, match="a bug"):
        scheduler.run_until(1.0)
    assert scheduler.running is process


def test_the_end_of_a_process_is_no_ordinary_error() -> None:
    """Code of the product that handles KeyplaneError does not handle its own death."""
    process = SimProcess(Scheduler(), "a", 1)
    with pytest.raises(ProcessKilledError):
        process.die()
