"""The seeded world holds every invariant: for a fixed set of seeds, for plans that once found a
bug, and for some seeds that nobody has run before.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path

import pytest

from sim.batch import run_seeds
from sim.run import run_seed
from sim.rundir import read_plan
from sim.seeds import fixed_seeds, quick_seeds

# Seeds that are new in every run, of the profile with everything in it.
FRESH = 8

# `scripts/test` has tests that start clusters beside these: one core is theirs.
WORKERS = 1


def _violations(seeds: Iterable[tuple[str, int]]) -> list[str]:
    pairs = list(seeds)
    return [
        f"{result}\n    look closer: keyplane sim replay {seed} --profile {profile}"
        for (profile, seed), result in zip(pairs, run_seeds(pairs, WORKERS), strict=True)
        if not result.held
    ]


@pytest.mark.timeout(600)
def test_some_seeds_of_every_profile_hold() -> None:
    assert _violations(quick_seeds()) == []


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_the_other_fixed_seeds_hold() -> None:
    quick = set(quick_seeds())
    assert _violations(pair for pair in fixed_seeds() if pair not in quick) == []


# Plans of seeds that found a bug and mean something else by now: what seeds draw has changed.
PLANS = {
    "deleted-table-comes-back": "a router that heard of a table's deletion before it knew the table"
    " took it up again from a late report, and kept it",
    "table-only-from-storage-nodes": "a router that knew a table from storage nodes alone never"
    " read its root in MemDS, so it kept the table after its deletion",
}


@pytest.mark.parametrize("name", PLANS)
def test_no_bug_that_a_plan_once_found_is_back(name: str) -> None:
    result = run_seed(read_plan(Path(__file__).parent / "plans" / f"{name}.plan.json"))
    assert result.held, f"{PLANS[name]}: {result}"


@pytest.mark.timeout(300)
def test_seeds_that_nobody_has_run_before_hold() -> None:
    first = random.SystemRandom().randrange(1 << 40)
    assert _violations(("swarm", seed) for seed in range(first, first + FRESH)) == []
