"""One tenant that asks for many times its share, and what that does to the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from fleet.closed.queues import Queue, erlang_b
from fleet.exact.tenants import SharedFleet, TenantRun, run_tenants
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
from fleet.parameters import parameter
from fleet.scenario import Context, Scenario
from keyplane.model.errors import KeyplaneError, Reason

_ALONE = "without the noisy tenant"
_SHARED = "shared"
_CAPPED = "capped"
_FAIR = "fair"

_REQUESTS = 1_000_000
# For each point of the plots over the noise.
_SWEEP_REQUESTS = 60_000
_SWEEP = (1, 2, 4, 6, 8, 12, 16, 20, 30, 40)


@dataclass(frozen=True, slots=True)
class Parameters:
    noise: float = parameter(
        20.0,
        "x",
        "requests of the noisy tenant, as a multiple of its share of the capacity",
        low=1.0,
        high=100.0,
        source="chosen: enough to take all there is",
    )
    tenants: int = parameter(
        20,
        "",
        "tenants of the fleet, each with an equal share",
        low=5,
        high=500,
        source="chosen: a share of 5 % each",
    )
    use: float = parameter(
        0.7,
        "fraction",
        "what each other tenant asks for, of its share",
        low=0.05,
        high=0.95,
        source="chosen: a busy fleet within its capacity",
    )
    servers: int = parameter(
        4,
        "",
        "servers of the fleet",
        low=1,
        high=64,
        source="chosen: few, so that queues and not service make the tail",
    )
    service_ms: float = parameter(
        1.0,
        "ms",
        "mean time to carry out a request, exponential",
        low=0.01,
        high=100.0,
        source="chosen: all other times are multiples of it",
    )
    queue_ms: float = parameter(
        500.0,
        "ms",
        "time to carry out what the one queue holds when full; each fair one has its share of that",
        low=10.0,
        high=5_000.0,
        source="chosen: half the timeout, so that what is let in is answered in time",
    )
    timeout_ms: float = parameter(
        1000.0,
        "ms",
        "an answer after that is no success",
        low=1.0,
        high=60_000.0,
        source="chosen: many times the service time, as usual for clients",
    )
    cap: float = parameter(
        1.0,
        "x",
        "requests that the cap lets through of each tenant, as a multiple of its share",
        low=0.1,
        high=10.0,
        source="chosen: its share",
    )
    cap_burst_s: float = parameter(
        1.0,
        "s",
        "how long a tenant may save up what its cap lets through",
        low=0.01,
        high=300.0,
        source="chosen: a second; DynamoDB keeps 300 s (Burst capacity, Developer Guide)",
    )

    @property
    def capacity_per_s(self) -> float:
        return self.servers / (self.service_ms / 1e3)

    @property
    def share_per_s(self) -> float:
        return self.capacity_per_s / self.tenants

    def designs(self, noise: float) -> dict[str, SharedFleet]:
        queue = max(1, round(self.capacity_per_s * self.queue_ms / 1e3))
        shared = SharedFleet(
            servers=self.servers,
            service_s=self.service_ms / 1e3,
            tenants=self.tenants,
            noisy_per_s=noise * self.share_per_s,
            quiet_per_s=self.use * self.share_per_s,
            queue_max=queue,
        )
        cap_per_s = self.cap * self.share_per_s
        burst = max(1.0, cap_per_s * self.cap_burst_s)
        return {
            _ALONE: replace(shared, noisy_per_s=0.0),
            _SHARED: shared,
            _CAPPED: replace(shared, cap_per_s=cap_per_s, cap_burst=burst),
            _FAIR: replace(shared, fair=True, queue_max=max(1, queue // self.tenants)),
        }

    def quiet_per_s(self) -> float:
        """Of all the others together."""
        return self.use * self.share_per_s * (self.tenants - 1)

    def let_through_per_s(self, noise: float) -> float:
        return self.quiet_per_s() + min(noise, self.cap) * self.share_per_s


def _closed(asked: Parameters, per_s: float) -> Queue:
    return Queue(asked.servers, per_s, asked.service_ms / 1e3)


def _full(fleet: SharedFleet) -> float:
    """The probability that servers and queue are full, M/M/c/K: Erlang's recursion, in which the
    rate of service stops to grow at c."""
    per_s = fleet.noisy_per_s + fleet.quiet_per_s * (fleet.tenants - 1)
    blocked = erlang_b(fleet.servers, per_s * fleet.service_s)
    load = per_s * fleet.service_s / fleet.servers
    for _ in range(fleet.queue_max):
        blocked = load * blocked / (1 + load * blocked)
    return blocked


def _run(asked: Parameters, context: Context) -> Outcome:
    if asked.let_through_per_s(asked.noise) >= 0.98 * asked.capacity_per_s:
        load = asked.let_through_per_s(asked.noise) / asked.capacity_per_s
        raise KeyplaneError(
            Reason.INVALID_ARGUMENT,
            f"the caps let through {load:.0%} of the capacity; give a lower --cap or --use, so that"
            " it is less than 98%",
        )
    if asked.cap < asked.use:
        raise KeyplaneError(
            Reason.INVALID_ARGUMENT,
            f"--cap is {asked.cap:g}, and refuses tenants that use {asked.use:g} of their share;"
            " give at least --use",
        )
    runs: dict[str, TenantRun] = {}
    for done, (name, fleet) in enumerate(asked.designs(asked.noise).items()):
        context.progress(0.15 * done, name)
        runs[name] = run_tenants(fleet, _REQUESTS, context.stream(f"noisy-tenant/{name}"))

    p99: dict[str, list[float]] = {}
    success: dict[str, list[float]] = {}
    simulated = _REQUESTS * len(runs)
    for done, noise in enumerate(_SWEEP):
        context.progress(0.6 + 0.4 * done / len(_SWEEP), f"{noise} times the share")
        for name, fleet in asked.designs(noise).items():
            if name == _ALONE:
                continue
            stream = context.stream(f"noisy-tenant/{name}/{noise}")
            run = run_tenants(fleet, _SWEEP_REQUESTS, stream)
            simulated += run.requests
            p99.setdefault(name, []).append(1e3 * run.percentile(False, 0.99))
            success.setdefault(name, []).append(100 * run.success(False, asked.timeout_ms / 1e3))

    return Outcome(
        figures=_figures(asked, runs),
        checks=_checks(asked, runs),
        tables=[_table(asked, runs)],
        plots=_plots(asked, runs, p99, success),
        conclusion=_conclusion(asked, runs),
        requests_simulated=simulated,
        notes=[
            "What a cap or a full queue refuses costs the fleet nothing here.",
            "Caps leave unused what the noisy tenant could have had; with fair queues it gets all"
            " that the others leave, without their being told from each other by a limit.",
        ],
    )


def _figures(asked: Parameters, runs: Mapping[str, TenantRun]) -> list[Figure]:
    capped = _closed(asked, asked.let_through_per_s(asked.noise))
    figures = [
        Figure("capacity", asked.capacity_per_s, "1/s", Layer.CLOSED),
        Figure(
            "asked for by the noisy tenant", asked.noise * asked.share_per_s, "1/s", Layer.CLOSED
        ),
        Figure("others' p99, capped", 1e3 * capped.response_percentile(0.99), "ms", Layer.CLOSED),
    ]
    for name, run in runs.items():
        well = run.success(False, asked.timeout_ms / 1e3)
        figures += [
            Figure(f"others' p99, {name}", 1e3 * run.percentile(False, 0.99), "ms", Layer.EXACT),
            Figure(f"others' success, {name}", well, "fraction", Layer.EXACT),
        ]
    return figures


def _checks(asked: Parameters, runs: Mapping[str, TenantRun]) -> list[Check]:
    capped = _closed(asked, asked.let_through_per_s(asked.noise))
    alone = _closed(asked, asked.quiet_per_s())
    shared = runs[_SHARED].response_s
    left = min(asked.noise * asked.share_per_s, asked.capacity_per_s - asked.quiet_per_s())
    return [
        relative(
            "others' p99 with caps",
            runs[_CAPPED].percentile(False, 0.99),
            capped.response_percentile(0.99),
            0.05,
            "response time of M/M/c at the load that the caps let through; a little above, since"
            " what a cap lets through is more regular than arrivals at random",
        ),
        relative(
            "others' p99 without the noisy tenant",
            runs[_ALONE].percentile(False, 0.99),
            alone.response_percentile(0.99),
            0.05,
            "response time of M/M/c at their own load",
        ),
        absolute(
            "share of requests refused by the shared queue",
            float(np.isnan(shared).mean()),
            _full(asked.designs(asked.noise)[_SHARED]),
            0.01,
            "probability of a full queue, M/M/c/K",
        ),
        relative(
            "answered to the noisy tenant with fair queues",
            runs[_FAIR].answered_per_s(True),
            left,
            0.03,
            "capacity that the others leave: no server idles while something waits",
        ),
    ]


def _table(asked: Parameters, runs: Mapping[str, TenantRun]) -> Table:
    within = asked.timeout_ms / 1e3
    return Table(
        f"One of {asked.tenants} tenants asks for {asked.noise:g} times its share",
        (
            "design",
            "others' median (ms)",
            "others' p99 (ms)",
            "others' success (%)",
            "noisy tenant's success (%)",
            "answered to the noisy tenant (x its share)",
        ),
        tuple(
            (
                name,
                1e3 * run.percentile(False, 0.5),
                1e3 * run.percentile(False, 0.99),
                100 * run.success(False, within),
                "-" if name == _ALONE else 100 * run.success(True, within),
                run.answered_per_s(True) / asked.share_per_s,
            )
            for name, run in runs.items()
        ),
    )


def _plots(
    asked: Parameters,
    runs: Mapping[str, TenantRun],
    p99: Mapping[str, list[float]],
    success: Mapping[str, list[float]],
) -> list[Plot]:
    noise: Array = np.array(_SWEEP, dtype=np.float64)
    closed: Array = np.array(
        [
            1e3 * _closed(asked, asked.let_through_per_s(each)).response_percentile(0.99)
            for each in _SWEEP
        ]
    )
    parts: Array = np.concatenate((np.linspace(0, 0.98, 50), 1 - np.geomspace(0.02, 1e-4, 30)))
    tails = []
    for name, run in runs.items():
        answered = run.of(False)
        answered = answered[~np.isnan(answered)]
        if len(answered):
            tails.append(Line(name, 1e3 * np.quantile(answered, parts), 1 - parts))
    return [
        Plot(
            "p99",
            "What the others see of the noise",
            "p99 of the other tenants' answered requests over what the noisy one asks for.",
            Axis("noisy tenant's requests", "x its share"),
            Axis("others' p99", "ms", log=True),
            (
                *(Line(name, noise, np.array(found)) for name, found in p99.items()),
                Line("closed form, capped", noise, closed, dashed=True),
            ),
        ),
        Plot(
            "success",
            "The others' requests that end well",
            f"Answered within {asked.timeout_ms:g} ms.",
            Axis("noisy tenant's requests", "x its share"),
            Axis("others' success", "%", low=0, high=105),
            tuple(Line(name, noise, np.array(found)) for name, found in success.items()),
        ),
        Plot(
            "tail",
            "Response times of the others",
            f"Share of answers that take longer, at {asked.noise:g} times the share.",
            Axis("response time", "ms", log=True),
            Axis("share that takes longer", "fraction", log=True),
            (*tails, Rule("p99", 0.01)),
        ),
    ]


def _conclusion(asked: Parameters, runs: Mapping[str, TenantRun]) -> str:
    def seen(name: str) -> str:
        run = runs[name]
        well = run.success(False, asked.timeout_ms / 1e3)
        return f"{1e3 * run.percentile(False, 0.99):.3g} ms and {well:.1%} success"

    served = runs[_FAIR].answered_per_s(True) / asked.share_per_s
    return (
        f"When one of {asked.tenants} tenants asks for {asked.noise:g} times its share, the others"
        f" have a p99 of {seen(_SHARED)} in a shared queue, {seen(_CAPPED)} with caps, and"
        f" {seen(_FAIR)} with fair queues, which still give the noisy tenant"
        f" {served:.1f} times its share; without it they have {seen(_ALONE)}."
    )


SCENARIO = Scenario(
    name="noisy-tenant",
    title="Noisy tenant",
    question="What do the other tenants see when one asks for many times its share?",
    explanation=(
        "All tenants' requests arrive at random at the same servers. Shared: one bounded queue for"
        " all, first in, first out. Capped: the same behind a token bucket for each tenant. Fair: a"
        " queue for each tenant, served in turns. Every request is simulated. Left out: requests of"
        " different cost, several fleets behind each other, and tenants that retry."
    ),
    parameters=Parameters,
    run=_run,
)
