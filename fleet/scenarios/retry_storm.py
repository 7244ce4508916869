"""A short outage, and then retries that keep a station from ever coming back."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from fleet.bisection import bisect
from fleet.closed.queues import Queue
from fleet.exact.retries import RetryRun, RetryStation, Trigger, run_retries
from fleet.outcome import (
    Array,
    Axis,
    Band,
    Check,
    Figure,
    HeatMap,
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
from fleet.scenarios._retry_designs import (
    BUDGET,
    PLAIN,
    RETRIES_MAX,
    SHED,
    SHORT,
    WARM_S,
    Parameters,
)

# Success is measured over this long before the end, and it has come back if half ends well.
_WINDOW_S = 10
_BACK = 0.5

# Of the map.
_LOADS = np.linspace(0.05, 1.05, 11)

_BISECTIONS = 9


def _end_success(run: RetryRun) -> float:
    return run.success(len(run.arrived) - 2 * _WINDOW_S, len(run.arrived) - _WINDOW_S)


def _filling_s(station: RetryStation) -> float:
    """How long a stop has to be for the queue to fill: no longer, since later attempts are refused,
    and clients that are refused soon run out of retries; after a long stop it is left by all."""
    sent_s, since_s = [], 0.0
    for retry in range(station.retries):
        pause_s = min(station.backoff_max_s, station.backoff_s * 2**retry) / 2
        since_s += station.timeout_s + pause_s
        sent_s.append(since_s)
    room, now_s, step_s = station.queue_max / (station.load * station.capacity_per_s), 0.0, 0.01
    while room > 0:
        now_s += step_s
        room -= step_s * (1 + min(station.budget, sum(sent <= now_s for sent in sent_s)))
    return now_s


def _tips_at(station: RetryStation, seed: int) -> tuple[float, int]:
    """The load up to capacity at which a full queue begins to last, by bisection, and the requests
    that took.

    A load 2 % below it needs fifty times the difference of queue and timeout to come back, and gets
    that long.
    """
    queue_s = station.queue_max / station.capacity_per_s
    drain_s = 50 * max(queue_s - station.timeout_s, 0.0)
    requests = 0

    def lasts(load: float) -> bool:
        nonlocal requests
        tried = replace(station, load=load)
        stop = Trigger(WARM_S, _filling_s(tried))
        duration_s = math.ceil(WARM_S + stop.duration_s + drain_s + 3 * _WINDOW_S)
        run = run_retries(tried, duration_s, seed, stop)
        requests += run.requests
        return _end_success(run) < _BACK

    low, high = bisect(lasts, 0.0, 1.0, _BISECTIONS)
    return (low + high) / 2, requests


def _late_share(station: RetryStation) -> float:
    """P(response > timeout) where all are served, and nobody tries again."""
    originals_per_s = station.load * station.capacity_per_s
    queue = Queue(station.servers, originals_per_s, station.service_s)
    return queue.response_survival()(station.timeout_s)


def _run(asked: Parameters, context: Context) -> Outcome:
    trigger, duration_s = asked.trigger(), asked.duration_s()
    seed = context.stream("retry-storm/time")
    runs = {
        name: run_retries(station, duration_s, seed, trigger)
        for name, station in asked.designs(asked.load, asked.retries).items()
    }
    requests = sum(run.requests for run in runs.values())

    context.progress(0.1, "the map")
    maps: dict[str, Array] = {}
    seed = context.stream("retry-storm/map")
    for retries in range(RETRIES_MAX + 1):
        for column, load in enumerate((_LOADS[:-1] + _LOADS[1:]) / 2):
            for name, station in asked.designs(float(load), retries).items():
                run = run_retries(station, duration_s, seed, trigger)
                requests += run.requests
                cells = maps.setdefault(name, np.zeros((RETRIES_MAX + 1, len(_LOADS) - 1)))
                cells[retries, column] = 100 * _end_success(run)
        context.progress(0.1 + 0.5 * (retries + 1) / (RETRIES_MAX + 1), "the map")

    seed = context.stream("retry-storm/tipping")
    tips: dict[str, list[float]] = {}
    for retries in range(RETRIES_MAX + 1):
        for name, station in asked.designs(0.5, retries).items():
            if name in (PLAIN, BUDGET) or retries == asked.retries:
                tip, took = _tips_at(station, seed)
                tips.setdefault(name, []).append(tip)
                requests += took
        context.progress(0.6 + 0.4 * (retries + 1) / (RETRIES_MAX + 1), "the tipping points")

    light = RetryStation(0.7, asked.servers, asked.service_ms / 1e3, 1 << 16, 0.0, 0)
    light = replace(light, timeout_s=3 * light.service_s)
    seconds = math.ceil(800_000 / (light.load * light.capacity_per_s))
    light_run = run_retries(light, seconds, context.stream("retry-storm/light"))
    calm = asked.station(0.5 * asked.station(0.5, asked.retries).tipping_load(), asked.retries)
    calm_run = run_retries(calm, 100, context.stream("retry-storm/calm"))
    requests += light_run.requests + calm_run.requests

    tip_of = {name: found[asked.retries if len(found) > 1 else 0] for name, found in tips.items()}
    success = {name: _end_success(run) for name, run in runs.items()}
    return Outcome(
        figures=_figures(asked, runs, success, tip_of),
        checks=_checks(asked, tip_of, light, light_run, calm, calm_run),
        tables=_tables(asked, runs, maps, tips, tip_of),
        plots=_plots(asked, runs, maps, tips),
        conclusion=_conclusion(asked, success, tip_of),
        requests_simulated=requests,
        notes=[
            "The tipping load is found with a stop that just fills the queue, whatever the trigger"
            " of the map and of the run over time. Longer stops are not worse: attempts that find"
            " the queue full are refused at once, and their clients are out of retries before the"
            " station is back, so that it may come back at loads a little above the tipping load.",
            "Dropping and refusing cost the station nothing here; in a real one they cost a little,"
            " and it tips where that alone fills its capacity.",
        ],
    )


def _figures(
    asked: Parameters, runs: dict[str, RetryRun], success: dict[str, float], tip: dict[str, float]
) -> list[Figure]:
    plain = asked.station(asked.load, asked.retries)
    sent = runs[PLAIN].attempts[-_WINDOW_S:].sum() / runs[PLAIN].arrived[-_WINDOW_S:].sum()
    figures = [
        Figure("capacity", plain.capacity_per_s, "1/s", Layer.CLOSED),
        Figure("tipping load", plain.tipping_load(), "fraction", Layer.CLOSED),
        Figure("attempts for each original, at the end", float(sent), "", Layer.EXACT),
    ]
    for name, load in tip.items():
        figures.append(Figure(f"tipping load, {name}", load, "fraction", Layer.EXACT))
    for name, share in success.items():
        figures.append(Figure(f"success at the end, {name}", share, "fraction", Layer.EXACT))
    return figures


def _checks(
    asked: Parameters,
    tip: dict[str, float],
    light: RetryStation,
    light_run: RetryRun,
    calm: RetryStation,
    calm_run: RetryRun,
) -> list[Check]:
    closed = "a full queue lasts when load x (1 + retries) exceeds capacity"
    designs = asked.designs(asked.load, asked.retries)
    too_late = _late_share(calm)
    return [
        relative(
            "tipping load without a budget",
            tip[PLAIN],
            designs[PLAIN].tipping_load(),
            0.05,
            closed,
        ),
        relative(
            "tipping load with a retry budget",
            tip[BUDGET],
            designs[BUDGET].tipping_load(),
            0.05,
            "the same with no more retries than the budget",
        ),
        absolute(
            "share of attempts that are late, without retries at 70 % load",
            1 - light_run.success(0, len(light_run.arrived)),
            _late_share(light),
            0.006,
            "response time of M/M/c, A. K. Erlang (1917)",
        ),
        absolute(
            f"success at {calm.load:.0%} load without a trigger",
            calm_run.success(0, len(calm_run.arrived)),
            1 - too_late ** (1 + calm.retries),
            0.01,
            "M/M/c again, all attempts of an original taken to be independent",
        ),
    ]


def _tables(
    asked: Parameters,
    runs: dict[str, RetryRun],
    maps: dict[str, Array],
    tips: dict[str, list[float]],
    tip: dict[str, float],
) -> list[Table]:
    designs = asked.designs(asked.load, asked.retries)
    return [
        Table(
            f"A trigger of {asked.trigger_s:g} s at {asked.load:.0%} load, {asked.retries} retries",
            (
                "design",
                "success at the end (%)",
                "late attempts at the end (1/s)",
                "tips at (% of capacity; 100: does not)",
                "closed form (%)",
                "cells of the map that are back (%)",
            ),
            tuple(
                (
                    name,
                    100 * _end_success(run),
                    float(run.late[-_WINDOW_S:].mean()),
                    100 * tip[name],
                    100 * designs[name].tipping_load(),
                    100 * float((maps[name] >= 100 * _BACK).mean()),
                )
                for name, run in runs.items()
            ),
        ),
        Table(
            "Where it tips",
            (
                "retries",
                "simulated (% of capacity)",
                "closed form (%)",
                "with the budget (%)",
                "its closed form (%)",
            ),
            tuple(
                (
                    float(retries),
                    100 * tips[PLAIN][retries],
                    100 * asked.designs(0.5, retries)[PLAIN].tipping_load(),
                    100 * tips[BUDGET][retries],
                    100 * asked.designs(0.5, retries)[BUDGET].tipping_load(),
                )
                for retries in range(RETRIES_MAX + 1)
            ),
        ),
    ]


def _plots(
    asked: Parameters,
    runs: dict[str, RetryRun],
    maps: dict[str, Array],
    tips: dict[str, list[float]],
) -> list[Plot]:
    time = np.arange(len(runs[PLAIN].arrived), dtype=np.float64) - WARM_S
    trigger = Band("trigger", 0.0, asked.trigger_s)
    capacity = asked.station(asked.load, asked.retries).capacity_per_s
    counts = np.arange(RETRIES_MAX + 1, dtype=np.float64)
    loads = 100 * _LOADS
    edges = np.arange(RETRIES_MAX + 2, dtype=np.float64) - 0.5
    closed = {
        name: np.array(
            [
                100 * asked.designs(0.5, retries)[name].tipping_load()
                for retries in range(RETRIES_MAX + 1)
            ]
        )
        for name in tips
    }
    plots = [
        Plot(
            "goodput",
            "Does it come back?",
            f"Requests that end well, every second, at {asked.load:.0%} load.",
            Axis("time since the trigger", "s"),
            Axis("ended well", "1/s", low=0),
            (
                *(Line(name, time, run.answered, "step") for name, run in runs.items()),
                trigger,
                Rule("originals", asked.load * capacity),
            ),
        ),
        Plot(
            "attempts",
            "What the station is sent",
            "Attempts every second: the trigger is over, and the load that it caused is not.",
            Axis("time since the trigger", "s"),
            Axis("attempts", "1/s", low=0),
            (
                *(Line(name, time, run.attempts, "step") for name, run in runs.items()),
                trigger,
                Rule("capacity", capacity),
            ),
        ),
        Plot(
            "tipping",
            "The load from which it does not come back",
            "By bisection, against capacity / (1 + retries), and with a budget.",
            Axis("retries of each original"),
            Axis("load that tips", "% of capacity", low=0, high=110),
            (
                Line("closed form", counts, closed[PLAIN], dashed=True),
                Line("closed form with a budget", counts, closed[BUDGET], dashed=True),
                Line(PLAIN, counts, 100 * np.array(tips[PLAIN]), "points"),
                Line(BUDGET, counts, 100 * np.array(tips[BUDGET]), "points"),
            ),
        ),
    ]
    names = {PLAIN: "plain", BUDGET: "budget", SHED: "shedding", SHORT: "short-queue"}
    for name, cells in maps.items():
        plots.append(
            Plot(
                f"map-{names[name]}",
                f"Success {asked.observe_s - 2 * _WINDOW_S:g} s after the trigger: {name}",
                "Each cell is one simulation with the trigger; those of 0 % have not come back.",
                Axis("load", "% of capacity"),
                Axis("retries of each original"),
                (HeatMap("ended well", "%", loads, edges, cells),),
            )
        )
    return plots


def _conclusion(asked: Parameters, success: dict[str, float], tip: dict[str, float]) -> str:
    def fate(name: str) -> str:
        back = "comes back" if success[name] >= _BACK else "does not come back"
        return f"{back} ({success[name]:.0%} end well)"

    return (
        f"After {asked.trigger_s:g} s of trouble at {asked.load:.0%} load, a station whose clients"
        f" retry {asked.retries} times {fate(PLAIN)}: it tips at {tip[PLAIN]:.0%} of its"
        f" capacity; with a retry budget of {asked.budget:.0%} it {fate(BUDGET)} and tips at"
        f" {tip[BUDGET]:.0%}, with shedding it {fate(SHED)}, and with a queue shorter than the"
        f" timeout it {fate(SHORT)}."
    )


SCENARIO = Scenario(
    name="retry-storm",
    title="Retry storm",
    question="Does a fleet come back by itself after a short outage, or do retries keep it down?",
    explanation=(
        "Originals arrive at random at a station of equal servers with one bounded queue; clients"
        " give up after a timeout and try again after a random wait, and the station carries out"
        " late attempts for nobody unless it sheds. A trigger stops it (or raises the load) for"
        " some seconds; then it is seen whether requests end well again. Every attempt is"
        " simulated, over a map of loads and numbers of retries, for four designs. Left out: what"
        " refusing and dropping cost the station, and clients that adapt their rate."
    ),
    parameters=Parameters,
    run=_run,
)
