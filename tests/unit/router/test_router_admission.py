"""Provisioned and on-demand tables: what routers let in, with a granter and without."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
from router_world import DATA, Pending, World
from storage_peer import Fault

from cache.partition_map import PartitionMap
from granter.config import GranterConfig
from granter.core import GranterCore
from keyplane.catalog.v1 import catalog_pb2 as catalog
from keyplane.data.v1 import data_pb2 as data
from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.items import to_item
from keyplane.model.throttling import Limit, throttled
from router.admission import TableLimits
from router.config import RouterConfig
from wire.memory_process import MemoryProcess
from wire.metrics import Metrics
from wire.ports import Reply

GRANTER = "granter:1"
READS, WRITES = 200, 100


class Provisioned(World):
    """The table `music` has 200 read and 100 write units a second, of which it has saved some."""

    def __init__(self, saved_s: float = 10.0, granting: GranterConfig | None = None) -> None:
        super().__init__(config=RouterConfig(granter=GRANTER))
        self.granting = granting or GranterConfig()
        self.set_table(catalog.CAPACITY_MODE_PROVISIONED, READS, WRITES, version=2)
        self.start_granter()
        self.start_router()
        self.clock.run_for(saved_s)

    def start_granter(self) -> None:
        self.granter = process = MemoryProcess(self.network, GRANTER)
        core = GranterCore(self.granting, process.clock, process.server, Metrics())
        core.start()

    def set_table(
        self,
        mode: catalog.CapacityMode.ValueType,
        reads: int,
        writes: int,
        version: int,
        on_demand: catalog.OnDemandThroughput | None = None,
    ) -> None:
        table = catalog.Table()
        table.CopyFrom(self.table)
        table.capacity_mode = mode
        if mode == catalog.CAPACITY_MODE_PROVISIONED:
            table.provisioned.read_capacity_units = reads
            table.provisioned.write_capacity_units = writes
        if on_demand is not None:
            table.on_demand.CopyFrom(on_demand)
        self.table = table
        self.source.by_name["music"] = PartitionMap.build(table, version, self.partitions)

    def load(
        self, seconds: float, writes_per_s: float = 0.0, reads_per_s: float = 0.0
    ) -> Counter[str]:
        """Sends small requests at a steady rate and counts how they ended, by kind and reason."""
        pending = []
        end = self.clock.now() + seconds
        due = {"put": writes_per_s, "get": reads_per_s}
        sent = dict.fromkeys(due, 0)
        start = self.clock.now()
        while self.clock.now() < end:
            for kind, rate in due.items():
                while sent[kind] < rate * (self.clock.now() - start):
                    sent[kind] += 1
                    artist = f"artist {sent[kind]}"
                    call = self.start_put(artist) if kind == "put" else self.start_get(artist)
                    pending.append((kind, call))
            self.clock.run_for(0.01)
        self.clock.run_for(0.05)
        return ends(pending)


def ends(pending: Sequence[tuple[str, Pending]]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for kind, call in pending:
        assert call.reply is not None
        error = call.reply.error
        counts[f"{kind} {'OK' if error is None else error.metadata['reason']}"] += 1
    return counts


REFUSED_WRITES = "put TableWriteProvisionedThroughputExceeded"
REFUSED_READS = "get TableReadProvisionedThroughputExceeded"


def test_a_burst_lasts_as_long_as_what_was_saved_and_then_the_rate_is_all() -> None:
    world = Provisioned(saved_s=10.0)
    # 11 seconds of 100 saved up, of which 50 a second go: it lasts 22 s.
    saved = 100 * 11.0
    before = world.load(20, writes_per_s=150)
    assert before == {"put OK": pytest.approx(3000, abs=2)}
    world.load(10, writes_per_s=150)
    after = world.load(20, writes_per_s=150)
    assert after["put OK"] == pytest.approx(100 * 20, rel=0.05)
    assert after[REFUSED_WRITES] == pytest.approx(50 * 20, rel=0.1)
    assert saved / 50 == 22


def test_all_that_is_let_in_is_what_there_was() -> None:
    world = Provisioned(saved_s=10.0)
    counts = world.load(40, writes_per_s=300)
    assert counts["put OK"] == pytest.approx(100 * (11 + 40), rel=0.03)


def test_reads_leave_writes_alone_and_the_reverse() -> None:
    world = Provisioned(saved_s=1.0)
    counts = world.load(20, writes_per_s=80, reads_per_s=1000)
    assert REFUSED_WRITES not in counts
    assert counts[REFUSED_READS] > 5_000
    world = Provisioned(saved_s=1.0)
    counts = world.load(20, writes_per_s=500, reads_per_s=300)
    assert REFUSED_READS not in counts
    assert counts[REFUSED_WRITES] > 5_000


def test_a_refusal_says_what_to_do_and_when() -> None:
    world = Provisioned(saved_s=0.0)
    world.load(10, writes_per_s=500)
    calls = [world.start_put("x") for _ in range(200)]
    world.clock.run_for(0.1)
    errors = [call.reply.error for call in calls if call.reply is not None and call.reply.error]
    error = errors[0]
    assert error.reason is Reason.THROTTLED
    assert error.metadata["resource"].endswith("table/music")
    assert "100 write units" in error.message
    assert "keyplane table update" in error.message
    assert error.retry_after_s == 0.1


def test_two_routers_share_by_use_and_never_use_more_in_all() -> None:
    """The second one is its own router: another life with other grants."""
    world = Provisioned(saved_s=0.0)
    world.load(3, writes_per_s=300)
    # A router that is killed and started again does not bring its table a second helping.
    world.start_router(boot_s=0.0)
    world.clock.run_for(0.5)
    counts = world.load(20, writes_per_s=300)
    assert counts["put OK"] == pytest.approx(100 * 20, rel=0.25)


def test_without_a_granter_everything_is_let_in_and_with_one_again_it_is_not() -> None:
    world = Provisioned(saved_s=0.0)
    world.load(5, writes_per_s=300)
    world.granter.kill()
    # The last grant stands until it ends.
    world.clock.run_for(3.0)
    counts = world.load(60, writes_per_s=300)
    assert counts == {"put OK": pytest.approx(18_000, abs=5)}
    world.start_granter()
    # Nobody pays for what was used meanwhile, but for the moment in which the granter is found.
    world.load(3, writes_per_s=300)
    counts = world.load(20, writes_per_s=300)
    assert counts["put OK"] == pytest.approx(100 * 20, rel=0.05)


def test_the_first_requests_wait_for_nobody() -> None:
    world = Provisioned(saved_s=0.0)
    world.put("artist 1")
    world.clock.run_for(10.0)
    world.granter.kill()
    began = world.clock.now()
    world.put("artist 1")
    assert world.clock.now() - began < 0.1


def test_what_a_partition_refuses_costs_the_table_nothing() -> None:
    world = Provisioned(saved_s=0.0)
    refusal = throttled(Limit.KEY_RANGE, True, "music", "too much for one partition", 0.1)
    for node in world.nodes.values():
        node.faults = [Fault(refusal)] * 10_000
    counts = world.load(5, writes_per_s=1_000)
    assert set(counts) == {"put TableWriteKeyRangeThroughputExceeded"}


def test_large_items_cost_what_they_weigh() -> None:
    world = Provisioned(saved_s=0.0)
    pending = []
    for number in range(1_000):
        pending.append(("put", world.start_put(f"artist {number % 7}", notes="x" * 10_000)))
        world.clock.run_for(0.02)
    counts = ends(pending)
    # 10 units each; a second's worth was saved up.
    assert counts["put OK"] == pytest.approx((20 + 1) * 10, rel=0.06)


def test_batches_come_back_whole_or_not() -> None:
    world = Provisioned(saved_s=0.0)
    world.load(5, writes_per_s=500)
    writes = [data.WriteRequest(put=to_item({"artist": f"a{n}"})) for n in range(25)]
    request = data.BatchWriteItemRequest(requests={"music": data.TableWrites(writes=writes)})
    failed = 0
    for _ in range(200):
        try:
            world.call(DATA + "BatchWriteItem", request, data.BatchWriteItemResponse).wait()
        except KeyplaneError as error:
            assert error.reason is Reason.THROTTLED
            failed += 1
        world.clock.run_for(0.01)
    assert failed


def test_an_update_changes_the_rate_and_another_mode_ends_it() -> None:
    world = Provisioned(saved_s=0.0)
    world.load(5, writes_per_s=300)
    world.set_table(catalog.CAPACITY_MODE_PROVISIONED, READS, 200, version=3)
    world.clock.run_for(2)
    world.load(5, writes_per_s=500)
    counts = world.load(10, writes_per_s=500)
    assert counts["put OK"] == pytest.approx(200 * 10, rel=0.05)
    world.set_table(catalog.CAPACITY_MODE_UNLIMITED, 0, 0, version=4)
    world.clock.run_for(2)
    assert set(world.load(5, writes_per_s=500)) == {"put OK"}


def test_a_granter_that_answers_nonsense_changes_nothing() -> None:
    world = Provisioned(saved_s=0.0)
    world.granter.kill()
    process = MemoryProcess(world.network, GRANTER)
    process.server.register(
        "/keyplane.granter.v1.GranterService/Refill",
        lambda request, reply: reply(Reply(b"\x0a\x00\x0a\x00")),
    )
    assert set(world.load(5, writes_per_s=300)) == {"put OK"}
    assert world.counter("router_refills").value("INTERNAL") > 0


def test_an_idle_table_is_not_asked_for() -> None:
    world = Provisioned(saved_s=0.0)
    world.load(2, writes_per_s=10)
    world.clock.run_for(10)
    asked = world.counter("router_refills").value("OK")
    world.clock.run_for(60)
    assert world.counter("router_refills").value("OK") == asked


class OnDemand(Provisioned):
    """The table `music` is on-demand, new, and may double its peak every half minute."""

    def __init__(self, on_demand: catalog.OnDemandThroughput | None = None) -> None:
        super().__init__(
            granting=GranterConfig(doubling_s=30, warm_read_units=300, warm_write_units=100)
        )
        self.set_table(catalog.CAPACITY_MODE_ON_DEMAND, 0, 0, 3, on_demand)
        self.clock.run_for(2)


def test_an_on_demand_table_does_twice_its_peak_and_no_more() -> None:
    world = OnDemand()
    world.load(3, writes_per_s=300)
    counts = world.load(20, writes_per_s=300)
    assert counts["put OK"] == pytest.approx(100 * 20, rel=0.05)
    assert set(counts) == {"put OK", "put TableWriteKeyRangeThroughputExceeded"}


def test_an_on_demand_table_takes_the_double_of_a_peak_at_once() -> None:
    world = OnDemand()
    world.load(10, writes_per_s=90)
    world.clock.run_for(35)
    assert set(world.load(10, writes_per_s=175)) == {"put OK"}
    world.load(3, writes_per_s=600)
    assert world.load(10, writes_per_s=600)["put OK"] == pytest.approx(180 * 10, rel=0.05)


def test_a_new_granter_is_told_of_the_peak_by_routers() -> None:
    world = OnDemand()
    world.load(10, writes_per_s=90)
    world.clock.run_for(35)
    world.load(2, writes_per_s=90)
    world.granter.kill()
    world.clock.run_for(10)
    world.start_granter()
    world.load(3, writes_per_s=600)
    assert world.load(10, writes_per_s=600)["put OK"] == pytest.approx(180 * 10, rel=0.05)


@pytest.mark.parametrize(
    ("most", "reason", "says"),
    [
        (50, "MaxOnDemandThroughput", ("its 50 write units", "--max-write-units")),
        (0, "KeyRangeThroughput", ("its 100 write units", "--warm-write-units")),
        (40_000, "KeyRangeThroughput", ("its 100 write units", "--warm-write-units")),
    ],
)
def test_callers_are_told_which_limit_of_an_on_demand_table_binds(
    most: int, reason: str, says: Sequence[str]
) -> None:
    world = OnDemand(catalog.OnDemandThroughput(max_write_units=most))
    world.load(3, writes_per_s=500)
    calls = [world.start_put("x") for _ in range(200)]
    world.clock.run_for(0.1)
    errors = [call.reply.error for call in calls if call.reply is not None and call.reply.error]
    assert errors[0].metadata["reason"] == f"TableWrite{reason}Exceeded"
    for words in says:
        assert words in errors[0].message


def test_the_quota_of_a_table_is_told_as_one_of_the_account() -> None:
    limits = TableLimits(
        catalog.Table(name="music", capacity_mode=catalog.CAPACITY_MODE_ON_DEMAND), lambda _: None
    )
    limits.reads.grow(40_000, 20_000)
    limits.reads.asked = True
    limits.reads.grant(0.0, until=10.0)
    refusal = limits.admit(False, 5.0, 1.0)
    assert refusal is not None
    assert refusal.metadata["reason"] == "TableReadAccountLimitExceeded"
    assert "40,000 read units" in refusal.message
