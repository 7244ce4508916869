"""The tandem of live processes against what queueing theory and plain arithmetic say of it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.exact.tandem import Process, Tandem, simulate


def of(generator: float, router: float, storage: float, **more: float) -> Tandem:
    """Without waking up: milliseconds for each request."""
    options = {"hop_ms": 0.0, "spread": 0.0, "cores": 3} | more
    return Tandem(Process(0, generator), Process(0, router), Process(0, storage), **options)


def mean_value_analysis(demands: list[float], delay: float, customers: int) -> float:
    """Throughput of a closed product-form network (Reiser and Lavenberg, "Mean-Value Analysis of
    Closed Multichain Queuing Networks", 1980)."""
    queues = [0.0] * len(demands)
    throughput = 0.0
    for number in range(1, customers + 1):
        times = [demand * (1 + queue) for demand, queue in zip(demands, queues, strict=True)]
        throughput = number / (delay + sum(times))
        queues = [throughput * time for time in times]
    return throughput


@pytest.mark.parametrize("customers", [1, 4, 20])
def test_one_at_a_time_with_exponential_work_is_the_product_form(customers: int) -> None:
    tandem = of(0.02, 0.05, 0.04, spread=1.0, hop_ms=0.01, batch_max=1)
    run = simulate(tandem, customers, 200_000, seed=1)
    expected = 1000 * mean_value_analysis([0.02, 0.05, 0.04], 4 * 0.01, customers)
    assert run.per_second == pytest.approx(expected, rel=0.01)


def test_a_lone_request_wakes_every_process_it_comes_to() -> None:
    tandem = Tandem(Process(0.1, 0.01), Process(0.2, 0.02), Process(0.3, 0.03), 0.05, 0.0)
    run = simulate(tandem, 1, 100, seed=1)
    # The router twice, and half of its work either way.
    expected = 0.1 + 2 * 0.2 + 0.3 + 0.01 + 0.02 + 0.03 + 4 * 0.05
    assert run.p50_ms == pytest.approx(expected)
    assert run.p99_ms == pytest.approx(expected)
    assert run.per_second == pytest.approx(1000 / expected)
    assert run.cpu_ms == pytest.approx((0.11, 0.42, 0.33))


def test_many_are_as_fast_as_the_slowest_process_lets_them() -> None:
    run = simulate(of(0.01, 0.05, 0.02, batch_max=1), 50, 20_000, seed=1)
    assert run.per_second == pytest.approx(20_000, rel=0.001)


def test_one_core_does_the_work_of_all() -> None:
    run = simulate(of(0.01, 0.05, 0.02, cores=1), 50, 20_000, seed=1)
    assert run.per_second == pytest.approx(1000 / 0.08, rel=0.001)


def test_few_travel_as_a_convoy_and_more_do_not() -> None:
    """What makes 64 under way on the live cluster twice as fast as 32."""
    tandem = of(0.01, 0.05, 0.02, push=32)
    convoy = simulate(tandem, 32, 20_000, seed=1)
    assert convoy.per_second == pytest.approx(1000 / 0.08, rel=0.001)
    assert simulate(tandem, 64, 20_000, seed=1).per_second > 1.4 * convoy.per_second


def test_two_routers_share_what_one_did() -> None:
    one = simulate(of(0.01, 0.05, 0.01, batch_max=1, cores=4), 60, 20_000, seed=1)
    two = simulate(of(0.01, 0.05, 0.01, batch_max=1, cores=4), 60, 20_000, 1, routers=2)
    assert two.per_second == pytest.approx(2 * one.per_second, rel=0.01)


@settings(max_examples=25, deadline=None)
@given(
    outstanding=st.integers(1, 80),
    routers=st.integers(1, 3),
    storage=st.integers(1, 3),
    cores=st.integers(1, 4),
    spread=st.sampled_from([0.0, 0.5, 1.0]),
    push=st.sampled_from([1, 4, 32]),
)
def test_no_more_work_is_done_than_there_are_cores(
    outstanding: int, routers: int, storage: int, cores: int, spread: float, push: int
) -> None:
    tandem = Tandem(
        Process(0.02, 0.01), Process(0.03, 0.04), Process(0.02, 0.03), 0.01, spread, cores, push
    )
    run = simulate(tandem, outstanding, 4_000, 1, routers, storage)
    # A tenth for what is under way at either end.
    assert run.per_second / 1000 * sum(run.cpu_ms) <= min(cores, outstanding) * 1.1
    assert 0 < run.p50_ms <= run.p99_ms
    # Work for each request is what it takes by itself at the least, and at the most that of a turn
    # of its own everywhere, in the mean.
    assert sum(run.cpu_ms) <= (0.08 + 0.10) * (1.15 if spread else 1.1)


def test_the_same_seed_gives_the_same_to_the_bit() -> None:
    tandem = of(0.01, 0.05, 0.02, spread=0.7)
    assert simulate(tandem, 16, 5_000, 7) == simulate(tandem, 16, 5_000, 7)
    assert simulate(tandem, 16, 5_000, 7) != simulate(tandem, 16, 5_000, 8)
