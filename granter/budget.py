"""What a table may use, and what its routers hold of that."""

from __future__ import annotations

from granter.config import GranterConfig
from granter.growth import Growth
from keyplane.model.bucket import Bucket


class _Holding:
    """What one router was granted then, and may use until then."""

    __slots__ = ("at", "granted", "until", "wanted")

    def __init__(self, granted: float, wanted: float, at: float, until: float) -> None:
        self.granted = granted
        self.wanted = wanted
        self.at = at
        self.until = until


class Budget:
    """Of one table, of reads or of writes; in capacity units.

    Routers give an account of what they have used, and only that is taken from the bucket. What
    they hold and have not yet given an account of is kept back for them, so that all together never
    use more than there is, whichever of them has the load.

    One that says no more by the time its grant ends may have used all of it, and is taken to have.
    """

    __slots__ = ("_config", "_holdings", "bucket", "growth")

    def __init__(self, bucket: Bucket, config: GranterConfig, growth: Growth | None = None) -> None:
        """growth: of an on-demand table, whose rate follows its peaks."""
        self.bucket = bucket
        self.growth = growth
        self._config = config
        self._holdings: dict[str, _Holding] = {}

    @property
    def granted(self) -> float:
        return sum(holding.granted for holding in self._holdings.values())

    @property
    def routers(self) -> int:
        return len(self._holdings)

    def grow(self, router: str, used: float, peak: float, now: float) -> None:
        """Takes note of what a router has used of an on-demand table, and of the previous peak that
        it has heard of, and gives the table the rate that follows.
        """
        if self.growth is None:
            return
        holding = self._holdings.get(router)
        since = now - self._config.refill_s if holding is None else holding.at
        self.growth.peaks.add(used, max(since, now - self._config.valid_s), now)
        self.growth.peaks.hear(peak)
        rate = self.growth.limit(now)
        if rate != self.bucket.rate:
            self.change_rate(rate, rate * self._config.on_demand_depth_s, now)

    def change_rate(self, rate: float, depth: float, now: float) -> None:
        """What is saved up stays, as far as it fits."""
        bucket = self.bucket
        bucket.fill(now)
        bucket.rate, bucket.depth = rate, depth
        bucket.level = min(bucket.level, depth)

    def refill(self, router: str, used: float, wanted: float, now: float) -> float:
        """Takes what a router has used, and returns what it may use next.

        wanted: units a second. While there is enough, that is what it wants for `refill_s`, times
        `headroom`. Else it is its share of what there is, by what all want.
        """
        self.settle(now)
        config, bucket, holdings = self._config, self.bucket, self._holdings
        bucket.take(used)
        holdings.pop(router, None)
        if not wanted or len(holdings) >= config.routers_max:
            return 0.0
        share = wanted / (wanted + sum(holding.wanted for holding in holdings.values()))
        # One that has only begun to want may soon want its part of all that comes in.
        part = bucket.rate / (len(holdings) + 1)
        left = bucket.level - self.granted
        if self.growth is not None:
            # It has saved up a second's worth and no more: some stays for whoever asks next.
            part, left = part / 2, left / 2
        enough = max(config.headroom * wanted, part) * config.refill_s
        granted = max(0.0, min(enough, left, bucket.level * share))
        holdings[router] = _Holding(granted, wanted, now, now + config.valid_s)
        return granted

    def settle(self, now: float) -> None:
        """Takes what has come in, and the grants that have ended, each when it did: what was taken
        before a bucket was full has come back since.
        """
        holdings = self._holdings
        ended = [router for router, each in holdings.items() if each.until <= now]
        for router in sorted(ended, key=lambda router: holdings[router].until):
            holding = holdings.pop(router)
            self.bucket.fill(holding.until)
            self.bucket.take(holding.granted)
        self.bucket.fill(now)

    def is_unused(self) -> bool:
        """Nobody holds anything, all is saved up that can be, and no peak has to be remembered: as
        it is after a long rest.
        """
        if self.growth is not None and not self.growth.peaks.is_empty:
            return False
        return not self._holdings and self.bucket.level >= self.bucket.depth
