"""What follows from the load of partitions: splits, merges, moves, each with its reason.

Splitting for heat and for size is described in "Amazon DynamoDB: A Scalable, Predictably
Performant, and Fully Managed NoSQL Database Service", USENIX ATC 2022, section 4; that a partition
is never split when one item has the load, or the load moves through the range, is, too. Merging is
ours: DynamoDB's partitions are not known to be merged.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from keyplane.model.partition import KEYSPACE_END, Partition
from metadata.catalog import Catalog
from metadata.config import PlannerConfig
from metadata.nodes import NodeRegistry
from metadata.planner.watch import Watch, Watched
from metadata.plans import Kind, SplitPurpose
from metadata.records import TableRecord


@dataclass(frozen=True, slots=True)
class Proposal:
    """A change of the map that the planner wants.

    node_id: of a move, where to. purpose: of a split. why: with the figures.
    """

    kind: Kind
    table: str
    partition_ids: tuple[int, ...]
    why: str
    node_id: str = ""
    purpose: SplitPurpose = SplitPurpose.ASKED


class Rules:
    """Over one catalog, registry and watch. They only look."""

    def __init__(self, config: PlannerConfig, registry: NodeRegistry, watch: Watch) -> None:
        self._config = config
        self._registry = registry
        self._watch = watch

    # --- Splits ----------------------------------------------------------------------------------

    def splits(self, catalog: Catalog, now: float) -> list[Proposal]:
        """The most throttled first, then the hottest, then the largest."""
        hot = [self._watch.by_id[each] for each in self._watch.hot]
        hot.sort(key=lambda each: (-each.throttled_per_s, -each.heat, each.partition_id))
        large = [self._watch.by_id[each] for each in self._watch.large - self._watch.hot]
        large.sort(key=lambda each: (-each.load.bytes, each.partition_id))
        found = [self._split_for_heat(catalog, each, now) for each in hot]
        found += [self._split_for_size(catalog, each, now) for each in large]
        return [each for each in found if each is not None]

    def _split_for_heat(self, catalog: Catalog, watched: Watched, now: float) -> Proposal | None:
        config, load = self._config, watched.load
        if watched.hot_since is None or now - watched.hot_since < config.hot_for_s:
            return None
        why = (
            f"{load.read_units_per_second:,.0f} of {config.read_units:,.0f} read units and"
            f" {load.write_units_per_second:,.0f} of {config.write_units:,.0f} write units a second"
            f" used, {watched.throttled_per_s:,.0f} requests a second throttled, for"
            f" {now - watched.hot_since:.0f} s"
        )
        return self._split(catalog, watched, now, SplitPurpose.HEAT, why)

    def _split_for_size(self, catalog: Catalog, watched: Watched, now: float) -> Proposal | None:
        why = f"{_bytes(watched.load.bytes)} of {_bytes(self._config.split_bytes)}"
        return self._split(catalog, watched, now, SplitPurpose.SIZE, why)

    def _split(
        self, catalog: Catalog, watched: Watched, now: float, purpose: SplitPurpose, why: str
    ) -> Proposal | None:
        found = self._find(catalog, watched, now, self._config.stale_s)
        if found is None or now - watched.first_at < self._config.settle_s:
            return None
        table, partition = found
        if partition.end - partition.start < 2:
            return None
        return Proposal(Kind.SPLIT, table.name, (watched.partition_id,), why, purpose=purpose)

    # --- Merges ----------------------------------------------------------------------------------

    def merges(self, catalog: Catalog, ids: Iterable[int], now: float) -> Iterator[Proposal]:
        """Of each of these partitions with the one after it."""
        for partition_id in ids:
            watched = self._watch.by_id.get(partition_id)
            if watched is not None:
                proposal = self._merge(catalog, watched, now)
                if proposal is not None:
                    yield proposal

    def _merge(self, catalog: Catalog, watched: Watched, now: float) -> Proposal | None:
        config = self._config
        age_s_max = config.cold_s / 2
        found = self._find(catalog, watched, now, age_s_max)
        if found is None:
            return None
        table, left = found
        map_ = catalog.maps[table.table_id]
        if left.end == KEYSPACE_END or len(map_) <= table.partitions_min:
            return None
        other = self._watch.by_id.get(map_.floor(left.end).partition_id)
        if other is None or self._find(catalog, other, now, age_s_max) is None:
            return None
        highest = [each.highest(config, now) for each in (watched, other)]
        heat = sum(each for each in highest if each is not None)
        data_bytes = watched.load.bytes + other.load.bytes
        if (
            None in highest
            or heat >= config.merge_below * config.split_above
            or data_bytes >= config.merge_below * config.split_bytes
        ):
            return None
        why = (
            f"together at most {heat:.0%} of what one partition can do in {config.cold_s:.0f} s,"
            f" and {_bytes(data_bytes)}; {len(map_)} partitions, {table.partitions_min} asked for"
        )
        ids = watched.partition_id, other.partition_id
        return Proposal(Kind.MERGE, table.name, ids, why)

    # --- Moves -----------------------------------------------------------------------------------

    def gap(self, catalog: Catalog) -> tuple[str, str, float] | None:
        """The hottest node and the coolest that may take its load, and by how much they differ.

        None if that is little.
        """
        up = [node_id for node_id in catalog.nodes if self._registry.is_up(node_id)]
        if len(up) < 2:
            return None
        heat = self._watch.node_heat
        order = sorted(up, key=lambda node_id: (heat.get(node_id, 0.0), node_id))
        coolest, hottest = order[0], order[-1]
        gap = heat.get(hottest, 0.0) - heat.get(coolest, 0.0)
        average = sum(heat.get(node_id, 0.0) for node_id in up) / len(up)
        if gap < max(self._config.move_gap, self._config.move_gap_share * average):
            return None
        return hottest, coolest, gap

    def move(self, catalog: Catalog, now: float) -> Proposal | None:
        """The least data that helps: of partitions whose move takes away enough of the difference
        between the hottest node and the coolest, the smallest.
        """
        found = self.gap(catalog)
        if found is None:
            return None
        hottest, coolest, gap = found
        best: tuple[int, float, Watched, str] | None = None
        for watched in self._watch.by_id.values():
            if watched.node_id != hottest:
                continue
            gain = 2 * min(watched.heat, gap - watched.heat)
            if gain < self._config.move_gain * gap:
                continue
            place = self._find(catalog, watched, now, self._config.stale_s)
            if place is None or now - watched.first_at < self._config.settle_s:
                continue
            if best is None or (watched.load.bytes, -gain) < best[:2]:
                best = (watched.load.bytes, -gain, watched, place[0].name)
        if best is None:
            return None
        data_bytes, _, watched, table = best
        heat = self._watch.node_heat
        why = (
            f"{hottest} has the load of {heat[hottest]:.1f} partitions and {coolest} of"
            f" {heat.get(coolest, 0.0):.1f}; this is {watched.heat:.1f} of it, and"
            f" {_bytes(data_bytes)}"
        )
        return Proposal(Kind.MOVE, table, (watched.partition_id,), why, node_id=coolest)

    # --- Looking ---------------------------------------------------------------------------------

    def _find(
        self, catalog: Catalog, watched: Watched, now: float, age_s_max: float
    ) -> tuple[TableRecord, Partition] | None:
        """Where a partition is, if its reports are true of now: else there is no reason in them."""
        led = catalog.led_by(watched.node_id)
        if watched.partition_id not in led or now - watched.heard_at > age_s_max:
            return None
        table = catalog.tables[watched.table_id]
        if not table.active or self._registry.is_suspect(watched.node_id):
            return None
        return table, catalog.partition(table, watched.partition_id)


def _bytes(count: int) -> str:
    """Such as 12.3 MB."""
    value = float(count)
    for unit in ("bytes", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"
