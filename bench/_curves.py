"""Runs of Keyplane alone: latency as the load rises, with more partitions, and over time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import psutil

from bench._load import Generator
from bench._orders import Paced
from bench._plan import Kind, Plan, warm_up_s
from bench._samples import Latencies, Sample, total
from bench._systems import Load, Say, System, keyplane_tables

# Steps of a sweep, as shares of the most that a closed loop does.
STEPS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)

# How many requests in flight find that most.
MAXIMUM_OUTSTANDING = 128

# Of the most, under which a soak runs.
SOAK_SHARE = 0.5

_SLICES = 60
_SLICE_S_MIN, _SLICE_S_MAX = 1.0, 10.0


@dataclass(frozen=True, slots=True)
class Step:
    """share: of the maximum. offered, answered: requests per second. Latencies from due to done."""

    kind: str
    share: float
    offered: float
    answered: float
    reads: Latencies
    writes: Latencies
    failures: dict[str, int]


@dataclass(frozen=True, slots=True)
class Sweep:
    """maximum_per_second: of a closed loop, by kind."""

    maximum_per_second: dict[str, float]
    steps: list[Step]


@dataclass(frozen=True, slots=True)
class Growth:
    """cpu_us: router and storage node together, for each request, by number of partitions.

    ratio: the last number of partitions to the first, the median over rounds.
    """

    kind: str
    cpu_us: dict[int, float]
    ratio: float
    failures: dict[str, int]


@dataclass(frozen=True, slots=True)
class Slice:
    """One part of a soak. at_s: its end. rss_bytes: resident memory by process, then.

    cpu_us: what router and storage node took for each request. At a rate that stays the same, it
    says how fast the machine was. stolen: the share of the processors' time that a virtual
    machine's host gave to others though it was wanted here; 0 where none is told.
    """

    at_s: float
    answered: float
    p50_us: float
    p99_us: float
    p999_us: float
    cpu_us: float
    stolen: float
    rss_bytes: dict[str, int]
    failures: dict[str, int]


@dataclass(frozen=True, slots=True)
class Soak:
    """rss_growth, p999_growth, cpu_growth: medians of the last quarter to those of the second, from
    which on caches are warm; 1.0 is flat."""

    kind: str
    offered: float
    slices: list[Slice]
    rss_growth: dict[str, float]
    p999_growth: float
    cpu_growth: float


def sweep(load: Load, plan: Plan, say: Say) -> Sweep:
    """Paced load in STEPS, for each kind of the plan. Raises as `compare`."""
    windows = len(plan.kinds) * (len(STEPS) + 1)
    say(f"a sweep of {windows} windows: about {plan.takes_s(windows) / 60:.0f} minutes")
    maximum: dict[str, float] = {}
    steps = []
    with keyplane_tables([load.partitions], load, say, precise=True) as (system,):
        for kind in plan.kinds:
            most = maximum[kind.name] = _maximum(system.generator, plan, kind, say)
            for share in STEPS:
                offered = share * most
                sample = system.generator.run(_paced(offered, kind, plan.seconds))
                steps.append(
                    Step(
                        kind.name, share, offered, sample.per_second,
                        sample.reads, sample.writes, dict(sample.failures),
                    )
                )  # fmt: skip
                say(f"{kind.name} at {share:.0%}: {sample}")
    return Sweep(maximum, steps)


def growth(load: Load, plan: Plan, partitions: Sequence[int], say: Say) -> list[Growth]:
    """Processor time for each request with few partitions and with many. Raises as `compare`.

    Each round goes through the tables and back, so that a machine that gets slower or faster
    meanwhile does so for all of them.
    """
    windows = 2 * len(plan.kinds) * len(partitions) * plan.rounds
    say(f"growth in {windows} windows: about {plan.takes_s(windows) / 60:.0f} minutes")
    found = []
    with keyplane_tables(partitions, load, say) as tables:
        for kind in plan.kinds:
            order = plan.closed(kind, MAXIMUM_OUTSTANDING)
            rounds: list[dict[int, float]] = []
            samples = []
            turns = list(zip(partitions, tables, strict=True))
            for _ in range(plan.rounds):
                cpu_us = dict.fromkeys(partitions, 0.0)
                for count, table in (*turns, *reversed(turns)):
                    sample = table.generator.run(order)
                    samples.append(sample)
                    cpu_us[count] += _served_us(sample) / 2
                    say(f"{kind.name}, {count:,} partitions: {sample}")
                rounds.append(cpu_us)
            found.append(_growth(kind, rounds, samples))
    return found


def soak(load: Load, plan: Plan, seconds: float, say: Say) -> Soak:
    """SOAK_SHARE of the maximum for so long, of the plan's first kind. Raises as `compare`."""
    say(f"a soak of {seconds:.0f} s")
    kind = plan.kinds[0]
    slice_s = min(_SLICE_S_MAX, max(_SLICE_S_MIN, seconds / _SLICES))
    slices: list[Slice] = []
    with keyplane_tables([load.partitions], load, say, precise=True) as (system,):
        offered = SOAK_SHARE * _maximum(system.generator, plan, kind, say)
        begun_at = time.monotonic()
        while (elapsed_s := time.monotonic() - begun_at) < seconds or not slices:
            before = psutil.cpu_times()
            sample = system.generator.run(Paced(offered, kind.write_share, slice_s, 0.0))
            stolen = stolen_share(before, psutil.cpu_times())
            slices.append(
                Slice(
                    elapsed_s + slice_s, sample.per_second, sample.every.p50_us,
                    sample.every.p99_us, sample.every.p999_us, _served_us(sample), stolen,
                    _rss(system), dict(sample.failures),
                )
            )  # fmt: skip
            say(f"{elapsed_s + slice_s:,.0f} s: {sample}, stolen {stolen:.0%}")
    return Soak(
        kind.name,
        offered,
        slices,
        {name: _rise([each.rss_bytes[name] for each in slices]) for name in slices[0].rss_bytes},
        _rise([each.p999_us for each in slices]),
        _rise([each.cpu_us for each in slices]),
    )


def stolen_share(before: Any, after: Any) -> float:
    """Of the time of all processors between two `psutil.cpu_times()`."""
    spent = {name: getattr(after, name) - getattr(before, name) for name in after._fields}
    # Time of guests counts as the user's too.
    whole = sum(seconds for name, seconds in spent.items() if not name.startswith("guest"))
    stolen = spent.get("steal", 0.0)
    return float(stolen / whole) if whole > 0 else 0.0


def failures_of(parts: Sequence[Step | Slice | Growth]) -> int:
    return sum(sum(part.failures.values()) for part in parts)


def _maximum(generator: Generator, plan: Plan, kind: Kind, say: Say) -> float:
    sample = generator.run(plan.closed(kind, MAXIMUM_OUTSTANDING))
    say(f"{kind.name}, closed loop: {sample}")
    # At least one, so that there is something to pace where nothing was answered.
    return max(1.0, sample.per_second)


def _paced(per_second: float, kind: Kind, seconds: float) -> Paced:
    return Paced(per_second, kind.write_share, seconds, warm_up_s(seconds))


def _growth(kind: Kind, rounds: list[dict[int, float]], samples: list[Sample]) -> Growth:
    """rounds: processor time for each request by number of partitions."""
    first, last = min(rounds[0]), max(rounds[0])
    return Growth(
        kind.name,
        {count: median(each[count] for each in rounds) for count in rounds[0]},
        median(each[last] / each[first] if each[first] else 0.0 for each in rounds),
        total(sample.failures for sample in samples),
    )


def _served_us(sample: Sample) -> float:
    """What router and storage node took for each request; 0 if none was answered."""
    cpu_us = sample.cpu_us()
    return cpu_us["router"] + cpu_us["storage"] if sample.every.count else 0.0


def _rise(values: Sequence[float]) -> float:
    """The median of the last quarter to that of the second; 0 if that was nothing."""
    quarter = max(1, len(values) // 4)
    before = median(values[quarter : 2 * quarter] or values[:1])
    return median(values[-quarter:]) / before if before else 0.0


def _rss(system: System) -> dict[str, int]:
    return {
        name: sum(psutil.Process(pid).memory_info().rss for pid in pids)
        for name, pids in system.processes.items()
    }
