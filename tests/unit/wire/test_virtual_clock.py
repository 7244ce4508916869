"""Virtual time: it moves only when run, and everything happens in one order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire.memory import VirtualClock


def test_time_stands_still_until_somebody_runs_it() -> None:
    clock = VirtualClock()
    ran: list[float] = []
    clock.call_later(3.0, lambda: ran.append(clock.now()))
    assert (clock.now(), ran) == (0.0, [])
    clock.run_for(3600.0)
    assert (clock.now(), ran) == (3600.0, [3.0])


def test_wall_time_runs_along_from_a_start_of_its_own() -> None:
    clock = VirtualClock(wall_start=500.0)
    clock.run_for(2.5)
    assert clock.wall() == 502.5


def test_call_soon_runs_after_what_is_due_now_and_before_anything_later() -> None:
    clock = VirtualClock()
    ran: list[str] = []

    def first() -> None:
        clock.call_later(0.001, lambda: ran.append("later"))
        clock.call_soon(lambda: ran.append("soon"))
        ran.append("first")

    clock.call_soon(first)
    clock.call_soon(lambda: ran.append("second"))
    clock.run_for(1.0)
    assert ran == ["first", "second", "soon", "later"]


def test_a_cancelled_timer_neither_runs_nor_drags_time_along() -> None:
    clock = VirtualClock()
    ran: list[str] = []
    clock.call_later(1.0, lambda: ran.append("cancelled")).cancel()
    clock.call_later(100.0, lambda: ran.append("far"))
    clock.run_for(10.0)
    assert (clock.now(), ran) == (10.0, [])
    with pytest.raises(TimeoutError, match="after 20"):
        clock.run_until(lambda: bool(ran), timeout_s=20.0)
    assert (clock.now(), ran) == (10.0, [])


def test_stepping_past_the_last_event_says_so_and_leaves_time_alone() -> None:
    clock = VirtualClock()
    clock.call_later(5.0, lambda: None).cancel()
    assert clock.step() is False
    assert clock.now() == 0.0


def test_run_until_stops_as_soon_as_it_is_done() -> None:
    clock = VirtualClock()
    ran: list[int] = []
    for second in range(10):
        clock.call_later(second, lambda second=second: ran.append(second))
    clock.run_until(lambda: len(ran) == 3)
    assert (ran, clock.now()) == ([0, 1, 2], 2.0)


def test_run_until_gives_up_when_nothing_more_happens() -> None:
    with pytest.raises(TimeoutError, match="nothing more happens"):
        VirtualClock().run_until(lambda: False)


def test_a_delay_in_the_past_is_now() -> None:
    clock = VirtualClock()
    clock.run_for(10.0)
    ran: list[float] = []
    clock.call_later(-5.0, lambda: ran.append(clock.now()))
    clock.run_for(0.0)
    assert ran == [10.0]


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=20))
def test_events_run_by_time_then_by_order_of_asking(plan: list[tuple[int, bool]]) -> None:
    clock = VirtualClock()
    ran: list[tuple[float, int]] = []
    for index, (delay, cancelled) in enumerate(plan):
        timer = clock.call_later(delay, lambda index=index: ran.append((clock.now(), index)))
        if cancelled:
            timer.cancel()
    clock.run_for(5.0)
    assert ran == sorted((float(d), i) for i, (d, cancelled) in enumerate(plan) if not cancelled)
