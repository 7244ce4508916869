"""Makes a failing plan short: drops faults, operations, lanes and requests that are not needed.

The search is delta debugging (Zeller and Hildebrandt, *Simplifying and Isolating Failure-Inducing
Input*, 2002): pieces of halving size are left out for as long as the same invariant still fails.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from sim.plan import Plan
from sim.profiles import PROFILES
from sim.run import run_seed, scenario_of
from sim.scenario import Result

_T = TypeVar("_T")

# Runs of one shrinking, each of about a second or less.
RUNS_MAX = 400


@dataclass(frozen=True, slots=True)
class Progress:
    """What is being dropped, how many of it are left, and how many runs it took so far."""

    what: str
    left: int
    runs: int


class Shrinker:
    """Raises ValueError if the plan does not fail."""

    def __init__(
        self,
        plan: Plan,
        on_progress: Callable[[Progress], None] = lambda _: None,
        runs_max: int = RUNS_MAX,
    ) -> None:
        self._on_progress = on_progress
        self._runs_max = runs_max
        self.runs = 0
        self._requests: list[str] = []
        self.plan = plan
        self.result = self._try(replace(plan, least_s=0.0))
        if self.result.violation is None:
            raise ValueError(f"seed {plan.seed} of profile {plan.profile} violates nothing")
        self._invariant = self.result.violation.invariant
        self.plan = replace(plan, least_s=0.0)

    def shrink(self) -> Plan:
        """The shortest plan found within the bound on runs."""
        self._cut_time()
        self._drop("faults", self.plan.faults, lambda kept: replace(self.plan, faults=tuple(kept)))
        self._drop(
            "operations", self.plan.actions, lambda kept: replace(self.plan, actions=tuple(kept))
        )
        self._drop("lanes", self._lanes(), lambda kept: self._without(self._lanes(), kept))
        self._drop("requests", self._requests, lambda kept: self._without(self._requests, kept))
        self._drop("faults", self.plan.faults, lambda kept: replace(self.plan, faults=tuple(kept)))
        return self.plan

    # --- steps ----------------------------------------------------------------------------------

    def _cut_time(self) -> None:
        """Ends the faults soon after the last thing that the violation can depend on."""
        assert self.result.violation is not None
        for share in (0.25, 0.5, 0.75):
            seconds = self.plan.faults_s * share
            shorter = replace(
                self.plan,
                faults_s=seconds,
                faults=tuple(each for each in self.plan.faults if each.at < seconds),
                actions=tuple(each for each in self.plan.actions if each.at < seconds),
            )
            if self._still_fails(shorter):
                return

    def _drop(
        self, what: str, items: Sequence[_T], plan_with: Callable[[Sequence[_T]], Plan]
    ) -> None:
        kept = list(items)
        size = len(kept)
        while size and kept and self.runs < self._runs_max:
            dropped = False
            start = 0
            while start < len(kept) and self.runs < self._runs_max:
                fewer = kept[:start] + kept[start + size :]
                self._on_progress(Progress(what, len(kept), self.runs))
                if self._still_fails(plan_with(fewer)):
                    kept, dropped = fewer, True
                else:
                    start += size
            if not dropped or size > len(kept):
                size //= 2

    def _without(self, every: Sequence[str], kept: Sequence[str]) -> Plan:
        held = set(kept)
        left_out = frozenset(each for each in every if each not in held)
        return replace(self.plan, left_out=self.plan.left_out | left_out)

    def _lanes(self) -> list[str]:
        names = [
            f"{client}/{number}"
            for client in self.plan.topology.client_names()
            for number in range(self.plan.workload.lanes)
        ]
        return [name for name in names if name not in self.plan.left_out]

    def _still_fails(self, plan: Plan) -> bool:
        result = self._try(plan)
        if result.violation is None or result.violation.invariant != self._invariant:
            return False
        self.plan, self.result = plan, result
        return True

    def _try(self, plan: Plan) -> Result:
        self.runs += 1
        scenario = scenario_of(plan)
        result = scenario.run(plan.faults_s, plan.least_s)
        if result.held and PROFILES[plan.profile].compared:
            # Nothing was wrong with it alone; the two runs are what may differ.
            result = run_seed(plan)
        if result.violation is not None:
            self._requests = scenario.load.made
        return result
