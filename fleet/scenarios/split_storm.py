"""Thousands of partitions split at once: publishing, refresh, and requests sent the wrong way."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from fleet.closed.caches import KeyClasses
from fleet.cohort.lookups import LookupRun, Lookups, run_lookups
from fleet.cohort.series import binned
from fleet.cohort.splits import LEARNED_MAX, Storm, StormRun, run_storm
from fleet.exact.splits import run_exact_storm
from fleet.fleetwide import CONSTANT_WORK, CONVENTIONAL, FleetParameters
from fleet.map_sizes import rewritten_pages
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
    Table,
    relative,
)
from fleet.parameters import parameter
from fleet.scenario import Context, Scenario
from keyplane.model.errors import KeyplaneError, Reason
from metadata.config import PlannerConfig

# Steps of the storm that are looked at, at most: ten minutes of 10 ms.
_STEPS_MAX = 60_000

# The small fleet whose requests are drawn one by one.
_SMALL_ROUTERS = 100.0


@dataclass(frozen=True, slots=True)
class Parameters(FleetParameters):
    splits: int = parameter(
        5_000,
        "",
        "partitions that are split at once",
        low=1,
        high=1_000_000,
        source="chosen: thousands, as asked",
    )
    split_tables: int = parameter(
        500,
        "",
        "tables that these belong to, as many of each",
        low=1,
        high=100_000,
        source="chosen: a busy day of one in thirty tables",
    )
    heat: float = parameter(
        3.0,
        "x",
        "requests for a partition that is split, over those for the average one",
        low=0.0,
        high=1_000.0,
        source="chosen: busy partitions are those that are split",
    )


def _storm(asked: Parameters) -> Storm:
    """Raises INVALID_ARGUMENT on more splits than there are partitions, or more tables."""
    each = max(1, round(asked.partitions / asked.tables))
    splits = math.ceil(asked.splits / asked.split_tables)
    if asked.split_tables > asked.tables or asked.heat * splits > each:
        raise KeyplaneError(
            Reason.INVALID_ARGUMENT,
            f"{splits} splits in each of {asked.split_tables} tables, {asked.heat:g} times as busy"
            f" as the average of {each} partitions of a table; give fewer splits, more tables"
            " for them or less heat",
        )
    return Storm(
        asked.constant_work(),
        asked.split_tables,
        splits,
        rewritten_pages(each, splits),
        asked.heat * asked.rate_per_router / asked.partitions,
    )


def _refetches(asked: Parameters, storm: Storm) -> Lookups:
    """The tables that were split, in TTL caches: the first redirect throws the entry away, and who
    asks next looks it up, in what warm caches leave of the Metadata Store."""
    plain = asked.conventional()
    share = storm.splits * asked.heat / (asked.partitions / asked.tables) / asked.tables
    counts = np.array([float(storm.tables)])
    return replace(
        plain,
        keys=KeyClasses(counts, np.array([share])),
        # Nothing expires while we look.
        ttl_s=1e6 * asked.step_s,
        capacity_per_s=max(plain.capacity_per_s - asked.warm_lookups_per_s, 1.0),
        hits=np.zeros(1),
    )


def _run(asked: Parameters, context: Context) -> Outcome:
    storm = _storm(asked)
    context.progress(0.1, CONSTANT_WORK)
    steps = min(_STEPS_MAX, math.ceil((storm.known_s + 2) / asked.step_s))
    run = run_storm(storm, asked.step_s, steps * asked.step_s)
    context.progress(0.5, CONVENTIONAL)
    ones: Array = np.ones(steps)
    lookups = run_lookups(_refetches(asked, storm), asked.step_s, ones, ones)
    context.progress(0.7, "the same, each request drawn")
    small = replace(
        storm,
        beats=replace(storm.beats, routers=[_SMALL_ROUTERS], tables=3_000.0),
        tables=min(storm.tables, 300),
        splits=min(storm.splits, 20),
        pages=min(storm.pages, 2.0),
        rate_per_s=max(storm.rate_per_s, 0.01),
    )
    small_s = math.ceil(small.known_s)
    exact = run_exact_storm(small, context.stream("split-storm/exact"), 1.0, small_s)
    modelled = run_storm(small, asked.step_s, small_s)

    total, forgotten = float(run.redirects.sum()), float(run.forgotten.sum())
    peak = float(run.rate(run.redirects).max())
    new_pages = storm.pages * storm.tables
    published = storm.published_s()
    entries = float(asked.routers) * storm.tables
    planner = PlannerConfig().operations_per_s
    figures = [
        Figure("new pages", new_pages, "", Layer.CLOSED),
        Figure("until the last root is published", float(published[-1]), "s", Layer.CLOSED),
        Figure("turn of a router through all roots", storm.turn_s, "s", Layer.CLOSED),
        Figure("until all routers have the new map", storm.known_s, "s", Layer.CLOSED),
        Figure("requests redirected", total, "", Layer.COHORT),
        Figure("peak of redirects", peak, "1/s", Layer.COHORT),
        Figure("the same, of all requests", peak / asked.requests_per_s, "fraction", Layer.COHORT),
        Figure("redirected again, as forgotten", forgotten, "", Layer.COHORT),
        Figure("requests to MemDS, as always", storm.beats.memds_per_s, "1/s", Layer.CLOSED),
        Figure("values published, as always", storm.beats.writes_per_s, "1/s", Layer.CLOSED),
        Figure(
            "peak of lookups with TTL caches, retries too",
            float(lookups.rate(lookups.attempts).max()),
            "1/s",
            Layer.COHORT,
        ),
        Figure("requests failed with TTL caches", float(lookups.failed.sum()), "", Layer.COHORT),
        Figure("entries looked up anew with TTL caches", entries, "", Layer.CLOSED),
        Figure(
            "messages to tell every router of every split",
            float(asked.routers) * asked.splits,
            "",
            Layer.CLOSED,
        ),
    ]
    return Outcome(
        figures=figures,
        checks=_checks(asked, storm, run, small, modelled, exact),
        tables=[_table(asked, storm, run, lookups)],
        plots=_plots(asked, storm, run, lookups, modelled, exact),
        conclusion=_conclusion(asked, storm, total, peak, lookups),
        requests_simulated=int(small.beats.routers[0]) * small.tables * small.splits,
        requests_represented=float(lookups.arrived.sum() + total),
        notes=[
            f"Of one table a router remembers {LEARNED_MAX:,.0f} splits beside its map; of more it"
            " forgets the oldest and is redirected again.",
            f"Keyplane's own planner begins {planner:g} operations a second and would take"
            f" {asked.splits / planner:,.0f} s for these: a storm comes from people, or from a"
            " planner without such a bound.",
            "requests_simulated counts the first request of a router for a partition, of which"
            " each was drawn.",
        ],
    )


def _checks(
    asked: Parameters, storm: Storm, run: StormRun, small: Storm, modelled: StormRun, exact: Array
) -> list[Check]:
    whole = sum(storm.beats.routers) * storm.splits * storm.tables
    closed, total = storm.redirects(), float(run.redirects.sum())
    met = "first requests of Poisson processes before roots that are read evenly over a turn"
    if storm.splits > LEARNED_MAX or not storm.pages_fit:
        few = max(0.0, closed - total) / max(closed, 1.0)
        most = Check("redirects, no fewer than if routers kept up", total, closed, few, 0.01, met)
    else:
        most = relative("requests redirected", total, closed, 0.01, met)
    checks = [
        most,
        relative(
            "redirects per second at the start",
            float(run.rate(run.redirects)[0]),
            whole * -math.expm1(-storm.rate_per_s * asked.step_s) / asked.step_s,
            0.01,
            "partitions that were split and are asked for in the first step",
        ),
        relative(
            "requests redirected in a small fleet, cohort layer",
            float(modelled.redirects.sum()),
            float(exact.sum()),
            # Four standard deviations of what is counted, or 2 %.
            max(0.02, 4 / math.sqrt(max(float(exact.sum()), 1.0))),
            "the same fleet with beats, turns and each first request drawn",
        ),
        relative(
            "routers' splits that end in the map",
            float(run.mapped[-1]),
            whole,
            0.001 if storm.known_s < len(run.mapped) * run.step_s else 1.0,
            "all of them",
        ),
    ]
    each = max(1, round(asked.partitions / asked.tables))
    pages = asked.page_sizes.pages
    # Of larger tables too few are made for an average.
    if each <= 1_000 and 2 * storm.splits <= each:
        checks.append(
            relative(
                "new pages of a table",
                storm.pages,
                pages * (1 - (1 - 1 / pages) ** storm.splits),
                0.15,
                "splits thrown at random into the pages of a table",
            )
        )
    return checks


def _table(asked: Parameters, storm: Storm, run: StormRun, lookups: LookupRun) -> Table:
    rates = run.rate(run.redirects)
    asking = lookups.rate(lookups.wanted)
    # Masses below one a second are of no request.
    late = np.flatnonzero(lookups.rate(lookups.failed) > 1)
    failing = float(lookups.time_s[late[-1]]) if len(late) else 0.0
    return Table(
        f"{asked.splits:,} splits in {asked.split_tables:,} tables at once",
        ("", CONSTANT_WORK, CONVENTIONAL),
        (
            (
                "requests redirected, each to a storage node once more",
                float(run.redirects.sum()),
                float(lookups.wanted.sum()),
            ),
            (
                "peak of redirects (1/s)",
                float(rates.max()),
                float(asking.max()),
            ),
            (
                "peak at MemDS or Metadata Store (1/s)",
                storm.beats.memds_per_s,
                asked.warm_lookups_per_s + float(lookups.rate(lookups.attempts).max()),
            ),
            (
                "the same, over the usual (x)",
                1.0,
                1 + float(lookups.rate(lookups.attempts).max()) / asked.warm_lookups_per_s,
            ),
            ("requests failed", 0.0, float(lookups.failed.sum())),
            ("until nothing fails any more (s)", 0.0, failing),
        ),
    )


def _plots(
    asked: Parameters,
    storm: Storm,
    run: StormRun,
    lookups: LookupRun,
    modelled: StormRun,
    exact: Array,
) -> list[Plot]:
    bin_steps = max(1, len(run.time_s) // 1_000)
    seconds = binned(run.time_s, bin_steps)
    whole = float(run.unknown[0] + run.learned[0] + run.mapped[0])
    second = round(1 / asked.step_s)
    band = Band("roots are published", 0.0, float(storm.published_s()[-1]))
    return [
        Plot(
            "redirects",
            "Requests that meet a partition that is no more",
            "With TTL caches each is a lookup of the table at the Metadata Store; tries that follow"
            " a failure are counted too.",
            Axis("time since the splits", "s"),
            Axis("requests", "1/s", log=True),
            (
                Line(
                    CONSTANT_WORK,
                    seconds,
                    np.maximum(binned(run.rate(run.redirects), bin_steps), 1.0),
                ),
                Line(
                    CONVENTIONAL,
                    seconds,
                    np.maximum(binned(lookups.rate(lookups.attempts), bin_steps), 1.0),
                ),
                band,
            ),
        ),
        Plot(
            "knowledge",
            "How routers know of the splits",
            "On average over routers: told by a storage node, then by the map.",
            Axis("time since the splits", "s"),
            Axis("splits", "%", low=0, high=105),
            (
                Line("not yet", seconds, 100 * binned(run.unknown, bin_steps) / whole),
                Line("from a redirect", seconds, 100 * binned(run.learned, bin_steps) / whole),
                Line("from the map", seconds, 100 * binned(run.mapped, bin_steps) / whole),
                band,
            ),
        ),
        Plot(
            "against-exact",
            "The cohort layer against each request drawn",
            "Redirects of a small fleet, second by second.",
            Axis("time since the splits", "s"),
            Axis("redirects", "1/s", log=True),
            (
                Line(
                    "cohort layer",
                    binned(modelled.time_s, second),
                    np.maximum(binned(modelled.rate(modelled.redirects), second), 0.1),
                ),
                Line(
                    "each request drawn",
                    np.arange(len(exact), dtype=np.float64) + 0.5,
                    np.maximum(exact, 0.1),
                    "points",
                ),
            ),
        ),
    ]


def _conclusion(
    asked: Parameters, storm: Storm, total: float, peak: float, lookups: LookupRun
) -> str:
    rise = 1 + float(lookups.rate(lookups.attempts).max()) / asked.warm_lookups_per_s
    each = total / (float(asked.routers) * storm.splits * storm.tables)
    return (
        f"{asked.splits:,} splits at once cost {total / 1e6:.2f} million redirects,"
        f" {each:.2f} per router and split and at most {peak / asked.requests_per_s:.1%} of"
        f" requests, while MemDS sees its usual {storm.beats.memds_per_s:,.0f} requests a second;"
        f" the last root is published after {storm.published_s()[-1]:.1f} s and every map is new"
        f" after {storm.known_s:.1f} s; with TTL caches the Metadata Store sees {rise:.1f} times"
        f" its usual lookups and {float(lookups.failed.sum()) / 1e6:.2f} million requests fail."
    )


SCENARIO = Scenario(
    name="split-storm",
    title="Split storm",
    question="What happens when thousands of partitions are split at once?",
    explanation=(
        "Storage nodes split at once; the map follows: so many roots and pages on each beat of the"
        " publisher, so many on each beat of a router. The cohort layer follows how routers get to"
        " know and how many requests are redirected until then; a small fleet is drawn beat by beat"
        " and request by request. New pages are counted in real pages, made for the purpose. With"
        " TTL caches a redirect only says that the entry is wrong, and the table is looked up. Left"
        " out: what storage nodes do to split, and skew between tables."
    ),
    parameters=Parameters,
    run=_run,
)
