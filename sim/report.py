"""What a violation looks like to people: the sentence, the plan, the trace of what it concerns."""

from __future__ import annotations

import re
from collections.abc import Iterator

from sim.plan import Plan
from sim.scenario import Result
from sim.trace import Line

_PARTITION = re.compile(r"p\d+")

# Lines of the trace shown at the end, where most of what matters is.
LINES_MAX = 120


def describe_plan(plan: Plan) -> Iterator[str]:
    """The faults and operations of a plan, in order of time, and what is left out."""
    entries = [(each.at, str(each)) for each in plan.faults]
    entries += [(each.at, f"{each.at:8.3f} s  operator: {each}") for each in plan.actions]
    for _, text in sorted(entries):
        yield text
    if plan.left_out:
        lanes = sorted(each for each in plan.left_out if "#" not in each)
        requests = len(plan.left_out) - len(lanes)
        yield f"left out: lanes {', '.join(lanes) or 'none'}; {requests} requests of the others"


def lines_about(result: Result, everything: bool = False) -> list[Line]:
    """The lines of a full trace that touch what the violation is about, with all faults between.

    Of an item also what was done to the partitions that its requests went to.
    """
    if result.trace is None or result.violation is None:
        return []
    if everything:
        return result.trace.lines
    about = result.violation.about
    concerned = [line for line in result.trace.lines if not about.isdisjoint(line.about)]
    partitions = {name for line in concerned for name in line.about if _PARTITION.fullmatch(name)}
    return [
        line
        for line in result.trace.lines
        if line.process == "world"
        or not about.isdisjoint(line.about)
        or (not partitions.isdisjoint(line.about) and " Execute " not in line.what)
    ]


def describe_violation(result: Result, everything: bool = False) -> Iterator[str]:
    """Everything there is to say, as lines."""
    violation = result.violation
    if violation is None:
        yield str(result)
        return
    yield f"{violation.invariant} does not hold"
    yield f"  seed        {result.seed}"
    yield f"  trace hash  {result.trace_hash}"
    yield f"  at          {violation.at:.4f} virtual seconds"
    yield f"  what        {violation.message}"
    if violation.about:
        yield f"  about       {', '.join(sorted(violation.about))}"
    if result.details:
        yield ""
        yield from result.details.rstrip().splitlines()
    lines = lines_about(result, everything)
    if lines:
        yield ""
        yield "      time  lamport  process     what"
        shown = lines if everything else lines[-LINES_MAX:]
        if len(shown) < len(lines):
            yield f"      ... {len(lines) - len(shown)} earlier lines; --everything shows all"
        yield from map(str, shown)
