"""Runs a design, and says what came of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fleet.cohort.series import recovered_at, share_of
from fleet.design.evaluate import MEMDS, METADATA, Evaluation, evaluate
from fleet.design.files import load_design
from fleet.design.model import Cache, Design, describe
from fleet.outcome import (
    Array,
    Axis,
    Band,
    Check,
    Figure,
    Layer,
    Line,
    Outcome,
    Plot,
    Rule,
    Table,
    absolute,
    relative,
)
from fleet.scenario import Context, Scenario

# Availability at which a fleet counts as recovered, and over what time it is looked at.
RECOVERED = 0.999
_LOOK_S = 0.1

# Points of a line in a plot.
_POINTS_MAX = 2_000

# A share of requests, between the model's start and the closed form.
_HITS_TOLERANCE = 0.005


@dataclass(frozen=True, slots=True)
class NoParameters:
    """A design has its numbers in its file."""


def as_scenario(path: Path) -> Scenario:
    """Raises INVALID_ARGUMENT as `load_design` does."""
    design = load_design(path)
    return Scenario(
        name=design.name,
        title=design.title or design.name,
        question=f"What does {design.title or design.name} do when things go wrong?",
        explanation=(
            "A design of one's own, run by the cohort layer: requests are rates and caches are"
            " shares of keys, in steps of time. Left out: percentiles of latency, and what single"
            " keys that are asked for more often than others do."
        ),
        parameters=NoParameters,
        run=lambda _parameters, context: run_design(design, context),
    )


def run_design(design: Design, context: Context) -> Outcome:
    """Nothing in it is random."""
    context.progress(0.0, design.name)
    run = evaluate(design)
    context.progress(0.9, design.name)
    summary = _summary(design, run)
    outcome = Outcome(
        figures=_figures(design, summary),
        checks=_checks(design, run),
        tables=[
            Table("The design", ("part", "what", "value"), tuple(describe(design))),
            _faults_table(design, run),
        ],
        plots=[_availability_plot(design, run), _load_plot(design, run)],
        conclusion=_conclusion(design, summary),
        requests_represented=float(run.arrived.sum()),
        notes=_notes(design),
    )
    context.progress(1.0, design.name)
    return outcome


# --- Figures -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Summary:
    """availability: of all requests. lowest: in a tenth of a second. recovery_s: from the end of
    the last fault; infinite where the run ends before. peak_per_s, before_per_s: load on the
    backend that requests lean on, in any step from the first fault on, and before it."""

    availability: float
    lowest: float
    failed: float
    recovery_s: float
    backend: str
    before_per_s: float
    peak_per_s: float

    @property
    def amplification(self) -> float:
        return self.peak_per_s / self.before_per_s


def _summary(design: Design, run: Evaluation) -> _Summary:
    ended = run.well.sum() + run.failed.sum()
    looks = _availability(run, _look_steps(run))
    backend, load = next(iter(run.load.items()))
    first = _first_fault(design, run)
    before = load[:first].mean() if first else load[0]
    return _Summary(
        availability=float(run.well.sum() / ended) if ended else 1.0,
        lowest=float(looks.min()),
        failed=float(run.failed.sum()),
        recovery_s=_recovery_s(design, run, looks),
        backend=backend,
        before_per_s=float(before),
        peak_per_s=float(load[first:].max()),
    )


def _first_fault(design: Design, run: Evaluation) -> int:
    """Its step; 0 where there is none."""
    if not design.faults:
        return 0
    return min(round(min(fault.at_s for fault in design.faults) / run.step_s), len(run.time_s) - 1)


def _recovery_s(design: Design, run: Evaluation, looks: Array) -> float:
    end_s = max((fault.end_s for fault in design.faults), default=0.0)
    if looks[-1] < RECOVERED:
        return math.inf
    return recovered_at(looks, RECOVERED, _look_steps(run) * run.step_s, end_s)


def _look_steps(run: Evaluation) -> int:
    return max(1, round(_LOOK_S / run.step_s))


def _availability(run: Evaluation, steps: int) -> Array:
    """Share of the requests that ended well of those that ended, in each `steps` steps."""
    return share_of(run.well, run.well + run.failed, steps)


def _figures(design: Design, summary: _Summary) -> list[Figure]:
    figures = [
        Figure("availability", 100 * summary.availability, "%", Layer.COHORT),
        Figure("lowest availability", 100 * summary.lowest, "%", Layer.COHORT),
        Figure("requests failed", summary.failed, "", Layer.COHORT),
        Figure(f"load on {summary.backend} before", summary.before_per_s, "1/s", Layer.COHORT),
        Figure(f"peak load on {summary.backend}", summary.peak_per_s, "1/s", Layer.COHORT),
        Figure("worst amplification", summary.amplification, "×", Layer.COHORT),
    ]
    if design.faults and math.isfinite(summary.recovery_s):
        figures.append(Figure("time to recover", summary.recovery_s, "s", Layer.COHORT))
    return figures


def _checks(design: Design, run: Evaluation) -> list[Check]:
    checks = [
        relative(
            "requests that ended or wait",
            float(run.well.sum() + run.failed.sum() + run.waiting),
            float(run.arrived.sum()),
            1e-6,
            "requests that came: none is lost or counted twice",
        )
    ]
    first = _first_fault(design, run) or len(run.time_s)
    if run.steady_hits is not None and first * run.step_s >= 1.0:
        checks.append(
            absolute(
                "hit ratio before the first fault",
                float(run.hits[:first].sum() / run.arrived[:first].sum()),
                run.steady_hits,
                _HITS_TOLERANCE,
                "closed form for a TTL cache under Poisson arrivals: Jung, Berger and"
                " Balakrishnan, Modeling TTL-based Internet Caches (INFOCOM 2003)",
            )
        )
    return checks


def _faults_table(design: Design, run: Evaluation) -> Table:
    rows: list[tuple[float | str, ...]] = []
    for fault in sorted(design.faults, key=lambda each: each.at_s):
        start = round(fault.at_s / run.step_s)
        stop = max(start + _look_steps(run), round(fault.end_s / run.step_s))
        well, failed = run.well[start:stop].sum(), run.failed[start:stop].sum()
        ended = well + failed
        share = 100 * float(well / ended) if ended else 100.0
        rows.append((str(fault.kind), fault.at_s, fault.for_s, share, float(failed)))
    columns = ("fault", "at s", "for s", "availability meanwhile %", "requests failed meanwhile")
    return Table("Faults", columns, tuple(rows))


def _notes(design: Design) -> list[str]:
    notes = ["Requests are represented by rates; none was simulated."]
    if design.routers.cache is Cache.MEMDS_PER_REQUEST:
        rate, able = design.traffic.rate_per_s, design.memds.nodes * design.memds.capacity_per_s
        if rate > able:
            notes.append(
                f"MemDS can do {able:,.0f} of the {rate:,.0f} requests a second that refresh"
                " entries; the rest go without a refresh."
            )
    return notes


def _conclusion(design: Design, summary: _Summary) -> str:
    what = design.title or design.name
    load = (
        f"{summary.backend} gets up to {summary.peak_per_s:,.0f} requests a second,"
        f" {summary.amplification:,.1f} times its load on a quiet day"
    )
    if not design.faults:
        return f"{what}: {100 * summary.availability:.4g} % of requests end well; {load}."
    if summary.failed < 0.5:
        return f"{what}: no request fails whatever happens; {load}."
    back = (
        "does not recover within the run"
        if math.isinf(summary.recovery_s)
        else f"is back {summary.recovery_s:,.1f} s after the last fault has ended"
    )
    return (
        f"{what}: {summary.failed:,.0f} requests fail, availability falls to"
        f" {100 * summary.lowest:.3g} % and {back}; {load}."
    )


# --- Plots ---------------------------------------------------------------------------------------


def _availability_plot(design: Design, run: Evaluation) -> Plot:
    steps = _plot_steps(run)
    y = 100 * _availability(run, steps)
    line = Line(str(design.routers.cache), run.time_s[::steps][: len(y)], y, "step")
    return Plot(
        "availability",
        "Availability over time",
        "Share of the requests that end well of those that end at that time.",
        Axis("time", "s", low=0.0, high=design.duration_s),
        Axis("availability", "%", low=0.0, high=101.0),
        (*_bands(design), line),
    )


def _load_plot(design: Design, run: Evaluation) -> Plot:
    steps = _plot_steps(run)
    starts = np.arange(0, len(run.time_s), steps)
    marks: list[Line | Band | Rule] = list(_bands(design))
    for backend, load in run.load.items():
        # The highest of what falls into one point: a peak of one step shows.
        y = np.maximum.reduceat(load, starts)
        marks.append(Line(backend, run.time_s[::steps][: len(y)], y, "step"))
    capacities = {
        METADATA: design.metadata.replicas * design.metadata.capacity_per_s,
        MEMDS: design.memds.nodes * design.memds.capacity_per_s,
    }
    backend = next(iter(run.load))
    marks.append(Rule(f"what {backend} can do", capacities[backend]))
    return Plot(
        "backend-load",
        "Load on what is behind the routers",
        "Requests a second, the highest in each stretch of time; writes, of the Metadata Store to"
        " MemDS.",
        Axis("time", "s", low=0.0, high=design.duration_s),
        Axis("load", "1/s", log=True),
        tuple(marks),
    )


def _bands(design: Design) -> list[Band]:
    """A fault of a moment is a band as wide as can be seen."""
    least = design.duration_s / 400
    return [
        Band(str(fault.kind), fault.at_s, max(fault.end_s, fault.at_s + least))
        for fault in design.faults
    ]


def _plot_steps(run: Evaluation) -> int:
    return max(1, math.ceil(len(run.time_s) / _POINTS_MAX))
