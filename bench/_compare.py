"""The comparison: every system under every kind of load, in turns, round by round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from bench._alone import stopped
from bench._plan import Plan, turns
from bench._samples import Sample, Summary, ratio, summarize
from bench._systems import DYNALITE, ECHO, KEYPLANE, KEYPLANE_GRPCIO, Load, Say, systems

# The level that rates and ratios at the top of a result are of, if it was run.
HEADLINE_OUTSTANDING = 128

# Requests of one system, of one kind, at one number outstanding.
Key: TypeAlias = tuple[str, str, int]


@dataclass(frozen=True, slots=True)
class Comparison:
    """samples: in the order of rounds. skipped: why, by system."""

    samples: Mapping[Key, Sequence[Sample]]
    skipped: Mapping[str, str] = field(default_factory=dict)

    def summaries(self) -> dict[Key, Summary]:
        return {key: summarize(found) for key, found in self.samples.items() if found}


def compare(names: Sequence[str], load: Load, plan: Plan, say: Say) -> Comparison:
    """Raises KeyplaneError, GeneratorFailed or RuntimeError for a system that does not work."""
    planned = list(turns(plan, names, ECHO))
    say(
        f"{len(planned)} windows: about {plan.takes_s(len(planned)) / 60:.0f} minutes, after "
        "starting and filling"
    )
    samples: dict[Key, list[Sample]] = {}
    with systems(names, load, say) as (running, skipped):
        by_name = {system.name: system for system in running}
        for turn in planned:
            if turn.system not in by_name:
                continue
            order = plan.closed(turn.kind, turn.outstanding)
            system = by_name[turn.system]
            with stopped(pid for other in running if other is not system for pid in other.pids):
                sample = system.generator.run(order)
            key = (turn.system, turn.kind.name, turn.outstanding)
            samples.setdefault(key, []).append(sample)
            say(
                f"round {turn.round + 1} of {plan.rounds}: {turn.system}, {turn.kind.name}, "
                f"{turn.outstanding} outstanding: {sample}"
            )
    return Comparison(samples, skipped)


def headline(comparison: Comparison) -> dict[str, Any]:
    """The figures that a result begins with; None for what was not measured.

    Rates, ratios and processor time at HEADLINE_OUTSTANDING, or at the most that was run.
    """
    summaries = comparison.summaries()
    levels = {outstanding for _, _, outstanding in summaries}
    level = HEADLINE_OUTSTANDING if HEADLINE_OUTSTANDING in levels else max(levels, default=0)
    get = summaries.get((KEYPLANE, "get", level))
    put = summaries.get((KEYPLANE, "put", level))
    at_32 = summaries.get((KEYPLANE, "get", 32))
    at_1 = summaries.get((KEYPLANE, "get", 1))

    def ratio_to(other: str, kind: str) -> float | None:
        ours = comparison.samples.get((KEYPLANE, kind, level), [])
        theirs = comparison.samples.get((other, kind, level), [])
        found = ratio(ours, theirs)
        return None if found is None else round(found, 2)

    return {
        "get_rps": round(get.per_second) if get else None,
        "put_rps": round(put.per_second) if put else None,
        "get_p99_ms_at_32": round(at_32.p99_us / 1000, 3) if at_32 else None,
        "p50_us_at_1": round(at_1.p50_us, 1) if at_1 else None,
        "ratio_get_vs_grpcio": ratio_to(KEYPLANE_GRPCIO, "get"),
        "ratio_put_vs_grpcio": ratio_to(KEYPLANE_GRPCIO, "put"),
        "ratio_get_vs_dynalite": ratio_to(DYNALITE, "get"),
        "ratio_put_vs_dynalite": ratio_to(DYNALITE, "put"),
        "cpu_us_per_request": round(sum(get.cpu_us.values()), 2) if get else None,
        "cpu_us_by_process": _rounded(get.cpu_us) if get else None,
        "headline_outstanding": level or None,
    }


def rows(comparison: Comparison) -> list[dict[str, Any]]:
    """The whole table, one object for each system, kind and number outstanding."""
    return [
        {
            "system": system,
            "kind": kind,
            "outstanding": outstanding,
            "rounds": summary.windows,
            "rps": round(summary.per_second),
            "p50_us": round(summary.p50_us, 1),
            "p99_us": round(summary.p99_us, 1),
            "p999_us": round(summary.p999_us, 1),
            "max_us": round(summary.max_us, 1),
            "cpu_us": _rounded(summary.cpu_us),
            "generator_share": round(summary.generator_share, 3),
            "busy_cores": round(summary.busy_cores, 2),
            "failures": dict(summary.failures),
        }
        for (system, kind, outstanding), summary in sorted(comparison.summaries().items())
    ]


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 2) for name, value in values.items()}
