"""Fan-in and quorums: closed forms against each other, against sums, and against draws."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.closed.caches import (
    any_of,
    exponential_order_mean,
    fresh_share,
    hit_ratio,
    order_statistic_cdf,
    order_statistic_quantile,
    outage_availability,
    zipf_classes,
)
from fleet.exact.fanin import run_batches, run_commits


@given(share=st.floats(0, 1), fan_in=st.integers(1, 1_000))
def test_any_of_many_is_one_less_none_of_them(share: float, fan_in: int) -> None:
    assert any_of(share, fan_in) == pytest.approx(1 - (1 - share) ** fan_in, abs=1e-12)


@settings(max_examples=50)
@given(n=st.integers(1, 30), data=st.data(), below=st.floats(0.001, 0.999))
def test_an_order_statistic_is_a_sum_of_binomials(
    n: int, data: st.DataObject, below: float
) -> None:
    k = data.draw(st.integers(1, n))
    plain = sum(comb(n, j) * below**j * (1 - below) ** (n - j) for j in range(k, n + 1))
    assert order_statistic_cdf(below, k, n) == pytest.approx(plain)
    quantile = order_statistic_quantile(plain, k, n)
    assert order_statistic_cdf(quantile, k, n) == pytest.approx(plain, abs=1e-9)


def test_the_first_and_the_last_of_many_are_as_textbooks_say() -> None:
    assert exponential_order_mean(2.0, 1, 10) == pytest.approx(0.2)
    assert exponential_order_mean(1.0, 3, 3) == pytest.approx(1 + 1 / 2 + 1 / 3)
    assert order_statistic_quantile(0.99, 100, 100) == pytest.approx(0.99 ** (1 / 100))


def test_commits_drawn_one_by_one_have_the_mean_of_the_closed_form() -> None:
    took = run_commits(3, 20_000, 8, 4, 0.001, 0.002)
    assert took.min() > 0.001
    assert took.mean() == pytest.approx(0.001 + exponential_order_mean(0.002, 4, 8), rel=0.02)
    assert np.array_equal(took, run_commits(3, 20_000, 8, 4, 0.001, 0.002))


def test_batches_meet_a_slow_replica_as_often_as_they_should() -> None:
    batches = run_batches(5, 40_000, 30, 100, 1, 0.001, 1.0)
    assert batches.touched.mean() == pytest.approx(any_of(0.01, 30), rel=0.03)
    assert np.array_equal(batches.touched == 1.0, batches.latency_s > 1.0)


@settings(max_examples=30)
@given(outage=st.floats(0.01, 10), skew=st.sampled_from([0.0, 0.9]))
def test_availability_of_an_outage_is_the_average_of_what_is_left(
    outage: float, skew: float
) -> None:
    """outage: in lives of an entry."""
    keys, ttl_s = zipf_classes(500, skew, 6), 30.0
    at = (np.arange(20_000) + 0.5) / 20_000 * outage * ttl_s
    average = float(fresh_share(keys, 1_000.0, ttl_s, 0.005, at).mean())
    closed = outage_availability(keys, 1_000.0, ttl_s, 0.005, outage * ttl_s)
    assert closed == pytest.approx(average, rel=1e-3)
    assert closed <= hit_ratio(keys, 1_000.0, ttl_s, 0.005)
