"""What the hot partition is asked with, and the arithmetic of its limits."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fleet.exact.partitions import HeatRules, HeatRun, run_heat
from fleet.outcome import Array
from fleet.parameters import parameter
from keyplane.model.limits import PARTITION_READ_UNITS, PARTITION_WRITE_UNITS
from metadata.config import PlannerConfig
from storage.limits import WINDOW_S
from storage.suggest import LARGER_SHARE_MAX

# Above it an item in the middle of a partition leaves no cut whose larger side is small enough.
DIVISIBLE = 2 * LARGER_SHARE_MAX - 1

_PLANNER = PlannerConfig()
BEAT_S = _PLANNER.beat_s
_OWN = "chosen: Keyplane's default"
AWS = "Best practices for designing and using partition keys effectively (DynamoDB Developer Guide)"


@dataclass(frozen=True, slots=True)
class Parameters:
    reads_per_s: float = parameter(
        6_000.0,
        "1/s",
        "reads, of one read unit each",
        low=100.0,
        high=40_000.0,
        source="chosen: twice what one partition does",
    )
    writes_per_s: float = parameter(
        1_500.0,
        "1/s",
        "writes, of one write unit each",
        low=100.0,
        high=40_000.0,
        source="chosen: one and a half times what one partition does",
    )
    items: int = parameter(
        1_000,
        "",
        "items that are asked for",
        low=10,
        high=100_000,
        source="chosen: many, all alike",
    )
    item_share: float = parameter(
        0.4,
        "fraction",
        "of the load, on one item, in the second design",
        low=0.0,
        high=1.0,
        source="chosen: a popular item that one partition can just serve",
    )
    read_limit: float = parameter(
        PARTITION_READ_UNITS,
        "1/s",
        "read units of one partition",
        low=10.0,
        high=100_000.0,
        source=AWS,
    )
    write_limit: float = parameter(
        PARTITION_WRITE_UNITS,
        "1/s",
        "write units of one partition",
        low=10.0,
        high=100_000.0,
        source=AWS,
    )
    window_s: float = parameter(
        WINDOW_S,
        "s",
        "how long a partition saves up what is not used",
        low=0.1,
        high=10.0,
        source=_OWN,
    )
    split_above: float = parameter(
        _PLANNER.split_above,
        "fraction",
        "of a limit, from which a partition is hot",
        low=0.1,
        high=1.0,
        source=_OWN,
    )
    throttled_per_s: float = parameter(
        _PLANNER.throttled_per_s,
        "1/s",
        "refused requests from which a partition is hot",
        low=0.1,
        high=10_000.0,
        source=_OWN,
    )
    hot_for_s: float = parameter(
        _PLANNER.hot_for_s,
        "s",
        "how long it has to be hot before it is split",
        low=1.0,
        high=600.0,
        source=_OWN,
    )
    settle_s: float = parameter(
        _PLANNER.settle_s,
        "s",
        "for how long a new partition is left alone",
        low=0.0,
        high=600.0,
        source=_OWN,
    )
    observe_s: float = parameter(
        60.0,
        "s",
        "how long to look",
        low=20.0,
        high=600.0,
        source="chosen: several rounds of splits",
    )

    def rules(self) -> HeatRules:
        return HeatRules(
            read_limit=self.read_limit,
            write_limit=self.write_limit,
            window_s=self.window_s,
            split_above=self.split_above,
            throttled_per_s=self.throttled_per_s,
            hot_for_s=self.hot_for_s,
            settle_s=self.settle_s,
            declined_s=_PLANNER.declined_s,
            beat_s=BEAT_S,
        )

    def run(self, item_share: float, seed: int) -> HeatRun:
        weights: Array = np.full(self.items, (1 - item_share) / (self.items - 1))
        weights[self.items // 2] = item_share or 1 / self.items
        rules = self.rules()
        observe_s = round(self.observe_s / rules.beat_s) * rules.beat_s
        return run_heat(self.reads_per_s, self.writes_per_s, weights, rules, observe_s, seed)

    def over(self, kind: int, part: float = 1.0) -> float:
        """Refused a second if that part of the load is on one partition."""
        asked, limit = (
            (self.reads_per_s, self.read_limit),
            (self.writes_per_s, self.write_limit),
        )[kind]
        return max(0.0, part * asked - limit)

    def spent_s(self, kind: int) -> float:
        """When a partition that is asked for all has used up what it had saved: the beat after."""
        limit = (self.read_limit, self.write_limit)[kind]
        over = self.over(kind)
        return math.ceil(self.window_s * limit / over) + 1.0 if over else 0.0

    def stays(self, kind: int, item_share: float) -> float:
        """Refused a second when all splits that help have been made."""
        return self.over(kind, item_share if item_share <= DIVISIBLE else 1.0)
