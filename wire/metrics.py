"""Counters and gauges that cores update and a shell exports.

An increment is an addition, cheap enough for every request. Label values come from
closed sets (reasons, phases, outcomes), never from keys or table names, so that the number of
series is bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from mypy_extensions import i64

# Upper bounds in seconds: 100 µs to 10 s, about three a decade.
LATENCY_BUCKETS_S = (
    *(0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05),
    *(0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0),
)

# Series past this bound are counted under the label "other".
SERIES_MAX = 200


class Series:
    """A counter's count under one label, for who counts there again and again."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0.0

    def inc(self) -> None:
        self.count += 1.0


class Counter:
    """Only rises. `label` is the name of the counter's one label; counters without one use ""."""

    __slots__ = ("_series", "help", "label", "name")

    def __init__(self, name: str, help: str, label: str = "") -> None:
        self.name = name
        self.help = help
        self.label = label
        self._series: dict[str, Series] = {}

    def inc(self, label: str = "", amount: float = 1) -> None:
        """label: the value of the label."""
        self.series(label).count += amount

    def series(self, label: str = "") -> Series:
        """What counts under a value of the label. It is there from then on, with 0 at first."""
        found = self._series.get(label)
        if found is None:
            key = label if len(self._series) < SERIES_MAX else "other"
            found = self._series.setdefault(key, Series())
        return found

    @property
    def values(self) -> dict[str, float]:
        return {label: series.count for label, series in self._series.items()}

    def value(self, label: str = "") -> float:
        found = self._series.get(label)
        return 0.0 if found is None else found.count

    def total(self) -> float:
        return sum(series.count for series in self._series.values())

    def __repr__(self) -> str:
        return f"Counter({self.name!r}, label={self.label!r})"


@dataclass(slots=True)
class Gauge:
    """A level, read by calling `read` when somebody looks."""

    name: str
    help: str
    read: Callable[[], float]


class Histogram:
    """Counts of observations by upper bound.

    counts: one for each bucket, and one for what is above them all.
    """

    __slots__ = ("buckets", "counts", "help", "name", "sum")

    def __init__(self, name: str, help: str, buckets: Sequence[float] = LATENCY_BUCKETS_S) -> None:
        self.name = name
        self.help = help
        self.buckets = list(buckets)
        self.counts = [0] * (len(buckets) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        # Written out, since each request is observed: the compiler makes more of it than of a call.
        buckets = self.buckets
        low: i64 = 0
        high: i64 = len(buckets)
        while low < high:
            middle: i64 = (low + high) >> 1
            if buckets[middle] < value:
                low = middle + 1
            else:
                high = middle
        self.counts[low] += 1
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
        if not isinstance(found, Histogram) or found.buckets != list(buckets):
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
