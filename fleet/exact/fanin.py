"""Calls that wait for several others, each simulated: lookups of a batch, followers of a leader."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from fleet.exact.random import below, exponential, seeded
from fleet.outcome import Array


@dataclass(frozen=True, slots=True)
class Batches:
    """latency_s: of each batch. touched: whether one of its lookups went to a slow replica."""

    latency_s: Array
    touched: Array


@njit(cache=True)
def _batches(seed, batches, fan_in, replicas, slow, mean_s, slow_s):  # type: ignore[no-untyped-def]
    state = seeded(seed)
    latency, touched = np.zeros(batches), np.zeros(batches)
    for batch in range(batches):
        for _ in range(fan_in):
            took = exponential(state, mean_s)
            if below(state, replicas) < slow:
                took += slow_s
                touched[batch] = 1.0
            latency[batch] = max(latency[batch], took)
    return latency, touched


def run_batches(
    seed: int,
    batches: int,
    fan_in: int,
    replicas: int,
    slow: int,
    mean_s: float,
    slow_s: float,
) -> Batches:
    """Batches of `fan_in` lookups at once, each at a replica drawn at random, of which `slow` take
    `slow_s` longer than an exponentially distributed time."""
    latency, touched = _batches(np.uint64(seed), batches, fan_in, replicas, slow, mean_s, slow_s)
    return Batches(latency, touched)


def run_commits(
    seed: int, commits: int, followers: int, needed: int, wire_s: float, sync_s: float
) -> Array:
    """Seconds until `needed` of the followers have an update, of each commit: there and back takes
    `wire_s`, making it durable an exponentially distributed time."""
    if needed == 0:
        return np.zeros(commits)
    random = np.random.default_rng(seed)
    took = np.empty(commits)
    # In pieces, so that a thousand followers of thousands of commits fit in the memory.
    piece = max(1, 1_000_000 // followers)
    for first in range(0, commits, piece):
        of = slice(first, min(first + piece, commits))
        drawn = random.exponential(sync_s, (of.stop - of.start, followers))
        took[of] = np.partition(drawn, needed - 1, axis=1)[:, needed - 1]
    return took + wire_s
