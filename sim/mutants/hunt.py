"""Hunting mutants: runs the seeds that every check runs until one of them notices the bug.

A violation counts only if the code as it is holds under the same seed.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import as_completed
from dataclasses import dataclass
from functools import cache

from keyplane.workers import processors, worker_processes
from sim.mutants.mutant import Mutant
from sim.mutants.registry import MUTANTS
from sim.plan import draw_plan
from sim.run import without_collector
from sim.scenario import Result
from sim.seeds import fixed_seeds

Pair = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Kill:
    """invariant, message: of the violation. seeds_tried: with the one that noticed."""

    mutant: str
    profile: str
    seed: int
    invariant: str
    message: str
    seeds_tried: int
    wall_seconds: float

    killed = True

    def __str__(self) -> str:
        return (
            f"{self.mutant}: killed by {self.profile} {self.seed} after {self.seeds_tried} seeds"
            f" and {self.wall_seconds:.1f} s: {self.invariant}: {self.message}"
        )


@dataclass(frozen=True, slots=True)
class Survivor:
    mutant: str
    seeds_tried: int
    wall_seconds: float

    killed = False

    def __str__(self) -> str:
        return f"{self.mutant}: SURVIVED {self.seeds_tried} seeds ({self.wall_seconds:.1f} s)"


def hunt(mutant: Mutant, pairs: Iterable[Pair] | None = None) -> Kill | Survivor:
    """Runs pairs in their order until one is violated by the mutant, and not without it."""
    began = time.perf_counter()
    tried = 0
    for profile, seed in fixed_seeds() if pairs is None else pairs:
        tried += 1
        violation = run_with(mutant, profile, seed).violation
        if violation is not None and holds(profile, seed):
            seconds = time.perf_counter() - began
            return Kill(
                mutant.name,
                profile,
                seed,
                violation.invariant,
                violation.message,
                tried,
                seconds,
            )
    return Survivor(mutant.name, tried, time.perf_counter() - began)


def hunt_all(
    names: Iterable[str] = (),
    workers: int = 0,
    on_progress: Callable[[Kill | Survivor], None] | None = None,
) -> list[Kill | Survivor]:
    """Hunts mutants, all if none is named, several at a time.

    Raises, before any is hunted, KeyError on an unknown name, and ValueError on one that does not
    fit the code any more.

    workers: processes; 0: as many as there are processors. on_progress: told of each as it ends,
    by default on stderr.
    """
    chosen = list(dict.fromkeys(names)) or list(MUTANTS)
    for name in chosen:
        with MUTANTS[name].apply():
            pass
    tell = on_progress or _tell_people
    workers = min(workers or processors(), len(chosen))
    found: dict[str, Kill | Survivor] = {}
    if workers == 1:
        for name in chosen:
            found[name] = hunt(MUTANTS[name])
            tell(found[name])
        return list(found.values())
    with worker_processes(workers) as pool:
        waiting = [pool.submit(_hunt_named, name) for name in chosen]
        for done in as_completed(waiting):
            outcome = done.result()
            found[outcome.mutant] = outcome
            tell(outcome)
    return [found[name] for name in chosen]


def run_with(mutant: Mutant, profile: str, seed: int) -> Result:
    """The seed's run with the bug in the code."""
    plan = draw_plan(seed, profile)
    with mutant.apply():
        return without_collector(plan)


@cache
def holds(profile: str, seed: int) -> bool:
    """Whether the code as it is holds under a seed."""
    return without_collector(draw_plan(seed, profile)).held


def _tell_people(outcome: Kill | Survivor) -> None:
    sys.stderr.write(f"{outcome}\n")
    sys.stderr.flush()


def _hunt_named(name: str) -> Kill | Survivor:
    return hunt(MUTANTS[name])
