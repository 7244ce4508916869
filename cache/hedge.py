"""How long to wait for one node before asking another."""

from __future__ import annotations

from collections import deque

# Answers the percentile is taken of.
WINDOW = 128

# Until there are this many the wait is the middle of its bounds.
_ENOUGH = 16


class HedgeDelay:
    """The 95th percentile of recent answer times, within bounds.

    A second request after the 95th percentile is what Dean and Barroso suggest in "The Tail at
    Scale" (CACM 56(2), 2013). Here the second request is always made; it only comes earlier when
    the first is late.
    """

    def __init__(self, s_min: float, s_max: float) -> None:
        self._s_min = s_min
        self._s_max = s_max
        self._recent: deque[float] = deque(maxlen=WINDOW)

    def observe(self, seconds: float) -> None:
        self._recent.append(seconds)

    def seconds(self) -> float:
        if len(self._recent) < _ENOUGH:
            return (self._s_min + self._s_max) / 2
        p95 = sorted(self._recent)[len(self._recent) * 95 // 100]
        return min(max(p95, self._s_min), self._s_max)
