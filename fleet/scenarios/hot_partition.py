"""A partition that is asked for more than one can do: splits help, unless it is all one item."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from fleet.exact.partitions import READ, WRITE, HeatRun
from fleet.outcome import (
    Array,
    Axis,
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
from fleet.scenarios._hot_parameters import AWS, BEAT_S, DIVISIBLE, Parameters
from storage.suggest import LARGER_SHARE_MAX

_SPREAD = "load on many items"
_SHARED = "some of it on one item"
_SINGLE = "all on one item"

# The end over which is measured what stays.
_END_S = 10.0

_SHARES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.55, 0.65, 0.7, 0.8, 0.9, 1.0)


def _run(asked: Parameters, context: Context) -> Outcome:
    shares = {_SPREAD: 0.0, _SHARED: asked.item_share, _SINGLE: 1.0}
    runs: dict[str, HeatRun] = {}
    for done, (name, share) in enumerate(shares.items()):
        context.progress(done / 10, name)
        runs[name] = asked.run(share, context.stream(f"hot-partition/{name}"))
    simulated = sum(run.requests for run in runs.values())
    end_s = len(runs[_SPREAD].partitions) * BEAT_S
    swept: list[HeatRun] = []
    found: Array = np.zeros((2, len(_SHARES)))
    for column, share in enumerate(_SHARES):
        context.progress(0.3 + 0.7 * column / len(_SHARES), f"{share:.0%} on one item")
        run = asked.run(share, context.stream(f"hot-partition/{share}"))
        simulated += run.requests
        swept.append(run)
        for kind in (READ, WRITE):
            found[kind, column] = run.refused(kind, end_s - _END_S, end_s)
    every = [*runs.values(), *swept]
    before = [_before(asked, kind, every, end_s) for kind in (READ, WRITE)]
    return Outcome(
        figures=_figures(asked, runs, before, end_s),
        checks=_checks(asked, runs, before, end_s),
        tables=[_table(asked, runs, shares, end_s)],
        plots=_plots(asked, runs, found),
        conclusion=_conclusion(asked, runs, before, end_s),
        requests_simulated=simulated,
        notes=[
            "A split takes no time here, and its new partitions start with a full second of units.",
            f"Keyplane makes no split whose larger side has more than {LARGER_SHARE_MAX:.0%} of the"
            f" load: an item in the middle with more than {DIVISIBLE:.0%} of it keeps the rest"
            " with it in its partition, and is to be spread over several keys, or cached.",
            "Clients do not retry what is refused.",
        ],
    )


def _first_split_s(run: HeatRun, end_s: float) -> float:
    return run.splits_s[0] if run.splits_s else end_s


def _before(asked: Parameters, kind: int, runs: Sequence[HeatRun], end_s: float) -> float:
    """Refused a second before the first split, in all runs: they differ only after it. NaN if it
    comes before what was saved up is used up."""
    total, beats = 0.0, 0
    for run in runs:
        first, last = asked.spent_s(kind), _first_split_s(run, end_s)
        part = run.refused_per_s[round(first / run.beat_s) : round(last / run.beat_s), kind]
        total += float(part.sum())
        beats += len(part)
    return total / beats if beats else math.nan


def _figures(
    asked: Parameters, runs: Mapping[str, HeatRun], before: Sequence[float], end_s: float
) -> list[Figure]:
    spread = runs[_SPREAD]
    first_s = _first_split_s(spread, end_s)
    figures: list[Figure] = []
    for kind, word in ((READ, "reads"), (WRITE, "writes")):
        if not math.isnan(before[kind]):
            what = f"throttled {word} before the first split"
            figures.append(Figure(what, before[kind], "1/s", Layer.EXACT))
        for name, run in runs.items():
            value = run.refused(kind, end_s - _END_S, end_s)
            figures.append(
                Figure(f"throttled {word} at the end, {name}", value, "1/s", Layer.EXACT)
            )
    figures += [
        Figure("first split", first_s, "s", Layer.EXACT),
        Figure("last throttle with the load on many items", _last_s(spread), "s", Layer.EXACT),
        Figure("partitions at the end", float(spread.partitions[-1]), "", Layer.EXACT),
        Figure("least partitions that can serve it", _least(asked), "", Layer.CLOSED),
    ]
    return figures


def _least(asked: Parameters) -> float:
    heats = (asked.reads_per_s / asked.read_limit, asked.writes_per_s / asked.write_limit)
    return float(np.ceil(max(heats)))


def _last_s(run: HeatRun) -> float:
    """The end of the last beat in which anything was refused."""
    beats = np.flatnonzero(run.refused_per_s.sum(axis=1))
    return float(beats[-1] + 1) * run.beat_s if len(beats) else 0.0


def _near(what: str, value: float, reference: float, asked_per_s: float, source: str) -> Check:
    """Relative; of what is close to none as a share of all that is asked for."""
    if reference > 0.2 * asked_per_s:
        return relative(f"{what} a second", value, reference, 0.05, source)
    share = f"share of {what}"
    return absolute(share, value / asked_per_s, reference / asked_per_s, 0.02, source)


def _checks(
    asked: Parameters, runs: Mapping[str, HeatRun], before: Sequence[float], end_s: float
) -> list[Check]:
    spread, single = runs[_SPREAD], runs[_SINGLE]
    arithmetic = f"what is asked for less what one partition does; limits of {AWS}"
    checks = []
    for kind, word, rate in (
        (READ, "reads", asked.reads_per_s),
        (WRITE, "writes", asked.writes_per_s),
    ):
        if not math.isnan(before[kind]):
            what = f"{word} throttled before the first split"
            checks.append(_near(what, before[kind], asked.over(kind), rate, arithmetic))
        checks += [
            _near(
                f"{word} throttled after all splits",
                spread.refused(kind, end_s - _END_S, end_s),
                0.0,
                rate,
                "each partition is below its limits",
            ),
            _near(
                f"{word} throttled with all load on one item",
                single.refused(kind, asked.spent_s(kind), end_s),
                asked.over(kind),
                rate,
                f"no split divides one item: {arithmetic}",
            ),
        ]
    return checks


def _table(
    asked: Parameters, runs: Mapping[str, HeatRun], shares: Mapping[str, float], end_s: float
) -> Table:
    return Table(
        f"{asked.reads_per_s:g} reads and {asked.writes_per_s:g} writes a second"
        " on what was one partition",
        (
            "design",
            "share on one item (%)",
            "throttled reads at the end (1/s)",
            "by arithmetic (1/s)",
            "throttled writes at the end (1/s)",
            "by arithmetic of these (1/s)",
            "partitions",
            "splits that would not help",
            "last throttle (s)",
        ),
        tuple(
            (
                name,
                100 * shares[name],
                run.refused(READ, end_s - _END_S, end_s),
                asked.stays(READ, shares[name]),
                run.refused(WRITE, end_s - _END_S, end_s),
                asked.stays(WRITE, shares[name]),
                float(run.partitions[-1]),
                float(run.declined),
                _last_s(run),
            )
            for name, run in runs.items()
        ),
    )


def _plots(asked: Parameters, runs: Mapping[str, HeatRun], found: Array) -> list[Plot]:
    plots = []
    for kind, word in ((READ, "reads"), (WRITE, "writes")):
        lines = []
        for name, run in runs.items():
            time = np.arange(len(run.partitions), dtype=np.float64) * run.beat_s
            lines.append(Line(name, time, run.refused_per_s[:, kind], "step"))
        plots.append(
            Plot(
                f"throttled-{word}",
                f"Throttled {word}",
                "Each second; splits follow when a partition has been hot for"
                f" {asked.hot_for_s:g} s.",
                Axis("time", "s"),
                Axis(f"throttled {word}", "1/s", low=0),
                (*lines, Rule("asked for less one partition's limit", asked.over(kind))),
            )
        )
    time = np.arange(len(runs[_SPREAD].partitions), dtype=np.float64) * BEAT_S
    shares: Array = 100 * np.array(_SHARES)
    closed = {
        kind: np.array([asked.stays(kind, share) for share in _SHARES]) for kind in (READ, WRITE)
    }
    plots.append(
        Plot(
            "partitions",
            "Partitions",
            "How far splits go.",
            Axis("time", "s"),
            Axis("partitions", low=0),
            tuple(Line(name, time, run.partitions, "step") for name, run in runs.items()),
        )
    )
    plots.append(
        Plot(
            "one-item",
            "What no split takes away",
            f"Throttled requests in the last {_END_S:g} s over the share of the load on one item.",
            Axis("load on one item", "%"),
            Axis("throttled", "1/s", low=0),
            (
                Line("reads", shares, found[READ], "points"),
                Line("reads by arithmetic", shares, closed[READ], dashed=True),
                Line("writes", shares, found[WRITE], "points"),
                Line("writes by arithmetic", shares, closed[WRITE], dashed=True),
            ),
        )
    )
    return plots


def _conclusion(
    asked: Parameters, runs: Mapping[str, HeatRun], before: Sequence[float], end_s: float
) -> str:
    def both(reads: float, writes: float) -> str:
        return f"{reads:,.0f} reads and {writes:,.0f} writes"

    def at_end(name: str) -> str:
        return both(*(runs[name].refused(kind, end_s - _END_S, end_s) for kind in (READ, WRITE)))

    spread = runs[_SPREAD]
    if spread.splits_s:
        throttled = [0.0 if math.isnan(each) else each for each in before]
        story = (
            f"throttles {both(*throttled)} a second until the first split after"
            f" {spread.splits_s[0]:g} s, and {at_end(_SPREAD)} with"
            f" {spread.partitions[-1]:.0f} partitions"
        )
    else:
        story = f"throttles {at_end(_SPREAD)} a second and is not split"
    return (
        f"A partition asked for {both(asked.reads_per_s, asked.writes_per_s)} a second {story};"
        f" if all are for one item no split helps, and {at_end(_SINGLE)} a second are still"
        f" throttled after {end_s:g} s."
    )


SCENARIO = Scenario(
    name="hot-partition",
    title="Hot partition",
    question="How long is a partition throttled that is asked for more than one can do?",
    explanation=(
        "Reads and writes arrive at random at items of one partition, which has a token bucket for"
        " each kind with DynamoDB's documented limits. Keyplane's rules split what has been hot for"
        " some seconds at the key that halves its load, and leave alone what no key divides. Every"
        " request is simulated. Left out: the time that a split takes, moves to other nodes,"
        " retries, and load that wanders through the keys."
    ),
    parameters=Parameters,
    run=_run,
)
