"""Retry storms: what tips, what does not, and what the formula says."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from quiet import quiet

from fleet.exact.retries import RetryStation, Trigger, run_retries
from fleet.parameters import make_parameters
from fleet.scenario import load
from keyplane.model.errors import KeyplaneError

STATION = RetryStation(
    load=0.5,
    servers=4,
    service_s=0.02,
    queue_max=600,
    timeout_s=1.0,
    retries=2,
    backoff_s=0.1,
    backoff_max_s=1.0,
)
STOP = Trigger(5.0, 10.0)


def test_checks_hold_and_the_same_seed_gives_the_same() -> None:
    scenario = load("retry-storm")
    asked = make_parameters(scenario.parameters, None, {})
    first, again, other = (scenario.run(asked, quiet(seed)) for seed in (1, 1, 20))
    assert [check for check in (*first.checks, *other.checks) if not check.holds] == []
    assert first.figures == again.figures
    assert first.tables == again.tables
    assert first.figures != other.figures
    assert first.requests_simulated == again.requests_simulated > 1_000_000
    assert first.requests_represented == 0


def test_out_of_bounds_is_refused() -> None:
    kind = load("retry-storm").parameters
    for name, value in (("load", 0.0), ("retries", 6), ("retries", 1.5), ("timeout_ms", -1)):
        with pytest.raises(KeyplaneError, match=name.replace("_", "-")):
            make_parameters(kind, None, {name: value})


@pytest.mark.parametrize(
    ("station", "back"),
    [
        (STATION, False),
        (replace(STATION, load=0.28), True),
        (replace(STATION, budget=0.1, budget_burst=10.0), True),
        (replace(STATION, shed_s=0.1), True),
        (replace(STATION, queue_max=100), True),
        (replace(STATION, retries=0, load=0.9), True),
    ],
)
def test_it_comes_back_where_the_formula_says(station: RetryStation, back: bool) -> None:
    """All at most loads of capacity, and well before the stop."""
    run = run_retries(station, 100, 7, STOP)
    assert run.success(0, 2) > 0.99
    assert (run.success(80, 90) > 0.99) == back
    assert back == (station.load < station.tipping_load())
    if not back:
        assert run.success(80, 90) == 0.0
        assert run.attempts[80:90].sum() / run.arrived[80:90].sum() == pytest.approx(3, rel=0.05)


def test_a_surge_can_tip_it_as_well() -> None:
    surge = Trigger(5.0, 10.0, capacity=1.0, surge=4.0)
    assert run_retries(STATION, 80, 3, surge).success(60, 70) == 0.0
    assert run_retries(replace(STATION, shed_s=0.1), 80, 3, surge).success(60, 70) > 0.99


@settings(max_examples=40, deadline=None)
@given(
    st.builds(
        RetryStation,
        load=st.floats(0.05, 3.0),
        servers=st.integers(1, 8),
        service_s=st.just(0.02),
        queue_max=st.integers(0, 400),
        timeout_s=st.floats(0.01, 2.0),
        retries=st.integers(0, 4),
        backoff_s=st.floats(0.0, 0.5),
        backoff_max_s=st.just(1.0),
        budget=st.sampled_from([0.0, 0.1, 1.0, float("inf")]),
        budget_burst=st.just(5.0),
        shed_s=st.sampled_from([None, 0.0, 0.05]),
    ),
    st.builds(
        Trigger,
        st.floats(0.0, 5.0),
        st.floats(0.0, 5.0),
        st.floats(0.0, 1.0),
        st.floats(1.0, 3.0),
    ),
    st.integers(0, 2**64 - 1),
)
def test_counts_add_up(station: RetryStation, trigger: Trigger, seed: int) -> None:
    """No original ends well twice, and none is tried more often than it may be."""
    run = run_retries(station, 12, seed, trigger)
    assert (run.succeeded <= run.arrived).all()
    assert run.answered.sum() <= run.succeeded.sum()
    assert run.attempts.sum() <= (1 + station.retries) * run.arrived.sum()
    assert run.answered.sum() + run.late.sum() <= run.attempts.sum()
    if station.budget == 0.0:
        assert run.attempts.sum() <= run.arrived.sum() + station.budget_burst
