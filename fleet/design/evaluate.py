"""What a design does over time, by the cohort layer: requests, and the load on what is behind them.

A conventional cache, or none, looks things up in the Metadata Store. Routers on MemDS read it on a
fixed beat (constant work) or with every request: one that finds an entry refreshes it behind the
back of its caller, one that does not waits for its lookup. Lookups go before refreshes where MemDS
cannot do both. What MemDS held is gone when it comes back, and the Metadata Store has to fill it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from fleet.closed.caches import KeyClasses, held_shares, hit_ratio
from fleet.cohort.beats import PUBLISHER, READER, Beats, run_beats
from fleet.cohort.lookups import Flush, LookupRun, Lookups, run_lookups
from fleet.design.model import Cache, Design, Fault, FaultKind
from fleet.map_sizes import page_sizes
from fleet.outcome import Array
from router.config import RouterConfig

METADATA = "Metadata Store"
MEMDS = "MemDS"

# A restart wave goes through so many groups of routers, one after the other.
_GROUPS = 20

# Stands for keys of which no two requests ever ask for the same: no cache at all.
_NEVER_TWICE = KeyClasses(np.array([1e15]), np.array([1e-15]))

# Lives of entries that never end, in lengths of the run.
_FOREVER = 1e6

# Requests that may wait at MemDS, as time in which it does them.
_MEMDS_BOUND_S = 0.05


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Of each step; masses of requests. waiting: at the end. load: requests a second at each
    backend; the first is the one that requests lean on for the way. hits: what share of
    requests is answered by a cache when all is well, by closed form; None where there is none.
    """

    step_s: float
    time_s: Array
    arrived: Array
    well: Array
    failed: Array
    waiting: float
    load: dict[str, Array]
    hits: Array
    steady_hits: float | None


def evaluate(design: Design) -> Evaluation:
    """Of a design that has been checked."""
    match design.routers.cache:
        case Cache.MEMDS:
            return _constant_work(design)
        case Cache.MEMDS_PER_REQUEST:
            return _per_request(design)
        case _:
            return _conventional(design)


# --- Caches in front of the Metadata Store -------------------------------------------------------


def _conventional(design: Design) -> Evaluation:
    cached = design.routers.cache is Cache.TTL
    rate_per_s = design.traffic.rate_per_s / design.routers.count
    keys = _keys(design) if cached else _NEVER_TWICE
    ttl_s = design.routers.ttl_s if cached else 2 * design.step_s
    capacity_per_s = design.metadata.replicas * design.metadata.capacity_per_s
    hits = held_shares(keys, rate_per_s, ttl_s, design.step_s)
    run = _lookups(design, keys, ttl_s, capacity_per_s, hits, _health(design, METADATA))
    steady = hit_ratio(keys, rate_per_s, ttl_s, design.step_s) if cached else None
    return _evaluation(run, {METADATA: run.rate(run.attempts)}, steady)


def _lookups(
    design: Design,
    keys: KeyClasses,
    ttl_s: float,
    capacity_per_s: float,
    hits: Array,
    health: Array,
) -> LookupRun:
    routers, policies = design.routers, design.policies
    fleet = Lookups(
        routers=_groups(design),
        keys=keys,
        rate_per_s=design.traffic.rate_per_s / routers.count,
        ttl_s=ttl_s,
        capacity_per_s=capacity_per_s,
        bound=float(policies.queue),
        timeout_s=policies.timeout_s,
        retries=policies.retries,
        backoff_s=policies.backoff_s,
        hits=hits,
        flushes=_flushes(design),
        retry_budget=policies.retry_budget,
        retry_burst=routers.count * RouterConfig().retry_burst,
    )
    return run_lookups(fleet, design.step_s, np.ones(design.steps), health)


def _evaluation(run: LookupRun, load: dict[str, Array], steady: float | None) -> Evaluation:
    return Evaluation(
        run.step_s,
        run.time_s,
        run.arrived,
        run.hits + run.answered,
        run.failed,
        float(run.waiting[-1]),
        load,
        run.hits,
        steady,
    )


# --- MemDS, with every request -------------------------------------------------------------------


def _per_request(design: Design) -> Evaluation:
    """An entry that is used is refreshed all the time, so it never ends by age."""
    memds, policies = design.memds, design.policies
    capacity_per_s = memds.nodes * memds.capacity_per_s
    ttl_s = _FOREVER * design.duration_s
    health = _health(design, MEMDS) * _filled(design)
    run = _lookups(design, _keys(design), ttl_s, capacity_per_s, np.ones(1), health)
    asked = run.hits + run.attempts
    well, failed = run.hits + run.answered, run.failed.copy()
    for fault in _of_kind(design, FaultKind.MEMDS_NODE_SLOW):
        during = _during(design, fault)
        slow = fault.nodes / memds.nodes
        if policies.hedge_s and policies.hedge_s < fault.by_s:
            # The other node answers; it is asked once more for what the slow one got.
            asked = asked + np.where(during, slow * asked, 0.0)
        elif fault.by_s >= policies.timeout_s:
            # Each try finds a slow node with this probability, and fails with the last.
            lost = np.where(during, run.answered * slow ** (policies.retries + 1), 0.0)
            well, failed = well - lost, failed + lost
            tries = sum(slow**n for n in range(1, policies.retries + 1))
            asked = asked + np.where(during, run.wanted * tries, 0.0)
    load = {MEMDS: asked / design.step_s, METADATA: _publishing(design)}
    return Evaluation(
        *(run.step_s, run.time_s, run.arrived, well, failed, float(run.waiting[-1])),
        *(load, run.hits, None),
    )


def _filled(design: Design) -> Array:
    """1 while MemDS has the whole map, 0 from when it is lost until it is there again."""
    filled = np.ones(design.steps)
    writes = math.ceil(_pages(design) / PUBLISHER.page_slots)
    needed = round(writes * design.metadata.publish_s / design.step_s)
    up = _health(design, METADATA)
    for fault in _of_kind(design, FaultKind.MEMDS_DOWN):
        end = _step(design, fault.end_s)
        done = np.cumsum(up[end:])
        late = int(np.searchsorted(done, needed)) if needed else 0
        filled[_step(design, fault.at_s) : min(design.steps, end + late)] = 0.0
    return filled


# --- MemDS, on the beat --------------------------------------------------------------------------


def _constant_work(design: Design) -> Evaluation:
    """A node that is slow changes nothing: each beat asks two, and takes what comes."""
    memds, routers = design.memds, design.routers
    capacity_per_s = memds.nodes * memds.capacity_per_s
    groups = _groups(design)
    fleet = Beats(
        routers=groups,
        rate_per_s=design.traffic.rate_per_s / routers.count,
        tables=1.0,
        pages=_pages(design),
        capacity_per_s=capacity_per_s,
        bound=capacity_per_s * _MEMDS_BOUND_S,
        memds_nodes=memds.nodes,
        detours_per_s=routers.detours_per_s,
        covered=[1.0 for _ in groups],
        reader=replace(READER, beat_s=routers.beat_s),
        publisher=replace(PUBLISHER, beat_s=design.metadata.publish_s),
        emptied_at_s=[fault.at_s for fault in _of_kind(design, FaultKind.MEMDS_DOWN)],
        losses=_flushes(design),
    )
    control, health = _health(design, METADATA), _health(design, MEMDS)
    run = run_beats(fleet, design.step_s, np.ones(design.steps), health, control)
    load = {MEMDS: run.rate(run.asked), METADATA: _publishing(design)}
    well = run.served + run.detoured
    return Evaluation(
        *(run.step_s, run.time_s, run.arrived, well, run.failed, 0.0, load, run.served, None)
    )


# --- What they share -----------------------------------------------------------------------------


def _keys(design: Design) -> KeyClasses:
    count = float(design.traffic.keys)
    return KeyClasses(np.array([count]), np.array([1 / count]))


def _pages(design: Design) -> float:
    """Of one table that holds them all."""
    return float(math.ceil(page_sizes(design.traffic.keys).pages))


def _publishing(design: Design) -> Array:
    """Writes a second to MemDS: the same on every beat, of pages and other values."""
    writes = design.memds.nodes * (PUBLISHER.page_slots + PUBLISHER.value_slots)
    return _health(design, METADATA) * (writes / design.metadata.publish_s)


def _groups(design: Design) -> list[float]:
    """Routers of each cohort: one, unless they do not all meet the same."""
    groups = _GROUPS if any(_of_kind(design, FaultKind.RESTART_WAVE)) else 1
    return [design.routers.count / groups] * groups


def _flushes(design: Design) -> list[Flush]:
    groups = len(_groups(design))
    found = [
        Flush(fault.at_s, [fault.share] * groups)
        for fault in _of_kind(design, FaultKind.COLD_CACHES)
    ]
    for fault in _of_kind(design, FaultKind.RESTART_WAVE):
        for group in range(groups):
            shares = [fault.share if group == other else 0.0 for other in range(groups)]
            found.append(Flush(fault.at_s + fault.for_s * (group + 1) / groups, shares))
    return found


def _health(design: Design, backend: str) -> Array:
    down = FaultKind.METADATA_DOWN if backend == METADATA else FaultKind.MEMDS_DOWN
    health = np.ones(design.steps)
    for fault in _of_kind(design, down):
        health[_during(design, fault)] = 0.0
    return health


def _during(design: Design, fault: Fault) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    steps = np.arange(design.steps)
    return (steps >= _step(design, fault.at_s)) & (steps < _step(design, fault.end_s))


def _step(design: Design, at_s: float) -> int:
    return round(at_s / design.step_s)


def _of_kind(design: Design, kind: FaultKind) -> Iterator[Fault]:
    return (fault for fault in design.faults if fault.kind is kind)
