"""Requests of many tenants at the same servers, each simulated.

Arrivals are at random, service is exponential, and what finds no server free waits: all tenants in
one first-in-first-out queue, or each in its own, served in turns (round robin, one request a turn).
In front of it each tenant may have a token bucket. Tenant 0 is the noisy one; all others are alike.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from fleet.exact.random import exponential, seeded, uniform
from fleet.outcome import Array


@dataclass(frozen=True, slots=True)
class SharedFleet:
    """noisy_per_s, quiet_per_s: requests of tenant 0, and of each other one.

    queue_max: requests in the one queue, or with fair in that of each tenant; more are refused.
    cap_per_s: tokens that each tenant gets, of which cap_burst are saved up; what finds none is
    refused. Infinite: no cap.
    """

    servers: int
    service_s: float
    tenants: int
    noisy_per_s: float
    quiet_per_s: float
    queue_max: int
    fair: bool = False
    cap_per_s: float = math.inf
    cap_burst: float = 1.0


@dataclass(frozen=True, slots=True)
class TenantRun:
    """By request, in the order of arrival: response_s: NaN for a refused one. noisy: whose it is.
    All that arrived in the first tenth is left out. duration_s: of what is counted."""

    response_s: Array
    noisy: NDArray[np.bool_]
    requests: int
    duration_s: float

    def of(self, noisy: bool) -> Array:
        mine: Array = self.response_s[self.noisy == noisy]
        return mine

    def percentile(self, noisy: bool, part: float) -> float:
        """Of those that were answered, in seconds; NaN if none was. part: as in 0.99."""
        answered = self.of(noisy)
        answered = answered[~np.isnan(answered)]
        return float(np.quantile(answered, part)) if len(answered) else math.nan

    def success(self, noisy: bool, within_s: float) -> float:
        """Share that was answered in that time; 1 of none."""
        mine = self.of(noisy)
        # NaN is not within it.
        return float((mine <= within_s).mean()) if len(mine) else 1.0

    def answered_per_s(self, noisy: bool) -> float:
        return float((~np.isnan(self.of(noisy))).sum()) / self.duration_s


def run_tenants(fleet: SharedFleet, requests: int, seed: int) -> TenantRun:
    """seed: 64 bits."""
    response_s, noisy, arrived_s = _run(
        np.uint64(seed),
        requests,
        fleet.servers,
        float(fleet.service_s),
        fleet.tenants,
        float(fleet.noisy_per_s),
        float(fleet.quiet_per_s * (fleet.tenants - 1)),
        fleet.queue_max,
        fleet.fair,
        float(fleet.cap_per_s),
        float(fleet.cap_burst),
    )
    skipped = requests // 10
    duration_s = float(arrived_s[-1] - arrived_s[skipped])
    return TenantRun(response_s[skipped:], noisy[skipped:], requests, duration_s)


@njit(cache=True)
def _run(
    seed: np.uint64,
    requests: int,
    servers: int,
    service_s: float,
    tenants: int,
    noisy_per_s: float,
    quiet_per_s: float,
    queue_max: int,
    fair: bool,
    cap_per_s: float,
    cap_burst: float,
) -> tuple[Array, NDArray[np.bool_], Array]:
    words = seeded(seed)
    total_per_s = noisy_per_s + quiet_per_s
    response_s = np.full(requests, np.nan)
    noisy = np.zeros(requests, np.bool_)
    arrived_s = np.zeros(requests)

    tokens = np.full(tenants, cap_burst)
    filled_s = np.zeros(tenants)

    # Rings of requests that wait, one for each queue; and of queues that are not empty, by turn.
    queues = tenants if fair else 1
    ring = np.zeros((queues, queue_max + 1), np.int64)
    head = np.zeros(queues, np.int64)
    length = np.zeros(queues, np.int64)
    turns = np.zeros(queues, np.int64)
    turn = 0
    turns_length = 0

    done_s = np.full(servers, np.inf)
    busy = 0
    next_s = exponential(words, 1.0 / total_per_s)
    index = 0
    while index < requests or busy > 0:
        first = 0
        for server in range(1, servers):
            if done_s[server] < done_s[first]:
                first = server
        if index < requests and next_s <= done_s[first]:
            now = next_s
            arrived_s[index] = now
            tenant = 0
            if uniform(words) * total_per_s >= noisy_per_s:
                tenant = 1 + int(uniform(words) * (tenants - 1))
            noisy[index] = tenant == 0
            mine = index
            index += 1
            next_s = now + exponential(words, 1.0 / total_per_s)
            if cap_per_s < np.inf:
                earned = (now - filled_s[tenant]) * cap_per_s
                tokens[tenant] = min(cap_burst, tokens[tenant] + earned)
                filled_s[tenant] = now
                if tokens[tenant] < 1.0:
                    continue
                tokens[tenant] -= 1.0
            if busy < servers:
                for server in range(servers):
                    if done_s[server] == np.inf:
                        done_s[server] = now + exponential(words, service_s)
                        response_s[mine] = done_s[server] - now
                        break
                busy += 1
                continue
            queue = tenant if fair else 0
            if length[queue] == queue_max:
                continue
            ring[queue, (head[queue] + length[queue]) % (queue_max + 1)] = mine
            length[queue] += 1
            if length[queue] == 1:
                turns[(turn + turns_length) % queues] = queue
                turns_length += 1
        elif turns_length > 0:
            now = done_s[first]
            queue = turns[turn]
            turn = (turn + 1) % queues
            turns_length -= 1
            mine = ring[queue, head[queue]]
            head[queue] = (head[queue] + 1) % (queue_max + 1)
            length[queue] -= 1
            if length[queue] > 0:
                turns[(turn + turns_length) % queues] = queue
                turns_length += 1
            done_s[first] = now + exponential(words, service_s)
            response_s[mine] = done_s[first] - arrived_s[mine]
        else:
            done_s[first] = np.inf
            busy -= 1
    return response_s, noisy, arrived_s
