"""SimPy, an independent simulator, says the same as the compiled event loops.

Both simulate REPLICATIONS times the same number of requests with random numbers of their own. Means
and 90th percentiles of replications are independent and nearly normal, so that the difference of
their averages has the standard error sqrt((s1**2 + s2**2) / REPLICATIONS), with s1 and s2 estimated
from the replications. LIMIT standard errors of Student's t with about 2 (REPLICATIONS - 1) = 22
degrees of freedom are exceeded once in a thousand; seeds are fixed, so that it is never by chance.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Generator
from typing import Any

import numpy as np
import pytest
import simpy

from fleet.exact.hedging import run_hedged
from fleet.exact.station import Service, Station, response_times
from fleet.nodes import Nodes
from fleet.outcome import Array

REPLICATIONS = 12
REQUESTS = 1_500
WARM_UP = 300
LIMIT = 3.8

Events = Generator[Any, Any, None]


def arrive(
    world: simpy.Environment, draw: random.Random, rate: float, request: Callable[[int], Events]
) -> None:
    """Until all have come and are done."""

    def arrivals() -> Events:
        for index in range(WARM_UP + REQUESTS):
            yield world.timeout(draw.expovariate(rate))
            world.process(request(index))

    world.process(arrivals())
    world.run()


def station_by_simpy(station: Station, seed: int) -> Array:
    draw = random.Random(seed)
    world = simpy.Environment()
    servers = simpy.Resource(world, station.servers)
    times = np.zeros(WARM_UP + REQUESTS)

    def service() -> float:
        if station.service is Service.EXPONENTIAL:
            return draw.expovariate(1 / station.service_time)
        if station.service is Service.DETERMINISTIC:
            return station.service_time
        mu = math.log(station.service_time) - station.sigma**2 / 2
        return draw.lognormvariate(mu, station.sigma)

    def request(index: int) -> Events:
        begin = world.now
        with servers.request() as turn:
            yield turn
            yield world.timeout(station.setup_time)
            yield world.timeout(service())
        times[index] = world.now - begin

    arrive(world, draw, station.arrival_rate, request)
    return times[WARM_UP:]


def hedged_by_simpy(nodes: Nodes, delay: float, seed: int) -> Array:
    draw = random.Random(seed)
    world = simpy.Environment()
    queues = [simpy.Resource(world, nodes.servers) for _ in range(nodes.nodes)]
    times = np.zeros(WARM_UP + REQUESTS)

    def ask(node: int) -> Events:
        with queues[node].request() as turn:
            yield turn
            yield world.timeout(draw.expovariate(1 / nodes.service_time))
        yield world.timeout(nodes.round_trip + (nodes.slow_by if node < nodes.slow else 0.0))

    def request(index: int) -> Events:
        begin = world.now
        node, other = draw.sample(range(nodes.nodes), 2)
        first = world.process(ask(node))
        if math.isinf(delay):
            yield first
        else:
            yield first | world.timeout(delay)
            if not first.processed:
                yield first | world.process(ask(other))
        times[index] = world.now - begin

    arrive(world, draw, nodes.arrival_rate, request)
    return times[WARM_UP:]


def apart(one: Callable[[int], Array], other: Callable[[int], Array]) -> list[float]:
    """Between the two, of mean and 90th percentile, in standard errors."""

    def replicated(run: Callable[[int], Array]) -> Array:
        runs = [run(seed) for seed in range(REPLICATIONS)]
        return np.array([(times.mean(), np.quantile(times, 0.9)) for times in runs])

    here, there = replicated(one), replicated(other)
    error = np.sqrt((here.var(axis=0, ddof=1) + there.var(axis=0, ddof=1)) / REPLICATIONS)
    return [float(each) for each in np.abs(here.mean(axis=0) - there.mean(axis=0)) / error]


@pytest.mark.parametrize(
    "station",
    [
        Station(3, 2.1, 1.0),
        Station(2, 1.5, 1.0, Service.DETERMINISTIC),
        Station(4, 2.4, 1.0, Service.LOGNORMAL, 1.0),
        Station(5, 2.0, 1.0, setup_time=0.7),
    ],
)
def test_stations(station: Station) -> None:
    found = apart(
        lambda seed: response_times(station, REQUESTS, seed, WARM_UP),
        lambda seed: station_by_simpy(station, seed),
    )
    assert max(found) < LIMIT


# Slow by more than the delay, by less than it, and two that are slow; at loads at which second
# requests get in the way of others.
@pytest.mark.parametrize(
    ("nodes", "delay"),
    [
        (Nodes(4, 2, 4.0, 1.0, slow=1, slow_by=10.0, round_trip=0.5), 3.0),
        (Nodes(3, 1, 1.2, 1.0, slow=1, slow_by=1.0), 4.0),
        (Nodes(5, 1, 1.5, 1.0, slow=2, slow_by=20.0), 0.0),
        (Nodes(4, 2, 5.6, 1.0, slow=1, slow_by=10.0), math.inf),
    ],
)
def test_hedging(nodes: Nodes, delay: float) -> None:
    found = apart(
        lambda seed: run_hedged(nodes, delay, REQUESTS, seed, WARM_UP).times,
        lambda seed: hedged_by_simpy(nodes, delay, seed),
    )
    assert max(found) < LIMIT


def test_the_limit_tells_a_tenth_of_the_service_time() -> None:
    """Or these tests would hold whatever is simulated."""
    slower = Station(3, 2.1, 1.1)
    found = apart(
        lambda seed: response_times(slower, REQUESTS, seed, WARM_UP),
        lambda seed: station_by_simpy(Station(3, 2.1, 1.0), seed),
    )
    assert min(found) > LIMIT
