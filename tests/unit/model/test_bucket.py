"""The token bucket that limits are made of."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyplane.model.bucket import Bucket


def test_it_starts_full_and_fills_at_its_rate_up_to_its_depth() -> None:
    bucket = Bucket(rate=10, depth=20, now=100.0)
    assert bucket.admits(100.0)
    bucket.take(20)
    assert not bucket.admits(100.0)
    assert bucket.admits(100.1)
    assert bucket.level == pytest.approx(1)
    assert bucket.admits(1000.0)
    assert bucket.level == 20


def test_what_was_taken_too_much_is_paid_back_first() -> None:
    bucket = Bucket(rate=10, depth=20, now=0.0)
    bucket.take(50)
    assert bucket.wait_s() == pytest.approx(3.1)
    assert not bucket.admits(2.9)
    assert bucket.admits(3.1)
    assert bucket.wait_s() == 0.0


def test_a_clock_that_stands_still_or_goes_back_gives_nothing() -> None:
    bucket = Bucket(rate=10, depth=20, now=50.0)
    bucket.take(30)
    assert not bucket.admits(50.0)
    assert not bucket.admits(10.0)
    assert bucket.level == -10
    assert bucket.admits(51.5)


def test_a_shallow_bucket_waits_until_it_is_full_and_not_longer() -> None:
    bucket = Bucket(rate=1, depth=0.5, now=0.0)
    bucket.take(0.5)
    assert bucket.wait_s() == 0.5


@given(
    level=st.floats(-100, 20),
    share=st.floats(0, 1),
    now=st.floats(0, 1e6),
)
def test_heirs_together_never_hold_more(level: float, share: float, now: float) -> None:
    parent = Bucket(rate=10, depth=20, now=now)
    parent.take(20 - level)
    heirs = [Bucket(rate=10, depth=20, now=now) for _ in range(2)]
    for heir, part in zip(heirs, (share, 1 - share), strict=True):
        heir.drain()
        heir.inherit(parent, part)
    assert sum(heir.level for heir in heirs) == pytest.approx(level)
    whole = Bucket(rate=10, depth=20, now=now)
    whole.drain()
    for heir in heirs:
        whole.inherit(heir, 1.0)
    assert whole.level == pytest.approx(level)


@given(steps=st.lists(st.tuples(st.floats(0, 3), st.floats(0, 15)), max_size=50))
def test_nobody_gets_more_than_rate_and_depth_allow(steps: list[tuple[float, float]]) -> None:
    """Over any time: the depth, what came in since, and one request that took too much."""
    bucket = Bucket(rate=10, depth=20, now=0.0)
    now = taken = most = 0.0
    for elapsed_s, units in steps:
        now += elapsed_s
        if bucket.admits(now):
            bucket.take(units)
            taken += units
            most = max(most, units)
        assert taken <= 20 + 10 * now + most + 1e-6
