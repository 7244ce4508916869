"""A token bucket of capacity units."""

from __future__ import annotations


class Bucket:
    """Units that come in at a rate and are taken as they are used.

    A request is let in while there is anything left, and then takes what it turned out to cost.
    Nobody has to know that beforehand, and no request is too large; what was taken too much is paid
    back by the wait of those that follow.

    rate: units a second. depth: most that are saved up. level: those there are; below 0 it is debt.
    """

    __slots__ = ("_at", "depth", "level", "rate")

    def __init__(self, rate: float, depth: float, now: float) -> None:
        """It starts full."""
        self.rate = rate
        self.depth = depth
        self.level = depth
        self._at = now

    def admits(self, now: float) -> bool:
        """Whether anything is left at that time."""
        self.fill(now)
        return self.level > 0.0

    def fill(self, now: float) -> None:
        """Adds what has come in until then."""
        if now > self._at:
            self.level = self.level_at(now)
            self._at = now

    def level_at(self, now: float) -> float:
        """What there will be at a time that is not past."""
        level = self.level + (now - self._at) * self.rate
        return level if level < self.depth else self.depth

    def take(self, units: float) -> None:
        self.level -= units

    def wait_s(self) -> float:
        """Until a whole unit is there, or as much as it can hold."""
        wanted = min(1.0, self.depth)
        return max(0.0, wanted - self.level) / self.rate

    def inherit(self, other: Bucket, share: float) -> None:
        """Adds a part of what another one holds, or owes: of each that it replaces, once it has
        been drained. So all together never hold more than before.
        """
        other.fill(self._at)
        self.level = min(self.depth, self.level + share * other.level)

    def cut(self, level: float, now: float) -> None:
        """Gives up what has been saved beyond a level."""
        self.fill(now)
        self.level = min(self.level, level)

    def drain(self) -> None:
        self.level = 0.0
