"""Reads and writes of one table's partitions, each simulated, with splits by heat.

Each partition has a token bucket of each kind, with the rule of `keyplane.model.bucket`: a request
is let in while anything is left. Every request costs one unit. Once a beat the rules of
`metadata.planner` are applied: what has been hot for some time is split at the key that halves its
load, if one does.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numba import njit
from numpy.typing import NDArray

from fleet.exact.random import exponential, seeded, uniform
from fleet.outcome import Array
from storage.heat import SMOOTHING
from storage.suggest import LARGER_SHARE_MAX

READ, WRITE = 0, 1
_KINDS = 2


@dataclass(frozen=True, slots=True)
class HeatRules:
    """As in `metadata.config.PlannerConfig` and `storage.config.StorageConfig`.

    read_limit, write_limit: units a second of a partition; window_s: for how long they are saved.
    """

    read_limit: float
    write_limit: float
    window_s: float
    split_above: float
    throttled_per_s: float
    hot_for_s: float
    settle_s: float
    declined_s: float
    beat_s: float = 1.0


@dataclass(frozen=True, slots=True)
class HeatRun:
    """By beat and kind (columns READ, WRITE), a second: asked and refused. partitions: at the end
    of each beat. splits_s: when; declined: splits that would not have helped."""

    beat_s: float
    asked_per_s: Array
    refused_per_s: Array
    partitions: Array
    splits_s: tuple[float, ...]
    declined: int

    @property
    def requests(self) -> int:
        return round(float(self.asked_per_s.sum()) * self.beat_s)

    def refused(self, kind: int, first_s: float, last_s: float) -> float:
        """A second, between two times at whole beats; NaN where they are not apart."""
        part = self.refused_per_s[round(first_s / self.beat_s) : round(last_s / self.beat_s), kind]
        return float(part.mean()) if len(part) else float("nan")


@dataclass(slots=True, eq=False)
class _Partition:
    """Of items from start to before end. used, refused: a second, as the averages of reports."""

    start: int
    end: int
    first_at: float
    load: Array
    used: Array = field(default_factory=lambda: np.zeros(_KINDS))
    refused: Array = field(default_factory=lambda: np.zeros(_KINDS))
    hot_since: float | None = None
    rests_until: float = 0.0


def run_heat(
    reads_per_s: float,
    writes_per_s: float,
    weights: Array,
    rules: HeatRules,
    duration_s: float,
    seed: int,
) -> HeatRun:
    """weights[item]: how often an item is asked for, reads and writes alike, in the order of their
    key hashes. It starts with one partition that has been there for long. seed: 64 bits."""
    words = seeded(np.uint64(seed))
    beats = round(duration_s / rules.beat_s)
    below: Array = np.cumsum(weights) / np.sum(weights)
    limits: Array = np.array([rules.read_limit, rules.write_limit])
    partitions = [_Partition(0, len(weights), -rules.settle_s, np.zeros(len(weights)))]
    levels: Array = limits[np.newaxis, :] * rules.window_s
    filled_s: Array = np.zeros((1, _KINDS))
    asked: Array = np.zeros((beats, _KINDS))
    refused: Array = np.zeros((beats, _KINDS))
    count: Array = np.zeros(beats)
    splits: list[float] = []
    declined = 0
    for beat in range(beats):
        owners = np.repeat(
            np.arange(len(partitions)), [each.end - each.start for each in partitions]
        )
        items, used, denied = _beat(
            words,
            beat * rules.beat_s,
            (beat + 1) * rules.beat_s,
            float(reads_per_s),
            float(writes_per_s),
            below,
            owners,
            levels,
            filled_s,
            limits,
            float(rules.window_s),
        )
        asked[beat] = (used + denied).sum(axis=0) / rules.beat_s
        refused[beat] = denied.sum(axis=0) / rules.beat_s
        now, after = (beat + 1) * rules.beat_s, []
        fresh = np.zeros(0, np.int64)
        for index, each in enumerate(partitions):
            _report(each, items, used[index], denied[index], limits, rules, now)
            cut = _cut(each) if _due(each, rules, now) else 0
            if cut is None:
                declined += 1
                each.rests_until = now + rules.declined_s
            if not cut:
                after.append(each)
                continue
            splits.append(now)
            fresh = np.append(fresh, [len(after), len(after) + 1])
            middle = cut - each.start
            after.append(_Partition(each.start, cut, now, each.load[:middle]))
            after.append(_Partition(cut, each.end, now, each.load[middle:]))
        if len(after) > len(partitions):
            # New ones start full; others keep what they have.
            old = np.setdiff1d(np.arange(len(after)), fresh)
            kept = [index for index, each in enumerate(partitions) if each in after]
            new_levels = np.tile(limits * rules.window_s, (len(after), 1))
            new_filled_s = np.full((len(after), _KINDS), now)
            new_levels[old], new_filled_s[old] = levels[kept], filled_s[kept]
            levels, filled_s, partitions = new_levels, new_filled_s, after
        count[beat] = len(partitions)
    return HeatRun(rules.beat_s, asked, refused, count, tuple(splits), declined)


def _report(
    each: _Partition,
    items: Array,
    used: Array,
    denied: Array,
    limits: Array,
    rules: HeatRules,
    now: float,
) -> None:
    each.used += SMOOTHING * (used / rules.beat_s - each.used)
    each.refused += SMOOTHING * (denied / rules.beat_s - each.refused)
    each.load = (1 - SMOOTHING) * each.load + items[each.start : each.end]
    hot = (each.used / limits).max() >= rules.split_above
    if not (hot or each.refused.sum() >= rules.throttled_per_s):
        each.hot_since = None
    elif each.hot_since is None:
        each.hot_since = now


def _due(each: _Partition, rules: HeatRules, now: float) -> bool:
    hot = each.hot_since is not None and now - each.hot_since >= rules.hot_for_s
    return hot and now - each.first_at >= rules.settle_s and now >= each.rests_until


def _cut(each: _Partition) -> int | None:
    """The first item of the upper side; None if none divides the load."""
    if len(each.load) < 2:
        return None
    below = np.cumsum(each.load)
    total = below[-1]
    first = int(np.argmin(np.abs(below[:-1] - total / 2)))
    larger = max(below[first], total - below[first])
    return each.start + first + 1 if larger <= LARGER_SHARE_MAX * total else None


@njit(cache=True)
def _beat(
    words: NDArray[np.uint64],
    start_s: float,
    stop_s: float,
    reads_per_s: float,
    writes_per_s: float,
    below: Array,
    owners: NDArray[np.int64],
    levels: Array,
    filled_s: Array,
    limits: Array,
    window_s: float,
) -> tuple[Array, Array, Array]:
    """Requests by item, and those let in and refused by partition and kind; levels and filled_s are
    brought up to date."""
    items = np.zeros(len(below))
    used = np.zeros(levels.shape)
    denied = np.zeros(levels.shape)
    total_per_s = reads_per_s + writes_per_s
    now = start_s + exponential(words, 1.0 / total_per_s)
    while now < stop_s:
        kind = 0 if uniform(words) * total_per_s < reads_per_s else 1
        item = min(int(np.searchsorted(below, uniform(words), side="right")), len(below) - 1)
        owner = owners[item]
        items[item] += 1
        level = levels[owner, kind] + (now - filled_s[owner, kind]) * limits[kind]
        level = min(level, limits[kind] * window_s)
        filled_s[owner, kind] = now
        if level > 0.0:
            level -= 1.0
            used[owner, kind] += 1
        else:
            denied[owner, kind] += 1
        levels[owner, kind] = level
        now += exponential(words, 1.0 / total_per_s)
    return items, used, denied
