"""Nodes that each have a queue, and requests that ask a second node when the first is late.

Each request and each second request is simulated. Nobody takes back what it asked for: both
requests are served in the end, and the earlier answer counts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numba import njit

from fleet.exact.random import exponential, seeded, uniform
from fleet.exact.station import occupy, service_time
from fleet.nodes import Nodes
from fleet.outcome import Array
from keyplane.model.errors import KeyplaneError, Reason

# Second requests that a budget lets pass at once after a quiet time.
BURST = 100.0


@dataclass(frozen=True, slots=True)
class HedgedRun:
    """times: from request to the earlier answer, shape (requests,), in order of arrival.

    extra: second requests for each request. load: service asked for, of what the servers could do
    while requests arrived; from 1 on queues grow for ever.
    """

    times: Array
    extra: float
    load: float


def run_hedged(
    nodes: Nodes,
    delay: float,
    requests: int,
    seed: int,
    warm_up: int = 0,
    budget: float = math.inf,
) -> HedgedRun:
    """A second node, any other one, is asked by requests without an answer after the delay; never
    with an infinite delay.

    budget: second requests for each request, at the most and on average (a token bucket); without
    a token, a request goes on waiting for its first node. warm_up: requests before those that
    count. seed: 64 bits. Raises INVALID_ARGUMENT.
    """
    if requests < 2 or warm_up < 0 or not delay >= 0 or not budget >= 0:
        raise KeyplaneError(
            Reason.INVALID_ARGUMENT,
            f"{requests} requests after {warm_up}, with a delay of {delay:g} and a budget of"
            f" {budget:g}, cannot be simulated; give two or more, and nothing below zero",
        )
    # Requests go on to come until those that count have an answer.
    late = 0 if math.isinf(delay) else math.ceil(2 * delay * nodes.arrival_rate) + 10
    stop = warm_up + requests
    out = np.empty(stop + min(late, stop), np.float64)
    seconds, elapsed, asked = _run(
        np.uint64(seed),
        np.zeros((nodes.nodes, nodes.servers), np.float64),
        *(1 / nodes.arrival_rate, nodes.service_time, nodes.slow, nodes.slow_by),
        *(nodes.round_trip, delay, budget),
        BURST if math.isfinite(budget) else math.inf,
        *(warm_up, stop),
        out,
    )
    capacity = elapsed * nodes.nodes * nodes.servers
    return HedgedRun(out[warm_up:stop], seconds / requests, asked / capacity)


@njit(cache=True)
def _run(
    seed: np.uint64,
    free_at: Array,
    between: float,
    service: float,
    slow: int,
    slow_by: float,
    round_trip: float,
    delay: float,
    budget: float,
    burst: float,
    warm_up: int,
    stop: int,
    out: Array,
) -> tuple[int, float, float]:
    """Second requests of those from warm_up to stop, the time in which these arrived, and service
    asked for in it."""
    state = seeded(seed)
    nodes, count = len(free_at), len(out)
    # The timers of those that will be late, in order, since the delay is the same for all.
    due = np.empty(count, np.float64)
    whose = np.empty(count, np.int64)
    node_of = np.empty(count, np.int64)
    first, last = 0, 0
    now, begin, end = 0.0, 0.0, 0.0
    seconds, work, tokens = 0, 0.0, 0.0
    for index in range(count + 1):
        # After the last request only timers are left.
        now = now + exponential(state, between) if index < count else np.inf
        while first < last and due[first] <= now:
            late, at = whose[first], due[first]
            first += 1
            if tokens < 1.0:
                continue
            tokens -= 1.0
            node = (node_of[late] + 1 + int(uniform(state) * (nodes - 1))) % nodes
            busy = service_time(state, 0, service, 0.0)
            took = occupy(free_at[node], at, busy) - at + round_trip
            if node < slow:
                took += slow_by
            out[late] = min(out[late], delay + took)
            if warm_up <= late < stop:
                seconds += 1
            if warm_up < index < stop:
                work += busy
        if index == count:
            break
        tokens = min(tokens + budget, burst)
        node = int(uniform(state) * nodes)
        busy = service_time(state, 0, service, 0.0)
        out[index] = occupy(free_at[node], now, busy) - now + round_trip
        if node < slow:
            out[index] += slow_by
        if index == warm_up:
            begin = now
        elif warm_up < index < stop:
            work, end = work + busy, now
        if out[index] > delay:
            due[last], whose[last], node_of[index] = now + delay, index, node
            last += 1
    return seconds, end - begin, work
