"""A fleet of routers with conventional caches of the map, over one backend they look things up in.

Each router holds entries that live for a fixed time. A request whose entry is not there makes a
lookup of its own; the backend carries out so many a second in the order they came, lets so many
wait, and refuses the rest. A caller gives up after its timeout, but its lookup still costs what it
costs, as the backend does not know. What was refused or given up tries again after a wait that is
exponentially distributed and doubles each time; a request fails with its last try.

Requests are masses here: of a step's, those for absent keys miss, and answers fall on absent keys
at random (so of n lookups for as many keys a share of e^-1 stays absent, as with real ones).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from fleet.closed.caches import KeyClasses
from fleet.cohort import _lookup_kernel as kernel
from fleet.outcome import Array
from keyplane.model.errors import KeyplaneError, Reason

STEP_S_MAX = 0.01

# 150 MB of results.
STEPS_MAX = 1_500_000


@dataclass(frozen=True, slots=True)
class Flush:
    """At `at_s`, each cohort loses this share of its entries, evenly over their ages."""

    at_s: float
    shares: Sequence[float]


@dataclass(frozen=True, slots=True)
class Lookups:
    """routers: of each cohort. keys: what each router is asked for. rate_per_s: requests at one
    router at load 1. ttl_s: life of an entry. capacity_per_s: lookups, of the whole backend, at
    health 1. bound: lookups that may wait. retries: after the first try. backoff_s: mean wait
    before the first of them. hits: share of each class of keys held at the start. retry_budget:
    retries for each first try, of the whole fleet, and retry_burst more at once; one that is not
    in the budget fails instead.
    """

    routers: Sequence[float]
    keys: KeyClasses
    rate_per_s: float
    ttl_s: float
    capacity_per_s: float
    bound: float
    timeout_s: float
    retries: int
    backoff_s: float
    hits: Array
    flushes: Sequence[Flush] = field(default=())
    retry_budget: float = math.inf
    retry_burst: float = 0.0


@dataclass(frozen=True, slots=True)
class LookupRun:
    """Of each step, in its order; masses of requests or lookups, not rates.

    arrived = hits + answered + failed + what `waiting` rose by. wanted: requests that missed.
    attempts: lookups sent, retries too. useful and wasted: lookups carried out for callers that
    waited, and for none. queued, waiting: at the step's end; waiting are requests, queued are
    lookups, whose callers may have given up. fresh: share of entries held.
    """

    step_s: float
    time_s: Array
    arrived: Array
    hits: Array
    answered: Array
    failed: Array
    waiting: Array
    wanted: Array
    attempts: Array
    refused: Array
    useful: Array
    wasted: Array
    queued: Array
    fresh: Array

    def rate(self, masses: Array) -> Array:
        """Per second."""
        return masses / self.step_s

    @property
    def availability(self) -> Array:
        """Share of requests that ended in a step which ended well; 1 where none ended."""
        well = self.hits + self.answered
        ended = well + self.failed
        return np.where(ended > 0, well / np.where(ended > 0, ended, 1.0), 1.0)


def check_steps(step_s: float, steps: int) -> None:
    """Raises INVALID_ARGUMENT on steps that are too long or too many."""
    if not 0 < step_s <= STEP_S_MAX:
        raise KeyplaneError(
            Reason.INVALID_ARGUMENT, f"a step of {step_s:g} s; give at most {STEP_S_MAX:g} s"
        )
    if steps > STEPS_MAX:
        raise KeyplaneError(
            Reason.INVALID_ARGUMENT,
            f"{steps} steps of {step_s:g} s; give a longer step or a shorter time, for at most"
            f" {STEPS_MAX}",
        )


def run_lookups(fleet: Lookups, step_s: float, load: Array, health: Array) -> LookupRun:
    """load, health: of each step, factors on the rate of requests and on the capacity.

    An answer that comes in a step serves from the next one on. Raises INVALID_ARGUMENT on steps
    longer than 10 ms, or too many, and on lives and timeouts shorter than a step.
    """
    check_steps(step_s, len(load))
    if fleet.ttl_s < step_s or fleet.timeout_s < step_s:
        raise KeyplaneError(
            Reason.INVALID_ARGUMENT,
            f"entries live {fleet.ttl_s:g} s and callers wait {fleet.timeout_s:g} s; give a step"
            " shorter than both",
        )
    flushes = sorted(fleet.flushes, key=lambda each: each.at_s)
    cohorts = len(fleet.routers)
    out = kernel.run(
        step_s,
        np.asarray(fleet.routers, dtype=np.float64),
        fleet.keys.counts,
        fleet.keys.shares * fleet.rate_per_s,
        np.asarray(load, dtype=np.float64),
        np.asarray(health, dtype=np.float64) * fleet.capacity_per_s,
        fleet.bound,
        max(1, round(fleet.timeout_s / step_s)),
        fleet.retries,
        fleet.backoff_s,
        max(1, round(fleet.ttl_s / step_s)),
        np.tile(fleet.hits, (cohorts, 1)),
        np.array([math.ceil(each.at_s / step_s - 1e-9) for each in flushes], dtype=np.int64),
        np.array([each.shares for each in flushes], dtype=np.float64).reshape(-1, cohorts),
        fleet.retry_budget,
        fleet.retry_burst,
    )
    columns = np.ascontiguousarray(out.T)
    return LookupRun(step_s, np.arange(len(load), dtype=np.float64) * np.float64(step_s), *columns)
