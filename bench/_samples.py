"""What one window of load gives, and the arithmetic over windows."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median


@dataclass(frozen=True, slots=True)
class Latencies:
    """Microseconds from call to answer; all 0 where there was no answer."""

    count: int
    p50_us: float
    p99_us: float
    p999_us: float
    max_us: float


@dataclass(frozen=True, slots=True)
class Sample:
    """One window.

    seconds: its length. every, reads, writes: of the right answers in it.
    failures: how many requests failed, by what was wrong.
    cpu_s: processor seconds of each process in it; `generator` is the load generator.
    """

    seconds: float
    every: Latencies
    reads: Latencies
    writes: Latencies
    failures: Mapping[str, int] = field(default_factory=dict)
    cpu_s: Mapping[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        text = (
            f"{self.per_second:,.0f}/s, p50 {self.every.p50_us / 1000:,.2f} ms, "
            f"p99 {self.every.p99_us / 1000:,.2f} ms"
        )
        failed = ", ".join(f"{count:,} × {what}" for what, count in self.failures.items())
        return f"{text}; FAILED: {failed}" if failed else text

    @property
    def per_second(self) -> float:
        return self.every.count / self.seconds

    def cpu_us(self) -> dict[str, float]:
        """Microseconds of processor time for each answer, by process."""
        count = max(1, self.every.count)
        return {name: 1e6 * seconds / count for name, seconds in self.cpu_s.items()}


@dataclass(frozen=True, slots=True)
class Summary:
    """Medians over the windows of one kind of load on one system.

    generator_share: the load generator's part of all processor time measured, 0 to 1.
    busy_cores: processor seconds per second, all processes measured together.
    failures: summed, not a median.
    """

    windows: int
    per_second: float
    p50_us: float
    p99_us: float
    p999_us: float
    max_us: float
    cpu_us: Mapping[str, float]
    generator_share: float
    busy_cores: float
    failures: Mapping[str, int]


def latencies(seconds: Sequence[array[float]]) -> Latencies:
    """Of arrays of seconds, taken together."""
    ordered = sorted(value for each in seconds for value in each)
    if not ordered:
        return Latencies(0, 0.0, 0.0, 0.0, 0.0)
    return Latencies(
        len(ordered),
        1e6 * percentile(ordered, 50),
        1e6 * percentile(ordered, 99),
        1e6 * percentile(ordered, 99.9),
        1e6 * ordered[-1],
    )


def percentile(ordered: Sequence[float], percent: float) -> float:
    """By nearest rank: the least value with `percent` of all at or below it."""
    # Rounded first: 99.9 % of 1,000 is 999, and a hair more in binary.
    rank = math.ceil(round(len(ordered) * percent / 100, 6))
    return ordered[max(1, rank) - 1]


def summarize(samples: Sequence[Sample]) -> Summary:
    """Of at least one window."""
    cpu_us = [sample.cpu_us() for sample in samples]
    names = list(dict.fromkeys(name for each in cpu_us for name in each))
    return Summary(
        windows=len(samples),
        per_second=median(sample.per_second for sample in samples),
        p50_us=median(sample.every.p50_us for sample in samples),
        p99_us=median(sample.every.p99_us for sample in samples),
        p999_us=median(sample.every.p999_us for sample in samples),
        max_us=median(sample.every.max_us for sample in samples),
        cpu_us={name: median(each.get(name, 0.0) for each in cpu_us) for name in names},
        generator_share=median(_generator_share(sample) for sample in samples),
        busy_cores=median(sum(sample.cpu_s.values()) / sample.seconds for sample in samples),
        failures=total(sample.failures for sample in samples),
    )


def total(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Counts by name, added up."""
    summed: Counter[str] = Counter()
    for each in counts:
        summed.update(each)
    return dict(summed)


def ratio(ours: Sequence[Sample], theirs: Sequence[Sample]) -> float | None:
    """How many times the rate, as the median over rounds: each round saw the same machine.

    None where either has no window, or theirs no answer.
    """
    pairs = [
        a.per_second / b.per_second for a, b in zip(ours, theirs, strict=False) if b.every.count
    ]
    return median(pairs) if pairs else None


def _generator_share(sample: Sample) -> float:
    everything = sum(sample.cpu_s.values())
    return sample.cpu_s.get("generator", 0.0) / everything if everything else 0.0
