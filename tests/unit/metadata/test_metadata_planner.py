"""The planner: what it does about load, what it leaves alone, and how much of it at once.

Nodes report the load of a demand that is spread over the key hashes of a table, so that every split
shares it and every merge adds it up, as real ones do.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from metadata_world import World, refused

from keyplane.metadata.v1 import metadata_pb2 as pb
from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.limits import PARTITION_READ_UNITS, PARTITION_WRITE_UNITS
from keyplane.model.partition import KEYSPACE_END, Partition
from metadata.config import MetadataConfig, PlannerConfig
from metadata.planner.watch import Watch
from metadata.records import PlannerMode

CONFIG = PlannerConfig()
SPLIT, MERGE, MOVE = (
    pb.OPERATION_KIND_SPLIT,
    pb.OPERATION_KIND_MERGE,
    pb.OPERATION_KIND_MOVE,
)


@dataclass
class Demand:
    """Units a second that are asked of a whole table, the same of all hashes.

    density: how much of it a range of hashes gets, if not its share.
    """

    reads: float = 0.0
    writes: float = 0.0
    data_bytes: float = 0.0
    limited: bool = True
    density: Callable[[int, int], float] = lambda start, end: (end - start) / KEYSPACE_END

    def load(self, partition: Partition) -> pb.PartitionLoad:
        share = self.density(partition.start, partition.end)
        reads, writes = self.reads * share, self.writes * share
        return pb.PartitionLoad(
            partition_id=partition.partition_id,
            bytes=round(self.data_bytes * share),
            limited=self.limited,
            read_units_per_second=min(reads, PARTITION_READ_UNITS),
            write_units_per_second=min(writes, PARTITION_WRITE_UNITS),
            throttled_reads_per_second=max(0.0, reads - PARTITION_READ_UNITS),
            throttled_writes_per_second=max(0.0, writes - PARTITION_WRITE_UNITS),
        )


class Town(World):
    """A store with a table `orders`, and storage nodes that report its demand."""

    def __init__(
        self, directory: Path, partitions: int = 1, planner: PlannerConfig = CONFIG
    ) -> None:
        super().__init__(directory, config=MetadataConfig(planner=planner))
        self.done(self.create(partitions=partitions))
        self.demand = Demand()
        self.loads = self._loads

    def _loads(self, node_id: str) -> Sequence[pb.PartitionLoad]:
        served = self.fleet.nodes[node_id].serving.values()
        return [self.demand.load(each) for each in served][:1_000]

    def plan(self) -> pb.GetPlanResponse:
        return self.ask("GetPlan", pb.GetPlanRequest(), pb.GetPlanResponse)

    def set(self, mode: pb.PlannerMode.ValueType) -> None:
        self.ask("SetPlanner", pb.SetPlannerRequest(mode=mode), pb.SetPlannerResponse)

    def planned(self) -> Counter[pb.OperationKind.ValueType]:
        """Operations of the planner so far, by kind."""
        every = self.core.catalog.operations.values()
        return Counter(each.to_proto().kind for each in every if each.why)

    @property
    def throttled(self) -> float:
        """Of the demand as the map is now, requests a second."""
        loads = [self.demand.load(each) for each in self.partitions()]
        return sum(
            each.throttled_reads_per_second + each.throttled_writes_per_second for each in loads
        )


@pytest.fixture
def town(tmp_path: Path) -> Town:
    return Town(tmp_path)


# --- Heat --------------------------------------------------------------------------------------


def test_a_hot_partition_is_split_until_nothing_is_throttled(town: Town) -> None:
    """Twice what one partition reads and one and a half times what it writes: two are enough."""
    town.demand = Demand(reads=5_300.0, writes=1_500.0)
    assert town.throttled > 0
    town.run(40)
    assert town.throttled == 0
    assert len(town.partitions()) == 2
    every = town.core.catalog.operations.values()
    operation = next(each for each in every if each.why)
    assert "of 3,000 read units" in operation.why
    assert "requests a second throttled" in operation.why
    shown = town.operation(operation.operation_id)
    assert shown.planned_because == operation.why
    town.check()


def test_a_short_burst_is_no_reason(town: Town) -> None:
    for _ in range(5):
        town.demand = Demand(reads=9_000.0)
        town.run(CONFIG.hot_for_s - 2)
        town.demand = Demand(reads=300.0)
        town.run(5)
    assert not town.planned()


def test_tables_without_limits_are_nobodys_heat(town: Town) -> None:
    town.demand = Demand(reads=90_000.0, writes=90_000.0, limited=False)
    town.run(60)
    assert not town.planned()
    assert town.plan().partitions_watched == 0


def test_a_split_that_would_not_help_is_declined_with_its_reason(town: Town) -> None:
    """The storage node says so; the operation has its reason, and the plan until the next try."""
    why = "97% of the load is on one partition key"
    for node in town.fleet.nodes.values():
        node.refuse["SuggestSplit"] = KeyplaneError(Reason.SPLIT_WOULD_NOT_HELP, why)
    town.demand = Demand(reads=9_000.0)
    town.run(60)
    assert len(town.partitions()) == 1
    (operation,) = (each for each in town.core.catalog.operations.values() if each.why)
    assert town.operation(operation.operation_id).reason == "SPLIT_WOULD_NOT_HELP"
    (change,) = town.plan().changes
    assert change.state == pb.PLANNED_STATE_DECLINED
    assert change.detail.startswith(why)
    assert "looked at again in" in change.detail
    for node in town.fleet.nodes.values():
        node.refuse.clear()
    town.run(CONFIG.declined_s)
    assert len(town.partitions()) > 1
    assert town.planned()[SPLIT] > 1


def test_a_split_waits_for_enough_requests_to_tell_where_the_load_is(town: Town) -> None:
    """And is given up, to be planned again, if there are too few for long."""
    unknown = KeyplaneError(Reason.LOAD_UNKNOWN, "60 requests were sampled")
    for node in town.fleet.nodes.values():
        node.refuse["SuggestSplit"] = unknown
    town.demand = Demand(reads=5_300.0)
    town.run(18)
    (change,) = town.plan().changes
    assert change.state == pb.PLANNED_STATE_STARTED
    assert "60 requests were sampled" in change.detail
    town.run(20)
    (first,) = (
        each for each in town.core.catalog.operations.values() if each.state.ended and each.why
    )
    assert first.reason == "LOAD_UNKNOWN"
    for node in town.fleet.nodes.values():
        node.refuse.clear()
    town.run(30)
    assert len(town.partitions()) == 2


def test_load_between_the_two_thresholds_changes_nothing(tmp_path: Path) -> None:
    """Hysteresis: too little to split is still more than what is merged, however long it lasts."""
    town = Town(tmp_path)
    town.demand = Demand(reads=5_300.0)
    town.run(40)
    assert len(town.partitions()) == 2
    for reads in (1_400.0, 5_300.0, 2_000.0, 5_300.0, 1_400.0):
        town.demand = Demand(reads=reads)
        town.run(200)
    assert (town.planned()[SPLIT], town.planned()[MERGE]) == (1, 0)


# --- Cold --------------------------------------------------------------------------------------


def test_what_was_split_for_heat_is_merged_when_it_has_been_cold_for_long(town: Town) -> None:
    town.demand = Demand(writes=3_000.0)
    town.run(60)
    grown = len(town.partitions())
    assert grown >= 4
    town.demand = Demand(writes=100.0)
    town.run(CONFIG.cold_s - 20)
    assert len(town.partitions()) == grown
    town.run(3 * CONFIG.cold_s)
    assert len(town.partitions()) == 1
    assert town.planned()[SPLIT] == town.planned()[MERGE] == grown - 1
    town.check()


def test_one_busy_minute_in_five_keeps_partitions_apart(town: Town) -> None:
    town.demand = Demand(writes=1_700.0)
    town.run(40)
    assert len(town.partitions()) == 2
    for _ in range(6):
        town.demand = Demand(writes=10.0)
        town.run(230)
        town.demand = Demand(writes=600.0)
        town.run(40)
    assert (town.planned()[SPLIT], town.planned()[MERGE]) == (1, 0)


def test_partitions_that_were_asked_for_stay(tmp_path: Path) -> None:
    """Those a table was made with, and splits by hand; a merge by hand takes one of them away."""
    town = Town(tmp_path, partitions=2)
    town.demand = Demand(writes=10.0)
    town.done(town.split(1))
    town.run(2 * CONFIG.cold_s)
    assert len(town.partitions()) == 3
    assert not town.planned()
    town.demand = Demand(writes=3_300.0)
    town.run(60)
    assert len(town.partitions()) > 3
    town.demand = Demand(writes=10.0)
    left, right = town.partitions()[:2]
    town.fleet.polls_per_move = 1
    town.done(town.merge(left.partition_id, right.partition_id))
    town.run(4 * CONFIG.cold_s)
    assert len(town.partitions()) == 2
    assert town.core.catalog.by_name["orders"].partitions_min == 2
    town.check()


# --- Size --------------------------------------------------------------------------------------


def test_a_large_partition_is_split_whatever_its_table_may_do(tmp_path: Path) -> None:
    town = Town(tmp_path, planner=PlannerConfig(split_bytes=1_000_000))
    town.demand = Demand(data_bytes=3_900_000.0, limited=False)
    town.run(60)
    assert len(town.partitions()) == 4
    reasons = {each.why for each in town.core.catalog.operations.values() if each.why}
    assert "3.9 MB of 1.0 MB" in reasons
    town.run(2 * CONFIG.cold_s)
    assert len(town.partitions()) == 4


# --- Moves -------------------------------------------------------------------------------------


def test_heat_is_spread_over_nodes_with_the_least_data_that_helps(tmp_path: Path) -> None:
    """All three partitions with load are on one node. One has most of it, one hardly any; of the
    two whose move helps, the smaller goes.
    """
    town = Town(tmp_path, partitions=9)
    home = [each for each in town.partitions() if each.leader == "a"]
    heats = dict(zip([each.partition_id for each in home], (0.6, 0.5, 0.05), strict=True))
    sizes = dict(zip(heats, (9_000_000, 1_000_000, 1_000), strict=True))

    def loads(node_id: str) -> Sequence[pb.PartitionLoad]:
        return [
            pb.PartitionLoad(
                partition_id=each,
                limited=True,
                bytes=sizes.get(each, 0),
                read_units_per_second=heats.get(each, 0.0) * PARTITION_READ_UNITS,
            )
            for each in town.fleet.nodes[node_id].serving
        ]

    town.loads = loads
    town.run(60)
    assert town.planned() == {MOVE: 1}
    (operation,) = (each for each in town.core.catalog.operations.values() if each.why)
    assert operation.partition_ids == (home[1].partition_id,)
    assert "1.0 MB" in operation.why
    town.run(300)
    assert town.planned() == {MOVE: 1}
    town.check()


def test_nothing_moves_to_a_node_that_is_silent(tmp_path: Path) -> None:
    town = Town(tmp_path, partitions=3)
    busy = next(each for each in town.partitions() if each.leader == "a")
    town.done(town.split(busy.partition_id))
    for node_id in ("b", "c"):
        town.fleet.nodes[node_id].kill()
    town.demand = Demand(reads=5_000.0)
    town.run(90)
    assert town.planned()[MOVE] == 0


# --- Bounds ------------------------------------------------------------------------------------


def test_a_storm_of_a_thousand_hot_partitions_is_bounded(tmp_path: Path) -> None:
    """All of them get their turn, a few at a time, also while storage nodes are slow to answer;
    nothing is lost on the way.
    """
    town = Town(tmp_path, partitions=1_000)
    slow = KeyplaneError(Reason.NOT_SERVING, "later", retry_after_s=1.0)
    for node in town.fleet.nodes.values():
        node.refuse["SuggestSplit"] = slow
    town.demand = Demand(reads=1_000 * 2 * PARTITION_READ_UNITS * 0.85)
    town.run(30)
    assert sum(bool(each.why) for each in town.core.catalog.active.values()) == (
        CONFIG.operations_max
    )
    assert town.plan().change_count == 1_000
    for node in town.fleet.nodes.values():
        node.refuse.clear()
    begun_at = town.clock.now()
    while town.throttled > 0 and town.clock.now() - begun_at < 600:
        town.run(1)
        elapsed_s = town.clock.now() - begun_at
        saved_up = CONFIG.operations_burst + CONFIG.operations_max
        assert town.planned()[SPLIT] <= saved_up + CONFIG.operations_per_s * elapsed_s
    assert town.throttled == 0
    assert len(town.partitions()) == 2_000
    assert town.clock.now() - begun_at == pytest.approx(1_000 / CONFIG.operations_per_s, rel=0.2)
    town.check()


def test_reports_of_what_a_node_does_not_lead_are_ignored(town: Town) -> None:
    """Also late ones, of partitions that have been split or moved since."""
    town.run(2)
    (partition,) = town.partitions()
    other = next(each for each in town.fleet.nodes if each != partition.leader)
    lie = Demand(reads=9_000.0).load(partition)
    for _ in range(30):
        request = pb.HeartbeatRequest(node_id=other, loads=[lie])
        town.ask("Heartbeat", request, pb.HeartbeatResponse)
        town.run(1)
    assert not town.planned()
    assert town.plan().partitions_watched == 1


@pytest.mark.parametrize("rate", [-1.0, math.nan, math.inf, 1e13])
def test_a_report_that_cannot_be_is_refused_whole(town: Town, rate: float) -> None:
    (partition,) = town.partitions()
    true = Demand(reads=100.0).load(partition)
    for name in ("read_units_per_second", "throttled_writes_per_second", "reads_per_second"):
        lie = pb.PartitionLoad(partition_id=partition.partition_id, limited=True, **{name: rate})
        request = pb.HeartbeatRequest(node_id=partition.leader, loads=[true, lie])
        error = refused(lambda q=request: town.ask("Heartbeat", q, pb.HeartbeatResponse))
        assert error.reason is Reason.INVALID_ARGUMENT
        assert "no load that partition" in error.message


def test_old_reports_are_no_reason(town: Town) -> None:
    """The node reports heat, and then only that it is alive."""
    town.demand = Demand(reads=9_000.0)
    town.run(3)
    town.loads = lambda _: ()
    town.run(60)
    assert not town.planned()


def test_the_watch_is_bounded(town: Town) -> None:
    watch = Watch(PlannerConfig(watched_max=100))
    led = dict.fromkeys(range(1000), 1)
    loads = [pb.PartitionLoad(partition_id=number, limited=True) for number in led]
    watch.observe("a", led, loads, 0.0)
    assert list(watch.by_id) == list(range(900, 1_000))


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 5),
            st.sampled_from("ab"),
            st.floats(0, 4),
            st.booleans(),
            st.floats(0, 30),
        ),
        max_size=60,
    )
)
def test_what_the_watch_sums_up_is_what_it_was_told(
    reports: list[tuple[int, str, float, bool, float]],
) -> None:
    """node_heat is the sum of the last reports of what each node leads, whatever came before."""
    watch, now = Watch(CONFIG), 0.0
    leads: dict[int, str] = {}
    last: dict[int, float] = {}
    for partition_id, node_id, heat, limited, wait_s in reports:
        now += wait_s
        leads[partition_id] = node_id
        led = {each: 1 for each, leader in leads.items() if leader == node_id}
        load = pb.PartitionLoad(
            partition_id=partition_id,
            limited=limited,
            read_units_per_second=heat * CONFIG.read_units,
        )
        watch.observe(node_id, led, [load], now)
        last[partition_id] = heat if limited else 0.0
    for node_id in "ab":
        expected = sum(heat for each, heat in last.items() if leads[each] == node_id)
        assert watch.node_heat.get(node_id, 0.0) == pytest.approx(expected, abs=1e-6)
    hot = {each for each, heat in last.items() if heat >= CONFIG.split_above}
    assert watch.hot == hot


# --- Switches ----------------------------------------------------------------------------------


def test_a_dry_run_shows_what_it_would_do_and_does_nothing(town: Town) -> None:
    town.set(pb.PLANNER_MODE_DRY_RUN)
    town.demand = Demand(reads=9_000.0)
    town.run(30)
    assert not town.planned()
    plan = town.plan()
    assert plan.mode == pb.PLANNER_MODE_DRY_RUN
    (change,) = plan.changes
    assert (change.kind, change.table, change.state) == (SPLIT, "orders", pb.PLANNED_STATE_WAITING)
    assert change.detail == "dry run"
    assert "3,000 of 3,000 read units" in change.reason


def test_off_is_off_also_after_a_restart(town: Town) -> None:
    town.set(pb.PLANNER_MODE_OFF)
    town.demand = Demand(reads=9_000.0)
    town.run(30)
    town.restart()
    town.run(30)
    assert not town.planned()
    assert town.plan().mode == pb.PLANNER_MODE_OFF
    assert not town.plan().changes
    assert town.reread().planner is PlannerMode.OFF
    town.set(pb.PLANNER_MODE_ON)
    town.run(30)
    assert town.planned()[SPLIT] >= 1
    error = refused(lambda: town.set(pb.PLANNER_MODE_UNSPECIFIED))
    assert error.reason is Reason.INVALID_ARGUMENT


def test_a_store_that_starts_anew_goes_on_with_what_it_had_planned(town: Town) -> None:
    """Killed in the middle of a split: it is finished once, and its end is heeded."""
    town.demand = Demand(reads=5_000.0)
    town.crash_at("metadata.split.running")
    town.run(60)
    assert town.starts == 2
    assert len(town.partitions()) == 2
    assert town.planned()[SPLIT] == 1
    town.check()


def test_an_operation_in_the_way_is_waited_for(town: Town) -> None:
    """A table that is being changed by hand: the plan says so, and the split comes after."""
    town.fleet.polls_per_move = 300
    (partition,) = town.partitions()
    target = next(each for each in town.fleet.nodes if each != partition.leader)
    move = town.move(partition.partition_id, target)
    town.demand = Demand(reads=5_000.0)
    town.run(20)
    (change,) = town.plan().changes
    assert change.detail == f"waits for operation {move.operation_id}"
    assert not town.planned()
    town.done(move)
    town.run(40)
    assert town.planned()[SPLIT] == 1


# --- Where the load is -------------------------------------------------------------------------


def heat(town: Town, **fields: object) -> pb.GetHeatResponse:
    return town.ask("GetHeat", pb.GetHeatRequest(**fields), pb.GetHeatResponse)  # type: ignore[arg-type]


def test_heat_names_the_hottest_and_spreads_load_over_the_hashes(tmp_path: Path) -> None:
    """Of one partition all is in the last quarter of its range; of the other nothing is known but
    the sum.
    """
    town = Town(tmp_path, partitions=2)
    low, high = town.partitions()
    reported = {
        low.partition_id: pb.PartitionLoad(
            partition_id=low.partition_id,
            reads_per_second=80.0,
            limited=True,
            read_units_per_second=2_400.0,
            throttled_reads_per_second=20.0,
            sampled=[0, 0, 0, 7],
        ),
        high.partition_id: pb.PartitionLoad(partition_id=high.partition_id, writes_per_second=40.0),
    }
    town.loads = lambda node: [reported[each] for each in town.fleet.nodes[node].serving]
    town.run(3)
    found = heat(town, bins=8)
    assert list(found.bins) == pytest.approx([0, 0, 0, 100, 10, 10, 10, 10])
    assert [each.partition.partition_id for each in found.hottest] == [
        low.partition_id,
        high.partition_id,
    ]
    assert [each.heat for each in found.hottest] == pytest.approx([0.8, 0.0])
    assert (found.reads_per_second, found.writes_per_second) == (80.0, 40.0)
    assert found.throttled_reads_per_second == 20.0
    assert found.partition_count == 2
    assert len(heat(town, limit=1).hottest) == 1
    assert heat(town, table="orders").partition_count == 2
    assert sum(heat(town, bins=256).bins) == pytest.approx(140)
    assert list(heat(town, bins=1).bins) == pytest.approx([140])


def test_heat_of_what_is_not_there_is_refused(town: Town) -> None:
    for fields, reason in (
        ({"table": "no-such"}, Reason.TABLE_NOT_FOUND),
        ({"table": "?"}, Reason.INVALID_ARGUMENT),
        ({"bins": 257}, Reason.INVALID_ARGUMENT),
        ({"limit": 1_001}, Reason.INVALID_ARGUMENT),
    ):
        assert refused(lambda f=fields: heat(town, **f)).reason is reason
    (partition,) = town.partitions()
    load = pb.PartitionLoad(partition_id=partition.partition_id, sampled=[1] * 65)
    request = pb.HeartbeatRequest(node_id=partition.leader, loads=[load])
    error = refused(lambda: town.ask("Heartbeat", request, pb.HeartbeatResponse))
    assert "64 at most" in error.message
