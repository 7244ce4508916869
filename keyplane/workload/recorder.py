"""What came of the requests: counts by outcome, and latencies in logarithmic buckets."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

# Buckets grow by this factor: a percentile is at most this much too high.
_GROWTH = 1.01
_LOG_GROWTH = math.log(_GROWTH)

# Latencies below and above count as these: 1 µs, and 2 minutes, which no deadline allows.
_LOWEST_S = 1e-6
_HIGHEST_S = 120.0
_BUCKETS = 1 + math.ceil(math.log(_HIGHEST_S / _LOWEST_S) / _LOG_GROWTH)

OK = "ok"


class Latencies:
    """A histogram with a relative error of 1 % and a fixed size."""

    def __init__(self) -> None:
        self._counts = [0] * _BUCKETS
        self.count = 0
        self.max_s = 0.0

    def add(self, latency_s: float) -> None:
        bounded = min(max(latency_s, _LOWEST_S), _HIGHEST_S)
        self._counts[int(math.log(bounded / _LOWEST_S) / _LOG_GROWTH)] += 1
        self.count += 1
        self.max_s = max(self.max_s, latency_s)

    def percentile_s(self, percent: float) -> float:
        """The latency that `percent` of all stay within; 0 when there are none."""
        wanted = math.ceil(self.count * percent / 100)
        seen = 0
        for bucket, count in enumerate(self._counts):
            seen += count
            if seen >= wanted and seen:
                return min(_LOWEST_S * _GROWTH ** (bucket + 1), self.max_s)
        return 0.0


@dataclass(frozen=True, slots=True)
class Summary:
    """errors: failed requests by reason of the error table. Latencies are those of successes."""

    seconds: float
    requests: int
    reads: int
    writes: int
    failed: int
    throughput_per_s: float
    p50_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float
    errors: dict[str, int]


class Recorder:
    """Takes every request's outcome; tells the whole and the time since somebody last looked."""

    def __init__(self, now: float) -> None:
        self._all = _Window(now)
        self._recent = _Window(now)

    def record(self, is_read: bool, latency_s: float, outcome: str) -> None:
        """outcome: OK, or the name of a reason of the error table."""
        for window in (self._all, self._recent):
            window.record(is_read, latency_s, outcome)

    def summary(self, now: float) -> Summary:
        return self._all.summary(now)

    def since_last(self, now: float) -> Summary:
        """Since the last call of this method, or the start."""
        summary = self._recent.summary(now)
        self._recent = _Window(now)
        return summary


class _Window:
    def __init__(self, start: float) -> None:
        self.start = start
        self.latencies = Latencies()
        self.errors: Counter[str] = Counter()
        self.reads = 0
        self.writes = 0

    def record(self, is_read: bool, latency_s: float, outcome: str) -> None:
        if is_read:
            self.reads += 1
        else:
            self.writes += 1
        if outcome == OK:
            self.latencies.add(latency_s)
        else:
            self.errors[outcome] += 1

    def summary(self, now: float) -> Summary:
        seconds = max(now - self.start, 1e-9)
        latencies = self.latencies
        return Summary(
            seconds=round(seconds, 3),
            requests=self.reads + self.writes,
            reads=self.reads,
            writes=self.writes,
            failed=self.errors.total(),
            throughput_per_s=round(latencies.count / seconds, 1),
            p50_ms=_ms(latencies.percentile_s(50)),
            p99_ms=_ms(latencies.percentile_s(99)),
            p999_ms=_ms(latencies.percentile_s(99.9)),
            max_ms=_ms(latencies.max_s),
            errors=dict(self.errors.most_common()),
        )


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
