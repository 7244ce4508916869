"""The heap of the event loops, against one of Python's."""

from __future__ import annotations

import heapq

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.exact.heap import drop_first, push

TIMES = st.one_of(st.none(), st.integers(0, 20), st.floats(0, 1e6))


# The first example waits for the compiler.
@settings(deadline=None)
@given(st.lists(TIMES, max_size=80))
def test_the_earliest_is_always_first(steps: list[float | None]) -> None:
    """A time is pushed; None takes the earliest away."""
    times, about = np.empty(80), np.empty(80, np.int64)
    expected: list[float] = []
    said: dict[int, float] = {}
    for number, time in enumerate(steps):
        if time is not None:
            push(times, about, len(expected), float(time), number)
            heapq.heappush(expected, float(time))
            said[number] = float(time)
        elif expected:
            assert times[0] == heapq.heappop(expected)
            # What it is about is still with its time, and comes once.
            assert said.pop(int(about[0])) == times[0]
            drop_first(times, about, len(expected) + 1)
