"""A closed loop through load generator, routers and storage nodes that share a few processors.

Every request is simulated. Each process is one event loop: when it wakes up it takes all that waits
for it, works on that, and passes it on together, but never waits for more than `push` requests. So
a process costs `wake_ms` for every time it wakes up and `each_ms` for every request, a request gets
cheaper the more there are at once, and few requests travel as a convoy, with one process at work at
a time. Processes with work share the processors equally (processor sharing), each one at most; one
that has just run out of work looks for more for a moment before it sleeps, and takes a part then.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from fleet.exact.random import below, gamma, seeded
from fleet.outcome import Array

# Answers that are let pass before any counts, as a part of those that do.
_WARM_UP_SHARE = 0.1

# Stands for "as many as wait".
UNBOUNDED = 1 << 30


@dataclass(frozen=True, slots=True)
class Process:
    """Processor milliseconds of an event loop: for waking up, and for each request (in the router
    for the request and its answer together: half on either way)."""

    wake_ms: float
    each_ms: float


@dataclass(frozen=True, slots=True)
class Tandem:
    """hop_ms: from one process to the next, using no processor. spread: standard deviation of the
    work of one turn over its mean, gamma distributed; 1 is the exponential distribution, 0 none.
    push: requests that leave together at the most; batch_max: that a process takes in one turn.
    looking: part of a share that a process takes while it looks for work, for look_ms.
    """

    generator: Process
    router: Process
    storage: Process
    hop_ms: float
    spread: float
    cores: int = 2
    push: int = UNBOUNDED
    batch_max: int = UNBOUNDED
    looking: float = 0.0
    look_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class ClosedRun:
    """cpu_ms: processor time per request of generator, all routers, all storage nodes."""

    requests: int
    per_second: float
    p50_ms: float
    p99_ms: float
    cpu_ms: tuple[float, float, float]


def simulate(
    tandem: Tandem,
    outstanding: int,
    requests: int,
    seed: int,
    routers: int = 1,
    storage: int = 1,
) -> ClosedRun:
    """`requests` answers after a warm-up, with `outstanding` under way at all times. Requests keep
    to routers in turn, and each goes to any storage node with the same probability."""
    latencies = np.empty(requests, np.float64)
    cpu = np.zeros(3, np.float64)
    wake = np.array([tandem.generator.wake_ms, tandem.router.wake_ms, tandem.storage.wake_ms])
    each = np.array([tandem.generator.each_ms, tandem.router.each_ms / 2, tandem.storage.each_ms])
    elapsed_ms = _run(
        np.uint64(seed),
        *(outstanding, routers, storage, float(tandem.cores), tandem.push, tandem.batch_max),
        *(tandem.hop_ms, wake, each, tandem.spread, tandem.looking, tandem.look_ms),
        *(int(requests * _WARM_UP_SHARE), latencies, cpu),
    )
    latencies.sort()
    generator, router, store = (float(value) / requests for value in cpu)
    return ClosedRun(
        requests,
        1000 * requests / elapsed_ms,
        nearest_rank(latencies, 0.5),
        nearest_rank(latencies, 0.99),
        (generator, router, store),
    )


def nearest_rank(ordered: Array, part: float) -> float:
    """The least value with `part` of all, 0 to 1, at or below it."""
    return float(ordered[max(0, int(np.ceil(round(len(ordered) * part, 6))) - 1)])


@njit(cache=True)
def _run(
    seed: np.uint64,
    outstanding: int,
    routers: int,
    storage: int,
    cores: float,
    push: int,
    batch_max: int,
    hop: float,
    wake: Array,
    each: Array,
    spread: float,
    looking: float,
    look: float,
    warm: int,
    out: Array,
    cpu: Array,
) -> float:
    """Milliseconds that the answers in `out`, whose times it fills in, took together. cpu: gets the
    processor time of generator, routers and storage nodes added."""
    state = seeded(seed)
    stations = 1 + routers + storage
    # Who waits at each station, in order: the first `chunk` are worked on and leave together, and
    # the first `turn` belong to the turn that goes on.
    queue = np.zeros((stations, outstanding), np.int64)
    head = np.zeros(stations, np.int64)
    waiting = np.zeros(stations, np.int64)
    turn = np.zeros(stations, np.int64)
    chunk = np.zeros(stations, np.int64)
    noise = np.ones(stations)
    idle_since = np.zeros(stations)
    left = np.zeros(stations)
    # On the way between stations. All take the same time, so they arrive as they set out.
    on_way = np.zeros(outstanding, np.int64)
    arrives_at = np.zeros(outstanding)
    way_head = 0
    way_count = 0
    # Where it is or is going to: 0 the generator, 1 the router, 2 storage, 3 the router again.
    stage = np.zeros(outstanding, np.int64)
    station = np.zeros(outstanding, np.int64)
    sent_at = np.zeros(outstanding)
    queue[0] = np.arange(outstanding)
    waiting[0] = outstanding
    now = 0.0
    began_at = 0.0
    # What the generator sends first answers nothing.
    answered = -outstanding
    counted = out.shape[0]
    shape = 1.0 / (spread * spread) if spread > 0 else 0.0
    while True:
        while way_count and arrives_at[way_head] <= now:
            request = on_way[way_head]
            way_head = (way_head + 1) % outstanding
            way_count -= 1
            to = station[request]
            queue[to, (head[to] + waiting[to]) % outstanding] = request
            waiting[to] += 1
        busy = 0
        for s in range(stations):
            if chunk[s] == 0 and waiting[s] > 0:
                kind = 0 if s == 0 else (1 if s <= routers else 2)
                work = 0.0
                if turn[s] == 0:
                    turn[s] = min(waiting[s], batch_max)
                    work = wake[kind]
                    if shape > 0:
                        noise[s] = gamma(state, shape) / shape
                chunk[s] = min(turn[s], push)
                work = (work + each[kind] * chunk[s]) * noise[s]
                left[s] = work
                if answered >= warm:
                    cpu[kind] += work
            if chunk[s] > 0:
                busy += 1
        looks = 0
        for s in range(stations):
            if chunk[s] == 0 and now - idle_since[s] < look:
                looks += 1
        # As it is now until something happens: a process that stops looking is noticed then.
        rate = min(1.0, cores / (busy + looking * looks)) if busy else 1.0
        first = -1
        step = np.inf
        for s in range(stations):
            if chunk[s] > 0 and left[s] / rate < step:
                step = left[s] / rate
                first = s
        if way_count and arrives_at[way_head] - now < step:
            first = -1
            step = arrives_at[way_head] - now
            now = arrives_at[way_head]
        else:
            now += step
        for s in range(stations):
            if chunk[s] > 0:
                left[s] -= step * rate
        if first < 0:
            continue
        for _ in range(chunk[first]):
            request = queue[first, head[first]]
            head[first] = (head[first] + 1) % outstanding
            if stage[request] == 0:
                if answered >= warm:
                    out[answered - warm] = now - sent_at[request]
                answered += 1
                if answered == warm:
                    began_at = now
                if answered - warm == counted:
                    return now - began_at
                sent_at[request] = now
            stage[request] = (stage[request] + 1) % 4
            if stage[request] == 0:
                station[request] = 0
            elif stage[request] == 2:
                station[request] = 1 + routers + below(state, storage)
            else:
                station[request] = 1 + request % routers
            on_way[(way_head + way_count) % outstanding] = request
            arrives_at[(way_head + way_count) % outstanding] = now + hop
            way_count += 1
        waiting[first] -= chunk[first]
        turn[first] -= chunk[first]
        chunk[first] = 0
        idle_since[first] = now
