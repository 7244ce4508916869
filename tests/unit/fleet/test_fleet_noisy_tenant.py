"""A noisy tenant: who gets what, in one queue, behind caps, and in turns."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from quiet import quiet

from fleet.closed.queues import Queue
from fleet.exact.tenants import SharedFleet, run_tenants
from fleet.parameters import make_parameters
from fleet.scenario import load
from keyplane.model.errors import KeyplaneError

# The noisy tenant asks for all there is, the nine others for 45 % of it.
FLEET = SharedFleet(
    servers=2, service_s=0.01, tenants=10, noisy_per_s=200.0, quiet_per_s=10.0, queue_max=100
)


def test_checks_hold_and_the_same_seed_gives_the_same() -> None:
    scenario = load("noisy-tenant")
    asked = make_parameters(scenario.parameters, None, {})
    first, again, other = (scenario.run(asked, quiet(seed)) for seed in (1, 1, 20))
    assert [check for check in (*first.checks, *other.checks) if not check.holds] == []
    assert first.figures == again.figures
    assert first.tables == again.tables
    assert first.figures != other.figures


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        ({"noise": 0.0}, "--noise"),
        ({"tenants": 20.5}, "--tenants"),
        ({"cap": 0.5, "use": 0.7}, "--cap"),
        ({"cap": 10.0}, "98%"),
    ],
)
def test_what_cannot_be_is_refused(chosen: dict[str, float], words: str) -> None:
    scenario = load("noisy-tenant")
    with pytest.raises(KeyplaneError, match=words):
        scenario.run(make_parameters(scenario.parameters, None, chosen), quiet(1))


def test_alone_it_is_m_m_c() -> None:
    fleet = replace(FLEET, noisy_per_s=60.0, queue_max=10_000)
    queue = Queue(2, 60.0 + 9 * 10.0, 0.01)
    run = run_tenants(fleet, 600_000, 5)
    assert float(np.mean(run.response_s)) == pytest.approx(queue.mean_response, rel=0.04)
    for part in (0.5, 0.99):
        for noisy in (False, True):
            expected = queue.response_percentile(part)
            assert run.percentile(noisy, part) == pytest.approx(expected, rel=0.05)


def test_one_queue_refuses_all_alike_and_turns_refuse_the_noisy_one() -> None:
    shared = run_tenants(FLEET, 200_000, 5)
    fair = run_tenants(replace(FLEET, fair=True, queue_max=10), 200_000, 5)
    assert shared.success(False, 10.0) == pytest.approx(shared.success(True, 10.0), abs=0.02)
    assert shared.success(False, 10.0) == pytest.approx(200 / 290, abs=0.02)
    assert fair.success(False, 10.0) > 0.999
    assert fair.answered_per_s(True) == pytest.approx(110.0, rel=0.03)
    assert fair.percentile(False, 0.99) < 0.3 * shared.percentile(False, 0.99)
    # Who keeps within its share waits less than who does not.
    assert fair.percentile(False, 0.5) < 0.5 * fair.percentile(True, 0.5)


def test_a_cap_lets_through_what_it_says() -> None:
    run = run_tenants(replace(FLEET, cap_per_s=20.0, cap_burst=20.0), 200_000, 5)
    assert run.answered_per_s(True) == pytest.approx(20.0, rel=0.01)
    assert run.success(False, 10.0) > 0.999


@settings(max_examples=30, deadline=None)
@given(
    st.builds(
        SharedFleet,
        servers=st.integers(1, 4),
        service_s=st.floats(0.001, 0.1),
        tenants=st.integers(2, 12),
        noisy_per_s=st.floats(0.0, 500.0),
        quiet_per_s=st.floats(0.5, 20.0),
        queue_max=st.integers(1, 50),
        fair=st.booleans(),
        cap_per_s=st.sampled_from([1.0, 20.0, float("inf")]),
        cap_burst=st.just(3.0),
    ),
    st.integers(0, 2**64 - 1),
)
def test_no_more_is_answered_than_servers_and_caps_allow(fleet: SharedFleet, seed: int) -> None:
    """And what is answered was let in for no longer than what its queue holds takes."""
    run = run_tenants(fleet, 3_000, seed)
    answered = run.response_s[~np.isnan(run.response_s)]
    assert (answered > 0).all()
    assert len(run.response_s) == 2_700
    tokens = fleet.tenants * (3 + fleet.cap_per_s * run.duration_s)
    assert len(answered) <= tokens + fleet.tenants
    # Mean plus six deviations of the work of servers that never rest.
    most = fleet.servers * run.duration_s / fleet.service_s
    queued = fleet.queue_max * (fleet.tenants if fleet.fair else 1) + fleet.servers
    assert len(answered) <= most + 6 * most**0.5 + queued + 10
