"""What a node tells others about itself: routers, the Metadata Store, MemDS, and split advice."""

from __future__ import annotations

import random

import pytest
from storage_world import MIDDLE, TABLE, StorageWorld, item_key, reason_of

from cache import memds_keys
from cache.envelope import Kind, open_sealed
from cache.memory import MemoryMemdsNode
from cache.pages import decode_page
from keyplane.catalog.v1 import catalog_pb2 as catalog
from keyplane.metadata.v1 import metadata_pb2 as metadata
from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.partition import KEYSPACE_END
from keyplane.storage.v1 import storage_pb2 as pb
from storage.heat import RESERVOIR_SIZE, WINDOW_SIZE, WINDOWS_MAX, Heat
from storage.suggest import heat_cut
from wire.ports import Reply, ReplyFn, Request


@pytest.fixture
def world() -> StorageWorld:
    world = StorageWorld()
    world.start("s1")
    world.open("s1")
    return world


def suggest(
    world: StorageWorld,
    where: tuple[int, int] = (1, 1),
    purpose: pb.SplitPurpose.ValueType = pb.SPLIT_PURPOSE_UNSPECIFIED,
) -> pb.SuggestSplitResponse:
    request = pb.SuggestSplitRequest(partition_id=where[0], epoch=where[1], purpose=purpose)
    return world.call("s1", "SuggestSplit", request)


def test_a_node_describes_what_it_serves_and_where_the_rest_went(world: StorageWorld) -> None:
    world.start("s2")
    world.split("s1", (1, 1), MIDDLE, 2, 3)
    world.move("s1", (3, 2), "s2")
    world.run_until(lambda: world.move("s1", (3, 2), "s2").phase == pb.MOVE_PHASE_DONE)
    for table in ("", "users"):
        request = pb.DescribePartitionsRequest(table=table)
        described = world.call("s1", "DescribePartitions", request)
        assert described.node.address == "s1:1"
        assert [each.name for each in described.tables] == ["users"]
        assert [each.partition_id for each in described.partitions] == [2]
        assert [(each.partition_id, each.epoch) for each in described.forwarded] == [(3, 3)]
        assert [each.address for each in described.forwarded_nodes] == ["s2:1"]
    unknown = world.call("s1", "DescribePartitions", pb.DescribePartitionsRequest(table="other"))
    assert not unknown.partitions
    assert not unknown.tables


# --- Split advice ------------------------------------------------------------------------------


def test_an_empty_partition_is_halved_by_range(world: StorageWorld) -> None:
    assert suggest(world) == pb.SuggestSplitResponse(split_hash=MIDDLE, basis="RANGE")


def test_a_quiet_partition_is_halved_by_items(world: StorageWorld) -> None:
    names = [f"user-{number}" for number in range(60)]
    for name in names:
        world.put("s1", (1, 1), name, name)
    world.kill("s1")
    world.start("s1")
    advice = suggest(world)
    assert advice.basis == "ITEMS"
    below = sum(item_key(name).hash < advice.split_hash for name in names)
    assert below == 30


def test_a_busy_partition_is_halved_by_load(world: StorageWorld) -> None:
    """Nine in ten requests go to a tenth of the hashes; the cut lies among those."""
    names = sorted((f"user-{number}" for number in range(100)), key=lambda n: item_key(n).hash)
    rng = random.Random(3)
    for _ in range(1_000):
        name = rng.choice(names[:10]) if rng.random() < 0.9 else rng.choice(names)
        world.get("s1", (1, 1), name)
    advice = suggest(world)
    assert advice.basis == "LOAD"
    assert item_key(names[2]).hash < advice.split_hash <= item_key(names[9]).hash


def test_one_hot_key_is_no_reason_to_cut_anywhere(world: StorageWorld) -> None:
    for _ in range(300):
        world.get("s1", (1, 1), "celebrity")
    assert suggest(world).basis == "RANGE"


def test_a_single_hash_cannot_be_split(world: StorageWorld) -> None:
    world.split("s1", (1, 1), KEYSPACE_END - 1, 2, 3)
    error = reason_of(lambda: suggest(world, (3, 2)))
    assert error.reason is Reason.SPLIT_KEY_OUTSIDE_RANGE


def test_load_that_is_spread_can_be_halved_for_heat(world: StorageWorld) -> None:
    rng = random.Random(5)
    for _ in range(2_000):
        world.get("s1", (1, 1), f"user-{rng.randrange(1_000)}")
    advice = suggest(world, purpose=pb.SPLIT_PURPOSE_HEAT)
    assert advice.basis == "LOAD"
    assert 0.4 < advice.split_hash / KEYSPACE_END < 0.6


def test_a_split_for_heat_is_refused_where_one_key_has_the_load(world: StorageWorld) -> None:
    """Also when nine in ten requests are for it, and the rest is spread."""
    rng = random.Random(6)
    for _ in range(2_000):
        name = "celebrity" if rng.random() < 0.9 else f"user-{rng.randrange(1_000)}"
        world.get("s1", (1, 1), name)
    error = reason_of(lambda: suggest(world, purpose=pb.SPLIT_PURPOSE_HEAT))
    assert error.reason is Reason.SPLIT_WOULD_NOT_HELP
    assert f"{item_key('celebrity').hash:#018x}" in error.message


def test_a_split_for_heat_is_refused_without_load(world: StorageWorld) -> None:
    error = reason_of(lambda: suggest(world, purpose=pb.SPLIT_PURPOSE_HEAT))
    assert error.reason is Reason.LOAD_UNKNOWN
    assert "0 requests were sampled" in error.message


def test_a_split_for_heat_is_refused_where_the_load_moves_through_the_range() -> None:
    """Each beat's load could be halved, but nowhere for long: a sweep."""
    heat, standing = Heat(random.Random(7)), Heat(random.Random(7))
    rng = random.Random(8)
    for beat in range(12):
        for _ in range(400):
            heat.read((beat << 20) + rng.randrange(1 << 20))
            standing.read(rng.randrange(12 << 20))
        heat.beat(1.0)
        standing.beat(1.0)
    with pytest.raises(KeyplaneError, match="moves through the range") as raised:
        heat_cut(heat)
    assert raised.value.reason is Reason.SPLIT_WOULD_NOT_HELP
    assert heat_cut(standing) == pytest.approx(6 << 20, rel=0.15)


def test_a_hot_key_among_others_is_cut_off_from_half_of_them() -> None:
    """Two in five requests for one key still leave a cut that helps, on either side of it."""
    heat = Heat(random.Random(9))
    rng = random.Random(10)
    for _ in range(5):
        for _ in range(2_000):
            heat.write(500 if rng.random() < 0.4 else rng.randrange(1_000))
        heat.beat(1.0)
    assert heat_cut(heat) == pytest.approx(500, abs=15)


def test_the_windows_are_bounded_however_many_keys_there_are() -> None:
    heat = Heat(random.Random(11))
    for beat in range(40):
        for number in range(3_000):
            heat.read(beat * 3_000 + number)
        heat.beat(1.0)
    assert len(heat.windows) == WINDOWS_MAX
    assert max(map(len, heat.windows)) == WINDOW_SIZE
    assert min(map(min, heat.windows)) >= (40 - WINDOWS_MAX) * 3_000


def test_a_split_for_size_halves_the_bytes(world: StorageWorld) -> None:
    """One item of a hundred is larger than all others together."""
    names = sorted((f"user-{number}" for number in range(100)), key=lambda n: item_key(n).hash)
    for name in names:
        world.put("s1", (1, 1), name, "x" * (40_000 if name == names[10] else 200))
    advice = suggest(world, purpose=pb.SPLIT_PURPOSE_SIZE)
    assert advice.basis == "ITEMS"
    assert advice.split_hash == item_key(names[11]).hash


def test_a_split_for_size_is_refused_where_one_partition_key_has_it_all(
    world: StorageWorld,
) -> None:
    for number in range(10):
        world.put("s1", (1, 1), f"user-{number}", "x" * (50_000 if number == 4 else 10))
    error = reason_of(lambda: suggest(world, purpose=pb.SPLIT_PURPOSE_SIZE))
    assert error.reason is Reason.SPLIT_WOULD_NOT_HELP
    assert "one partition key" in error.message


def test_of_few_requests_all_are_sampled_and_of_many_enough() -> None:
    """Large items are hot with ten requests a second; those say where the load is, too."""
    for requests, samples in ((10, 10), (100, 60), (1_000, 100), (20_000, 400)):
        heat = Heat(random.Random(12))
        for _ in range(8):
            for number in range(requests):
                heat.read(number)
            heat.beat(1.0)
        heat.samples.clear()
        for number in range(requests):
            heat.read(number)
        assert len(heat.samples) >= min(samples, RESERVOIR_SIZE)


def test_the_reservoir_forgets_the_past() -> None:
    heat = Heat(random.Random(1))
    for _ in range(5_000):
        heat.read(1)
    for _ in range(20_000):
        heat.write(2)
    assert len(heat.samples) == RESERVOIR_SIZE
    assert heat.samples.count(2) > 0.9 * RESERVOIR_SIZE


def test_rates_follow_the_load_and_children_share_them() -> None:
    heat = Heat(random.Random(1))
    for _ in range(20):
        for _ in range(100):
            for key_hash in (1, 2, 3, 10):
                heat.read(key_hash)
        heat.beat(200.0)
    assert heat.reads_per_s == pytest.approx(2.0, rel=0.01)
    child = Heat(random.Random(1))
    assert child.inherit(heat, 0, 5, otherwise=0.5) == pytest.approx(0.75, rel=0.1)
    assert child.reads_per_s == pytest.approx(0.75 * heat.reads_per_s, rel=0.1)
    assert set(child.samples) == {1, 2, 3}


# --- The Metadata Store ------------------------------------------------------------------------


class Registry:
    """A Metadata Store's two methods for nodes, as they are called."""

    def __init__(self, world: StorageWorld) -> None:
        self.known: set[str] = set()
        self.registered: list[catalog.Node] = []
        self.beats: list[metadata.HeartbeatRequest] = []
        self.failing = False
        server = world.network.server("meta:1")
        service = "/keyplane.metadata.v1.MetadataService"
        server.register(f"{service}/RegisterNode", self._register)
        server.register(f"{service}/Heartbeat", self._beat)

    def _register(self, request: Request, reply: ReplyFn) -> None:
        node = metadata.RegisterNodeRequest.FromString(request.payload).node
        self.registered.append(node)
        self.known.add(node.node_id)
        reply(Reply(metadata.RegisterNodeResponse().SerializeToString()))

    def _beat(self, request: Request, reply: ReplyFn) -> None:
        if self.failing:
            reply(Reply(error=KeyplaneError(Reason.DATABASE_ERROR, "no disk")))
            return
        beat = metadata.HeartbeatRequest.FromString(request.payload)
        self.beats.append(beat)
        response = metadata.HeartbeatResponse(known=beat.node_id in self.known)
        reply(Reply(response.SerializeToString()))


def test_a_node_registers_beats_and_registers_again_when_it_is_not_known() -> None:
    world = StorageWorld()
    registry = Registry(world)
    world.start("s1", metadata_address="meta:1", zone="a")
    world.open("s1")
    for number in range(10):
        world.put("s1", (1, 1), f"user-{number}", "x")
    world.run_for(3)
    assert [(node.node_id, node.address, node.zone) for node in registry.registered] == [
        ("s1", "s1:1", "a")
    ]
    load = registry.beats[-1].loads[0]
    assert (load.partition_id, load.item_count) == (1, 10)
    assert load.writes_per_second > 0
    assert load.bytes > 0
    registry.failing = True
    world.run_for(3)
    registry.failing = False
    registry.known.clear()
    world.run_for(3)
    assert len(registry.registered) == 2


def test_without_a_metadata_store_everything_goes_on() -> None:
    """I6: nothing on the data path waits for it, whether it is dead or was never there."""
    world = StorageWorld()
    world.start("s1", metadata_address="meta:1")
    world.open("s1")
    world.run_for(60)
    began = world.clock.now()
    world.put("s1", (1, 1), "alice", "a")
    assert world.clock.now() - began < 0.01


def test_a_beat_names_the_busiest_partitions_and_in_time_all_others() -> None:
    world = StorageWorld()
    registry = Registry(world)
    world.start("s1", metadata_address="meta:1", heartbeat_loads_max=4)
    partitions = world.open("s1", 12)
    for _ in range(12):
        home = next(each for each in partitions if each.covers(item_key("hot").hash))
        for _ in range(5):
            world.get("s1", (home.partition_id, 1), "hot")
        world.run_for(1)
    beats = registry.beats[2:]
    assert all(len(beat.loads) == 4 for beat in beats)
    assert all(home.partition_id in [load.partition_id for load in beat.loads] for beat in beats)
    named = {load.partition_id for beat in beats for load in beat.loads}
    assert named == set(range(1, 13))


# --- MemDS -------------------------------------------------------------------------------------


def read_report(memds: MemoryMemdsNode) -> tuple[catalog.NodeReport, list[int]]:
    """The report of s1, and the ids of the partitions in its pages."""
    value = memds.values[memds_keys.report("test", "s1")]
    report = catalog.NodeReport.FromString(open_sealed(Kind.REPORT, value))
    ids = [
        partition.partition_id
        for table in report.tables
        for digest in table.page_digests
        for partition in decode_page(
            memds.values[memds_keys.page("test", digest)], digest
        ).partitions()
    ]
    return report, ids


def test_a_node_keeps_its_report_in_memds_and_the_sequence_rises_over_restarts() -> None:
    world = StorageWorld()
    memds = MemoryMemdsNode(world.clock, "m1", memds_keys.marker("test"))
    world.memds = [memds]
    world.start("s1")
    world.open("s1")
    world.run_for(2)
    first, ids = read_report(memds)
    assert ids == [1]
    assert first.node.address == "s1:1"
    assert first.tables[0].table.name == TABLE.name
    world.split("s1", (1, 1), MIDDLE, 2, 3)
    world.run_for(2)
    second, ids = read_report(memds)
    assert ids == [2, 3]
    assert second.sequence > first.sequence
    world.kill("s1")
    world.start("s1")
    world.run_for(3)
    third, ids = read_report(memds)
    assert ids == [2, 3]
    assert third.sequence > second.sequence
