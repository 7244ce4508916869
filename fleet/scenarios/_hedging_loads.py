"""Designs of asking MemDS nodes, and what becomes of each as the load rises."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fleet.bisection import bisect
from fleet.closed.hedging import Hedging, delay_at, hedging_of
from fleet.exact.hedging import HedgedRun, run_hedged
from fleet.nodes import Nodes
from fleet.outcome import Array
from fleet.parameters import parameter
from keyplane.model.errors import KeyplaneError, Reason

ONE = "one node"
LATE = "a second one when late"
BUDGET = "a second one when late, with a budget"
BOTH = "two at once"
DESIGNS = (ONE, LATE, BUDGET, BOTH)

TAIL_AT_SCALE = "J. Dean and L. A. Barroso, The Tail at Scale (2013)"
PART = 0.99

LOADS = np.arange(0.1, 0.951, 0.05)
# Of the step between two loads, to find where hedging begins to hurt.
_HALVINGS = 3

# p99 is called worse when it is by more than what chance makes of it.
_WORSE = 1.03


@dataclass(frozen=True, slots=True)
class Parameters:
    load: float = parameter(
        0.3,
        "fraction",
        "share of time that MemDS servers are busy, without second requests",
        low=0.01,
        high=0.95,
        source="chosen: with room for all second requests",
    )
    nodes: int = parameter(
        10, "", "MemDS nodes", low=2, high=1_000, source="chosen: of which one is slow"
    )
    slow_nodes: int = parameter(
        1, "", "nodes that are slow", low=0, high=999, source="chosen: one in ten"
    )
    slow_by_ms: float = parameter(
        100.0,
        "ms",
        "by which these answer later, as over a bad network",
        low=0.0,
        high=60_000.0,
        source="chosen: far more than an answer takes",
    )
    servers: int = parameter(
        4,
        "",
        "requests that a node works on at once",
        low=1,
        high=256,
        source="memcached(1): -t, worker threads, 4 unless given",
    )
    service_ms: float = parameter(
        0.5,
        "ms",
        "work of a node on one request, on average; exponentially distributed",
        low=0.0001,
        high=1_000.0,
        source="chosen: a request for a batch of pages",
        measured="memds_get_ms",
    )
    round_trip_ms: float = parameter(
        0.2,
        "ms",
        "on the way to a node and back; as measured, with the work on one key",
        low=0.0,
        high=1_000.0,
        source="chosen: within one data centre",
        measured="memds_round_trip_ms",
    )
    hedge_at: float = parameter(
        0.95,
        "fraction",
        "percentile of healthy nodes, at the load above, after which a second node is asked",
        low=0.5,
        high=0.999,
        source=TAIL_AT_SCALE,
    )
    delay_max_ms: float = parameter(
        50.0,
        "ms",
        "the longest that a second request is put off",
        low=0.1,
        high=60_000.0,
        source="chosen: Keyplane's own bound (hedge_delay_s_max)",
    )
    budget: float = parameter(
        0.2,
        "fraction",
        "second requests per request where they have a budget",
        low=0.0,
        high=1.0,
        source="chosen: above the tenth for one slow node of ten and the twentieth for the rest",
    )
    requests: int = parameter(
        500_000,
        "",
        "requests simulated for each design at the load asked for",
        low=10_000,
        high=100_000_000,
        source="chosen: 5,000 of them are above p99",
    )
    sweep_requests: int = parameter(
        50_000,
        "",
        "and at each other load; what tips over in more of them than that is not seen",
        low=5_000,
        high=10_000_000,
        source="chosen: 500 of them are above p99",
    )

    def nodes_at(self, load: float, slow: int) -> Nodes:
        """Times in milliseconds."""
        return Nodes(
            self.nodes,
            self.servers,
            load * self.nodes * self.servers / self.service_ms,
            self.service_ms,
            slow,
            self.slow_by_ms,
            self.round_trip_ms,
        )

    def delay_ms(self, design: str, slow: int) -> float:
        """Of a design that is set up for the load asked for, and stays so at all loads."""
        if design == ONE:
            return math.inf
        if design == BOTH:
            return 0.0
        return delay_at(self.nodes_at(self.load, slow), self.hedge_at, self.delay_max_ms)

    def run(self, design: str, nodes: Nodes, requests: int, seed: int) -> HedgedRun:
        budget = self.budget if design == BUDGET else math.inf
        delay = self.delay_ms(design, nodes.slow)
        warm_up = self._warm_up(nodes, requests, 0.0 if design == ONE else delay)
        return run_hedged(nodes, delay, requests, seed, warm_up, budget)

    def _warm_up(self, nodes: Nodes, requests: int, delay: float) -> int:
        """Requests until servers are as busy as they get, and second requests come."""
        needed = 2 * delay * nodes.arrival_rate + 10 * nodes.nodes * nodes.servers
        if needed > 10 * requests:
            raise KeyplaneError(
                Reason.INVALID_ARGUMENT,
                f"{requests} requests are over before all nodes are busy; give {needed / 10:.0f} or"
                " more with --requests and --sweep-requests, or fewer nodes",
            )
        return max(requests // 10, math.ceil(needed))

    def closed(self, design: str) -> Hedging | None:
        nodes = self.nodes_at(self.load, self.slow_nodes)
        return hedging_of(nodes, self.delay_ms(design, self.slow_nodes))


class _Sweeper:
    """Runs designs at loads, and counts the requests."""

    def __init__(self, asked: Parameters, slow: int, seed: int) -> None:
        self._asked = asked
        self._slow = slow
        # The same for all designs and loads, so that these are all that differs.
        self._seed = seed
        self.requests = 0

    def run(self, design: str, load: float) -> tuple[float, float]:
        """p99 in ms, and the load that second requests make of it."""
        asked = self._asked
        nodes = asked.nodes_at(load, self._slow)
        self.requests += asked.sweep_requests
        found = asked.run(design, nodes, asked.sweep_requests, self._seed)
        return float(np.quantile(found.times, PART)), found.load

    def hurts(self, design: str, load: float) -> bool:
        p99, made = self.run(design, load)
        return _hurts(p99, made, self.run(ONE, load)[0])


def _hurts(p99: float, made: float, alone: float) -> bool:
    return p99 > _WORSE * alone or made >= 1


@dataclass(frozen=True, slots=True)
class Sweep:
    """By design: p99 in ms and the load made, at each of LOADS. hurts: the load from which on p99
    is worse than with one node alone; infinite if at none."""

    p99: dict[str, Array]
    made: dict[str, Array]
    hurts: dict[str, float]
    requests: int


def sweep_loads(asked: Parameters, slow: int, seed: int) -> Sweep:
    sweeper = _Sweeper(asked, slow, seed)
    p99, made, hurts = {}, {}, {}
    for design in DESIGNS:
        found = [sweeper.run(design, float(load)) for load in LOADS]
        p99[design], made[design] = (np.array(each) for each in zip(*found, strict=True))
    for design in DESIGNS[1:]:
        worse = [_hurts(*each) for each in zip(p99[design], made[design], p99[ONE], strict=True)]
        hurts[design] = _begin(sweeper, design, worse)
    return Sweep(p99, made, hurts, sweeper.requests)


def _begin(sweeper: _Sweeper, design: str, worse: list[bool]) -> float:
    """The load from which on it hurts at all loads."""
    if not worse[-1]:
        return math.inf
    first = len(worse) - worse[::-1].index(False) if False in worse else 0
    if first == 0:
        return float(LOADS[0])
    around = float(LOADS[first - 1]), float(LOADS[first])
    return bisect(lambda load: sweeper.hurts(design, load), *around, _HALVINGS)[1]
