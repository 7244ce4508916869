"""How much an on-demand table may use: up to twice what it did before.

DynamoDB takes up to double an on-demand table's previous peak at once, and what a table has done
once it may do again at any time. It may throttle a table that goes beyond the double within 30
minutes. A new table starts with 4,000 write and 12,000 read units a second. "DynamoDB on-demand
capacity mode", https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/
on-demand-capacity-mode.html

Here that is one rule: a peak becomes a previous one, for good, 30 minutes after it was reached.

Warm throughput is what a table may do at once whatever it did before, "Understanding DynamoDB warm
throughput", https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/warm-throughput.html
"""

from __future__ import annotations

from collections import deque

from granter.config import GranterConfig


class Peaks:
    """The peaks of a table's reads or writes, in capacity units a second.

    A peak is the average over one of the windows of `peak_s` that time is cut into. It counts as a
    previous one `doubling_s` after the end of its window. Only those are kept that are higher than
    all before them, which are at most as many as windows fit into that time.
    """

    __slots__ = ("_config", "_open", "_recent", "previous")

    def __init__(self, config: GranterConfig) -> None:
        self._config = config
        # Units by the number of their window, of windows that routers may still give account of.
        self._open: dict[int, float] = {}
        # When each peak becomes a previous one, and how high it is: both rise.
        self._recent: deque[tuple[float, float]] = deque()
        self.previous = 0.0

    def add(self, units: float, since: float, now: float) -> None:
        """What was used from then till now, taken as spread evenly."""
        if not units:
            return
        width = self._config.peak_s
        since = min(since, now - 1e-3)
        for number in range(int(since // width), int(now // width) + 1):
            part = min(now, (number + 1) * width) - max(since, number * width)
            if part > 0:
                share = units * part / (now - since)
                self._open[number] = self._open.get(number, 0.0) + share

    def hear(self, previous: float) -> None:
        """Of one who has heard of it before this granter was started."""
        self.previous = max(self.previous, previous)

    def settle(self, now: float) -> None:
        """Lets peaks become previous ones, once it is time."""
        config, width, recent = self._config, self._config.peak_s, self._recent
        for number in sorted(self._open):
            ended_at = (number + 1) * width
            # Until then routers may give account of it.
            if ended_at + config.valid_s > now:
                break
            peak = self._open.pop(number) / width
            if peak > (recent[-1][1] if recent else self.previous):
                recent.append((ended_at + config.doubling_s, peak))
        while recent and recent[0][0] <= now:
            self.previous = max(self.previous, recent.popleft()[1])

    @property
    def is_empty(self) -> bool:
        """As of a table that is new."""
        return not (self.previous or self._recent or self._open)


class Growth:
    """What an on-demand table's reads or writes may be: warm throughput, peaks, and a ceiling.

    warm, ceiling: units a second.
    """

    __slots__ = ("ceiling", "peaks", "warm")

    def __init__(self, config: GranterConfig, warm: float, ceiling: float) -> None:
        self.warm = warm
        self.ceiling = ceiling
        self.peaks = Peaks(config)

    def limit(self, now: float) -> float:
        """Units a second that it may use now."""
        self.peaks.settle(now)
        return min(self.ceiling, max(self.warm, 2 * self.peaks.previous))
