"""The load of partitions over the last minutes, as their storage nodes report it.

Nothing of it is persisted: a Metadata Store that starts anew begins to watch anew, which puts off
what it would do and does nothing too much.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Final

from keyplane.metadata.v1.metadata_pb2 import PartitionLoad
from metadata.config import PlannerConfig

# Maxima that are kept of the time over which a partition must have been cold.
_SLOTS: Final = 10


class Watched:
    """One partition while one node leads it.

    first_at, heard_at: of the first report and the last one. hot_since: None while it is not.
    heat: of the last report, see `PlannerConfig`.
    """

    __slots__ = (
        "_maxima",
        "first_at",
        "heard_at",
        "heat",
        "hot_since",
        "load",
        "node_id",
        "partition_id",
        "table_id",
    )

    def __init__(self, partition_id: int, table_id: int, node_id: str, now: float) -> None:
        self.partition_id = partition_id
        self.table_id = table_id
        self.node_id = node_id
        self.first_at = now
        self.heard_at = now
        self.hot_since: float | None = None
        self.heat = 0.0
        self.load = PartitionLoad()
        # Number of the slot, and the highest heat in it; the oldest first.
        self._maxima: deque[tuple[int, float]] = deque()

    @property
    def throttled_per_s(self) -> float:
        return self.load.throttled_reads_per_second + self.load.throttled_writes_per_second

    def take(self, load: PartitionLoad, config: PlannerConfig, now: float) -> None:
        """A report."""
        self.load = load
        self.heard_at = now
        self.heat = config.heat(load)
        is_hot = self.heat >= config.split_above or self.throttled_per_s >= config.throttled_per_s
        if not (load.limited and is_hot):
            self.hot_since = None
        elif self.hot_since is None:
            self.hot_since = now
        self._remember(self.heat, config, now)

    def highest(self, config: PlannerConfig, now: float) -> float | None:
        """Heat in the last `cold_s`; None unless it was watched all the time."""
        if now - self.first_at < config.cold_s:
            return None
        oldest = _slot(now - config.cold_s, config)
        return max(heat for slot, heat in self._maxima if slot >= oldest)

    def _remember(self, heat: float, config: PlannerConfig, now: float) -> None:
        slot, maxima = _slot(now, config), self._maxima
        if maxima and maxima[-1][0] == slot:
            maxima[-1] = (slot, max(heat, maxima[-1][1]))
            return
        maxima.append((slot, heat))
        while maxima[0][0] < slot - _SLOTS:
            maxima.popleft()


class Watch:
    """Partitions with limits, and those that are large: the others concern nobody.

    by_id: the longest unheard first. hot: ids of those that are. node_heat: sums by node id.
    """

    def __init__(self, config: PlannerConfig) -> None:
        self._config = config
        self.by_id: dict[int, Watched] = {}
        self.hot: set[int] = set()
        self.large: set[int] = set()
        self.node_heat: dict[str, float] = {}
        self.ignored = 0

    def observe(
        self, node_id: str, led: Mapping[int, int], loads: Iterable[PartitionLoad], now: float
    ) -> None:
        """What a node reports of partitions; of those it does not lead, it has nothing to say.

        led: table ids by partition id.
        """
        for load in loads:
            table_id = led.get(load.partition_id)
            if table_id is None:
                self.ignored += 1
            else:
                self._take(node_id, table_id, load, now)
        while len(self.by_id) > self._config.watched_max:
            self.forget(next(iter(self.by_id)))

    def forget(self, partition_id: int) -> None:
        watched = self.by_id.pop(partition_id, None)
        if watched is not None:
            self._add_heat(watched.node_id, -watched.heat)
        self.hot.discard(partition_id)
        self.large.discard(partition_id)

    def _take(self, node_id: str, table_id: int, load: PartitionLoad, now: float) -> None:
        partition_id = load.partition_id
        is_large = load.bytes >= self._config.split_bytes
        watched = self.by_id.get(partition_id)
        if watched is not None and watched.node_id != node_id:
            self.forget(partition_id)
            watched = None
        if not load.limited and not is_large:
            self.forget(partition_id)
            return
        if watched is None:
            watched = Watched(partition_id, table_id, node_id, now)
        else:
            del self.by_id[partition_id]
        self.by_id[partition_id] = watched
        before = watched.heat
        watched.take(load, self._config, now)
        self._add_heat(node_id, watched.heat - before)
        _set(self.hot, partition_id, watched.hot_since is not None)
        _set(self.large, partition_id, is_large)

    def _add_heat(self, node_id: str, heat: float) -> None:
        # Never below nothing, whatever rounding leaves.
        self.node_heat[node_id] = max(0.0, self.node_heat.get(node_id, 0.0) + heat)


def _set(ids: set[int], partition_id: int, belongs: bool) -> None:
    if belongs:
        ids.add(partition_id)
    else:
        ids.discard(partition_id)


def _slot(now: float, config: PlannerConfig) -> int:
    return int(now / (config.cold_s / _SLOTS))
