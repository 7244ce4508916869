"""Measurements whose origin is known: a tandem, and so many gets for each router."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from fleet.calibrate import Calibrated, calibrated
from fleet.exact.tandem import ClosedRun, Process, Tandem, simulate
from fleet.live_load import KINDS, Window
from fleet.live_lookups import Lookups
from fleet.live_measure import (
    FITTED,
    PREDICTED,
    Count,
    Measurements,
    Plan,
)
from fleet.tandem_fit import Fit, Level, fit_tandem

TRUTH = Tandem(
    Process(0.04, 0.015),
    Process(0.08, 0.045),
    Process(0.02, 0.03),
    0.004,
    0.5,
    2,
    32,
    looking=0.3,
    look_ms=0.2,
)
PER_ROUTER = 55.0
OTHERS = 40.0


@cache
def run_of(routers: int, outstanding: int) -> ClosedRun:
    # Not the draws that the fit makes.
    return simulate(TRUTH, outstanding, 60_000, 99, routers)


def level(routers: int, outstanding: int) -> Level:
    run = run_of(routers, outstanding)
    return Level(outstanding, run.per_second, run.p50_ms, run.p99_ms, run.cpu_ms, routers)


@cache
def fitted() -> Fit:
    return fit_tandem([level(*size) for size in FITTED], cores=2, push=32, look_ms=0.2, seed=1)


@cache
def calibration() -> Calibrated:
    return calibrated(measurements(), Plan(rounds=3))


def windows(kind: str, routers: int, outstanding: int) -> list[Window]:
    run = run_of(routers, outstanding)
    cpu_ms = dict(zip(("generator", "router", "storage"), run.cpu_ms, strict=True))
    window = Window(kind, routers, outstanding, run.per_second, run.p50_ms, run.p99_ms, cpu_ms)
    # Something went wrong in one round; medians do not mind.
    return [window, replace(window, per_second=window.per_second / 3, p99_ms=99.0), window]


def measurements() -> Measurements:
    def counts(sizes: tuple[tuple[int, int], ...]) -> dict[int, Count]:
        return {n: Count(round(10 * (OTHERS + n * PER_ROUTER)), 10.0) for n, _ in sizes}

    return Measurements(
        fitted={(kind, *size): windows(kind, *size) for kind in KINDS for size in FITTED},
        predicted={(kind, *size): windows(kind, *size) for kind in KINDS for size in PREDICTED},
        counted_to_fit=counts(FITTED),
        counted_to_predict=counts(PREDICTED),
        memds_get_ms=[0.003, 0.001, 0.002],
        memds_round_trip_ms=[0.1],
        fresh_ms=[2.0, 1.8, 2.2],
        pooled_ms=[0.5, 0.6, 0.5],
        lookup_us=0.4,
        lookups=Lookups([0.2], [0.05], [0.4], [0.5], [0.1], [2.0]),
    )
