"""Bisection: the interval always holds the place, and ends where there is nothing between."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from fleet.bisection import bisect


@given(st.floats(0, 1e9, exclude_min=True), st.integers(0, 400))
def test_the_place_stays_inside(place: float, halvings: int) -> None:
    low, high = bisect(lambda x: x >= place, 0.0, 1e9, halvings)
    assert 0.0 <= low < place <= high <= 1e9
    # Each middle is rounded once.
    assert high - low <= 1e9 / 2.0**halvings + 2 * math.ulp(high)


def test_neighbours_are_as_near_as_it_gets() -> None:
    low, high = bisect(lambda x: x * x >= 2.0, 1.0, 2.0)
    assert math.nextafter(low, math.inf) == high
    assert low**2 < 2.0 <= high**2
