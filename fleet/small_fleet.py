"""A fleet of caching routers small enough to simulate each request of, beside the cohort layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fleet.closed.caches import held_shares, ttl_for, zipf_classes
from fleet.cohort.lookups import Flush, LookupRun, Lookups, run_lookups
from fleet.cohort.series import binned
from fleet.exact.cache import ExactRun, run_exact
from fleet.outcome import Array, Check, absolute

_STEP_S = 0.01
_SERVERS = 4


def small_fleet(
    *,
    routers: int,
    tables: int,
    rate_per_s: float,
    hits: float,
    headroom: float,
    retries: int,
    flushes: Sequence[Flush] = (),
) -> Lookups:
    """Tables that are all alike; a tenth of a second's lookups may wait for a timeout of one."""
    keys = zipf_classes(tables, 0.0, 1)
    ttl_s = ttl_for(keys, rate_per_s, hits, _STEP_S)
    capacity = routers * rate_per_s * (1 - hits) * headroom
    return Lookups(
        routers=[float(routers)],
        keys=keys,
        rate_per_s=rate_per_s,
        ttl_s=ttl_s,
        capacity_per_s=capacity,
        bound=math.floor(capacity * 0.1),
        timeout_s=1.0,
        retries=retries,
        backoff_s=0.1,
        hits=held_shares(keys, rate_per_s, ttl_s, _STEP_S),
        flushes=flushes,
    )


@dataclass(frozen=True, slots=True)
class Compared:
    """The same fleet in both layers; arrays of one value per second."""

    cohort: LookupRun
    exact: ExactRun

    @property
    def wanted(self) -> tuple[Array, Array]:
        """Lookups per second, cohort layer and each request simulated."""
        of_cohort = binned(self.cohort.rate(self.cohort.wanted), round(1 / _STEP_S))
        return of_cohort, self.exact.wanted / self.exact.interval_s

    def checks(self, seconds: slice = slice(None), hits_within: float = 0.02) -> list[Check]:
        """Shares of requests that hit in these seconds, and that fail at all."""
        second, source = round(1 / _STEP_S), "the same fleet with each request simulated"
        hits, arrived = (
            binned(each, second)[seconds] for each in (self.cohort.hits, self.cohort.arrived)
        )
        exact = self.exact
        return [
            absolute(
                "share of requests that hit in a small fleet, cohort layer",
                float(hits.sum() / arrived.sum()),
                float(exact.hits[seconds].sum() / exact.arrived[seconds].sum()),
                hits_within,
                source,
            ),
            absolute(
                "share of requests that fail in a small fleet, cohort layer",
                float(self.cohort.failed.sum() / self.cohort.arrived.sum()),
                float(exact.failed.sum() / exact.arrived.sum()),
                0.02,
                source,
            ),
        ]


def compare(
    fleet: Lookups, duration_s: float, seed: int, dark_s: tuple[float, float] = (0.0, 0.0)
) -> Compared:
    """dark_s: from when until when the backend answers nothing."""
    ones: Array = np.ones(round(duration_s / _STEP_S))
    health = ones.copy()
    health[round(dark_s[0] / _STEP_S) : round(dark_s[1] / _STEP_S)] = 0.0
    exact = run_exact(fleet, _SERVERS, duration_s, 1.0, seed, dark_s)
    return Compared(run_lookups(fleet, _STEP_S, ones, health), exact)
