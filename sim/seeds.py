"""The seeds that every check runs: a fixed set per profile, and those that once found a bug."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Regression:
    """A seed that found a bug, and what it was."""

    profile: str
    seed: int
    caught: str


# How many seeds, from 0, of each profile.
FIXED: Mapping[str, int] = {
    "lite": 12,
    "swarm": 24,
    "control-plane-outage": 4,
    "cache-loss": 10,
    "split-storm": 16,
    "gray": 16,
}

REGRESSIONS: tuple[Regression, ...] = (
    Regression(
        "swarm",
        12,
        "a first attempt that a paused router held back was carried out after its retry had failed"
        " its condition",
    ),
    Regression(
        "gray",
        33,
        "the same, by another way: the retry's failure was told, the late attempt was not refused",
    ),
)


def fixed_seeds() -> Iterator[tuple[str, int]]:
    """(profile, seed) of the fixed set, the profiles taking turns."""
    for seed in range(max(FIXED.values())):
        for profile, count in FIXED.items():
            if seed < count:
                yield profile, seed
