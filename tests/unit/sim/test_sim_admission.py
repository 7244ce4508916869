"""Admission by all real cores in virtual time: what is let in is what the rules give."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import pytest
from google.protobuf.message import Message
from sim_world import SMALL, booted

from granter.config import GranterConfig
from keyplane.catalog.v1 import catalog_pb2 as catalog
from keyplane.data.v1 import data_pb2 as data
from keyplane.metadata.v1 import metadata_pb2 as metadata
from keyplane.model.capacity import write_units
from keyplane.model.items import to_item
from keyplane.model.limits import PARTITION_WRITE_UNITS
from sim.process import address_of
from sim.topology import GRANTER, METADATA
from wire.ports import Reply

# Seconds that a table saves up: fewer than DynamoDB's 300, so that tests end.
BURST_S = 60.0

DATA = "/keyplane.data.v1.DataService/"

# Seconds in which an on-demand table may not more than double, 1,800 with DynamoDB; and writes a
# second that a new one takes, 4,000 with DynamoDB.
DOUBLING_S = 120.0
WARM = 40.0

THROTTLED_TABLE = "TableWriteProvisionedThroughputExceeded"
THROTTLED_READS = "TableReadKeyRangeThroughputExceeded"
THROTTLED_WRITES = "TableWriteKeyRangeThroughputExceeded"


class Scene:
    """Two routers, one storage node, one table.

    keys, value: of the items that are sent.
    """

    def __init__(self, granter: GranterConfig | None = None) -> None:
        self.keys = 97
        self.value = ""
        granter = granter or GranterConfig(burst_s=BURST_S)
        topology = replace(SMALL, storage=1, tables=(), granter=granter)
        self.world = booted(1, topology)
        self.process = self.world.new_process("load")
        self.transport = self.world.transport(self.process)
        self.routers = [address_of(name) for name in topology.router_names()]
        self.numbers = iter(range(10**9))

    def create(
        self, mode: catalog.CapacityMode.ValueType, units: int = 0, partitions: int = 1
    ) -> None:
        """A table of that mode, which every router knows."""
        request = metadata.CreateTableRequest(
            table="orders",
            partition_key=catalog.KeyAttribute(name="id", type=catalog.SCALAR_TYPE_STRING),
            partitions=partitions,
            capacity_mode=mode,
        )
        if units:
            request.provisioned.read_capacity_units = units
            request.provisioned.write_capacity_units = units
        self.ask("CreateTable", request)
        self.world.run_for(3.0)
        assert self.offer(1.0, writes_per_s=10)["put OK"] == 10

    def ask(self, method: str, request: Message) -> bytes:
        """Calls the Metadata Store."""
        path = f"/keyplane.metadata.v1.MetadataService/{method}"
        done: list[Reply] = []
        self.transport.call(
            address_of(METADATA), path, request.SerializeToString(), self._deadline(), done.append
        )
        assert self.world.run_until(lambda: bool(done), 10.0)
        assert done[0].error is None
        return done[0].payload

    def set_planner(self, mode: metadata.PlannerMode.ValueType) -> None:
        self.ask("SetPlanner", metadata.SetPlannerRequest(mode=mode))

    def fill(self) -> None:
        """Puts every item, slowly."""
        per_s = 0.8 * PARTITION_WRITE_UNITS / write_units(0, len(self.value) + 20)
        ends = self.offer(self.keys / per_s, writes_per_s=per_s)
        assert set(ends) == {"put OK"}

    def partition_count(self) -> int:
        return len(self.world.metadata.core.catalog.maps[1])

    def offer(
        self, seconds: float, writes_per_s: float = 0.0, reads_per_s: float = 0.0
    ) -> Counter[str]:
        """Sends requests for small items at a steady rate, to both routers in turns, and counts
        how they ended, by kind.
        """
        ends: Counter[str] = Counter()
        scheduler = self.world.scheduler

        def send(kind: str) -> None:
            number = next(self.numbers)
            key = {"id": f"user-{number % self.keys}"}
            if kind == "put":
                item = to_item(key | {"value": self.value} if self.value else key)
                method, request = "PutItem", data.PutItemRequest(table="orders", item=item)
            else:
                method = "GetItem"
                request = data.GetItemRequest(
                    table="orders", key=to_item(key), consistent_read=True
                )

            def ended(reply: Reply) -> None:
                error = reply.error
                how = "OK" if error is None else error.metadata.get("reason", error.reason.name)
                ends[f"{kind} {how}"] += 1

            self.transport.call(
                self.routers[number % 2],
                DATA + method,
                request.SerializeToString(),
                self._deadline(),
                ended,
            )

        for kind, rate in (("put", writes_per_s), ("get", reads_per_s)):
            for number in range(int(rate * seconds)):
                scheduler.after(number / rate, lambda kind=kind: send(kind), self.process)
        self.world.run_for(seconds)
        return ends

    def _deadline(self) -> float:
        return self.process.clock.now() + 5.0


@pytest.fixture
def scene() -> Iterator[Scene]:
    scene = Scene()
    yield scene
    scene.world.close()


def test_a_burst_lasts_as_long_as_arithmetic_says_and_then_the_rate_is_all(scene: Scene) -> None:
    """20 units a second written at 30 after a rest: 60 s of 20 last for 120 s."""
    scene.create(catalog.CAPACITY_MODE_PROVISIONED, units=20)
    scene.world.run_for(BURST_S)
    lasted_s = 0.0
    for _ in range(200):
        if scene.offer(1.0, writes_per_s=30)[f"put {THROTTLED_TABLE}"]:
            break
        lasted_s += 1.0
    assert lasted_s == pytest.approx(BURST_S * 20 / (30 - 20), rel=0.05)
    scene.offer(5.0, writes_per_s=30)
    assert scene.offer(60.0, writes_per_s=30)["put OK"] == pytest.approx(20 * 60, rel=0.05)


def test_with_the_granter_dead_all_is_let_in_and_with_a_new_one_it_is_not(scene: Scene) -> None:
    scene.create(catalog.CAPACITY_MODE_PROVISIONED, units=20)
    scene.offer(BURST_S * 2.5, writes_per_s=40)
    scene.world.kill(GRANTER)
    # The last grants stand until they end.
    scene.world.run_for(GranterConfig().valid_s)
    assert scene.offer(60.0, writes_per_s=30) == {"put OK": 1800}
    scene.world.start(GRANTER)
    scene.offer(5.0, writes_per_s=60)
    assert scene.offer(60.0, writes_per_s=30)["put OK"] == pytest.approx(20 * 60, rel=0.05)


def test_a_partition_heavy_with_reads_takes_all_its_writes_and_the_reverse(scene: Scene) -> None:
    scene.create(catalog.CAPACITY_MODE_ON_DEMAND)
    scene.set_planner(metadata.PLANNER_MODE_OFF)
    scene.offer(2.0, writes_per_s=100, reads_per_s=4_500)
    ends = scene.offer(1.0, writes_per_s=500, reads_per_s=4_500)
    assert ends["put OK"] == pytest.approx(500, abs=5)
    assert ends["get OK"] == pytest.approx(3_000, rel=0.05)
    assert ends[f"get {THROTTLED_READS}"] == pytest.approx(1_500, rel=0.1)
    scene.world.run_for(3.0)
    scene.offer(2.0, writes_per_s=2_000, reads_per_s=100)
    ends = scene.offer(1.0, writes_per_s=2_000, reads_per_s=1_000)
    assert ends["get OK"] == pytest.approx(1_000, abs=5)
    assert ends["put OK"] == pytest.approx(1_000, rel=0.05)
    assert ends[f"put {THROTTLED_WRITES}"] == pytest.approx(1_000, rel=0.1)


# Of these 100 KB items one write takes 100 units and one read 25, so 240 reads a second and 15
# writes are 6,000 and 1,500 units.
LARGE = "x" * (100 * 1024 - 60)


def test_a_hot_partition_is_throttled_on_both_and_after_its_split_on_neither(scene: Scene) -> None:
    scene.create(catalog.CAPACITY_MODE_ON_DEMAND)
    scene.set_planner(metadata.PLANNER_MODE_OFF)
    scene.keys, scene.value = 200, LARGE
    scene.fill()
    scene.offer(3.0, writes_per_s=15, reads_per_s=240)
    ends = scene.offer(10.0, writes_per_s=15, reads_per_s=240)
    assert ends["get OK"] == pytest.approx(120 * 10, rel=0.05)
    assert ends["put OK"] == pytest.approx(10 * 10, rel=0.05)
    assert scene.partition_count() == 1
    scene.set_planner(metadata.PLANNER_MODE_ON)
    scene.offer(60.0, writes_per_s=15, reads_per_s=240)
    ends = scene.offer(10.0, writes_per_s=15, reads_per_s=240)
    assert ends == {"get OK": 2_400, "put OK": 150}
    assert 2 <= scene.partition_count() <= 4


def test_one_hot_item_is_never_split_and_the_plan_says_why(scene: Scene) -> None:
    scene.create(catalog.CAPACITY_MODE_ON_DEMAND)
    scene.keys, scene.value = 1, LARGE
    scene.fill()
    scene.offer(40.0, writes_per_s=15, reads_per_s=240)
    ends = scene.offer(10.0, writes_per_s=15, reads_per_s=240)
    assert ends["get OK"] == pytest.approx(120 * 10, rel=0.05)
    assert ends["put OK"] == pytest.approx(10 * 10, rel=0.05)
    assert scene.partition_count() == 1
    answer = scene.ask("GetPlan", metadata.GetPlanRequest())
    (change,) = metadata.GetPlanResponse.FromString(answer).changes
    assert change.state == metadata.PLANNED_STATE_DECLINED
    assert "of the load is on one partition key" in change.detail


@pytest.fixture
def growing() -> Iterator[Scene]:
    scene = Scene(GranterConfig(doubling_s=DOUBLING_S, warm_write_units=WARM))
    scene.create(catalog.CAPACITY_MODE_ON_DEMAND, partitions=4)
    yield scene
    scene.world.close()


def test_an_on_demand_table_takes_twice_its_peak_at_once_after_a_rest(growing: Scene) -> None:
    """30 writes a second, and later 60 of them; a new table takes 40."""
    for rate in (10, 20, 30):
        assert growing.offer(20.0, writes_per_s=rate) == {"put OK": rate * 20}
    growing.world.run_for(DOUBLING_S)
    ends = growing.offer(60.0, writes_per_s=60)
    assert ends["put OK"] == pytest.approx(60 * 60, rel=0.01)
    # Twice the peak is all there is until the half hour is over, as it were.
    ends = growing.offer(40.0, writes_per_s=90)
    assert ends["put OK"] == pytest.approx(60 * 40, rel=0.05)
    assert ends["put TableWriteKeyRangeThroughputExceeded"] == pytest.approx(30 * 40, rel=0.1)


def test_a_new_on_demand_table_is_throttled_to_what_it_starts_with(growing: Scene) -> None:
    growing.offer(5.0, writes_per_s=100)
    ends = growing.offer(60.0, writes_per_s=100)
    assert ends["put OK"] == pytest.approx(WARM * 60, rel=0.05)
    # It used all it might: that is its peak, and the double of it is what it may use next.
    growing.world.run_for(DOUBLING_S)
    growing.offer(5.0, writes_per_s=200)
    assert growing.offer(30.0, writes_per_s=200)["put OK"] == pytest.approx(2 * WARM * 30, rel=0.05)


def test_a_new_granter_throttles_no_table_that_has_grown(growing: Scene) -> None:
    growing.offer(30.0, writes_per_s=35)
    growing.world.run_for(DOUBLING_S)
    growing.offer(2.0, writes_per_s=35)
    growing.world.kill(GRANTER)
    # Without one all is let in.
    growing.world.run_for(GranterConfig().valid_s)
    assert set(growing.offer(30.0, writes_per_s=150)) == {"put OK"}
    growing.world.start(GRANTER)
    growing.offer(5.0, writes_per_s=150)
    ends = growing.offer(60.0, writes_per_s=150)
    assert ends["put OK"] == pytest.approx(2 * 35 * 60, rel=0.05)
