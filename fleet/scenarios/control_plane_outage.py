"""The Metadata Store is gone for minutes or hours: who notices, and what its return is like."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fleet.closed.caches import fresh_share, outage_availability
from fleet.cohort.beats import BeatRun, run_beats
from fleet.cohort.lookups import LookupRun, run_lookups
from fleet.cohort.series import binned, recovered_at, share_of
from fleet.fleetwide import CONSTANT_WORK, CONVENTIONAL, DATA_PATH, FleetParameters
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
from fleet.parameters import parameter
from fleet.scenario import Context, Scenario
from fleet.small_fleet import Compared, compare, small_fleet

_BEFORE_S = 60.0
_ENOUGH = 0.999
_BOTH_GONE = "the same, MemDS gone too"

# Lengths of outages that the table and a plot compare, in minutes.
_LENGTHS_MIN = (1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 240.0)

# The outage of the small fleet whose requests are simulated.
_SMALL_DARK_S = (10.0, 50.0)
_SMALL_S = 80.0


@dataclass(frozen=True, slots=True)
class Parameters(FleetParameters):
    outage_min: float = parameter(
        30.0,
        "min",
        "how long the Metadata Store is gone",
        low=0.1,
        high=120.0,
        source="chosen: an outage that people have to repair",
    )
    observe_min: float = parameter(
        10.0,
        "min",
        "how long to look after it",
        low=1.0,
        high=60.0,
        source="chosen: several lives of an entry",
    )


@dataclass(frozen=True, slots=True)
class _Times:
    """Steps before, in and after the outage."""

    step_s: float
    dark: slice
    after: slice
    steps: int

    @property
    def health(self) -> Array:
        health: Array = np.ones(self.steps)
        health[self.dark] = 0.0
        return health


def _times(asked: Parameters) -> _Times:
    first = round(_BEFORE_S / asked.step_s)
    last = first + round(asked.outage_min * 60 / asked.step_s)
    steps = last + round(asked.observe_min * 60 / asked.step_s)
    return _Times(asked.step_s, slice(first, last), slice(last, steps), steps)


@dataclass(frozen=True, slots=True)
class _Fate:
    """available: of the outage's requests. peak: of lookups or beats afterwards, over the load
    before. failed: from the outage's beginning on. recovery_s: infinite if not within the time."""

    available: float
    peak: float
    attempts: float
    failed: float
    failed_after: float
    recovery_s: float

    def row(self, design: str) -> tuple[float | str, ...]:
        back = f"{self.recovery_s:.0f}" if np.isfinite(self.recovery_s) else "not in the time"
        failed = self.failed / 1e6, self.failed_after / 1e6
        return design, 100 * self.available, *failed, self.peak, self.attempts, back


def _of_lookups(run: LookupRun, times: _Times) -> _Fate:
    dark, after, second = times.dark, times.after, round(1 / times.step_s)
    well = run.hits + run.answered
    available = share_of(well, well + run.failed, second)
    before = float(run.wanted[: dark.start].mean())
    return _Fate(
        float(run.hits[dark].sum() / run.arrived[dark].sum()),
        float(run.wanted[after].max()) / before,
        float(run.attempts[after].max()) / before,
        float(run.failed[dark.start :].sum()),
        float(run.failed[after].sum()),
        recovered_at(available, _ENOUGH, 1.0, times.dark.stop * times.step_s),
    )


def _of_beats(run: BeatRun, times: _Times) -> _Fate:
    dark, after, second = times.dark, times.after, round(1 / times.step_s)
    available = share_of(run.arrived - run.failed, run.arrived, second)
    peak = float(run.asked[after].max() / run.asked[: dark.start].mean())
    return _Fate(
        float(1 - run.failed[dark].sum() / run.arrived[dark].sum()),
        peak,
        peak,
        float(run.failed[dark.start :].sum()),
        float(run.failed[after].sum()),
        recovered_at(available, _ENOUGH, 1.0, times.dark.stop * times.step_s),
    )


def _run(asked: Parameters, context: Context) -> Outcome:
    times = _times(asked)
    ones: Array = np.ones(times.steps)
    health = times.health
    context.progress(0.1, CONVENTIONAL)
    run = run_lookups(asked.conventional(), asked.step_s, ones, health)
    context.progress(0.3, DATA_PATH)
    uncached = asked.uncached(asked.requests_per_s * asked.headroom)
    path_run = run_lookups(uncached, asked.step_s, ones, health)
    context.progress(0.5, CONSTANT_WORK)
    beats = asked.constant_work()
    beat_run = run_beats(beats, asked.step_s, ones, ones, health)
    both_run = run_beats(beats, asked.step_s, ones, health, health)
    context.progress(0.8, "the same, each request simulated")
    fleet = small_fleet(
        routers=100, tables=100, rate_per_s=200.0, hits=0.98, headroom=4.0, retries=1
    )
    seed = context.stream("control-plane-outage/exact")
    small = compare(fleet, _SMALL_S, seed, _SMALL_DARK_S)

    fate, path_fate = _of_lookups(run, times), _of_lookups(path_run, times)
    beat_fate, both_fate = _of_beats(beat_run, times), _of_beats(both_run, times)
    ttl_s = asked.ttl_s()
    age_s = float(beat_run.age_s[times.dark.stop - 1])
    recovery = fate.recovery_s if np.isfinite(fate.recovery_s) else asked.observe_min * 60
    return Outcome(
        figures=[
            Figure("available with TTL caches", fate.available, "fraction", Layer.COHORT),
            Figure("available with MemDS", beat_fate.available, "fraction", Layer.COHORT),
            Figure("life of an entry", ttl_s, "s", Layer.CLOSED),
            Figure("requests failed with TTL caches", fate.failed, "", Layer.COHORT),
            Figure("of these after the outage", fate.failed_after, "", Layer.COHORT),
            Figure("peak of lookups afterwards, of the load before", fate.peak, "x", Layer.COHORT),
            Figure("the same with retries", fate.attempts, "x", Layer.COHORT),
            Figure("time to recover with TTL caches", recovery, "s", Layer.COHORT),
            Figure("peak of MemDS requests afterwards", beat_fate.peak, "x", Layer.COHORT),
            Figure("age of the map when it ends, with MemDS", age_s, "s", Layer.COHORT),
        ],
        checks=_checks(asked, run, beat_run, fate, beat_fate, small),
        tables=[
            Table(
                f"{asked.outage_min:g} min without the Metadata Store",
                (
                    "design",
                    "available in it (%)",
                    "failed (million requests)",
                    "of these after it (million)",
                    "peak afterwards (x before)",
                    "peak with retries (x before)",
                    f"back at {_ENOUGH:.1%} after (s)",
                ),
                (
                    path_fate.row(DATA_PATH),
                    fate.row(CONVENTIONAL),
                    beat_fate.row(CONSTANT_WORK),
                    both_fate.row(_BOTH_GONE),
                ),
            ),
            _lengths(asked, beat_fate),
        ],
        plots=_plots(asked, times, run, path_run, beat_run),
        conclusion=(
            f"In {asked.outage_min:g} min without the Metadata Store, TTL caches of"
            f" {ttl_s:.0f} s answer {fate.available:.1%} of requests, and its return brings"
            f" {fate.peak:.0f} times the usual lookups, {fate.failed_after / 1e6:,.0f} million"
            f" failures more and {recovery:.0f} s until all is well; routers that hold the map"
            f" answer {beat_fate.available:.1%}, from a map that is {age_s / 60:.1f} min old when"
            f" it ends, and MemDS then sees {beat_fate.peak:.2f} times its usual load."
        ),
        requests_simulated=small.exact.requests,
        requests_represented=float(
            sum(each.arrived.sum() for each in (run, path_run, beat_run, both_run, small.cohort))
        ),
        notes=[
            "With the Metadata Store gone nothing is split or moved, so an old map is still the"
            " right one, but for what storage nodes have finished by themselves; they redirect.",
            "TTL caches that go on using entries past their life when they cannot renew them would"
            " fail only what they have never seen. They are then no longer TTL caches, but maps"
            " that are kept; what is left is the storm when the store is back.",
        ],
    )


def _lengths(asked: Parameters, beat_fate: _Fate) -> Table:
    classes, rate, ttl_s = asked.classes(), asked.rate_per_router, asked.ttl_s()
    return Table(
        "Availability by length of the outage, closed form",
        (
            "outage (min)",
            f"{CONVENTIONAL} (%)",
            "requests failed (million)",
        ),
        tuple(
            (length, 100 * share, asked.requests_per_s * length * 60 * (1 - share) / 1e6)
            for length in _LENGTHS_MIN
            for share in (outage_availability(classes, rate, ttl_s, asked.step_s, length * 60),)
        ),
    )


def _checks(
    asked: Parameters,
    run: LookupRun,
    beat_run: BeatRun,
    fate: _Fate,
    beat_fate: _Fate,
    small: Compared,
) -> list[Check]:
    times = _times(asked)
    classes, rate, ttl_s = asked.classes(), asked.rate_per_router, asked.ttl_s()
    outage_s = asked.outage_min * 60
    hit = run.hits[times.dark] / run.arrived[times.dark]
    since: Array = (np.arange(len(hit), dtype=np.float64) + 0.5) * asked.step_s
    closed = fresh_share(classes, rate, ttl_s, asked.step_s, since)
    left = float(fresh_share(classes, rate, ttl_s, asked.step_s, np.array([outage_s]))[0])
    dark = slice(round(_SMALL_DARK_S[0]), round(_SMALL_DARK_S[1]))
    beats = asked.constant_work()
    return [
        relative(
            "availability in the outage with TTL caches",
            fate.available,
            outage_availability(classes, rate, ttl_s, asked.step_s, outage_s),
            0.01,
            "hit ratio x average over the outage of what is left of lives that end evenly",
        ),
        absolute(
            "furthest from that line in any step",
            float(np.abs(hit - closed).max()),
            0.0,
            0.01,
            "hit ratio x (1 - time / life of an entry)",
        ),
        relative(
            "peak of lookups after the outage, over those before",
            fate.peak,
            (1 - left) / (1 - asked.hit_ratio),
            0.05,
            "requests whose entry has ended, over those that miss in warm caches",
        ),
        relative(
            "availability in the outage with MemDS",
            beat_fate.available,
            1.0,
            0.0001,
            "no request asks the Metadata Store or MemDS",
        ),
        relative(
            "age of the oldest part of the map when the outage ends",
            float(beat_run.age_max_s[times.dark.stop - 1]),
            min(
                beats.publisher.beat_s + max(outage_s, beats.root_beats * beats.reader.beat_s),
                # All was new when the time that is looked at began.
                times.dark.stop * asked.step_s,
            ),
            # Where in the beats the outage begins makes so much.
            max(0.01, beats.publisher.beat_s / outage_s),
            "since the publisher's last beat, once all roots have been read again",
        ),
        *small.checks(dark, hits_within=0.01),
    ]


def _plots(
    asked: Parameters, times: _Times, run: LookupRun, path_run: LookupRun, beat_run: BeatRun
) -> list[Plot]:
    bin_steps = max(1, times.steps // 1_500)
    minutes = (binned(run.time_s, bin_steps) - _BEFORE_S) / 60
    band = Band("no Metadata Store", 0.0, asked.outage_min)
    lines = []
    for name, each in ((DATA_PATH, path_run), (CONVENTIONAL, run)):
        well = each.hits + each.answered
        lines.append(Line(name, minutes, 100 * share_of(well, well + each.failed, bin_steps)))
    served = share_of(beat_run.arrived - beat_run.failed, beat_run.arrived, bin_steps)
    lines.append(Line(CONSTANT_WORK, minutes, 100 * served))
    return [
        Plot(
            "availability",
            "Requests that end well",
            "What caches hold runs out evenly; what routers keep does not.",
            Axis("time since the outage began", "min"),
            Axis("available", "%", low=0, high=105),
            (*lines, band),
        ),
        Plot(
            "load",
            "What the Metadata Store and MemDS are asked",
            "With retries. The Metadata Store answers none of it during the outage.",
            Axis("time since the outage began", "min"),
            Axis("requests", "1/s", log=True),
            (
                Line(
                    CONVENTIONAL, minutes, np.maximum(binned(run.rate(run.attempts), bin_steps), 1)
                ),
                Line(CONSTANT_WORK, minutes, binned(beat_run.rate(beat_run.asked), bin_steps)),
                Rule("what the Metadata Store can do", asked.warm_lookups_per_s * asked.headroom),
                band,
            ),
        ),
        Plot(
            "age",
            "How old the map is that routers use",
            "On average over routers, with MemDS and constant work.",
            Axis("time since the outage began", "min"),
            Axis("age", "min"),
            (Line(CONSTANT_WORK, minutes, binned(beat_run.age_s, bin_steps) / 60), band),
        ),
    ]


SCENARIO = Scenario(
    name="control-plane-outage",
    title="Control plane outage",
    question="What do requests notice when the control plane is gone for minutes or hours?",
    explanation=(
        "The Metadata Store answers nothing for a time, under three designs: every request asks"
        " it, routers have TTL caches before it, routers hold the map and read MemDS. The cohort"
        " layer follows requests, lookups and retries through the outage and the storm after it; a"
        " small fleet is also simulated request by request. Left out: people, who may limit what"
        " comes back at once."
    ),
    parameters=Parameters,
    run=_run,
)
