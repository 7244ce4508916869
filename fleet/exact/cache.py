"""Every request of a small fleet of caching routers, one by one; a check of the cohort layer.

The same fleet as `fleet.cohort.lookups.Lookups`, but real: Poisson arrivals at routers drawn at
random, each for one key; caches with an expiry per key; a backend of `servers` that each take the
same fixed time for a lookup, first come, first served, with room for `bound` that wait; callers
that give up, and try again after exponentially distributed waits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from fleet.cohort.lookups import Lookups
from fleet.exact.heap import drop_first, push
from fleet.exact.random import below, exponential, seeded, uniform
from fleet.outcome import Array
from keyplane.model.errors import KeyplaneError, Reason

# Requests that may wait to try again; more would say that the fleet is not small.
RETRYING_MAX = 1 << 20

_ARRIVED, _HITS, _ANSWERED, _FAILED, _WANTED, _ATTEMPTS, _REFUSED = 0, 1, 2, 3, 4, 5, 6
_COLUMNS = 7


@dataclass(frozen=True, slots=True)
class ExactRun:
    """Counts of each interval of `interval_s`, by when things happened. unfinished: at the end."""

    interval_s: float
    unfinished: int
    arrived: Array
    hits: Array
    answered: Array
    failed: Array
    wanted: Array
    attempts: Array
    refused: Array

    @property
    def requests(self) -> int:
        return int(self.arrived.sum())


@njit(cache=True)
def _run(  # type: ignore[no-untyped-def]
    seed,
    until,
    interval,
    routers,
    class_ends,  # [class]: cumulated keys
    class_shares,  # [class]: cumulated share of requests
    rate,  # of the whole fleet
    ttl,
    held,  # [class]: share held at the start
    flush_at,
    dark_from,
    dark_until,
    service,
    servers,
    bound,
    timeout,
    retries,
    backoff,
    retrying_max,
):
    state = seeded(seed)
    keys = class_ends[-1]
    tries = retries + 1
    out = np.zeros((int(np.ceil(until / interval - 1e-9)), _COLUMNS), np.int64)
    expiry = np.full(routers * keys, -1.0)
    first = 0
    for c in range(class_ends.size):
        for r in range(routers):
            for key in range(first, class_ends[c]):
                if uniform(state) < held[c]:
                    expiry[r * keys + key] = uniform(state) * ttl
        first = class_ends[c]
    free = np.zeros(servers)  # a ring: with equal service the longest free is the next in turn
    turn = 0
    # Lookups taken: a ring by the order they came in, which is that of start and of end, too.
    ring = bound + servers + 1
    starts = np.zeros(ring)
    taken, started = 0, 0
    # Answers on their way: what they are for, and when the caller asked.
    ends = np.zeros(ring)
    asked = np.zeros(ring)
    entry = np.zeros(ring, np.int64)
    tried = np.zeros(ring, np.int64)
    answered = 0
    # Callers who will give up are known when their lookup is taken, as its end is.
    again_at = np.zeros(retrying_max)
    again = np.zeros(retrying_max, np.int64)
    waiting = 0
    flushed = flush_at < 0
    next_arrival = exponential(state, 1.0 / rate)
    while True:
        retry = waiting > 0 and again_at[0] <= next_arrival
        now = again_at[0] if retry else next_arrival
        if now >= until:
            break
        if not flushed and now >= flush_at:
            # Answers that came before the flush are lost with it.
            while answered < taken and ends[answered % ring] <= flush_at:
                answered += 1
            expiry[:] = -1.0
            flushed = True
        while answered < taken and ends[answered % ring] <= now:
            i = answered % ring
            if ends[i] - asked[i] <= timeout and expiry[entry[i]] <= ends[i]:
                expiry[entry[i]] = ends[i] + ttl
            answered += 1
        row = out[int(now / interval)]
        attempt = 0
        if retry:
            what, attempt = again[0] // tries, again[0] % tries
            drop_first(again_at, again, waiting)
            waiting -= 1
        else:
            next_arrival = now + exponential(state, 1.0 / rate)
            router = below(state, routers)
            c = min(np.searchsorted(class_shares, uniform(state)), class_ends.size - 1)
            first = 0 if c == 0 else class_ends[c - 1]
            what = router * keys + first + below(state, class_ends[c] - first)
            row[_ARRIVED] += 1
        if expiry[what] > now:
            row[_HITS if attempt == 0 else _ANSWERED] += 1
            continue
        if attempt == 0:
            row[_WANTED] += 1
        row[_ATTEMPTS] += 1
        while started < taken and starts[started % ring] <= now:
            started += 1
        failed_at = -1.0
        dark = dark_from <= now < dark_until
        if dark or (taken - started >= bound and free[turn] > now):
            row[_REFUSED] += 1
            failed_at = now
        else:
            i = taken % ring
            starts[i] = max(now, free[turn])
            ends[i] = starts[i] + service
            free[turn] = ends[i]
            turn = (turn + 1) % servers
            asked[i] = now
            entry[i] = what
            tried[i] = attempt
            taken += 1
            if ends[i] - now > timeout:
                failed_at = now + timeout
            elif ends[i] < until:
                out[int(ends[i] / interval), _ANSWERED] += 1
        if failed_at >= 0.0:
            if attempt < retries:
                if waiting == retrying_max:
                    return out, False
                wait = exponential(state, backoff * 2.0**attempt)
                push(again_at, again, waiting, failed_at + wait, what * tries + attempt + 1)
                waiting += 1
            elif failed_at < until:
                out[int(failed_at / interval), _FAILED] += 1
    return out, True


def run_exact(
    fleet: Lookups,
    servers: int,
    duration_s: float,
    interval_s: float,
    seed: int,
    dark_s: tuple[float, float] = (0.0, 0.0),
) -> ExactRun:
    """`fleet` of one cohort; capacity_per_s is shared by the servers. seed: of 64 bits, from
    `Context.stream`. dark_s: from when until when the backend refuses all. At most one flush, of
    everything. Raises INVALID_ARGUMENT on another fleet, or one that is too large."""
    whole = len(fleet.flushes) <= 1 and all(set(each.shares) == {1.0} for each in fleet.flushes)
    if len(fleet.routers) != 1 or not whole:
        raise KeyplaneError(
            Reason.INVALID_ARGUMENT,
            "the exact layer knows one cohort that loses everything at most once; give such a one",
        )
    routers = int(fleet.routers[0])
    ends = np.cumsum(fleet.keys.counts).astype(np.int64)
    out, fits = _run(
        np.uint64(seed),
        duration_s,
        interval_s,
        routers,
        ends,
        np.cumsum(fleet.keys.counts * fleet.keys.shares),
        fleet.rate_per_s * routers,
        fleet.ttl_s,
        fleet.hits,
        fleet.flushes[0].at_s if fleet.flushes else -1.0,
        *dark_s,
        servers / fleet.capacity_per_s,
        servers,
        int(fleet.bound),
        fleet.timeout_s,
        fleet.retries,
        fleet.backoff_s,
        RETRYING_MAX,
    )
    if not fits:
        raise KeyplaneError(
            Reason.INVALID_ARGUMENT,
            f"more than {RETRYING_MAX} requests wait to try again; give a smaller fleet",
        )
    columns = np.ascontiguousarray(out.T, dtype=np.float64)
    arrived, hits, answered, failed = columns[:4]
    unfinished = int(arrived.sum() - hits.sum() - answered.sum() - failed.sum())
    return ExactRun(interval_s, unfinished, *columns)
