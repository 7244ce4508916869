"""Many partitions split at once: how routers with maps get to know, and what they do until then.

The publisher writes changed pages and then the roots that name them, so many on each beat. A router
turns through all roots, so many on each beat, and reads the pages it lacks. Until then it sends
requests to partitions that are no more; the first one for each is redirected, and the answer
teaches the router both halves. Of one table it remembers so many of these beside its map.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from cache.routes import OVERLAY_MAX
from fleet.cohort import _split_kernel as kernel
from fleet.cohort.beats import Beats
from fleet.cohort.lookups import check_steps
from fleet.outcome import Array

# A split is two segments beside the map. When that is full an eighth goes: less on average.
LEARNED_MAX = OVERLAY_MAX / 2 * 15 / 16


@dataclass(frozen=True, slots=True)
class Storm:
    """tables: whose partitions are split, splits of each. pages: new ones of each table.
    rate_per_s: requests at one router for one such partition."""

    beats: Beats
    tables: int
    splits: int
    pages: float
    rate_per_s: float

    def published_s(self) -> Array:
        """When the root of each table is in MemDS, if the split came right after a beat: in rising
        order."""
        number = np.arange(1, self.tables + 1)
        config = self.beats.publisher
        beats = np.maximum(
            np.ceil(number / config.value_slots),
            np.ceil(number * self.pages / config.page_slots - 1e-9),
        )
        return np.asarray(beats * config.beat_s, dtype=np.float64)

    @property
    def turn_s(self) -> float:
        """In which a router reads every root once."""
        return self.beats.root_beats * self.beats.reader.beat_s

    @property
    def pages_per_s(self) -> float:
        return self.beats.pages_per_beat / self.beats.reader.beat_s

    @property
    def pages_fit(self) -> bool:
        """Whether a router reads new pages as fast as the roots that name them."""
        published = self.published_s()
        first = np.searchsorted(published, published - self.turn_s, side="right")
        most = float((np.arange(1, len(published) + 1) - first).max())
        return most * self.pages <= self.pages_per_s * self.turn_s

    @property
    def known_s(self) -> float:
        """When every router's map is new, at the latest."""
        last = float(self.published_s()[-1]) + self.turn_s
        return last if self.pages_fit else last + self.pages * self.tables / self.pages_per_s

    def redirects(self) -> float:
        """Of all routers, if they forget none and pages fit, and no fewer else; closed form: splits
        that a router asks for, by a Poisson process, before a root that it reads evenly within a
        turn of its publication."""
        rate, published = self.rate_per_s, self.published_s()
        if rate == 0:
            return 0.0
        unread = -math.expm1(-rate * self.turn_s) / (rate * self.turn_s)
        asked = 1 - np.exp(-rate * published) * unread
        return float(sum(self.beats.routers) * self.splits * asked.sum())


@dataclass(frozen=True, slots=True)
class StormRun:
    """Of each step, over all routers. redirects: in it. unknown, learned, mapped: splits known to
    a router not at all, from a redirect, from its map. forgotten: in it, to be met again."""

    step_s: float
    time_s: Array
    redirects: Array
    unknown: Array
    learned: Array
    mapped: Array
    forgotten: Array

    def rate(self, masses: Array) -> Array:
        """Per second."""
        return masses / self.step_s


def run_storm(storm: Storm, step_s: float, duration_s: float) -> StormRun:
    """Raises INVALID_ARGUMENT on a step above 10 ms."""
    steps = round(duration_s / step_s)
    check_steps(step_s, steps)
    published, tables = np.unique(storm.published_s(), return_counts=True)
    out = kernel.run(
        step_s,
        steps,
        tables * float(storm.splits),
        tables.astype(np.float64),
        published,
        storm.turn_s,
        storm.pages,
        storm.pages_per_s,
        storm.rate_per_s,
        LEARNED_MAX,
    )
    columns = np.ascontiguousarray(out.T) * sum(storm.beats.routers)
    return StormRun(step_s, np.arange(steps, dtype=np.float64) * np.float64(step_s), *columns)
