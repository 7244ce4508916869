"""Second requests, simulated and in closed form. Seeds are fixed: nothing here is by chance."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.closed.hedging import delay_at, hedging_of
from fleet.closed.queues import percentile
from fleet.exact.hedging import HedgedRun, run_hedged
from fleet.exact.station import Station, response_times
from fleet.nodes import Nodes
from keyplane.model.errors import KeyplaneError

REQUESTS = 200_000
TEN = Nodes(10, 4, 24.0, 0.5, slow=1, slow_by=100.0, round_trip=0.2)


def run(nodes: Nodes, delay: float, budget: float = math.inf, seed: int = 1) -> HedgedRun:
    return run_hedged(nodes, delay, REQUESTS, seed, REQUESTS // 10, budget)


@pytest.mark.parametrize("slow", [0, 1, 3])
@pytest.mark.parametrize("delay", [math.inf, 1.7, 0.0])
def test_simulation_and_closed_form_agree_in_light_load(slow: int, delay: float) -> None:
    nodes = replace(TEN, slow=slow)
    closed, exact = hedging_of(nodes, delay), run(nodes, delay)
    assert closed is not None
    assert exact.extra == pytest.approx(closed.extra, abs=0.005)
    assert exact.load == pytest.approx(nodes.load * (1 + closed.extra), rel=0.02)
    for part in (0.5, 0.9, 0.99):
        expected = percentile(closed.survival, part)
        assert np.quantile(exact.times, part) == pytest.approx(expected, rel=0.05)


def test_a_slow_node_is_hidden_at_the_price_of_its_share_of_requests() -> None:
    delay = delay_at(TEN, 0.95, 50.0)
    without, hedged = run(TEN, math.inf), run(TEN, delay)
    assert np.quantile(without.times, 0.99) > 100
    assert np.quantile(hedged.times, 0.99) < 5
    # The tenth that asks the slow node first, and one in twenty of the others.
    assert hedged.extra == pytest.approx(0.1 + 0.9 * 0.05, abs=0.005)


def test_second_requests_keep_themselves_up_unless_they_have_a_budget() -> None:
    """From 60 % on, a busy moment makes more second requests, and those the next busy moment."""
    nodes = replace(TEN, arrival_rate=0.7 * 80)
    delay = delay_at(nodes, 0.95, 50.0)
    free, bounded = run(nodes, delay), run(nodes, delay, budget=0.2)
    assert free.load > 1 and free.extra > 0.5
    assert bounded.load < 0.9
    assert np.quantile(bounded.times, 0.99) < np.quantile(run(nodes, math.inf).times, 0.99)


def test_two_at_once_pay_below_a_third_of_the_load() -> None:
    """One server each: A. Vulimiri and others, "Low latency via redundancy" (2013). The mean of the
    earlier of two M/M/1 answers at twice the load, 1 / (2 (1 - 2 load)), is 1 / (1 - load) there.
    """

    def gain(load: float) -> float:
        nodes = Nodes(60, 1, load * 60, 1.0)
        return float(run(nodes, 0.0).times.mean() / run(nodes, math.inf).times.mean())

    assert gain(0.28) < 0.95
    assert gain(1 / 3) == pytest.approx(1, abs=0.03)
    assert gain(0.38) > 1.05


def test_the_delay_follows_the_load() -> None:
    delays = [delay_at(replace(TEN, arrival_rate=load * 80), 0.95, 50.0) for load in (0.1, 0.6)]
    assert delays[0] < delays[1] < 50
    assert delay_at(replace(TEN, arrival_rate=79.0), 0.95, 50.0) == 50


def test_all_that_are_late_ask_twice_up_to_the_last() -> None:
    """Also when the delay is a good part of the time simulated; with a budget, its share do."""
    far = replace(TEN, round_trip=1_000.0)
    for budget, extra in ((math.inf, 1.0), (0.3, 0.3)):
        found = run_hedged(far, 50.0, 10_000, 1, 3_000, budget)
        assert found.extra == pytest.approx(extra, abs=0.01)
        assert (found.times > 1_000).all()


def test_without_second_requests_each_node_is_a_station() -> None:
    """Two nodes that share the requests at random are as slow as one station with half of them."""
    two = run(Nodes(2, 3, 4.0, 1.0), math.inf)
    station = response_times(Station(3, 2.0, 1.0), REQUESTS, 2, REQUESTS // 10)
    assert two.extra == 0
    assert two.times.mean() == pytest.approx(station.mean(), rel=0.02)


def test_what_grows_for_ever_has_no_closed_form() -> None:
    assert hedging_of(replace(TEN, arrival_rate=0.6 * 80), 0.0) is None
    assert hedging_of(replace(TEN, arrival_rate=80.0), math.inf) is None


# The first example compiles.
@settings(deadline=None)
@given(
    st.integers(2, 6),
    st.floats(0.1, 1.2),
    st.floats(0.0, 3.0),
    st.floats(0.0, 0.5),
    st.integers(0, 2**64 - 1),
)
def test_a_budget_is_kept(count: int, load: float, delay: float, budget: float, seed: int) -> None:
    nodes = Nodes(count, 2, load * 2 * count, 1.0, slow=1, slow_by=5.0)
    found = run_hedged(nodes, delay, 1_000, seed, budget=budget)
    # Requests that come after those that count bring tokens, too: twice the delay of them.
    tokens = budget * (1_000 + 2 * delay * nodes.arrival_rate + 11)
    assert found.extra * 1_000 <= tokens
    assert (found.times > 0).all()


def test_same_seed_same_run() -> None:
    one, again, other = (run_hedged(TEN, 1.7, 1_000, seed) for seed in (3, 3, 4))
    assert np.array_equal(one.times, again.times) and one.extra == again.extra
    assert not np.array_equal(one.times, other.times)


def test_refusals() -> None:
    for make in (
        lambda: Nodes(1, 1, 1.0, 1.0),
        lambda: Nodes(3, 1, 1.0, 1.0, slow=4),
        lambda: Nodes(3, 1, 1.0, 1.0, slow_by=-1.0),
        lambda: run_hedged(TEN, -1.0, 100, 1),
        lambda: run_hedged(TEN, 1.0, 1, 1),
        lambda: run_hedged(TEN, 1.0, 100, 1, budget=math.nan),
    ):
        with pytest.raises(KeyplaneError):
            make()
