"""What calibration and validation measure, in the same rounds: both meet the same machine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median

from bench._closed_loop import closed_window, fresh_read
from bench._items import key_of
from bench._partition_map import measure as measure_map
from fleet.live_load import (
    KINDS,
    TABLE,
    LiveCluster,
    Say,
    Window,
    memds_client,
)
from fleet.live_lookups import Lookups, measure_lookups, memds_cpu_ms
from keyplane import AsyncClient

# Routers, and requests under way: what the tandem is fitted to, and what it has to predict.
FITTED = ((1, 1), (1, 4), (1, 32), (1, 128), (2, 16))
PREDICTED = ((1, 2), (1, 8), (1, 64), (2, 64), (3, 16), (3, 64))
LONE, CROWD = (1, 1), (1, 128)

_MAP_PARTITIONS = 10_000
_VALUE_BYTES = 1_000
_PIPELINED = 100


@dataclass(frozen=True, slots=True)
class Plan:
    """rounds: windows of each sort. seconds: of one window. items: in the table."""

    rounds: int = 21
    seconds: float = 0.6
    items: int = 20_000

    def windows_s(self, validate: bool) -> float:
        """About how long the windows take."""
        count = len(KINDS) * (len(FITTED) + (len(PREDICTED) if validate else 0))
        return self.rounds * (count * (self.seconds + 0.4) + 9 * self.seconds)


QUICK = Plan(rounds=1, seconds=0.5, items=2_000)


@dataclass(slots=True)
class Count:
    """Keys that MemDS was asked for, all windows with so many routers together."""

    gets: int = 0
    seconds: float = 0.0

    @property
    def per_second(self) -> float:
        return self.gets / self.seconds


@dataclass(slots=True)
class Measurements:
    """fitted, predicted: windows by kind, routers and requests under way. counted_*: by routers,
    in the same windows."""

    fitted: dict[tuple[str, int, int], list[Window]] = field(default_factory=dict)
    predicted: dict[tuple[str, int, int], list[Window]] = field(default_factory=dict)
    counted_to_fit: dict[int, Count] = field(default_factory=dict)
    counted_to_predict: dict[int, Count] = field(default_factory=dict)
    memds_get_ms: list[float] = field(default_factory=list)
    memds_round_trip_ms: list[float] = field(default_factory=list)
    fresh_ms: list[float] = field(default_factory=list)
    pooled_ms: list[float] = field(default_factory=list)
    lookup_us: float = 0.0
    lookups: Lookups = field(default_factory=Lookups)


def measure(plan: Plan, validate: bool, say: Say, advance: Callable[[float], None]) -> Measurements:
    """Starts a cluster and ends it, whatever happens. advance: told how much is done, 0 to 1.

    Raises KeyplaneError, GeneratorFailed, RuntimeError or OSError.
    """
    found = Measurements()
    say(f"a map of {_MAP_PARTITIONS:,} partitions")
    found.lookup_us = measure_map(_MAP_PARTITIONS).lookup_ns / 1000
    routers = max(routers for routers, _ in (PREDICTED if validate else FITTED))
    with LiveCluster(routers, plan.items, say) as live:
        for number in range(plan.rounds):
            say(f"round {number + 1} of {plan.rounds}")
            _round(live, plan, validate, found, number)
            advance((number + 1) / plan.rounds)
    return found


def _round(live: LiveCluster, plan: Plan, validate: bool, found: Measurements, number: int) -> None:
    sizes = sorted((*FITTED, *PREDICTED) if validate else FITTED)
    # There and back, so that what gets slower or faster meets large and small alike.
    for size in sizes if number % 2 == 0 else reversed(sizes):
        routers, outstanding = size
        live.use(routers)
        fits = size in FITTED
        windows = found.fitted if fits else found.predicted
        counts = found.counted_to_fit if fits else found.counted_to_predict
        for kind in KINDS:
            with _counting(live, counts.setdefault(routers, Count())):
                window = live.window(kind, routers, outstanding, plan.seconds)
            windows.setdefault((kind, *size), []).append(window)
    live.use(1)
    _memds(live, plan.seconds, found)
    measure_lookups(live, plan.seconds, found.lookups)
    pooled_ms, fresh_ms = asyncio.run(_connections(live.router, plan.seconds))
    found.pooled_ms.append(pooled_ms)
    found.fresh_ms.append(fresh_ms)


@contextmanager
def _counting(live: LiveCluster, into: Count) -> Iterator[None]:
    """Under load, which constant work must not depend on."""
    before, began_at = live.memds_gets(), time.monotonic()
    yield
    into.gets += live.memds_gets() - before
    into.seconds += time.monotonic() - began_at


def _memds(live: LiveCluster, seconds: float, found: Measurements) -> None:
    """One memcached node, whose answers to routers meanwhile are a hundredth at the most."""
    key = "fleet-calibration"
    with memds_client(live.memds[0]) as client:
        client.set(key, b"." * _VALUE_BYTES)
        trips = []
        end_at = time.perf_counter() + seconds / 2
        while (sent_at := time.perf_counter()) < end_at:
            client.get(key)
            trips.append(time.perf_counter() - sent_at)
    found.memds_round_trip_ms.append(1000 * median(trips))
    request_ms = memds_cpu_ms(live, [key] * _PIPELINED, _VALUE_BYTES, seconds)
    found.memds_get_ms.append(request_ms / _PIPELINED)


async def _connections(router: str, seconds: float) -> tuple[float, float]:
    """Median milliseconds of a lone get by the SDK, and of one on a connection of its own."""
    key = {"id": key_of(0)}
    async with AsyncClient([router]) as client:

        async def pooled() -> object:
            return await client.get_item(TABLE, key)

        await pooled()
        kept = await closed_window(pooled, 1, seconds)
    fresh = await closed_window(fresh_read(router, TABLE, key), 1, seconds)
    return kept.p50_ms, fresh.p50_ms


def median_window(windows: Sequence[Window]) -> Window:
    """The median of each figure by itself."""
    first = windows[0]
    return Window(
        *(first.kind, first.routers, first.outstanding),
        median(each.per_second for each in windows),
        median(each.p50_ms for each in windows),
        median(each.p99_ms for each in windows),
        {name: median(each.cpu_ms[name] for each in windows) for name in first.cpu_ms},
        median(each.others for each in windows),
    )
