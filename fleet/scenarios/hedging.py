"""One MemDS node is slow: what asking a second one gains, and from which load on it hurts."""

from __future__ import annotations

import math

import numpy as np

from fleet.closed.hedging import Hedging
from fleet.closed.queues import percentile
from fleet.exact.hedging import HedgedRun
from fleet.nodes import Nodes
from fleet.outcome import (
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
from fleet.scenarios._hedging_loads import (
    BOTH,
    BUDGET,
    DESIGNS,
    LATE,
    LOADS,
    ONE,
    PART,
    TAIL_AT_SCALE,
    Parameters,
    Sweep,
    sweep_loads,
)
from keyplane.model.errors import KeyplaneError, Reason

_CLOSED = "min(T1, delay + T2) of M/M/c nodes, T1 and T2 independent"


def _run(asked: Parameters, context: Context) -> Outcome:
    if asked.slow_nodes >= asked.nodes:
        raise KeyplaneError(
            Reason.INVALID_ARGUMENT,
            f"--slow-nodes is {asked.slow_nodes} of {asked.nodes}; leave one that is healthy",
        )
    hedging = asked.closed(LATE)
    if hedging is None:
        raise KeyplaneError(
            Reason.INVALID_ARGUMENT,
            f"--load is {asked.load:g}, at which second requests overload the nodes; give a lower"
            " one, and see in the sweep what happens from there on",
        )
    nodes = asked.nodes_at(asked.load, asked.slow_nodes)
    seed = context.stream("hedging/load")
    runs = {}
    for index, design in enumerate(DESIGNS):
        context.progress(0.1 * index, design)
        runs[design] = asked.run(design, nodes, asked.requests, seed)
    context.progress(0.4, "all nodes healthy")
    healthy = asked.nodes_at(asked.load, 0)
    healthy_run = asked.run(LATE, healthy, asked.requests, context.stream("hedging/healthy"))
    context.progress(0.5, "loads, with slow nodes")
    slow_sweep = sweep_loads(asked, asked.slow_nodes, context.stream("hedging/sweep"))
    context.progress(0.75, "loads, all nodes healthy")
    healthy_sweep = sweep_loads(asked, 0, context.stream("hedging/healthy-sweep"))
    context.progress(1.0, "done")

    late = runs[LATE]
    p99 = {design: float(np.quantile(run.times, PART)) for design, run in runs.items()}
    checks = _checks(asked, hedging, runs, p99, healthy_run)
    delay = asked.delay_ms(LATE, asked.slow_nodes)
    requests = (len(runs) + 1) * asked.requests
    return Outcome(
        figures=[
            Figure("p99 with one node asked", p99[ONE], "ms", Layer.EXACT),
            Figure("p99 with a second one asked when late", p99[LATE], "ms", Layer.EXACT),
            Figure("p99 with two asked at once", p99[BOTH], "ms", Layer.EXACT),
            Figure("delay of second requests", delay, "ms", Layer.CLOSED),
            Figure("second requests per request", late.extra, "fraction", Layer.EXACT),
            Figure("of these with all nodes healthy", healthy_run.extra, "fraction", Layer.EXACT),
            *_hurting("with slow nodes", slow_sweep),
            *_hurting("with all healthy", healthy_sweep),
        ],
        checks=checks,
        tables=[_designs(nodes, asked, runs), _by_load(slow_sweep, healthy_sweep)],
        plots=_plots(asked, nodes, hedging, runs, slow_sweep, healthy_sweep),
        conclusion=_conclusion(asked, p99, late, slow_sweep, healthy_sweep),
        requests_simulated=requests + slow_sweep.requests + healthy_sweep.requests,
        notes=[
            "Where second requests overload the nodes, times grow with the number of requests"
            " simulated and say only that it does not end well.",
            f"Second requests come after {delay:.3g} ms at all loads, the percentile at the load"
            " asked for: above it more requests are late, and ask twice.",
            "Second requests can keep themselves up: a busy moment makes more of them, and these"
            " the next one. Where that happens depends on chance and on the time simulated.",
            "Nobody takes back a request whose answer came from the other node, as memcached"
            " cannot.",
        ],
    )


def _hurting(where: str, sweep: Sweep) -> list[Figure]:
    """No figure where it does not hurt at any load."""
    return [
        Figure(f"load from which asking {design} hurts, {where}", load, "fraction", Layer.EXACT)
        for design, load in sweep.hurts.items()
        if math.isfinite(load)
    ]


def _checks(
    asked: Parameters,
    hedging: Hedging,
    runs: dict[str, HedgedRun],
    p99: dict[str, float],
    healthy_run: HedgedRun,
) -> list[Check]:
    closed = {LATE: hedging, ONE: asked.closed(ONE), BOTH: asked.closed(BOTH)}
    checks = [
        relative(
            f"p99 asking {design} (ms)",
            p99[design],
            percentile(each.survival, PART, asked.service_ms),
            0.05,
            _CLOSED,
        )
        for design, each in closed.items()
        if each is not None
    ]
    checks.append(
        absolute("second requests per request", runs[LATE].extra, hedging.extra, 0.01, _CLOSED)
    )
    # Of all answers of healthy nodes, unless the longest delay cuts it short.
    if asked.delay_ms(LATE, 0) < asked.delay_max_ms:
        checks.append(
            absolute(
                "second requests per request with all nodes healthy",
                healthy_run.extra,
                1 - asked.hedge_at,
                0.01,
                f"a second request after the 95th percentile adds about 5 %: {TAIL_AT_SCALE}",
            )
        )
    return checks


def _designs(nodes: Nodes, asked: Parameters, runs: dict[str, HedgedRun]) -> Table:
    rows: list[tuple[float | str, ...]] = []
    for design, run in runs.items():
        parts = (float(each) for each in np.quantile(run.times, (0.5, 0.95, PART, 0.999)))
        rows.append((design, *parts, 100 * run.extra, 100 * run.load))
    return Table(
        f"{nodes.nodes} nodes, {nodes.slow} of them slow, at a load of {asked.load:.0%}",
        (
            "asked",
            "p50 (ms)",
            "p95 (ms)",
            "p99 (ms)",
            "p99.9 (ms)",
            "second requests (%)",
            "load with these (%)",
        ),
        tuple(rows),
    )


def _by_load(slow: Sweep, healthy: Sweep) -> Table:
    def cells(sweep: Sweep, index: int) -> list[float | str]:
        return [
            "overload" if sweep.made[design][index] >= 1 else float(sweep.p99[design][index])
            for design in DESIGNS
        ]

    return Table(
        "p99 by load without second requests",
        (
            "load (%)",
            *(f"{design}, some nodes slow (ms)" for design in DESIGNS),
            *(f"{design}, all healthy (ms)" for design in DESIGNS),
        ),
        tuple(
            (100 * float(load), *cells(slow, index), *cells(healthy, index))
            for index, load in enumerate(LOADS)
        ),
    )


def _plots(
    asked: Parameters,
    nodes: Nodes,
    hedging: Hedging,
    runs: dict[str, HedgedRun],
    slow: Sweep,
    healthy: Sweep,
) -> list[Plot]:
    parts = 1 - np.logspace(0, -4, 121)[1:]
    distributions = [
        Line(design, np.quantile(run.times, parts), 1 - parts) for design, run in runs.items()
    ]
    ends = np.quantile(runs[LATE].times, (1e-4, 1 - 1e-4))
    times = np.geomspace(ends[0], ends[1], 160)
    exceeded = np.array([hedging.survival(float(time)) for time in times])
    distributions.append(Line("closed form", times, exceeded, dashed=True))

    def by_load(name: str, title: str, caption: str, sweep: Sweep) -> Plot:
        return Plot(
            name,
            title,
            caption,
            Axis("load without second requests", "fraction", low=0, high=1),
            Axis("p99", "ms", log=True),
            tuple(Line(design, LOADS, sweep.p99[design]) for design in DESIGNS),
        )

    return [
        Plot(
            "distribution",
            f"Requests that take longer, at a load of {asked.load:.0%}",
            f"{nodes.slow} of {nodes.nodes} nodes answer {asked.slow_by_ms:g} ms later: a step in"
            " the line of those that ask one node alone.",
            Axis("time from request to answer", "ms", log=True),
            Axis("requests that take longer", "fraction", log=True),
            tuple(distributions),
        ),
        by_load(
            "p99-slow",
            f"p99 by load, {asked.slow_nodes} of {asked.nodes} nodes slow",
            "Where a line is above that of one node, second requests do harm.",
            slow,
        ),
        by_load(
            "p99-healthy",
            "p99 by load, all nodes healthy",
            "What second requests gain when no node is slow, and where that ends.",
            healthy,
        ),
        Plot(
            "load",
            f"Load with second requests, {asked.slow_nodes} of {asked.nodes} nodes slow",
            "Above the line, queues grow for ever.",
            Axis("load without second requests", "fraction", low=0, high=1),
            Axis("load with second requests", "fraction", low=0, high=2),
            (
                *(Line(design, LOADS, slow.made[design]) for design in DESIGNS),
                Rule("all that the nodes can do", 1.0),
            ),
        ),
    ]


def _conclusion(
    asked: Parameters,
    p99: dict[str, float],
    late: HedgedRun,
    slow: Sweep,
    healthy: Sweep,
) -> str:
    def begins(sweep: Sweep, design: str) -> str:
        load = sweep.hurts[design]
        return f"from a load of {load:.0%} on" if math.isfinite(load) else "at no load looked at"

    return (
        f"With {asked.slow_nodes} of {asked.nodes} nodes slow by {asked.slow_by_ms:g} ms, p99 at a"
        f" load of {asked.load:.0%} is {p99[ONE]:.1f} ms with one node asked and"
        f" {p99[LATE]:.1f} ms with a second one when the first is late, for {late.extra:.1%} more"
        f" requests; it hurts {begins(slow, LATE)} ({begins(healthy, LATE)} when all nodes are"
        f" healthy), with a budget of {asked.budget:.0%} {begins(slow, BUDGET)}, and two requests"
        f" at once hurt {begins(slow, BOTH)}."
    )


SCENARIO = Scenario(
    name="hedging",
    title="Hedged requests",
    question="What does asking a second MemDS node gain when one is slow, and when does it hurt?",
    explanation=(
        "Each MemDS node has one queue in front of its servers; requests ask a node at random, and"
        " another one when the first has not answered within a percentile of what healthy nodes"
        " take. Both requests are served, so that second ones make load, and the earlier answer"
        " counts. Every request is simulated; in light load the closed form of the earlier of two"
        " answers says the same. Compared with two requests at once, and with a budget for second"
        " requests. Left out: routers that learn which node is slow, and single connections."
    ),
    parameters=Parameters,
    run=_run,
)
