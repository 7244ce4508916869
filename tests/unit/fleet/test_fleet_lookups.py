"""Conventional caches as masses: nothing is lost or made, and a real fleet does the same."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.closed.caches import held_shares, hit_ratio, ttl_for, zipf_classes
from fleet.cohort.lookups import Flush, LookupRun, Lookups, run_lookups
from fleet.exact.cache import run_exact
from fleet.outcome import Array
from keyplane.model.errors import KeyplaneError, Reason

STEP_S = 0.01


def fleet(
    *,
    routers: float = 40.0,
    skew: float = 0.0,
    keys: int = 300,
    rate_per_s: float = 500.0,
    hits: float = 0.98,
    headroom: float = 2.0,
    queue_s: float = 0.1,
    timeout_s: float = 1.0,
    retries: int = 2,
    flushes: tuple[Flush, ...] = (),
) -> Lookups:
    classes = zipf_classes(keys, skew, 8)
    ttl_s = ttl_for(classes, rate_per_s, hits, STEP_S)
    capacity = routers * rate_per_s * (1 - hits) * headroom
    return Lookups(
        routers=[routers],
        keys=classes,
        rate_per_s=rate_per_s,
        ttl_s=ttl_s,
        capacity_per_s=capacity,
        bound=int(capacity * queue_s),
        timeout_s=timeout_s,
        retries=retries,
        backoff_s=0.1,
        hits=held_shares(classes, rate_per_s, ttl_s, STEP_S),
        flushes=flushes,
    )


def ran(of: Lookups, seconds: float, health: Array | None = None) -> LookupRun:
    ones = np.ones(round(seconds / STEP_S))
    return run_lookups(of, STEP_S, ones, ones if health is None else health)


@settings(max_examples=60, deadline=None)
@given(
    skew=st.sampled_from([0.0, 0.8, 1.2]),
    headroom=st.floats(0.1, 50),
    queue_s=st.floats(0, 3),
    timeout_s=st.floats(0.02, 2),
    retries=st.integers(0, 4),
    flush_at=st.floats(0, 10),
    lost=st.floats(0, 1),
    dark=st.tuples(st.integers(0, 900), st.integers(0, 900)),
    burst=st.floats(0, 5),
)
def test_what_arrives_has_been_served_has_failed_or_waits(
    skew: float,
    headroom: float,
    queue_s: float,
    timeout_s: float,
    retries: int,
    flush_at: float,
    lost: float,
    dark: tuple[int, int],
    burst: float,
) -> None:
    """In every step, whatever happens to caches, load and backend; and lookups likewise."""
    of = fleet(
        skew=skew,
        headroom=headroom,
        queue_s=queue_s,
        timeout_s=timeout_s,
        retries=retries,
        flushes=(Flush(flush_at, [lost]),),
    )
    load, health = np.ones(1_000), np.ones(1_000)
    load[300:600] = burst
    health[min(dark) : max(dark)] = 0.0
    run = run_lookups(of, STEP_S, load, health)
    over = np.cumsum(run.arrived - run.hits - run.answered - run.failed) - run.waiting
    assert np.abs(over).max() <= 1e-9 * run.arrived.sum()
    inside = np.cumsum(run.attempts - run.refused - run.useful - run.wasted) - run.queued
    assert np.abs(inside).max() <= 1e-9 * run.arrived.sum()
    for each in (run.hits, run.answered, run.failed, run.waiting, run.refused, run.queued):
        assert each.min() >= -1e-9
    able = health * of.capacity_per_s * STEP_S
    assert np.all(run.useful + run.wasted <= able + 1e-9)
    assert run.queued.max() <= of.bound + 1e-9
    assert 0 <= run.fresh.min() <= run.fresh.max() <= 1 + 1e-9


@settings(max_examples=30, deadline=None)
@given(
    skew=st.floats(0, 1.3),
    keys=st.integers(1, 5_000),
    hits=st.floats(0.3, 0.995),
    rate=st.floats(10, 1e5),
)
def test_the_life_of_entries_gives_the_hit_ratio_that_was_asked_for(
    skew: float, keys: int, hits: float, rate: float
) -> None:
    classes = zipf_classes(keys, skew, 8)
    assert float(np.sum(classes.counts * classes.shares)) == pytest.approx(1.0)
    assert classes.counts.sum() == keys
    ttl_s = ttl_for(classes, rate, hits)
    assert hit_ratio(classes, rate, ttl_s) == pytest.approx(hits, rel=1e-6)


@pytest.mark.parametrize("skew", [0.0, 0.8])
def test_warm_caches_stay_at_the_closed_form(skew: float) -> None:
    """From a warm start, and from an empty one on average over whole lives, since the echoes of a
    cold start take many of them to fade."""
    of = fleet(skew=skew, headroom=100)
    run = ran(of, 30)
    assert run.hits.sum() / run.arrived.sum() == pytest.approx(0.98, abs=0.0005)
    empty = ran(replace(of, hits=np.zeros_like(of.hits)), 400)
    cycle_s = of.ttl_s + float(of.keys.counts.sum()) / of.rate_per_s
    late = slice(-3 * round(cycle_s / STEP_S), None)
    assert empty.hits[late].sum() / empty.arrived[late].sum() == pytest.approx(0.98, abs=0.001)


def test_a_finer_step_tells_the_same_story() -> None:
    of = fleet(flushes=(Flush(5.0, [1.0]),))
    coarse = ran(of, 30)
    ones = np.ones(30_000)
    fine = run_lookups(of, 0.001, ones, ones)
    assert fine.failed.sum() == pytest.approx(coarse.failed.sum(), rel=0.02)
    assert fine.hits.sum() == pytest.approx(coarse.hits.sum(), rel=0.005)


@pytest.mark.parametrize(
    ("of", "share"),
    [
        (fleet(flushes=(Flush(10.0, [1.0]),)), 0.02),
        (fleet(flushes=(Flush(10.0, [1.0]),), retries=0, timeout_s=0.2), 0.02),
        # The queue is longer than the timeout: nothing comes of any lookup, for ever.
        (fleet(flushes=(Flush(10.0, [1.0]),), queue_s=0.5, timeout_s=0.2, retries=1), 0.02),
        (fleet(flushes=(Flush(10.0, [1.0]),), headroom=60), 0.01),
        # A few keys that everybody wants: one answer more or less is seen in the sum.
        (fleet(flushes=(Flush(10.0, [1.0]),), skew=0.8, routers=100, rate_per_s=300), 0.03),
    ],
)
def test_each_request_simulated_comes_to_the_same(of: Lookups, share: float) -> None:
    """Hits, failures and lookups of the cohort layer, as shares of all requests."""
    run, exact = ran(of, 40), run_exact(of, 4, 40.0, 1.0, seed=11)
    arrived = exact.requests
    assert run.arrived.sum() == pytest.approx(arrived, rel=0.01)
    for name in ("hits", "answered", "failed", "wanted"):
        modelled, counted = getattr(run, name).sum(), getattr(exact, name).sum()
        assert modelled / arrived == pytest.approx(counted / arrived, abs=share), name


def test_exact_requests_all_end_or_are_unfinished() -> None:
    of = fleet(flushes=(Flush(5.0, [1.0]),))
    exact = run_exact(of, 4, 20.0, 1.0, seed=3)
    ended = exact.hits.sum() + exact.answered.sum() + exact.failed.sum()
    assert 0 <= exact.arrived.sum() - ended == exact.unfinished
    # At most those in the queue, in service and waiting to try again.
    assert exact.unfinished < exact.requests / 10


def test_exact_runs_of_one_seed_are_equal_and_of_two_are_not() -> None:
    of = fleet()
    one, again, other = (run_exact(of, 4, 5.0, 1.0, seed) for seed in (1, 1, 2))
    assert np.array_equal(one.hits, again.hits)
    assert not np.array_equal(one.hits, other.hits)


def test_lost_caches_of_one_cohort_leave_the_other_alone() -> None:
    of = replace(fleet(headroom=1e6), routers=[10.0, 30.0], flushes=(Flush(5.0, [1.0, 0.0]),))
    run = ran(of, 6)
    at = round(5 / STEP_S)
    assert run.wanted[at] / run.arrived[at] == pytest.approx(0.25 + 0.75 * 0.02, rel=0.01)


def test_steps_too_long_are_refused() -> None:
    with pytest.raises(KeyplaneError, match="give at most") as refused:
        run_lookups(fleet(), 0.02, np.ones(1), np.ones(1))
    assert refused.value.reason is Reason.INVALID_ARGUMENT


def test_a_hit_ratio_that_no_life_gives_is_refused() -> None:
    with pytest.raises(KeyplaneError, match="no life of entries"):
        ttl_for(zipf_classes(10, 0.0, 1), 1e-12, 0.999)
