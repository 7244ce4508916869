"""Closed forms of caches whose entries live for a fixed time, and of quorums and fan-in.

A key is asked for by a Poisson process of `rate`, and an entry lives `ttl_s` once it is filled.
From one filling to the next is a renewal cycle of ttl + 1/rate seconds with one miss: the formula
of Jung, Berger and Balakrishnan, Modeling TTL-based Internet Caches (INFOCOM 2003), for Poisson
arrivals. Where answers come at the ends of steps of `step_s`, a step fills an absent key with
probability 1 - exp(-rate · step), and each request for it until then is a miss; the formula holds
with the rate of filling in the place of the rate of requests, and is the same for short steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fleet.bisection import bisect
from fleet.outcome import Array
from keyplane.model.errors import KeyplaneError, Reason


@dataclass(frozen=True, slots=True)
class KeyClasses:
    """Keys by how often they are asked for: all of a class equally often.

    counts: keys of each class. shares: the part of all requests that goes to one key of it, so that
    counts · shares adds up to 1.
    """

    counts: Array
    shares: Array


def zipf_classes(keys: int, skew: float, classes: int) -> KeyClasses:
    """Ranks 1 to `keys`, the k-th asked for in proportion to k^-skew, cut into at most `classes`
    runs of about equal length in log(rank); each run's keys get its average. skew 0: one class."""
    weights = np.arange(1, keys + 1, dtype=np.float64) ** -skew
    weights /= weights.sum()
    wanted = 1 if skew == 0 else classes
    cuts = np.unique(np.round(np.geomspace(1, keys + 1, wanted + 1)).astype(np.int64)) - 1
    counts = np.diff(cuts).astype(np.float64)
    return KeyClasses(counts, np.add.reduceat(weights, cuts[:-1]) / counts)


def hit_ratio(classes: KeyClasses, rate_per_s: float, ttl_s: float, step_s: float = 0.0) -> float:
    """Share of the requests that find an entry. rate_per_s: of all keys together, at one cache."""
    held = held_shares(classes, rate_per_s, ttl_s, step_s)
    return float(np.sum(classes.counts * classes.shares * held))


def held_shares(classes: KeyClasses, rate_per_s: float, ttl_s: float, step_s: float) -> Array:
    """Share of each class's keys that one cache holds in the long run."""
    rates = classes.shares * rate_per_s
    fills = -np.expm1(-rates * step_s) / step_s if step_s > 0 else rates
    return np.asarray(fills * ttl_s / (1 + fills * ttl_s), dtype=np.float64)


def ttl_for(classes: KeyClasses, rate_per_s: float, hits: float, step_s: float = 0.0) -> float:
    """The life of an entry, in seconds, that gives a hit ratio of `hits`. Raises INVALID_ARGUMENT
    if none up to 10^9 seconds does."""

    def enough(ttl_s: float) -> bool:
        return hit_ratio(classes, rate_per_s, ttl_s, step_s) >= hits

    longest_s = 1e9
    if not enough(longest_s):
        raise KeyplaneError(
            Reason.INVALID_ARGUMENT,
            f"no life of entries gives a hit ratio of {hits:g}; ask for less, or give more requests"
            " per router or fewer keys",
        )
    return bisect(enough, 0.0, longest_s)[1]


def fresh_share(
    classes: KeyClasses, rate_per_s: float, ttl_s: float, step_s: float, without_s: Array
) -> Array:
    """Share of the requests that still find an entry `without_s` seconds after answers stopped.

    In the steady state the time an entry has left is uniform over [0, ttl], so what is left of it
    falls in a straight line to nothing at the ttl.
    """
    left = np.clip(1 - without_s / ttl_s, 0.0, 1.0)
    return hit_ratio(classes, rate_per_s, ttl_s, step_s) * left


def outage_availability(
    classes: KeyClasses, rate_per_s: float, ttl_s: float, step_s: float, outage_s: float
) -> float:
    """Average of `fresh_share` over an outage: h (1 - D / 2T) up to the ttl T, then h T / 2D."""
    hits = hit_ratio(classes, rate_per_s, ttl_s, step_s)
    if outage_s <= ttl_s:
        return hits * (1 - outage_s / (2 * ttl_s))
    return hits * ttl_s / (2 * outage_s)


# --- fan-in and quorums --------------------------------------------------------------------------


def any_of(share: float, fan_in: int) -> float:
    """P(at least one of `fan_in` independent calls is among the `share` that is slow)."""
    return -math.expm1(fan_in * math.log1p(-share)) if share < 1 else 1.0


def order_statistic_cdf(below: float, k: int, n: int) -> float:
    """P(the k-th smallest of n is below x), where each is with probability `below`."""
    if below <= 0 or below >= 1:
        return float(below >= 1)
    log, other = math.log(below), math.log1p(-below)
    choose = math.lgamma(n + 1)
    terms = (
        choose - math.lgamma(j + 1) - math.lgamma(n - j + 1) + j * log + (n - j) * other
        for j in range(k, n + 1)
    )
    return min(1.0, math.fsum(math.exp(term) for term in terms))


def order_statistic_quantile(p: float, k: int, n: int) -> float:
    """The u for which the k-th smallest of n is below the u-quantile of one with probability p."""
    return bisect(lambda u: order_statistic_cdf(u, k, n) >= p, 0.0, 1.0)[1]


def exponential_order_mean(mean: float, k: int, n: int) -> float:
    """Mean of the k-th smallest of n exponentials: mean · (1/n + 1/(n-1) + … + 1/(n-k+1)), by
    Rényi's representation (On the theory of order statistics, 1953)."""
    return mean * math.fsum(1 / (n - i) for i in range(k))
