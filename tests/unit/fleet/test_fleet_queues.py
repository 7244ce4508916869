"""Closed forms of waiting lines: known values, and what must hold for all."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.closed.queues import (
    Queue,
    erlang_b,
    erlang_c,
    hedged,
    later,
    mean_wait_deterministic,
    mixture,
    percentile,
)
from keyplane.model.errors import KeyplaneError

servers = st.integers(1, 200)
loads = st.floats(0.01, 0.99)
parts = st.floats(0.0, 0.9999)


def queue_of(count: int, load: float, service_time: float = 1.0) -> Queue:
    return Queue(count, load * count / service_time, service_time)


def test_erlang_b_and_c_against_their_sums() -> None:
    """Over few servers the sums of the definition can be added up."""
    for count in range(1, 20):
        for offered in (0.3, 0.9 * count, 2.0 * count):
            terms = [offered**busy / math.factorial(busy) for busy in range(count + 1)]
            assert erlang_b(count, offered) == pytest.approx(terms[-1] / sum(terms), rel=1e-12)
            if offered < count:
                queued = terms[-1] / (1 - offered / count)
                expected = queued / (sum(terms[:-1]) + queued)
                assert erlang_c(count, offered) == pytest.approx(expected, rel=1e-12)


def test_known_values() -> None:
    assert erlang_b(2, 1.0) == pytest.approx(1 / 5)
    assert erlang_c(2, 1.0) == pytest.approx(1 / 3)
    # One server: all arrivals wait that find it busy, and the response time is exponential.
    one = Queue(1, 0.8, 1.0)
    assert one.waits == pytest.approx(0.8)
    assert one.mean_response == pytest.approx(5.0)
    assert one.response_percentile(0.99) == pytest.approx(5 * math.log(100))
    assert mean_wait_deterministic(0.8, 1.0) == pytest.approx(2.0)


def test_many_servers_do_not_overflow() -> None:
    assert 0 < erlang_c(100_000, 99_900.0) < 1
    assert erlang_b(5, 0.0) == erlang_c(5, 0.0) == 0
    assert erlang_c(5, 5.0) == 1
    assert Queue(500, 1.0, 1.0).wait_percentile(0.5) == 0


@settings(deadline=None)
@given(servers, loads, loads)
def test_the_probability_to_wait_grows_with_the_load(count: int, one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert 0 <= erlang_c(count, low * count) <= erlang_c(count, high * count) * (1 + 1e-9) <= 1.01
    assert erlang_b(count, low * count) <= erlang_c(count, low * count) * (1 + 1e-9)


@settings(deadline=None)
@given(servers, loads, parts, st.floats(1e-6, 1e3))
def test_percentiles_lie_where_the_survival_says(
    count: int, load: float, part: float, service_time: float
) -> None:
    queue = queue_of(count, load, service_time)
    at = queue.response_percentile(part)
    assert queue.response_survival()(at) == pytest.approx(1 - part, rel=1e-6)
    wait = queue.wait_percentile(part)
    if wait > 0:
        assert queue.wait_survival()(wait) == pytest.approx(1 - part, rel=1e-6)
    else:
        assert queue.waits <= (1 - part) * (1 + 1e-9)
    assert wait <= at


@settings(deadline=None)
@given(servers, loads)
def test_means_are_the_areas_under_the_survival(count: int, load: float) -> None:
    queue = queue_of(count, load)
    survival = queue.response_survival()
    end, steps = queue.response_percentile(1 - 1e-9), 2_000
    area = sum(survival((index + 0.5) * end / steps) for index in range(steps)) * end / steps
    assert area == pytest.approx(queue.mean_response, rel=1e-3)


def test_nothing_breaks_where_both_rates_are_the_same() -> None:
    """Two servers at half load drain as fast as one serves: the formula's divisor is zero."""
    exact = queue_of(2, 0.5).response_survival()(3.0)
    near = queue_of(2, 0.5 + 1e-9).response_survival()(3.0)
    assert exact == pytest.approx(math.exp(-3) * (1 + 3 * erlang_c(2, 1.0)))
    assert near == pytest.approx(exact, rel=1e-6)


@settings(deadline=None)
@given(st.floats(0.1, 10), st.floats(0.1, 10), st.floats(0, 10), parts)
def test_a_hedge_never_makes_an_answer_later(
    first: float, second: float, delay: float, part: float
) -> None:
    def exponential(mean: float, time: float) -> float:
        return math.exp(-max(time, 0) / mean)

    both = hedged(lambda t: exponential(first, t), lambda t: exponential(second, t), delay)
    at = percentile(both, part)
    assert at <= percentile(lambda t: exponential(first, t), part) * (1 + 1e-9)
    assert both(at) == pytest.approx(1 - part, rel=1e-6)


def test_hedged_exponentials() -> None:
    """Without delay, the minimum of two exponential times is exponential with half the mean."""
    both = hedged(lambda t: math.exp(-t), lambda t: math.exp(-t), 0.0)
    assert percentile(both, 0.99) == pytest.approx(math.log(100) / 2)


def test_mixture_and_shift() -> None:
    def survival(time: float) -> float:
        return math.exp(-time) if time >= 0 else 1.0

    mixed = mixture([(0.9, survival), (0.1, later(survival, 100.0))])
    assert mixed(50.0) == pytest.approx(0.1)
    # A tenth is late for certain: the 95th percentile is the median of these.
    assert percentile(mixed, 0.95) == pytest.approx(100 + math.log(2), rel=1e-9)


def test_refusals() -> None:
    for make in (
        lambda: Queue(2, 2.0, 1.0),
        lambda: Queue(0, 1.0, 1.0),
        lambda: Queue(1, math.nan, 1.0),
        lambda: erlang_b(0, 1.0),
        lambda: erlang_c(1, -1.0),
        lambda: mean_wait_deterministic(2.0, 1.0),
        lambda: Queue(1, 0.5, 1.0).response_percentile(1.0),
        lambda: Queue(1, 0.5, 1.0).wait_percentile(-0.1),
        lambda: percentile(lambda _: 0.5, 0.9),
    ):
        with pytest.raises(KeyplaneError):
            make()
