"""`keyplane fleet calibrate`: runs this machine's cluster and fits the models' parameters."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from cache.config import ReaderConfig
from fleet.calibration import Calibration
from fleet.live_load import KINDS, Say, Window
from fleet.live_measure import (
    CROWD,
    FITTED,
    LONE,
    Count,
    Measurements,
    Plan,
    measure,
    median_window,
)
from fleet.tandem_fit import Fit, Level, fit_tandem
from keyplane import native
from wire.http2.limits import PUSH_CALLS
from wire.polling import BUSY_POLL_US

# A tandem is fitted to the same draws every time.
SEED = 1

_PROCESSES = ("generator", "router", "storage")

Advance = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class Calibrated:
    """fits: by kind of request."""

    calibration: Calibration
    fits: Mapping[str, Fit]


def calibrate(plan: Plan, say: Say, advance: Advance) -> Calibrated:
    """Takes minutes, or seconds with `QUICK`. Every process it starts has ended when it returns or
    raises. Raises KeyplaneError, GeneratorFailed, RuntimeError or OSError."""
    return calibrated(measure(plan, False, say, advance), plan)


def calibrated(found: Measurements, plan: Plan) -> Calibrated:
    """Of measurements that are there."""
    values: dict[str, float] = {}
    quality: dict[str, Any] = {
        "rounds": plan.rounds,
        "seconds": plan.seconds,
        "routers_and_requests_under_way": [list(size) for size in FITTED],
    }
    fits = {}
    for kind in KINDS:
        windows = {size: found.fitted[kind, *size] for size in FITTED}
        fits[kind] = fit_tandem(
            [level_of(median_window(each)) for each in windows.values()],
            cores=_cores(),
            push=PUSH_CALLS,
            look_ms=BUSY_POLL_US / 1000,
            seed=SEED,
        )
        values |= _values_of_kind(kind, windows, fits[kind])
        quality[f"{kind}_fit_error"] = fits[kind].error
        quality[f"{kind}_between_rounds"] = _between_rounds(windows.values())
        quality[f"{kind}_processors_used_by_others"] = median(
            each.others for size in windows.values() for each in size
        )
    values |= memds_rate(found.counted_to_fit)
    values |= found.lookups.values()
    values |= {
        "memds_get_ms": median(found.memds_get_ms),
        "memds_round_trip_ms": median(found.memds_round_trip_ms),
        "lookup_us": found.lookup_us,
        "fresh_connection_ms": max(0.0, median(found.fresh_ms) - median(found.pooled_ms)),
    }
    return Calibrated(Calibration(datetime.now(UTC), machine(), values, quality), fits)


def _values_of_kind(
    kind: str, windows: Mapping[tuple[int, int], Sequence[Window]], fit: Fit
) -> dict[str, float]:
    lone = median_window(windows[LONE])
    crowd = median_window(windows[CROWD])
    tandem = fit.tandem
    values = {
        f"{kind}_idle_ms": lone.p50_ms,
        f"{kind}_busy_per_s": crowd.per_second,
        f"{kind}_hop_ms": tandem.hop_ms,
        f"{kind}_spread": tandem.spread,
        f"{kind}_looking": tandem.looking,
    }
    for name in _PROCESSES:
        process = getattr(tandem, name)
        values[f"{name}_{kind}_ms"] = crowd.cpu_ms[name]
        values[f"{name}_{kind}_wake_ms"] = process.wake_ms
        values[f"{name}_{kind}_each_ms"] = process.each_ms
    return values


def memds_rate(counts: Mapping[int, Count]) -> dict[str, float]:
    """What each router adds, and what is there without any: a line through two points.

    counts: by number of routers, the fewest and the most of which are used.
    """
    few, many = min(counts), max(counts)
    per_router = (counts[many].per_second - counts[few].per_second) / (many - few)
    beat_s = ReaderConfig("").beat_s
    return {
        "memds_gets_per_router_per_s": per_router,
        "memds_gets_per_router_beat": per_router * beat_s,
        "memds_gets_background_per_s": max(0.0, counts[few].per_second - few * per_router),
        "router_beat_ms": 1000 * beat_s,
    }


def level_of(window: Window) -> Level:
    generator, router, storage = (window.cpu_ms[name] for name in _PROCESSES)
    return Level(
        *(window.outstanding, window.per_second, window.p50_ms, window.p99_ms),
        (generator, router, storage),
        window.routers,
    )


def _between_rounds(sizes: Iterable[Sequence[Window]]) -> float:
    """How far rounds lie apart: the range of throughput over its median, the median of sizes."""
    ranges = []
    for windows in sizes:
        rates = [each.per_second for each in windows]
        ranges.append((max(rates) - min(rates)) / median(rates))
    return median(ranges)


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def machine() -> dict[str, Any]:
    """What the figures hold for: a build of the hot path changes them by a factor."""
    return {
        "processors": _cores(),
        "processor": _processor(),
        "python": platform.python_version(),
        "compiled": native.is_built() and os.environ.get(native.VARIABLE) != "0",
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.machine()
