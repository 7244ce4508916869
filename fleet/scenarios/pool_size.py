"""How many connections a pool needs, and what a fresh connection for each request costs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fleet.closed.queues import Queue
from fleet.exact.station import Station, response_times
from fleet.outcome import (
    Array,
    Axis,
    Check,
    Figure,
    Layer,
    Line,
    Outcome,
    Plot,
    Rule,
    Table,
    relative,
)
from fleet.parameters import parameter
from fleet.scenario import Context, Scenario

_POOL = "pool of connections"
_FRESH = "fresh connection for each request"
_PART = 0.99
_MS = 1e3

# Sizes to try lie this many square roots of the offered load above it: a queue of any size is
# equally likely to be waited in at the same number (S. Halfin and W. Whitt, "Heavy-traffic limits
# for queues with many exponential servers", 1981).
_SPARE = (0.75, 1.0, 1.5, 2.0, 3.0, 4.0)

# The simulation of each size of the sweep has this part of the requests of the chosen size.
_SWEEP_SHARE = 0.25
# Above this load all of them: a busy stretch outlasts many requests.
_BUSY = 0.85
_BATCHES = 20


@dataclass(frozen=True, slots=True)
class Parameters:
    requests_per_s: float = parameter(
        4_000.0,
        "1/s",
        "requests of one router to one storage node",
        low=1.0,
        high=1e6,
        source="chosen: with the service time, eight connections are busy on average",
    )
    service_ms: float = parameter(
        2.0,
        "ms",
        "how long a request keeps its connection, on average; exponentially distributed",
        low=0.001,
        high=10_000.0,
        source="chosen: a get over a network of one data centre, in single-digit milliseconds",
        measured="get_idle_ms",
    )
    pool_size: int = parameter(
        10,
        "",
        "connections of the pool; each serves one request at a time",
        low=1,
        high=10_000,
        source="chosen: a load of 80 %, where waiting begins to show",
    )
    setup_ms: float = parameter(
        3.0,
        "ms",
        "how long it takes to open a connection",
        low=0.0,
        high=10_000.0,
        source="chosen: some round trips, of TCP and TLS, and their cryptography",
        measured="fresh_connection_ms",
    )
    slack: float = parameter(
        0.05,
        "fraction",
        "how much above the p99 of requests that never wait the p99 of a pool may be",
        low=0.001,
        high=10.0,
        source="chosen: hardly to be seen",
    )
    requests: int = parameter(
        1_000_000,
        "",
        "requests simulated at the pool size; a quarter of that at most others",
        low=10_000,
        high=100_000_000,
        source="chosen: the standard error of p99 is below one percent at a load of 80 %",
    )

    @property
    def sweep_requests(self) -> int:
        return round(self.requests * _SWEEP_SHARE)

    @property
    def service_s(self) -> float:
        return self.service_ms / _MS

    @property
    def setup_s(self) -> float:
        return self.setup_ms / _MS

    @property
    def fresh_offered(self) -> float:
        """Connections open at once, on average, when each request opens its own."""
        return self.requests_per_s * (self.service_s + self.setup_s)

    def pool(self, size: int) -> Queue:
        return Queue(size, self.requests_per_s, self.service_s)

    def station(self, size: int, fresh: bool = False) -> Station:
        setup_s = self.setup_s if fresh else 0.0
        return Station(size, self.requests_per_s, self.service_s, setup_time=setup_s)

    @property
    def never_waits_s(self) -> float:
        """The p99 of a request that finds a connection free."""
        return -self.service_s * math.log(1 - _PART)


@dataclass(frozen=True, slots=True)
class _Sweep:
    """p99 in seconds by size; NaN: the queue grows for ever."""

    sizes: Array
    closed: Array
    pool: Array
    fresh: Array
    requests: int


def _sizes(asked: Parameters) -> list[int]:
    found = {asked.pool_size}
    for offered in (asked.pool(asked.pool_size).offered, asked.fresh_offered):
        found |= {math.floor(offered + spare * offered**0.5) + 1 for spare in _SPARE}
        found |= {math.floor(offered) + more for more in (1, 2, 3)}
    return sorted(found)


def _simulated_p99(asked: Parameters, station: Station, seed: int) -> tuple[float, int]:
    """In seconds, NaN where the queue grows for ever; and the requests it took."""
    if station.load >= 1:
        return math.nan, 0
    requests = asked.requests if station.load > _BUSY else asked.sweep_requests
    times = response_times(station, requests, seed, requests // 10)
    return float(np.quantile(times, _PART)), requests


def _sweep(asked: Parameters, context: Context) -> _Sweep:
    sizes = _sizes(asked)
    closed, pool, fresh = (np.full(len(sizes), math.nan) for _ in range(3))
    simulated = 0
    for index, size in enumerate(sizes):
        context.progress(0.2 + 0.7 * index / len(sizes), f"pool of {size}")
        station, opening = asked.station(size), asked.station(size, fresh=True)
        if station.load < 1:
            closed[index] = asked.pool(size).response_percentile(_PART)
        seed = context.stream(f"pool-size/{size}")
        pool[index], requests = _simulated_p99(asked, station, seed)
        fresh[index], opening_requests = _simulated_p99(asked, opening, seed)
        simulated += requests + opening_requests
    return _Sweep(np.array(sizes, np.float64), closed, pool, fresh, simulated)


def _least_size(asked: Parameters) -> int:
    """The smallest pool whose p99 is within the slack of never waiting."""
    enough = asked.never_waits_s * (1 + asked.slack)
    low = math.floor(asked.requests_per_s * asked.service_s)
    high = low + 1
    while asked.pool(high).response_percentile(_PART) > enough:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        if asked.pool(middle).response_percentile(_PART) > enough:
            low = middle
        else:
            high = middle
    return high


def _run(asked: Parameters, context: Context) -> Outcome:
    queue = asked.pool(asked.pool_size)
    context.progress(0.0, f"pool of {asked.pool_size}")
    seed = context.stream("pool-size/chosen")
    warm_up = asked.requests // 10
    times = response_times(asked.station(asked.pool_size), asked.requests, seed, warm_up)
    p99 = float(np.quantile(times, _PART))
    batches = [np.quantile(batch, _PART) for batch in np.array_split(times, _BATCHES)]
    deviation = float(np.std(batches, ddof=1)) / _BATCHES**0.5
    # Enough that none of the requests simulated waits.
    plenty = math.ceil(asked.fresh_offered + 8 * asked.fresh_offered**0.5 + 10)
    requests = asked.sweep_requests
    fresh_seed = context.stream("pool-size/fresh")
    fresh = response_times(asked.station(plenty, fresh=True), requests, fresh_seed, requests // 10)
    sweep = _sweep(asked, context)

    least = _least_size(asked)
    closed_p99 = queue.response_percentile(_PART)
    fresh_closed = asked.setup_s + asked.never_waits_s
    context.progress(1.0, "done")
    return Outcome(
        figures=[
            Figure("p99 with the pool", _MS * p99, "ms", Layer.EXACT),
            Figure("standard error of it", _MS * deviation, "ms", Layer.EXACT),
            Figure("p99 with the pool, Erlang C", _MS * closed_p99, "ms", Layer.CLOSED),
            Figure("p50 with the pool", _MS * float(np.median(times)), "ms", Layer.EXACT),
            Figure("requests that wait for a connection", queue.waits, "fraction", Layer.CLOSED),
            Figure("mean wait for a connection", _MS * queue.mean_wait, "ms", Layer.CLOSED),
            Figure("load of the connections", queue.load, "fraction", Layer.CLOSED),
            Figure(
                "p99 of requests that never wait", _MS * asked.never_waits_s, "ms", Layer.CLOSED
            ),
            Figure("least pool within the slack of that", float(least), "", Layer.CLOSED),
            Figure(
                "p99 with fresh connections, no limit",
                _MS * float(np.quantile(fresh, _PART)),
                "ms",
                Layer.EXACT,
            ),
            Figure(
                "fresh connections open at once, on average", asked.fresh_offered, "", Layer.CLOSED
            ),
            Figure("connections opened", asked.requests_per_s, "1/s", Layer.CLOSED),
        ],
        checks=_checks(queue, times, p99, fresh, fresh_closed),
        tables=[_table(asked, sweep)],
        plots=_plots(asked, queue, sweep, times, fresh),
        conclusion=_conclusion(asked, queue, p99, least, fresh_closed),
        requests_simulated=asked.requests + requests + sweep.requests,
        notes=[
            "The processor time that opening connections takes from routers and storage nodes is"
            " left out: fresh connections come off better here than they would.",
        ],
    )


def _checks(
    queue: Queue, times: Array, p99: float, fresh: Array, fresh_closed: float
) -> list[Check]:
    erlang = "Erlang C: Kleinrock, Queueing Systems, Volume 1 (1975)"
    return [
        relative(
            "p99 with the pool (ms)",
            _MS * p99,
            _MS * queue.response_percentile(_PART),
            0.03,
            erlang,
        ),
        relative(
            "mean time with the pool (ms)",
            _MS * float(times.mean()),
            _MS * queue.mean_response,
            0.03,
            erlang,
        ),
        relative(
            "p99 with fresh connections, no limit (ms)",
            _MS * float(np.quantile(fresh, _PART)),
            _MS * fresh_closed,
            0.03,
            "set-up time plus the 99th percentile of the exponential distribution",
        ),
    ]


def _table(asked: Parameters, sweep: _Sweep) -> Table:
    def cell(value: float) -> float | str:
        return "queue grows for ever" if math.isnan(value) else _MS * value

    rows = []
    for index, size in enumerate(sweep.sizes):
        load = asked.station(int(size)).load
        waits = asked.pool(int(size)).waits if load < 1 else 1.0
        times = (sweep.pool[index], sweep.closed[index], sweep.fresh[index])
        rows.append((float(size), 100 * load, 100 * waits, *(cell(float(each)) for each in times)))
    return Table(
        "p99 by number of connections",
        (
            "connections",
            "load of the pool (%)",
            "requests that wait (%)",
            "p99 with the pool (ms)",
            "p99 by Erlang C (ms)",
            "p99 with fresh connections, as many at most (ms)",
        ),
        tuple(rows),
    )


def _plots(
    asked: Parameters, queue: Queue, sweep: _Sweep, times: Array, fresh: Array
) -> list[Plot]:
    no_limit = _MS * (asked.setup_s + asked.never_waits_s)
    loads = np.linspace(0.02, 0.97, 96)
    by_load = [
        Queue(asked.pool_size, load * asked.pool_size / asked.service_s, asked.service_s)
        for load in loads
    ]
    stable = ~np.isnan(sweep.pool)
    stable_fresh = ~np.isnan(sweep.fresh)
    # As many thousandths as a curve in print can show.
    parts = 1 - np.logspace(0, -4, 81)[1:]
    curve = np.linspace(0, float(np.quantile(times, 1 - 1e-4)), 120)
    survival = queue.response_survival()
    closed = np.array([survival(float(time)) for time in curve])
    return [
        Plot(
            "p99-by-size",
            "p99 against the number of connections",
            "Too few and requests wait for one; with fresh connections, the set-up keeps each busy"
            " for longer, and more are needed.",
            Axis("connections at most"),
            Axis("p99", "ms", low=0),
            (
                Line(_POOL, sweep.sizes[stable], _MS * sweep.pool[stable], "points"),
                Line("Erlang C", sweep.sizes[stable], _MS * sweep.closed[stable], dashed=True),
                Line(_FRESH, sweep.sizes[stable_fresh], _MS * sweep.fresh[stable_fresh]),
                Rule("p99 of a request that never waits", _MS * asked.never_waits_s),
                Rule("pool size", float(asked.pool_size), "x"),
            ),
        ),
        Plot(
            "distribution",
            f"Requests that take longer, with {asked.pool_size} connections",
            "Fresh connections have no limit here: none waits, all pay for the set-up.",
            Axis("time from request to answer", "ms", low=0),
            Axis("requests that take longer", "fraction", log=True),
            (
                Line(_POOL, _MS * np.quantile(times, parts), 1 - parts, "points"),
                Line("Erlang C", _MS * curve, closed, dashed=True),
                Line(_FRESH, _MS * np.quantile(fresh, parts), 1 - parts),
            ),
        ),
        Plot(
            "p99-by-load",
            f"p99 of {asked.pool_size} connections against their load",
            "By Erlang C; where the lines cross, opening a connection is as good as waiting.",
            Axis("load of the connections", "fraction", low=0, high=1),
            Axis("p99", "ms", low=0),
            (
                Line(
                    "Erlang C",
                    loads,
                    _MS * np.array([each.response_percentile(_PART) for each in by_load]),
                ),
                Line(_FRESH, loads, np.full(len(loads), no_limit), dashed=True),
                Rule("load at the rate asked for", queue.load, "x"),
            ),
        ),
    ]


def _conclusion(
    asked: Parameters, queue: Queue, p99: float, least: int, fresh_closed: float
) -> str:
    return (
        f"At {asked.requests_per_s:g} requests per second of {asked.service_ms:g} ms,"
        f" {asked.pool_size} connections are {queue.load:.0%} busy, {queue.waits:.0%} of requests"
        f" wait for one and p99 is {_MS * p99:.1f} ms; {least} connections bring that within"
        f" {100 * asked.slack:g} % of the {_MS * asked.never_waits_s:.1f} ms of a request that"
        f" never waits, while with a fresh connection for each request it is"
        f" {_MS * fresh_closed:.1f} ms, with {asked.fresh_offered:.3g} connections open at once and"
        f" {asked.requests_per_s:g} new ones per second."
    )


SCENARIO = Scenario(
    name="pool-size",
    title="Size of connection pools",
    question="How many connections does a pool need, and what does a fresh one per request cost?",
    explanation=(
        "Requests arrive at random at a pool whose connections serve one request at a time, and"
        " wait in one queue, first come, first served (M/M/c). Every request is simulated, and"
        " compared with Erlang's formula. At the other end each request opens its own connection:"
        " it waits for no other, but for the set-up, and keeps a connection for longer; with a"
        " limit on connections it queues for that, too. Left out: requests that share a connection,"
        " and the processor time of set-ups."
    ),
    parameters=Parameters,
    run=_run,
)
