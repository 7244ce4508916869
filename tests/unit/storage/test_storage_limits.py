"""Limits of one partition: what is admitted over time, by arithmetic, and what splits leave."""

from __future__ import annotations

from typing import Any

import pytest
from storage_world import MIDDLE, TABLE, StorageWorld, item, item_key, reason_of, token

from keyplane.catalog.v1 import catalog_pb2 as catalog
from keyplane.data.v1 import data_pb2 as data
from keyplane.model.errors import Reason
from keyplane.model.limits import PARTITION_READ_UNITS, PARTITION_WRITE_UNITS
from keyplane.storage.v1 import storage_pb2 as pb
from wire.ports import Reply

# 100 units to write, 25 to read consistently.
LARGE = "x" * (100 * 1024 - 60)


def table(mode: catalog.CapacityMode.ValueType) -> catalog.Table:
    found = catalog.Table()
    found.CopyFrom(TABLE)
    found.capacity_mode = mode
    return found


@pytest.fixture
def world() -> StorageWorld:
    world = StorageWorld()
    world.start("s1")
    world.open("s1", table=table(catalog.CAPACITY_MODE_ON_DEMAND))
    return world


class Load:
    """Requests at a rate, for a while. admitted, refused: how many, in the order of their end."""

    def __init__(self, world: StorageWorld) -> None:
        self._world = world
        self.admitted = 0
        self.refused: list[Any] = []

    def run(self, per_s: float, seconds: float, where: tuple[int, int] = (1, 1), **op: Any) -> Load:
        request = pb.ExecuteRequest(partition_id=where[0], epoch=where[1], **op)
        for _ in range(round(per_s * seconds)):
            self._world.send("s1", "Execute", request, self._done)
            self._world.run_for(1 / per_s)
        return self

    def _done(self, reply: Reply) -> None:
        if reply.error is None:
            self.admitted += 1
        else:
            self.refused.append(reply.error)


def put(id: str = "alice", value: str = LARGE) -> pb.WriteOp:
    return pb.WriteOp(key=item_key(id), put=item(id, value))


def get(id: str = "alice") -> pb.GetOp:
    return pb.GetOp(key=item_key(id))


def test_writes_are_admitted_up_to_the_limit_of_a_partition(world: StorageWorld) -> None:
    """Twice what is allowed, for 20 s: one second's worth at once, and then the rate."""
    load = Load(world).run(20, 20, write=put())
    allowed = PARTITION_WRITE_UNITS * (1 + 20) / 100
    assert load.admitted == pytest.approx(allowed, rel=0.05)
    for error in load.refused:
        assert error.reason is Reason.THROTTLED
        assert error.metadata["reason"] == "TableWriteKeyRangeThroughputExceeded"
        assert 0 < error.retry_after_s <= 0.2
    assert "partition 1 of 'users'" in load.refused[0].message
    # Made once for each wait that they tell, in steps of 5 ms.
    assert len({id(error) for error in load.refused}) <= 20 < len(load.refused)


@pytest.mark.parametrize(("consistent", "units"), [(True, 25), (False, 12.5)])
def test_reads_are_admitted_up_to_the_limit_of_a_partition(
    world: StorageWorld, consistent: bool, units: float
) -> None:
    Load(world).run(1, 1, write=put())
    load = Load(world).run(400, 5, get=get(), consistent=consistent)
    assert load.admitted == pytest.approx(PARTITION_READ_UNITS * (1 + 5) / units, rel=0.05)
    assert load.refused[0].metadata["reason"] == "TableReadKeyRangeThroughputExceeded"


def test_reads_and_writes_do_not_touch_each_others_limits(world: StorageWorld) -> None:
    Load(world).run(100, 2, write=put())
    assert not Load(world).run(100, 1, get=get(), consistent=True).refused
    Load(world).run(400, 2, get=get(), consistent=True)
    assert not Load(world).run(5, 1, write=put()).refused


def test_what_is_not_used_is_there_for_a_second_and_no_longer(world: StorageWorld) -> None:
    Load(world).run(20, 5, write=put())
    world.run_for(60)
    assert Load(world).run(1000, 0.05, write=put()).admitted == 11


def test_misses_deletions_and_failed_conditions_cost_too(world: StorageWorld) -> None:
    assert Load(world).run(20_000, 0.2, get=get("nobody")).refused == []
    load = Load(world).run(20_000, 0.2, get=get("nobody"), consistent=True)
    assert len(load.refused) == pytest.approx(4_000 - (3_000 - 2_000 + 1_200), rel=0.05)
    gone = pb.WriteOp(key=item_key("nobody"), delete=True)
    assert Load(world).run(10_000, 0.2, write=gone).admitted == pytest.approx(1_200, rel=0.05)
    world.run_for(1)
    never = put()
    never.condition.CopyFrom(data.Condition(exists=True))
    refused = Load(world).run(1_000, 0.02, write=never).refused
    assert [error.reason for error in refused[:10]] == [Reason.CONDITION_FAILED] * 10
    assert refused[-1].reason is Reason.THROTTLED


def test_replacing_a_large_item_costs_as_much_as_the_large_one(world: StorageWorld) -> None:
    world.put("s1", (1, 1), "alice", LARGE)
    world.run_for(5)
    limits = world.node("s1").state.shards[1].limits
    assert limits is not None
    limits.writes.fill(world.clock.now())
    before = limits.writes.level
    world.put("s1", (1, 1), "alice", "small")
    assert before - limits.writes.level == pytest.approx(100, abs=2)


def test_batches_and_pages_cost_what_is_in_them(world: StorageWorld) -> None:
    for at in range(4):
        world.put("s1", (1, 1), "alice", "x" * 6000, at=str(at))
    limits = world.node("s1").state.shards[1].limits
    assert limits is not None
    key = item_key("alice")

    def cost(**op: Any) -> float:
        world.run_for(5)
        limits.reads.fill(world.clock.now())
        before = limits.reads.level
        world.execute("s1", 1, 1, **op)
        return before - limits.reads.level

    keys = [item_key("alice", str(at)) for at in range(4)] + [item_key("nobody")]
    query = pb.QueryOp(hash=key.hash, to=item_key("alice", "9").encoded)
    assert cost(batch_get=pb.BatchGetOp(keys=keys), consistent=True) == pytest.approx(9, abs=1)
    assert cost(batch_get=pb.BatchGetOp(keys=keys)) == pytest.approx(4.5, abs=1)
    assert cost(query=query, consistent=True) == pytest.approx(6, abs=1)
    assert cost(scan=pb.ScanOp()) == pytest.approx(3, abs=1)


def test_nothing_is_done_of_what_is_refused(world: StorageWorld) -> None:
    Load(world).run(1000, 0.05, write=put())
    error = reason_of(lambda: world.put("s1", (1, 1), "bob", "never", token=token(1)))
    assert error.reason is Reason.THROTTLED
    assert world.get("s1", (1, 1), "bob") is None
    world.run_for(2)
    world.put("s1", (1, 1), "bob", "now", token=token(1))
    assert world.get("s1", (1, 1), "bob") == "now"


def test_a_tables_mode_is_taken_over_while_it_is_used(world: StorageWorld) -> None:
    request = pb.UpdateTableRequest(table=table(catalog.CAPACITY_MODE_UNLIMITED))
    world.call("s1", "UpdateTable", request)
    assert not Load(world).run(1000, 0.1, write=put()).refused
    world.kill("s1")
    world.start("s1")
    assert not Load(world).run(1000, 0.1, write=put()).refused
    request.table.capacity_mode = catalog.CAPACITY_MODE_ON_DEMAND
    world.call("s1", "UpdateTable", request)
    assert Load(world).run(1000, 0.1, write=put()).refused
    world.kill("s1")
    world.start("s1")
    assert Load(world).run(1000, 0.1, write=put()).refused


def test_telling_the_same_mode_again_gives_nothing_back(world: StorageWorld) -> None:
    Load(world).run(1000, 0.05, write=put())
    request = pb.UpdateTableRequest(table=table(catalog.CAPACITY_MODE_ON_DEMAND))
    world.call("s1", "UpdateTable", request)
    assert reason_of(lambda: world.put("s1", (1, 1), "bob", "x")).reason is Reason.THROTTLED


def test_children_of_a_split_share_what_was_left_by_their_load(world: StorageWorld) -> None:
    """And what they may do from then on is a whole partition's each."""
    names = [f"user-{number}" for number in range(200)]
    left = [name for name in names if item_key(name).hash < MIDDLE]
    right = [name for name in names if item_key(name).hash >= MIDDLE]
    for _ in range(40):
        for name in (*left[:30], *right[:10]):
            world.get("s1", (1, 1), name)
    parent = world.node("s1").state.shards[1].limits
    assert parent is not None
    world.run_for(2)
    parent.reads.fill(world.clock.now())
    parent.reads.take(1000)
    world.split("s1", (1, 1), MIDDLE, 2, 3)
    limits = [world.node("s1").state.shards[number].limits for number in (2, 3)]
    levels = [each.reads.level for each in limits if each is not None]
    assert sum(levels) == pytest.approx(2000, abs=20)
    assert levels[0] == pytest.approx(1500, rel=0.1)
    world.run_for(2)
    for each in limits:
        assert each is not None
        each.reads.fill(world.clock.now())
        assert each.reads.level == PARTITION_READ_UNITS


def test_a_debt_is_not_lost_by_splitting_and_merging(world: StorageWorld) -> None:
    parent = world.node("s1").state.shards[1].limits
    assert parent is not None
    parent.writes.take(5000)
    world.split("s1", (1, 1), MIDDLE, 2, 3)
    children = [world.node("s1").state.shards[number].limits for number in (2, 3)]
    levels = [each.writes.level for each in children if each is not None]
    assert levels == pytest.approx([-2000, -2000], abs=20)
    merge = pb.MergePartitionsRequest(
        operation_id="merge", left_id=2, left_epoch=2, right_id=3, right_epoch=2, merged_id=4
    )
    world.call("s1", "MergePartitions", merge)
    merged = world.node("s1").state.shards[4].limits
    assert merged is not None
    assert merged.writes.level == pytest.approx(-4000, abs=20)
