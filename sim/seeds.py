"""The seeds that checks run: a few of them always, all of them where there is time.

What a seed draws changes whenever something new can be drawn, so a seed that found a bug says
nothing later. Such a bug is planted again instead, as one of `sim/mutants/`, or its plan is kept
in `tests/sim/plans/`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import ceil

# How many seeds, from 0, of each profile.
FIXED: Mapping[str, int] = {
    "lite": 12,
    "swarm": 24,
    "control-plane-outage": 4,
    "cache-loss": 10,
    "split-storm": 16,
    "gray": 16,
    "heat": 12,
    "tenants": 6,
}

# Every check has so many of these, and does not wait for the others.
_QUICK_SHARE = 1 / 3

# Beyond those: each finds a planted bug that the others miss.
SINGLED_OUT: tuple[tuple[str, int], ...] = (
    ("swarm", 87),
    ("split-storm", 21),
    ("split-storm", 38),
    ("split-storm", 163),
)


def fixed_seeds(counts: Mapping[str, int] = FIXED) -> Iterator[tuple[str, int]]:
    """(profile, seed) of the fixed set, the profiles taking turns, then those singled out."""
    for seed in range(max(counts.values())):
        for profile, count in counts.items():
            if seed < count:
                yield profile, seed
    yield from SINGLED_OUT


def quick_seeds() -> Iterator[tuple[str, int]]:
    """The first of each profile in `fixed_seeds`, and those singled out."""
    return fixed_seeds({profile: ceil(count * _QUICK_SHARE) for profile, count in FIXED.items()})
