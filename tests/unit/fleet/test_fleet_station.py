"""The simulated queue against closed forms. Seeds are fixed, so that nothing here is by chance."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.closed.queues import Queue, mean_wait_deterministic
from fleet.exact.station import Service, Station, response_times
from keyplane.model.errors import KeyplaneError

REQUESTS = 400_000


@pytest.mark.parametrize(("servers", "load"), [(1, 0.5), (3, 0.8), (16, 0.7), (100, 0.9)])
def test_percentiles_of_erlang(servers: int, load: float) -> None:
    queue = Queue(servers, load * servers / 2.0, 2.0)
    times = response_times(Station(servers, queue.arrival_rate, 2.0), REQUESTS, 1, 20_000)
    assert times.mean() == pytest.approx(queue.mean_response, rel=0.02)
    for part in (0.5, 0.9, 0.99):
        assert np.quantile(times, part) == pytest.approx(queue.response_percentile(part), rel=0.03)


def test_deterministic_service_waits_half_as_long() -> None:
    times = response_times(Station(1, 0.7, 1.0, Service.DETERMINISTIC), REQUESTS, 2, 20_000)
    assert times.mean() - 1 == pytest.approx(mean_wait_deterministic(0.7, 1.0), rel=0.03)


def test_lognormal_service_waits_as_pollaczek_and_khinchine_say() -> None:
    sigma = 0.8
    times = response_times(Station(1, 0.5, 1.0, Service.LOGNORMAL, sigma), REQUESTS, 3, 20_000)
    second_moment = np.exp(sigma**2)
    assert times.mean() - 1 == pytest.approx(0.5 * second_moment / (2 * 0.5), rel=0.03)


def test_a_setup_keeps_the_server_busy() -> None:
    """Constant set-up and service together are one longer constant service."""
    with_setup = Station(2, 0.5, 1.0, Service.DETERMINISTIC, setup_time=2.0)
    without = replace(with_setup, service_time=3.0, setup_time=0.0)
    assert with_setup.load == without.load == 0.75
    both = [response_times(each, 5_000, 4) for each in (with_setup, without)]
    assert np.allclose(*both)


def test_an_overloaded_station_gets_slower_and_slower() -> None:
    times = response_times(Station(2, 3.0, 1.0), 20_000, 5)
    assert times[-1000:].mean() > 10 * times[:1000].mean()


# The first example compiles.
@settings(deadline=None)
@given(st.integers(1, 12), st.floats(0.05, 1.5), st.integers(0, 2**64 - 1))
def test_one_server_more_never_delays_anybody(servers: int, load: float, seed: int) -> None:
    times = response_times(Station(servers, load * servers, 1.0, Service.DETERMINISTIC), 300, seed)
    assert (times >= 1 - 1e-9).all()
    one_more = response_times(
        Station(servers + 1, load * servers, 1.0, Service.DETERMINISTIC), 300, seed
    )
    # The same arrivals, since constant service draws nothing: one server more never delays any.
    assert (one_more <= times + 1e-9).all()


def test_same_seed_same_times_and_another_seed_others() -> None:
    station = Station(3, 2.0, 1.0, Service.LOGNORMAL, 0.5)
    one, again, other = (response_times(station, 1_000, seed) for seed in (6, 6, 7))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)
    # What is warmed up with is left out, and nothing else changes.
    assert np.array_equal(response_times(station, 900, 6, 100), one[100:])


def test_refusals() -> None:
    for station in (Station(0, 1.0, 1.0), Station(1, -1.0, 1.0), Station(1, 1.0, 1.0, sigma=-1)):
        with pytest.raises(KeyplaneError):
            response_times(station, 10, 1)
    with pytest.raises(KeyplaneError):
        response_times(Station(1, 0.5, 1.0), 0, 1)
