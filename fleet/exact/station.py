"""One queue in front of several servers, first come, first served, each request simulated.

By the recursion of J. Kiefer and J. Wolfowitz, "On the theory of queues with many servers" (1955):
an arrival is served by the server that is free first, so that the times at which the servers get
free, kept in a heap, are all there is to know.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numba import njit

from fleet.exact.random import Words, exponential, lognormal, seeded
from fleet.outcome import Array
from keyplane.model.errors import KeyplaneError, Reason


class Service(IntEnum):
    """How service times are distributed around their mean."""

    EXPONENTIAL = 0
    DETERMINISTIC = 1
    LOGNORMAL = 2


@dataclass(frozen=True, slots=True)
class Station:
    """Times are in the unit of service_time, rates per that unit; arrivals are Poisson.

    sigma: of the logarithm of service times, for LOGNORMAL. setup_time: how long a server is busy
    with each request before its service begins, as with a connection that is opened for it.
    """

    servers: int
    arrival_rate: float
    service_time: float
    service: Service = Service.EXPONENTIAL
    sigma: float = 0.0
    setup_time: float = 0.0

    @property
    def load(self) -> float:
        """The share of time that a server is busy; from 1 on the queue grows for ever."""
        return self.arrival_rate * (self.service_time + self.setup_time) / self.servers


def response_times(station: Station, requests: int, seed: int, warm_up: int = 0) -> Array:
    """Of each request, shape (requests,), in order of arrival and in the unit of service_time.

    warm_up: requests before these, which find the station empty. seed: 64 bits. A station with a
    load of 1 or more is simulated too: the times then grow with the number of requests. Raises
    INVALID_ARGUMENT.
    """
    positive = (station.servers, station.arrival_rate, station.service_time, requests)
    zero_or_more = (station.sigma, station.setup_time, warm_up)
    if not (all(each > 0 for each in positive) and all(each >= 0 for each in zero_or_more)):
        raise KeyplaneError(
            Reason.INVALID_ARGUMENT,
            f"{station} cannot be simulated for {requests} requests; give numbers above zero",
        )
    out = np.empty(requests, np.float64)
    _serve(
        np.uint64(seed),
        np.zeros(station.servers, np.float64),
        *(1 / station.arrival_rate, station.service_time, int(station.service), station.sigma),
        *(station.setup_time, warm_up, out),
    )
    return out


@njit(cache=True)
def service_time(state: Words, kind: int, mean: float, sigma: float) -> float:
    """One service time; kind: of `Service`."""
    if kind == 0:
        return exponential(state, mean)
    if kind == 1:
        return mean
    return lognormal(state, mean, sigma)


@njit(cache=True)
def occupy(free_at: Array, now: float, busy: float) -> float:
    """When a request that comes now is served, by the server that is free first, which it keeps
    busy for so long. free_at: a heap with the least on top; the times at which servers get free."""
    done: float = max(now, free_at[0]) + busy
    place, child = 0, 1
    while child < len(free_at):
        if child + 1 < len(free_at) and free_at[child + 1] < free_at[child]:
            child += 1
        if free_at[child] >= done:
            break
        free_at[place] = free_at[child]
        place, child = child, 2 * child + 1
    free_at[place] = done
    return done


@njit(cache=True)
def _serve(
    seed: np.uint64,
    free_at: Array,
    between: float,
    mean: float,
    kind: int,
    sigma: float,
    setup: float,
    warm_up: int,
    out: Array,
) -> None:
    state = seeded(seed)
    now = 0.0
    for index in range(-warm_up, len(out)):
        now += exponential(state, between)
        done = occupy(free_at, now, setup + service_time(state, kind, mean, sigma))
        if index >= 0:
            out[index] = done - now
