"""Opening, splitting, merging and dropping on one node, and what a restart finds."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from storage_world import MIDDLE, TABLE, StorageWorld, item_key, reason_of

from keyplane.catalog.v1 import catalog_pb2 as catalog
from keyplane.model.errors import Reason
from keyplane.model.partition import KEYSPACE_END, Partition
from keyplane.route.v1.route_pb2 import RouteHint
from keyplane.storage.v1 import storage_pb2 as pb
from wire.ports import EngineError

NAMES = [f"user-{number}" for number in range(40)]


@pytest.fixture
def world() -> StorageWorld:
    world = StorageWorld()
    world.start("s1")
    world.open("s1")
    for name in NAMES:
        world.put("s1", (1, 1), name, name)
    return world


def merge(world: StorageWorld, left: tuple[int, int], right: tuple[int, int], merged: int) -> None:
    request = pb.MergePartitionsRequest(
        operation_id="merge",
        left_id=left[0],
        left_epoch=left[1],
        right_id=right[0],
        right_epoch=right[1],
        merged_id=merged,
    )
    world.call("s1", "MergePartitions", request)


def home(name: str, left: int, right: int) -> int:
    return left if item_key(name).hash < MIDDLE else right


def test_a_split_leaves_every_item_where_it_is(world: StorageWorld) -> None:
    items = world.members["s1"].node.state.engine.scan(b"\x02", b"\x03")
    before = list(items)
    left, right = world.split("s1", (1, 1), MIDDLE, 2, 3)
    assert (left.start, left.end, right.start, right.end) == (0, MIDDLE, MIDDLE, KEYSPACE_END)
    assert left.epoch == right.epoch == 2
    assert list(world.members["s1"].engine.scan(b"\x02", b"\x03")) == before
    for name in NAMES:
        assert world.get("s1", (home(name, 2, 3), 2), name) == name


def test_who_asks_for_the_parent_is_told_of_both_children(world: StorageWorld) -> None:
    world.split("s1", (1, 1), MIDDLE, 2, 3)
    hint = reason_of(lambda: world.get("s1", (1, 1), "user-1")).detail(RouteHint)
    assert hint is not None
    assert [(each.partition_id, each.epoch) for each in hint.partitions] == [(2, 2), (3, 2)]


def test_hints_follow_successors_to_the_end(world: StorageWorld) -> None:
    """Split twice and merged once since: the hint still covers the first partition's range."""
    world.split("s1", (1, 1), MIDDLE, 2, 3)
    world.split("s1", (2, 2), MIDDLE // 2, 4, 5, "split-2")
    merge(world, (5, 3), (3, 2), 6)
    hint = reason_of(lambda: world.get("s1", (1, 1), "user-1")).detail(RouteHint)
    assert hint is not None
    tiles = sorted(
        {Partition.from_proto(each) for each in hint.partitions}, key=lambda each: each.start
    )
    assert [(each.partition_id, each.epoch) for each in tiles] == [(4, 3), (6, 4)]
    assert (tiles[0].start, tiles[0].end, tiles[1].end) == (0, tiles[1].start, KEYSPACE_END)


def test_a_repeated_split_is_answered_and_not_done_again(world: StorageWorld) -> None:
    first = world.split("s1", (1, 1), MIDDLE, 2, 3)
    assert world.split("s1", (1, 1), MIDDLE, 2, 3) == first
    world.kill("s1")
    world.start("s1")
    assert world.split("s1", (1, 1), MIDDLE, 2, 3) == first
    another = reason_of(lambda: world.split("s1", (1, 1), MIDDLE, 4, 5, "another"))
    assert another.reason is Reason.PARTITION_NOT_FOUND


def test_a_merge_makes_one_partition_of_two(world: StorageWorld) -> None:
    world.split("s1", (1, 1), MIDDLE, 2, 3)
    last = max(world.put("s1", (home(name, 2, 3), 2), name, name).version for name in NAMES)
    for _ in range(2):
        merge(world, (2, 2), (3, 2), 4)
    for name in NAMES:
        assert world.get("s1", (4, 3), name) == name
    assert world.put("s1", (4, 3), "user-1", "x").version > last


def test_bad_changes_are_refused_and_change_nothing(world: StorageWorld) -> None:
    def reason(action: Callable[[], object]) -> Reason:
        return reason_of(action).reason

    assert reason(lambda: world.split("s1", (1, 1), 0, 2, 3)) is Reason.SPLIT_KEY_OUTSIDE_RANGE
    assert reason(lambda: world.split("s1", (1, 2), MIDDLE, 2, 3)) is Reason.STALE_ROUTE
    assert reason(lambda: world.split("s1", (8, 1), MIDDLE, 2, 3)) is Reason.PARTITION_NOT_FOUND
    assert reason(lambda: world.split("s1", (1, 1), MIDDLE, 1, 3)) is Reason.ILLEGAL_TRANSITION
    world.split("s1", (1, 1), MIDDLE, 2, 3)
    assert reason(lambda: merge(world, (3, 2), (2, 2), 4)) is Reason.NOT_NEIGHBOURS
    assert reason(lambda: merge(world, (2, 2), (9, 2), 4)) is Reason.PARTITION_NOT_FOUND
    assert [each.partition_id for _, each in world.served()] == [2, 3]


def test_children_know_their_counts_after_a_while(world: StorageWorld) -> None:
    world.split("s1", (1, 1), MIDDLE, 2, 3)
    world.put("s1", (home("new", 2, 3), 2), "new", "x")
    world.run_for(3)
    node = world.members["s1"].node
    assert node is not None
    shards = node.state.shards
    assert shards[2].counted
    assert shards[3].counted
    assert shards[2].items + shards[3].items == len(NAMES) + 1
    stored = world.members["s1"].engine.scan(b"\x02", b"\x03")
    size = sum(len(key) + len(value) for key, value in stored)
    assert shards[2].data_bytes + shards[3].data_bytes == size


def test_opening_again_leaves_what_is_there_alone(world: StorageWorld) -> None:
    world.split("s1", (1, 1), MIDDLE, 2, 3)
    world.open("s1")
    assert [each.partition_id for _, each in world.served()] == [2, 3]


def test_a_dropped_table_is_gone_and_stays_gone(world: StorageWorld) -> None:
    drop = pb.DropTableRequest(operation_id="drop", table_id=TABLE.table_id, name=TABLE.name)
    for _ in range(2):
        world.call("s1", "DropTable", drop)
    assert list(world.members["s1"].engine.scan(b"\x02", b"\x03")) == []
    for _ in range(2):
        error = reason_of(lambda: world.get("s1", (1, 1), "user-1"))
        assert error.reason is Reason.TABLE_NOT_FOUND
        assert reason_of(lambda: world.open("s1")).reason is Reason.TABLE_NOT_FOUND
        described = world.call("s1", "DescribePartitions", pb.DescribePartitionsRequest())
        assert list(described.deleted_tables) == ["users"]
        assert not described.partitions
        world.kill("s1")
        world.start("s1")


def test_raised_durability_holds_from_then_on(world: StorageWorld) -> None:
    """I2 against the table's level: process durability may lose to the power, power may not."""
    world.put("s1", (1, 1), "user-1", "unsynced")
    world.power_loss("s1")
    world.start("s1")
    assert world.get("s1", (1, 1), "user-1") is None
    table = catalog.Table()
    table.CopyFrom(TABLE)
    table.durability = catalog.DURABILITY_POWER
    world.call("s1", "UpdateTable", pb.UpdateTableRequest(table=table))
    world.put("s1", (1, 1), "user-1", "synced")
    world.power_loss("s1")
    world.start("s1")
    assert world.get("s1", (1, 1), "user-1") == "synced"


def test_a_change_that_cannot_be_written_is_not_made(world: StorageWorld) -> None:
    """And once writing works again it cannot come back from the log either."""
    engine = world.members["s1"].engine
    engine.fail_with = EngineError("No space left on device")
    error = reason_of(lambda: world.split("s1", (1, 1), MIDDLE, 2, 3))
    assert error.reason is Reason.WRITE_ERROR
    assert world.get("s1", (1, 1), "user-1") == "user-1"
    engine.fail_with = None
    world.run_for(5)
    world.split("s1", (1, 1), MIDDLE, 2, 3)
    assert [each.partition_id for _, each in world.served()] == [2, 3]


def test_data_of_another_node_is_refused(world: StorageWorld) -> None:
    """A mistyped --node-id must not serve somebody else's partitions."""
    world.run_for(1)
    world.kill("s1")
    member = world.members.pop("s1")
    world.start("s2")
    world.kill("s2")
    world.members["s2"].engine = member.engine
    error = reason_of(lambda: world.start("s2"))
    assert error.reason is Reason.INVALID_ARGUMENT
    assert "--node-id" in error.message


def test_tombstones_are_bounded_in_number() -> None:
    """I9: the longest retired partitions are forgotten first."""
    world = StorageWorld()
    world.start("s1", tombstones_max=2)
    world.open("s1")
    cut, epoch = MIDDLE, 1
    for number in range(1, 6):
        world.split("s1", (number * 2 - 1, epoch), cut, number * 2, number * 2 + 1, f"s{number}")
        cut, epoch = (cut + KEYSPACE_END) // 2, epoch + 1
    node = world.members["s1"].node
    assert node is not None
    retired = [each.partition.partition_id for each in node.state.ownership if not each.live]
    assert retired == [7, 9]
    forgotten = reason_of(lambda: world.get("s1", (1, 1), "user-1"))
    assert forgotten.detail(RouteHint) == RouteHint()


def test_tombstones_of_dropped_tables_are_bounded_in_number() -> None:
    """I9: the longest dropped are forgotten, with the tombstones of their partitions."""
    world = StorageWorld()
    world.start("s1", dropped_tables_max=2, tombstones_max=3)
    for number in range(4, 0, -1):
        table = catalog.Table()
        table.CopyFrom(TABLE)
        table.table_id, table.name = number, f"table-{number}"
        partition = Partition(number, number, 0, KEYSPACE_END, 1, "s1")
        request = pb.OpenPartitionsRequest(
            operation_id="create", table=table, partitions=[partition.to_proto()]
        )
        world.call("s1", "OpenPartitions", request)
        drop = pb.DropTableRequest(operation_id="drop", table_id=number, name=table.name)
        world.call("s1", "DropTable", drop)
    for _ in range(2):
        described = world.call("s1", "DescribePartitions", pb.DescribePartitionsRequest())
        assert sorted(described.deleted_tables) == ["table-1", "table-2"]
        state = world.node("s1").state
        assert sorted(each.partition.partition_id for each in state.ownership) == [1, 2]
        for number, reason in ((1, Reason.TABLE_NOT_FOUND), (4, Reason.STALE_ROUTE)):
            get = reason_of(lambda number=number: world.get("s1", (number, 1), "user-1"))
            assert get.reason is reason
        world.kill("s1")
        world.start("s1")
