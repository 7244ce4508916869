"""Counters and gauges that cores update and a shell exports.

An increment is one dictionary update, cheap enough for every request. Label values come from
closed sets (reasons, phases, outcomes), never from keys or table names, so that the number of
series is bounded.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

# Upper bounds in seconds: 100 µs to 10 s, about three a decade.
LATENCY_BUCKETS_S = (
    *(0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05),
    *(0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0),
)

# Series past this bound are counted under the label "other".
SERIES_MAX = 200


@dataclass(slots=True)
class Counter:
    """Only rises. `label` is the value of the counter's one label; counters without one use ""."""

    name: str
    help: str
    label: str = ""
    values: dict[str, float] = field(default_factory=dict)

    def inc(self, label: str = "", amount: float = 1) -> None:
        values = self.values
        if label in values:
            values[label] += amount
        else:
            key = label if len(values) < SERIES_MAX else "other"
            values[key] = values.get(key, 0) + amount

    def value(self, label: str = "") -> float:
        return self.values.get(label, 0)

    def total(self) -> float:
        return sum(self.values.values())


@dataclass(slots=True)
class Gauge:
    """A level, read by calling `read` when somebody looks."""

    name: str
    help: str
    read: Callable[[], float]


@dataclass(slots=True)
class Histogram:
    """Counts of observations by upper bound."""

    name: str
    help: str
    buckets: Sequence[float] = LATENCY_BUCKETS_S
    # One for each bucket, and one for what is above them all.
    counts: list[int] = field(init=False)
    sum: float = 0.0

    def __post_init__(self) -> None:
        self.counts = [0] * (len(self.buckets) + 1)

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.buckets, value)] += 1
        self.sum += value


Metric = Counter | Gauge | Histogram


class Metrics:
    """The metrics of one process, by name.

    Asking again for a counter or histogram gives the same object; for a gauge, one that reads from
    the new source. Asking for a name as something else raises ValueError.
    """

    def __init__(self) -> None:
        self._metrics: dict[str, Metric] = {}

    def counter(self, name: str, help: str, label: str = "") -> Counter:
        found = self._metrics.setdefault(name, Counter(name, help, label))
        if not isinstance(found, Counter) or found.label != label:
            raise ValueError(f"{name!r} is {found!r} already")
        return found

    def gauge(self, name: str, help: str, read: Callable[[], float]) -> Gauge:
        gauge = Gauge(name, help, read)
        found = self._metrics.setdefault(name, gauge)
        if not isinstance(found, Gauge):
            raise ValueError(f"{name!r} is {found!r} already")
        self._metrics[name] = gauge
        return gauge

    def histogram(
        self, name: str, help: str, buckets: Sequence[float] = LATENCY_BUCKETS_S
    ) -> Histogram:
        found = self._metrics.setdefault(name, Histogram(name, help, buckets))
        if not isinstance(found, Histogram) or found.buckets != buckets:
            raise ValueError(f"{name!r} is {found!r} already")
        return found

    def read(self, name: str) -> float:
        """The level of a gauge, or the total of a counter. Raises KeyError if there is none."""
        metric = self._metrics[name]
        if isinstance(metric, Gauge):
            return metric.read()
        return metric.total() if isinstance(metric, Counter) else float(sum(metric.counts))

    def __iter__(self) -> Iterator[Metric]:
        return iter(self._metrics.values())
