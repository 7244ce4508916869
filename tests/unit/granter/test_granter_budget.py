"""What a table may use, over however many routers."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from granter.budget import Budget
from granter.config import GranterConfig
from granter.growth import Growth
from keyplane.model.bucket import Bucket

VALID_S = GranterConfig().valid_s


def budget(rate: float = 100.0, level: float = 100.0, routers_max: int = 10) -> Budget:
    bucket = Bucket(rate, rate * 300, 0.0)
    bucket.level = level
    return Budget(bucket, GranterConfig(routers_max=routers_max))


def refill(of: Budget, router: str, now: float, used: float = 0.0, wanted: float = 50.0) -> float:
    return of.refill(router, used, wanted, now)


def test_while_there_is_enough_each_gets_what_it_wants_with_headroom() -> None:
    of = budget(level=10_000)
    assert refill(of, "a", 0.0, wanted=400) == 800
    assert refill(of, "b", 0.0, wanted=300) == 600
    assert (of.granted, of.routers) == (1400, 2)


def test_one_that_has_only_begun_gets_its_part_of_all_that_comes_in() -> None:
    of = budget(level=10_000)
    assert refill(of, "a", 0.0, wanted=1) == 100
    assert refill(of, "b", 0.0, wanted=1) == 50


def test_when_short_each_gets_its_part_by_what_is_wanted() -> None:
    """Two routers that use up what they are granted, and ask again ten times a second."""
    of = budget(rate=100, level=0)
    held = {"a": 0.0, "b": 0.0}
    total = {"a": 0.0, "b": 0.0}
    for step in range(1, 1001):
        for router, wanted in (("a", 300.0), ("b", 100.0)):
            total[router] += held[router]
            held[router] = refill(of, router, step * 0.1, used=held[router], wanted=wanted)
    assert sum(total.values()) == pytest.approx(100 * 100, rel=0.01)
    # Roughly: what the other one has used since it asked is not known yet.
    assert 2 < total["a"] / total["b"] < 7


def test_what_is_not_used_comes_back() -> None:
    of = budget(level=1_000)
    refill(of, "a", 0.0, wanted=500)
    assert refill(of, "b", 0.0, wanted=500) == 0.0
    refill(of, "a", 0.1, used=10, wanted=0)
    assert of.routers == 1
    assert refill(of, "b", 0.1, wanted=500) == pytest.approx(1_000)


def test_what_was_used_too_much_is_paid_back_before_anything_is_granted() -> None:
    of = budget(rate=100, level=100)
    assert refill(of, "a", 0.0, used=300) == 0.0
    assert refill(of, "a", 1.9) == 0.0
    assert refill(of, "a", 2.5) == pytest.approx(50)


def test_a_router_that_says_no_more_is_taken_to_have_used_its_grant() -> None:
    of = budget(rate=100, level=1_000)
    assert refill(of, "a", 0.0, wanted=400) == 800
    of.settle(VALID_S)
    assert (of.routers, of.granted) == (0, 0.0)
    assert of.bucket.level == pytest.approx(1_000 + 300 - 800)


def test_more_routers_than_may_hold_grants_get_none() -> None:
    of = budget(level=1_000, routers_max=2)
    assert refill(of, "a", 0.0) > 0
    assert refill(of, "b", 0.0) > 0
    assert refill(of, "c", 0.0) == 0.0
    assert refill(of, "a", 0.1) > 0


def test_a_new_rate_keeps_what_is_saved_up_as_far_as_it_fits() -> None:
    of = budget(rate=100, level=20_000)
    of.change_rate(10, 3_000, 1.0)
    assert (of.bucket.rate, of.bucket.level) == (10, 3_000)
    of.change_rate(1000, 300_000, 2.0)
    assert of.bucket.level == pytest.approx(3_000)


def test_an_on_demand_table_keeps_something_for_the_router_that_asks_next() -> None:
    """It saves up a second's worth and no more, all of which the first might want."""
    config = GranterConfig()
    of = Budget(Bucket(4_000, 4_000, 0.0), config, Growth(config, 4_000, 40_000))
    assert refill(of, "a", 0.0, wanted=1) == 2_000
    assert refill(of, "b", 0.0, wanted=1) == 1_000
    assert refill(of, "c", 0.0, wanted=10_000) == 500


def test_a_grant_that_ended_long_ago_has_come_back_since() -> None:
    of = budget(rate=100, level=30_000)
    refill(of, "a", 0.0, wanted=400)
    of.settle(VALID_S + 8.0)
    assert of.bucket.level == 30_000


def test_it_is_unused_once_all_is_saved_up_and_nobody_holds_anything() -> None:
    of = budget(rate=10, level=100)
    assert not of.is_unused()
    of.settle(400.0)
    assert of.is_unused()
    refill(of, "a", 400.0, wanted=1)
    assert not of.is_unused()


@given(
    seed=st.integers(0, 2**32),
    routers=st.integers(1, 5),
    level=st.floats(0, 1_000),
)
def test_however_they_ask_they_never_use_more_than_there_is(
    seed: int, routers: int, level: float
) -> None:
    """Routers that use no more than they hold, ask when they like, and die as they like."""
    rng = random.Random(seed)
    of = budget(rate=100, level=level)
    held = dict.fromkeys((f"r{number}" for number in range(routers)), (0.0, 0.0))
    now = used = 0.0
    for step in range(200):
        now += rng.random() * 0.4
        router = rng.choice(list(held))
        amount, until = held[router]
        spent = amount * rng.choice([0, 0.3, 1]) if now < until else 0.0
        used += spent
        if rng.random() < 0.1:
            # Another life; this one told nobody what it has used.
            held[router] = (0.0, 0.0)
            held[f"{router}-{step}"] = (0.0, 0.0)
            del held[router]
            continue
        wanted = rng.choice([0.0, 10.0, 1_000.0])
        held[router] = (refill(of, router, now, spent, wanted), now + VALID_S)
    assert used <= level + 100 * now + 1e-6


@given(
    seed=st.integers(0, 2**32),
    routers=st.integers(1, 5),
    warm=st.floats(1, 500),
    ceiling=st.floats(1, 2_000),
)
def test_routers_of_an_on_demand_table_never_use_more_than_its_rate_gives(
    seed: int, routers: int, warm: float, ceiling: float
) -> None:
    """Routers as above: in all a second's worth, and then what came in, whatever it grew to."""
    rng = random.Random(seed)
    config = GranterConfig(doubling_s=10)
    growth = Growth(config, warm, ceiling)
    rate = growth.limit(0.0)
    of = Budget(Bucket(rate, rate * config.on_demand_depth_s, 0.0), config, growth)
    held = dict.fromkeys((f"r{number}" for number in range(routers)), (0.0, 0.0))
    allowed, filled_at, now, used = rate * config.on_demand_depth_s, 0.0, 0.0, 0.0
    for step in range(300):
        now += rng.random() * 0.4
        router = rng.choice(list(held))
        amount, until = held[router]
        spent = amount * rng.choice([0, 0.3, 1]) if now < until else 0.0
        used += spent
        if rng.random() < 0.05:
            held[f"{router}-{step}"] = (0.0, 0.0)
            del held[router]
            continue
        before = of.bucket.level
        of.grow(router, spent, 0.0, now)
        came_in = (now - filled_at) * rate
        allowed += came_in
        filled_at = now
        assert used <= allowed + 1e-6
        # To grow is no gift of units.
        assert of.bucket.level <= before + came_in + 1e-6
        # It never falls.
        assert rate <= of.bucket.rate <= ceiling
        rate = of.bucket.rate
        wanted = rng.choice([0.0, 10.0, 1_000.0])
        held[router] = (refill(of, router, now, spent, wanted), now + config.valid_s)
        # What they hold is there: who uses no more than that never makes a debt.
        assert of.bucket.level >= of.granted - 1e-6
