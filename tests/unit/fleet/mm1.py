"""A small scenario in a file of its own: one server and its queue (M/M/1), by the closed form."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

from fleet.outcome import (
    Axis,
    Band,
    Bars,
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
from fleet.parameters import parameter
from fleet.scenario import Context, Scenario
from keyplane.model.errors import KeyplaneError, Reason

_BOOK = "Kleinrock, Queueing Systems I, 1975"


@dataclass(frozen=True, slots=True)
class Parameters:
    load: float = parameter(
        0.8, "fraction", "Share of time the server is busy.", low=0.0, high=0.999, source="chosen"
    )
    service_ms: float = parameter(
        2.0,
        "ms",
        "Mean time of service.",
        low=0.001,
        high=1000.0,
        source="chosen: a disk's read",
        measured="service_ms",
    )
    requests: int = parameter(
        10_000, "", "How many are drawn as a check.", low=100, high=10_000_000, source="chosen"
    )
    tolerance: float = parameter(
        0.2, "fraction", "Of what is drawn.", low=0.0, high=1.0, source="chosen"
    )


def run(asked: Parameters, context: Context) -> Outcome:
    if os.environ.get("MM1_FAILS"):
        raise KeyplaneError(Reason.INVALID_ARGUMENT, "told to fail")
    context.progress(0.0, "drawing")
    mean_ms = asked.service_ms / (1 - asked.load)
    # Times in an M/M/1 system are exponential.
    drawn = np.random.default_rng(context.stream("times")).exponential(mean_ms, asked.requests)
    p99_ms = mean_ms * np.log(100)
    at = np.linspace(0, 4 * mean_ms, 80)
    loads = np.linspace(0.05, 0.95, 37)
    services = np.geomspace(0.5, 8, 13)
    context.progress(0.5, "plotting")
    edges = np.linspace(0.0, 0.95, 20)
    grid = np.geomspace(0.5, 8, 9)
    middle, height = (edges[1:] + edges[:-1]) / 2, np.sqrt(grid[1:] * grid[:-1])
    plots = (
        Plot(
            "times",
            "Time in the system",
            "The share of requests that take longer; a straight line on this scale.",
            Axis("time", "ms"),
            Axis("slower than that", "fraction", log=True, low=1e-2, high=1),
            (
                Line("closed form", at, np.exp(-at / mean_ms)),
                Line(
                    "drawn <& counted>",
                    at[::4],
                    np.array([np.mean(drawn > each) for each in at[::4]]),
                    "points",
                ),
                Rule("p99", 0.01),
                Band("faster than the mean", 0.0, mean_ms),
            ),
        ),
        Plot(
            "load",
            "Mean time by load",
            "Twice the load costs more than twice the time.",
            Axis("load", "fraction"),
            Axis("mean time", "ms"),
            (
                Line("closed form", loads, asked.service_ms / (1 - loads)),
                Line("of no queue", loads, np.full_like(loads, asked.service_ms), dashed=True),
                Rule("asked", asked.load, "x"),
            ),
        ),
        Plot(
            "parts",
            "Where the time goes",
            "Waiting outgrows service.",
            Axis("load", ticks=("50 %", "80 %", "95 %")),
            Axis("mean time", "ms"),
            (
                Bars("service", np.full(3, asked.service_ms)),
                Bars("waiting", asked.service_ms * np.array([1.0, 4.0, 19.0])),
            ),
        ),
        Plot(
            "map",
            "Mean time by load and service",
            "The bright corner is where nobody wants to be.",
            Axis("load", "fraction"),
            Axis("service", "ms", log=True),
            (HeatMap("mean time", "ms", edges, grid, height[:, None] / (1 - middle[None, :])),),
        ),
        Plot(
            "queue",
            "Requests in the queue",
            "Steps hold until the next.",
            Axis("service", "ms", log=True),
            Axis("requests in a second"),
            (Line("drawn <& counted>", services, np.floor(1000 / services), "step"),),
        ),
    )
    checks = (
        relative("mean time drawn", float(drawn.mean()), mean_ms, asked.tolerance, _BOOK),
        absolute("share beyond p99", float(np.mean(drawn > p99_ms)), 0.01, 0.01, _BOOK),
    )
    return Outcome(
        figures=(
            Figure("mean time", mean_ms, "ms", Layer.CLOSED),
            Figure("p99", float(p99_ms), "ms", Layer.CLOSED),
            Figure("mean time drawn", float(drawn.mean()), "ms", Layer.EXACT),
        ),
        checks=checks,
        tables=(Table("By load", ("load", "mean, ms"), (("half", 4.0), ("most", 20.0))),),
        plots=plots,
        conclusion=f"At {asked.load:.0%} load a request takes {mean_ms:.1f} ms <on average>.",
        requests_simulated=asked.requests,
        requests_represented=2.5e9,
        notes=("A note & more.",),
    )


SCENARIO = Scenario(
    "mm1",
    "One server, one queue",
    "How long does a request wait for one server?",
    "Poisson arrivals, exponential service, one server: the closed form, and draws from it.",
    Parameters,
    run,
)
