"""All routers lose their caches at once: with conventional caches, and with constant work."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fleet.cohort.beats import REQUESTS_PER_BEAT, BeatRun, run_beats
from fleet.cohort.lookups import Flush, LookupRun, run_lookups
from fleet.cohort.series import binned, recovered_at, share_of
from fleet.fleetwide import CONSTANT_WORK, CONVENTIONAL, PAPER, FleetParameters
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

# Seconds before the caches are lost: the warm load is their average.
_WARM_S = 10.0

# Recovered: this share of requests ends well, in each second from then on.
_ENOUGH = 0.999

_LONG_QUEUE = "conventional, queue longer than the timeout"
_FULL_SIZE = "conventional, sized for the cold start"


@dataclass(frozen=True, slots=True)
class Parameters(FleetParameters):
    cold_share: float = parameter(
        1.0,
        "fraction",
        "share of the routers that lose their caches at once",
        low=0.001,
        high=1.0,
        source="chosen: all of them, as after a deployment of new router software",
    )
    observe_s: float = parameter(
        300.0,
        "s",
        "how long to look after the cold start",
        low=10.0,
        high=3_600.0,
        source="chosen: several lives of an entry",
    )


@dataclass(frozen=True, slots=True)
class _Fate:
    """What became of one design. peak, attempts: as multiples of the warm load. first_s: until all
    is well for a second; recovery_s: for good."""

    peak: float
    attempts: float
    failed: float
    worst: float
    first_s: float
    recovery_s: float
    recovered: bool

    def row(self, design: str) -> tuple[float | str, ...]:
        back = f"{self.recovery_s:.1f}" if self.recovered else "not in the time looked at"
        return design, self.peak, self.attempts, self.failed / 1e6, 100 * self.worst, back


def _conventional_fate(run: LookupRun) -> _Fate:
    start = round(_WARM_S / run.step_s)
    second = round(1 / run.step_s)
    warm = float(run.wanted[:start].mean())
    availability = share_of(run.hits + run.answered, run.hits + run.answered + run.failed, second)
    back = recovered_at(availability, _ENOUGH, 1.0, _WARM_S)
    return _Fate(
        float(run.wanted.max()) / warm,
        float(run.attempts.max()) / warm,
        float(run.failed[start:].sum()),
        float(availability.min()),
        _first_well(availability),
        back,
        math.isfinite(back),
    )


def _beat_fate(run: BeatRun) -> _Fate:
    start, second = round(_WARM_S / run.step_s), round(1 / run.step_s)
    warm = float(run.asked[:start].mean())
    peak = float(run.asked.max()) / warm
    availability = share_of(run.arrived - run.failed, run.arrived, second)
    back = recovered_at(availability, _ENOUGH, 1.0, _WARM_S)
    failed, worst = float(run.failed[start:].sum()), float(availability.min())
    first = _first_well(availability)
    return _Fate(peak, peak, failed, worst, first, back, math.isfinite(back))


def _first_well(availability: Array) -> float:
    """Seconds from the loss to the first second that is well; infinite if none is."""
    well = np.flatnonzero(availability[round(_WARM_S) :] >= _ENOUGH)
    return float(well[0]) if len(well) else float("inf")


def _shared_peak(asked: Parameters) -> float:
    """The first step's lookups, of the warm load, if a router asked once for all requests that
    wait for the same table."""
    keys, step_s = asked.classes(), asked.step_s
    once = keys.counts * -np.expm1(-keys.shares * asked.rate_per_router * step_s)
    cold = float(once.sum()) * asked.routers * asked.cold_share / step_s
    return cold / asked.warm_lookups_per_s + 1 - asked.cold_share


def _run(asked: Parameters, context: Context) -> Outcome:
    steps = round((_WARM_S + asked.observe_s) / asked.step_s)
    ones: Array = np.ones(steps)
    cohorts = [share for share in (asked.cold_share, 1 - asked.cold_share) if share > 0]
    lost = [Flush(_WARM_S, [1.0, 0.0][: len(cohorts)])]
    warm_s = asked.ttl_s()
    plain = asked.conventional(lost, cohorts=cohorts)
    context.progress(0.1, CONVENTIONAL)
    run = run_lookups(plain, asked.step_s, ones, ones)
    context.progress(0.3, _LONG_QUEUE)
    patient = asked.conventional(lost, cohorts=cohorts, queue_s=2 * asked.timeout_s)
    long_run = run_lookups(patient, asked.step_s, ones, ones)
    context.progress(0.5, _FULL_SIZE)
    full = asked.conventional(lost, cohorts=cohorts, headroom=1.05 / (1 - asked.hit_ratio))
    full_run = run_lookups(full, asked.step_s, ones, ones)
    context.progress(0.7, CONSTANT_WORK)
    beats = asked.constant_work(lost, cohorts=cohorts)
    beat_run = run_beats(beats, asked.step_s, ones, ones, ones)
    context.progress(0.8, "the same, each request simulated")
    # Ten times the warm load at most, or it would be over before the first second is.
    fleet = small_fleet(
        routers=40,
        tables=500,
        rate_per_s=500.0,
        hits=0.98,
        headroom=max(2.0, min(asked.headroom, 10.0)),
        retries=2,
        flushes=[Flush(10.0, [1.0])],
    )
    small = compare(fleet, 50.0, context.stream("cold-start/exact"))

    fate, beat_fate = _conventional_fate(run), _beat_fate(beat_run)
    long_fate, full_fate = _conventional_fate(long_run), _conventional_fate(full_run)
    start = round(_WARM_S / asked.step_s)
    warm_hits = float(run.hits[:start].sum() / run.arrived[:start].sum())
    cold_share = (1 - asked.hit_ratio) + asked.hit_ratio * asked.cold_share
    recovery = min(fate.recovery_s, asked.observe_s)
    first = min(fate.first_s, asked.observe_s)
    figures = [
        Figure("peak of lookups, of the warm load", fate.peak, "x", Layer.COHORT),
        Figure("peak of lookups with retries", fate.attempts, "x", Layer.COHORT),
        Figure(
            "peak of lookups, if each router shared them between requests",
            _shared_peak(asked),
            "x",
            Layer.CLOSED,
        ),
        Figure("warm lookups", float(run.rate(run.wanted)[:start].mean()), "1/s", Layer.COHORT),
        Figure("peak of lookups", float(run.rate(run.wanted).max()), "1/s", Layer.COHORT),
        Figure("requests failed", fate.failed, "", Layer.COHORT),
        Figure(
            "of these, after the first life of an entry, when what was filled together expires",
            float(run.failed[start + round(warm_s / asked.step_s) :].sum()),
            "",
            Layer.COHORT,
        ),
        Figure("time to the first second that is well", first, "s", Layer.COHORT),
        Figure("time to recover for good", recovery, "s", Layer.COHORT),
        Figure("life of an entry", warm_s, "s", Layer.CLOSED),
        Figure("MemDS requests with constant work", beats.memds_per_s, "1/s", Layer.CLOSED),
        Figure("peak of MemDS requests, of the warm load", beat_fate.peak, "x", Layer.COHORT),
        Figure("requests failed with constant work", beat_fate.failed, "", Layer.COHORT),
        Figure(
            "requests that take a detour by storage nodes, at most",
            float(beat_run.rate(beat_run.detoured).max()),
            "1/s",
            Layer.COHORT,
        ),
        Figure("time to load the whole map from MemDS", beats.load_s, "s", Layer.CLOSED),
        Figure(
            "MemDS requests at once, if all routers beat together",
            float(asked.routers * REQUESTS_PER_BEAT),
            "",
            Layer.CLOSED,
        ),
    ]
    return Outcome(
        figures=figures,
        checks=_checks(asked, fate, beat_fate, warm_hits, cold_share, small),
        tables=[
            Table(
                f"The cold start of {asked.cold_share:.0%} of {asked.routers} routers",
                (
                    "design",
                    "peak of first tries (x warm)",
                    "peak with retries (x warm)",
                    "failed (million requests)",
                    "worst second (% available)",
                    f"back at {_ENOUGH:.1%} after (s)",
                ),
                (
                    fate.row(CONVENTIONAL),
                    long_fate.row(_LONG_QUEUE),
                    full_fate.row(_FULL_SIZE),
                    beat_fate.row(CONSTANT_WORK),
                ),
            )
        ],
        plots=_plots(asked, run, long_run, beat_run, small),
        conclusion=_conclusion(asked, fate, long_fate, beat_fate),
        requests_simulated=small.exact.requests,
        requests_represented=float(
            sum(each.arrived.sum() for each in (run, long_run, full_run, beat_run, small.cohort))
        ),
        notes=[
            "Routers start with nothing at all in both designs: Keyplane's own keep a snapshot of"
            " their map on disk, with which nothing of this would happen.",
            "Entries live equally long, so what was filled together expires together, and part of"
            " the storm comes back after one life; lives of different lengths would spread it.",
            "With constant work, requests for pages that are not loaded yet ask storage nodes, each"
            " by itself; what routers learn from the answers is left out, so that the detours are"
            " more here than they would be.",
            "Beats are taken to be spread evenly; routers that are all started in one instant"
            " beat together, and MemDS has to take one beat of all of them at once.",
        ],
    )


def _checks(
    asked: Parameters,
    fate: _Fate,
    beat_fate: _Fate,
    warm_hits: float,
    cold_share: float,
    small: Compared,
) -> list[Check]:
    return [
        relative(
            "peak of lookups over the warm load",
            fate.peak,
            cold_share / (1 - asked.hit_ratio),
            0.05,
            f"1 / (1 - hit ratio), 400 at 99.75 %: {PAPER}",
        ),
        absolute(
            "hit ratio of warm caches",
            warm_hits,
            asked.hit_ratio,
            0.1 * (1 - asked.hit_ratio),
            "renewal argument as in Jung, Berger and Balakrishnan, Modeling TTL-based Internet"
            " Caches (INFOCOM 2003)",
        ),
        relative(
            "peak of MemDS requests over the warm load, with constant work",
            beat_fate.peak,
            1.0,
            0.001,
            "a fixed number of requests per beat",
        ),
        *small.checks(),
    ]


def _plots(
    asked: Parameters,
    run: LookupRun,
    long_run: LookupRun,
    beat_run: BeatRun,
    small: Compared,
) -> list[Plot]:
    first, last = round((_WARM_S - 0.5) / run.step_s), round((_WARM_S + 2.0) / run.step_s)
    zoom = slice(first, last)
    near = run.time_s[zoom] - _WARM_S
    second = round(1 / run.step_s)
    seconds = binned(run.time_s, second) - _WARM_S

    def available(each: LookupRun) -> Array:
        well = each.hits + each.answered
        return 100 * share_of(well, well + each.failed, second)

    modelled, simulated = small.wanted
    half = np.arange(0.5, len(modelled), dtype=np.float64)
    served = 100 * share_of(beat_run.arrived - beat_run.failed, beat_run.arrived, second)
    return [
        Plot(
            "lookups",
            "Lookups around the cold start",
            f"Load on the Metadata Store and on MemDS, every {asked.step_ms} ms.",
            Axis("time since caches were lost", "s"),
            Axis("lookups", "1/s", log=True),
            (
                Line(CONVENTIONAL, near, run.rate(run.wanted)[zoom], "step"),
                Line("with retries", near, run.rate(run.attempts)[zoom], "step"),
                Line(CONSTANT_WORK, near, beat_run.rate(beat_run.asked)[zoom], "step"),
                Rule("what the Metadata Store can do", asked.warm_lookups_per_s * asked.headroom),
            ),
        ),
        Plot(
            "availability",
            "Requests that end well",
            "Second by second; what is lost when lookups that nobody waits for are carried out.",
            Axis("time since caches were lost", "s"),
            Axis("available", "%", low=0, high=105),
            (
                Line(CONVENTIONAL, seconds, available(run), "step"),
                Line(_LONG_QUEUE, seconds, available(long_run), "step"),
                Line(CONSTANT_WORK, seconds, served, "step"),
                Band("caches filled anew", 0.0, min(asked.ttl_s(), asked.observe_s)),
            ),
        ),
        Plot(
            "against-exact",
            "The cohort layer against each request simulated",
            "A small fleet with conventional caches that are lost at 10 s.",
            Axis("time", "s"),
            Axis("lookups", "1/s", log=True),
            (
                Line("cohort layer", half, np.maximum(modelled, 1.0)),
                Line("each request simulated", half, np.maximum(simulated, 1.0), "points"),
            ),
        ),
    ]


def _conclusion(asked: Parameters, fate: _Fate, long_fate: _Fate, beat_fate: _Fate) -> str:
    back = f"is not back within {asked.observe_s:.0f} s"
    if fate.recovered:
        back = f"is back after {fate.first_s:.0f} s"
        if fate.recovery_s > fate.first_s:
            back += f", for good after {fate.recovery_s:.0f} s"
    longer = "recovers too" if long_fate.recovered else "does not recover"
    share = fate.failed / (asked.requests_per_s * asked.observe_s)
    return (
        f"When {asked.cold_share:.0%} of caches with a hit ratio of {asked.hit_ratio:.2%} are lost,"
        f" lookups rise {fate.peak:.0f}-fold ({fate.attempts:.0f}-fold with retries),"
        f" {share:.1%} of the requests of the next {asked.observe_s:.0f} s fail and the fleet"
        f" {back}, while with a queue longer than its callers' patience it {longer};"
        f" with constant work MemDS sees {beat_fate.peak:.2f} times its warm load and"
        f" {beat_fate.failed / (asked.requests_per_s * asked.observe_s):.1%} fail."
    )


SCENARIO = Scenario(
    name="cold-start",
    title="Cold start",
    question="What happens when all routers have lost what they had cached?",
    explanation=(
        "Routers are cohorts whose caches are masses of entries by age, over a Metadata Store with"
        " a capacity, a bounded queue and callers that give up and retry; the hit ratio comes out"
        " of the life of the entries. No lookups are shared between the requests of a router. With"
        " constant work, routers load the map from MemDS page by page on their beat, and requests"
        " for what is not there yet ask storage nodes. A small fleet is also simulated request by"
        " request. Left out: the time that lookups take apart from queueing."
    ),
    parameters=Parameters,
    run=_run,
)
