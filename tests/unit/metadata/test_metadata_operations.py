"""Operations end as asked: the storage nodes do it, then the map says so, and no more."""

from __future__ import annotations

from pathlib import Path

import pytest
from metadata_world import World, refused

from keyplane.catalog.v1 import catalog_pb2 as catalog
from keyplane.metadata.v1 import metadata_pb2 as pb
from keyplane.model.errors import KeyplaneError, Reason
from metadata.operations import Operation


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Three nodes and a table of four partitions: 1 and 4 on a, 2 on b, 3 on c."""
    world = World(tmp_path)
    world.done(world.create())
    return world


def test_creating_a_table_opens_its_partitions_evenly(world: World) -> None:
    """Four partitions over three nodes, the keyspace covered, the map published as version 1."""
    assert [each.leader for each in world.partitions()] == ["a", "b", "c", "a"]
    assert world.version() == 1
    world.check()


def test_a_split_makes_two_children_at_a_higher_epoch(world: World) -> None:
    """The parent's id is gone for good; the children tile its range."""
    parent = world.partitions()[1]
    ended = world.done(world.split(parent.partition_id, parent.start + 5))
    left, right = world.partitions()[1:3]
    assert (left.start, left.end, right.start, right.end) == (
        *(parent.start, parent.start + 5),
        *(parent.start + 5, parent.end),
    )
    assert left.epoch == right.epoch == parent.epoch + 1
    assert list(ended.result_partition_ids) == [left.partition_id, right.partition_id] == [5, 6]
    assert world.version() == 2
    world.check()


def test_a_split_without_a_hash_takes_what_the_node_suggests(world: World) -> None:
    """The node suggests the middle; what it suggested is persisted before it is asked to split."""
    parent = world.partitions()[0]
    world.done(world.split(parent.partition_id))
    assert world.partitions()[1].start == (parent.start + parent.end) // 2
    world.check()


def test_a_move_takes_a_partition_to_another_node(world: World) -> None:
    """Same id and range, next epoch, and the source may delete its copy."""
    partition = world.partitions()[0]
    ended = world.done(world.move(partition.partition_id, "c"))
    moved = world.partitions()[0]
    assert (moved.partition_id, moved.leader, moved.epoch) == (partition.partition_id, "c", 2)
    assert ended.fence_ms == 1.5
    assert world.fleet.nodes["a"].released == {ended.operation_id}
    world.check()


def test_merging_neighbours_on_one_node(tmp_path: Path) -> None:
    """Two become one at an epoch above both."""
    world = World(tmp_path, nodes=["a"])
    world.done(world.create(partitions=2))
    world.done(world.merge(1, 2))
    (merged,) = world.partitions()
    assert (merged.partition_id, merged.epoch) == (3, 2)
    world.check()


def test_merging_neighbours_on_two_nodes_moves_the_right_one_first(world: World) -> None:
    """1 is on a and 2 on b: 2 moves to a, its data is released on b, then they merge."""
    ended = world.done(world.merge(1, 2))
    merged = world.partitions()[0]
    assert (merged.leader, merged.epoch) == ("a", 3)
    assert world.fleet.nodes["b"].released == {f"{ended.operation_id}.move"}
    assert world.version() == 3
    world.check()


def test_draining_a_node_moves_all_it_has(world: World) -> None:
    """Afterwards it is DRAINED, serves nothing, and gets nothing."""
    ended = world.done(world.drain("a"))
    assert {each.leader for each in world.partitions()} == {"b", "c"}
    assert not world.fleet.nodes["a"].serving
    assert world.core.catalog.nodes["a"].state == catalog.NODE_STATE_DRAINED
    assert "2 partitions" in ended.progress or ended.progress == "done"
    world.done(world.create("more", partitions=6))
    assert {each.leader for each in world.partitions("more")} == {"b", "c"}
    world.check()


def test_a_drained_node_that_starts_again_is_back(world: World) -> None:
    """Registering anew is how an operator brings it back."""
    world.done(world.drain("a"))
    world.register("a")
    assert world.core.catalog.nodes["a"].state == catalog.NODE_STATE_UP


def test_updating_a_table_tells_every_node(world: World) -> None:
    """Nodes, map and database agree on the new durability."""
    world.done(world.update(catalog.DURABILITY_POWER))
    for peer in world.fleet.nodes.values():
        assert peer.tables[1].durability == catalog.DURABILITY_POWER
    assert world.core.catalog.maps[1].table.durability == catalog.DURABILITY_POWER
    assert world.version() == 2
    world.check()


def test_what_an_update_does_not_name_stays_as_it_is(world: World) -> None:
    world.done(world.update(durability=catalog.DURABILITY_POWER))
    world.done(world.update(capacity_mode=catalog.CAPACITY_MODE_ON_DEMAND))
    tables = [peer.tables[1] for peer in world.fleet.nodes.values()]
    for table in (*tables, world.core.catalog.maps[1].table):
        assert table.durability == catalog.DURABILITY_POWER
        assert table.capacity_mode == catalog.CAPACITY_MODE_ON_DEMAND
    world.done(world.update(capacity_mode=catalog.CAPACITY_MODE_UNLIMITED))
    assert world.core.catalog.maps[1].table.capacity_mode == catalog.CAPACITY_MODE_UNLIMITED
    world.check()


def test_a_table_has_provisioned_throughput_for_as_long_as_that_is_its_mode(world: World) -> None:
    provisioned = catalog.CAPACITY_MODE_PROVISIONED
    first = catalog.ProvisionedThroughput(read_capacity_units=500, write_capacity_units=100)
    second = catalog.ProvisionedThroughput(read_capacity_units=40_000, write_capacity_units=1)
    world.done(world.update(capacity_mode=provisioned, provisioned=first))
    assert world.core.catalog.maps[1].table.provisioned == first
    world.done(world.update(provisioned=second))
    world.done(world.update(durability=catalog.DURABILITY_POWER))
    for table in (
        *(peer.tables[1] for peer in world.fleet.nodes.values()),
        world.core.catalog.maps[1].table,
    ):
        assert table.provisioned == second
        assert table.capacity_mode == provisioned
    # As the database has it, too.
    world.check()
    world.done(world.update(capacity_mode=catalog.CAPACITY_MODE_ON_DEMAND))
    assert not world.core.catalog.maps[1].table.HasField("provisioned")
    world.check()


ON_DEMAND = catalog.CAPACITY_MODE_ON_DEMAND


def on_demand(**units: int) -> catalog.OnDemandThroughput:
    return catalog.OnDemandThroughput(**units)


def test_settings_of_an_on_demand_table_change_one_by_one(world: World) -> None:
    """0 takes a maximum away; nodes, map and database agree."""
    world.done(world.update(capacity_mode=ON_DEMAND))
    assert not world.core.catalog.maps[1].table.HasField("on_demand")
    world.done(world.update(on_demand=on_demand(max_read_units=500, max_write_units=7)))
    world.done(world.update(on_demand=on_demand(max_read_units=0, warm_read_units=20_000)))
    world.done(world.update(durability=catalog.DURABILITY_POWER))
    for table in (
        *(peer.tables[1] for peer in world.fleet.nodes.values()),
        world.core.catalog.maps[1].table,
    ):
        assert table.on_demand == on_demand(max_write_units=7, warm_read_units=20_000)
    world.check()


def test_warm_throughput_only_rises_and_stays_below_the_maximum(world: World) -> None:
    world.done(world.update(capacity_mode=ON_DEMAND, on_demand=on_demand(warm_read_units=20_000)))
    for wanted, says in (
        ({"warm_read_units": 19_999}, "only rises"),
        ({"warm_write_units": 9_000, "max_write_units": 8_000}, "of no use"),
    ):
        with pytest.raises(KeyplaneError, match=says):
            world.update(on_demand=on_demand(**wanted))
    # To let less in than it is warm for is what a maximum is for.
    world.done(world.update(on_demand=on_demand(max_read_units=100)))
    with pytest.raises(KeyplaneError, match="whose maximum is 100"):
        world.update(on_demand=on_demand(warm_read_units=30_000))
    world.done(world.update(on_demand=on_demand(max_read_units=0, warm_read_units=30_000)))
    assert world.core.catalog.maps[1].table.on_demand == on_demand(warm_read_units=30_000)


def test_a_table_that_was_provisioned_is_as_warm_as_that(world: World) -> None:
    """Even if it was less of late; and as warm as a new table if it was less than that."""
    provisioned = catalog.CAPACITY_MODE_PROVISIONED
    much = catalog.ProvisionedThroughput(read_capacity_units=500, write_capacity_units=30_000)
    little = catalog.ProvisionedThroughput(read_capacity_units=500, write_capacity_units=1)
    world.done(world.update(capacity_mode=provisioned, provisioned=much))
    world.done(world.update(provisioned=little))
    assert not world.core.catalog.maps[1].table.HasField("on_demand")
    world.done(world.update(capacity_mode=ON_DEMAND))
    assert world.core.catalog.maps[1].table.on_demand == on_demand(warm_write_units=30_000)
    world.check()


def test_a_table_is_switched_to_on_demand_four_times_a_day_and_back_at_any_time(
    world: World,
) -> None:
    """The fifth says when, is possible then, and not before, whoever runs the Metadata Store."""
    provisioned = catalog.CAPACITY_MODE_PROVISIONED
    units = catalog.ProvisionedThroughput(read_capacity_units=5, write_capacity_units=5)
    for _ in range(4):
        world.done(world.update(capacity_mode=provisioned, provisioned=units))
        world.done(world.update(capacity_mode=ON_DEMAND))
        world.clock.run_for(60)
    world.done(world.update(capacity_mode=provisioned, provisioned=units))
    world.restart()
    error = refused(lambda: world.update(capacity_mode=ON_DEMAND))
    assert error.reason is Reason.LIMIT_EXCEEDED
    assert "4 times within 24 hours" in error.message
    assert error.metadata["possible_at"] in error.message
    assert error.retry_after_s == pytest.approx(24 * 3600 - 4 * 60, abs=10)
    world.check()


def test_provisioned_units_are_decreased_a_few_times_a_day_and_raised_at_any_time(
    world: World,
) -> None:
    def set_units(reads: int, writes: int) -> None:
        units = catalog.ProvisionedThroughput(
            read_capacity_units=reads, write_capacity_units=writes
        )
        world.done(world.update(capacity_mode=catalog.CAPACITY_MODE_PROVISIONED, provisioned=units))

    set_units(100, 100)
    for reads in (90, 80, 70, 60):
        set_units(reads, 200)
    error = refused(lambda: set_units(50, 300))
    assert error.reason is Reason.LIMIT_EXCEEDED
    assert "decreased 4 times today" in error.message
    assert error.retry_after_s is not None
    assert error.retry_after_s <= 3600
    set_units(60, 300)
    world.check()


def test_deleting_a_table_leaves_a_tombstone(world: World) -> None:
    """No node serves it, its root says DELETED at a higher version, and its name is free again."""
    world.done(world.delete())
    assert world.fleet.serving() == []
    assert refused(lambda: world.split(1)).reason is Reason.TABLE_NOT_FOUND
    world.done(world.create())
    assert world.table_id() == 2
    assert world.version() == 3
    world.check()


def test_a_node_that_was_away_hears_what_it_missed(world: World) -> None:
    """A node down while a table is deleted drops it when it comes back."""
    world.fleet.nodes["b"].kill()
    world.run(7)
    world.done(world.delete())
    assert world.fleet.nodes["b"].serving
    world.fleet.nodes["b"].start()
    world.run(3)
    assert not world.fleet.nodes["b"].serving
    world.check()


def test_a_table_that_cannot_be_opened_everywhere_is_taken_back(world: World) -> None:
    """One node dies under the creation: FAILED, and no partition of the table is left anywhere."""
    world.fleet.nodes["c"].kill()
    ended = world.finish(world.create("more", partitions=3))
    assert ended.state == pb.OPERATION_STATE_FAILED
    assert ended.reason == "NODE_UNREACHABLE"
    assert {each.table_id for each in world.fleet.serving()} == {1}
    assert refused(lambda: world.split(5, table="more")).reason is Reason.TABLE_NOT_FOUND
    world.fleet.nodes["c"].start()
    world.run(3)
    world.done(world.create("more", partitions=3))
    world.check()


def test_a_node_that_refuses_ends_the_operation_without_a_change(world: World) -> None:
    """A definite refusal is FAILED with the node's own reason, and the map is as it was."""
    before = world.partitions()
    world.fleet.nodes["a"].refuse["SplitPartition"] = KeyplaneError(
        Reason.PARTITION_NOT_FOUND, "no such partition"
    )
    ended = world.finish(world.split(1))
    assert (ended.state, ended.reason) == (pb.OPERATION_STATE_FAILED, "PARTITION_NOT_FOUND")
    assert world.partitions() == before
    world.fleet.nodes["a"].refuse.clear()
    world.done(world.split(1))
    world.check()


def test_an_answer_that_was_lost_is_asked_for_again(world: World) -> None:
    """The node split, its answer was lost for a while: the split is done once and committed."""
    world.fleet.nodes["a"].forget_reply.add("SplitPartition")
    operation = world.split(1)
    world.run(20)
    now = world.operation(operation.operation_id)
    assert now.state == pb.OPERATION_STATE_RUNNING
    assert "CONNECTION_LOST" in now.progress
    world.fleet.nodes["a"].forget_reply.clear()
    world.done(operation)
    world.check()


def test_an_operation_no_node_has_heard_of_is_given_up(world: World) -> None:
    """The node is gone before it was ever asked: nothing was done, so there is nothing to await."""
    world.fleet.nodes["a"].kill()
    ended = world.finish(world.split(1, 5))
    assert (ended.state, ended.reason) == (pb.OPERATION_STATE_FAILED, "NODE_UNREACHABLE")


def test_a_move_whose_target_dies_changes_nothing(world: World) -> None:
    """The source gives up; the operation says why."""
    world.fleet.polls_per_move = 1000
    operation = world.move(1, "c")
    world.run(1)
    world.fleet.nodes["c"].kill()
    ended = world.finish(operation)
    assert (ended.state, ended.reason) == (pb.OPERATION_STATE_FAILED, "NODE_UNREACHABLE")
    assert world.partitions()[0].leader == "a"


def test_a_storage_node_that_says_something_else_is_not_believed(world: World) -> None:
    """An answer that does not fit what was asked never enters the map."""
    peer = world.fleet.nodes["a"]
    peer.answers = _Lying(peer.answers)
    operation = world.split(1)
    world.run(5)
    now = world.operation(operation.operation_id)
    assert now.state == pb.OPERATION_STATE_RUNNING
    assert "MAP_INVALID" in now.progress
    assert world.version() == 1


class _Lying(dict):  # type: ignore[type-arg]
    """Remembers every answer with a wrong epoch."""

    def __setitem__(self, key: str, answer: object) -> None:
        if key.endswith("/split"):
            answer.left.epoch += 7  # type: ignore[attr-defined]
        super().__setitem__(key, answer)


# --- Cancelling --------------------------------------------------------------------------------


def test_a_move_under_way_can_be_cancelled(world: World) -> None:
    """The source gives it up: FAILED as CANCELLED, the partition stays."""
    world.fleet.polls_per_move = 1000
    operation = world.move(1, "c")
    world.run(1)
    ended = world.cancel(operation.operation_id)
    assert (ended.state, ended.reason) == (pb.OPERATION_STATE_FAILED, "CANCELLED")
    world.fleet.polls_per_move = 3
    world.done(world.move(1, "c"))
    world.check()


def test_two_who_cancel_at_once_cannot_undo_each_other(world: World) -> None:
    """While one cancels, another is told so. The end of the other once let the operation go on
    under the first, which then called it cancelled after it had been done.
    """
    world.fleet.polls_per_move = 1000
    operation = world.move(1, "c")
    world.run(1)
    outcomes: list[Operation | KeyplaneError] = []
    world.core.driver.cancel(operation.operation_id, outcomes.append)
    error = refused(lambda: world.core.driver.cancel(operation.operation_id, outcomes.append))
    assert error.reason is Reason.NOT_SERVING
    world.settle()
    assert world.operation(operation.operation_id).reason == "CANCELLED"
    assert len(outcomes) == 1
    world.check()


def test_a_split_under_way_cannot_be_cancelled(world: World) -> None:
    """Nobody can say whether it was done, so it is finished."""
    world.fleet.nodes["a"].forget_reply.add("SplitPartition")
    operation = world.split(1, 5)
    world.run(1)
    error = refused(lambda: world.cancel(operation.operation_id))
    assert error.reason is Reason.ILLEGAL_TRANSITION
    world.fleet.nodes["a"].forget_reply.clear()
    world.done(operation)


def test_an_ended_operation_cannot_be_cancelled(world: World) -> None:
    operation = world.done(world.split(1))
    error = refused(lambda: world.cancel(operation.operation_id))
    assert error.reason is Reason.ILLEGAL_TRANSITION


def test_a_move_whose_source_is_gone_for_good_can_be_closed(world: World) -> None:
    """All but the cleaning up is done; cancelling leaves the copy and frees the partition."""
    world.fleet.nodes["a"].refuse["ReleaseMoved"] = KeyplaneError(Reason.OVERLOADED, "not now")
    operation = world.move(1, "c")
    world.run(5)
    assert world.operation(operation.operation_id).state == pb.OPERATION_STATE_COMMITTED
    assert refused(lambda: world.split(1)).reason is Reason.PARTITION_BUSY
    ended = world.cancel(operation.operation_id)
    assert ended.state == pb.OPERATION_STATE_SUCCEEDED
    assert "copy" in ended.message
    world.done(world.split(1))


def test_a_cancelled_drain_puts_the_node_back(world: World) -> None:
    world.fleet.polls_per_move = 1000
    operation = world.drain("a")
    world.run(1)
    ended = world.cancel(operation.operation_id)
    assert ended.reason == "CANCELLED"
    assert world.core.catalog.nodes["a"].state == catalog.NODE_STATE_UP


def test_a_creation_under_way_can_be_cancelled(world: World) -> None:
    """What was opened is dropped again."""
    world.fleet.nodes["c"].refuse["OpenPartitions"] = KeyplaneError(Reason.OVERLOADED, "not now")
    operation = world.create("more", 3)
    world.run(1)
    world.fleet.nodes["c"].refuse["DropTable"] = KeyplaneError(Reason.OVERLOADED, "not now")
    world.cancel(operation.operation_id)
    again = refused(lambda: world.cancel(operation.operation_id))
    assert again.reason is Reason.ILLEGAL_TRANSITION
    world.fleet.nodes["c"].refuse.clear()
    assert world.finish(operation).reason == "CANCELLED"
    assert {each.table_id for each in world.fleet.serving()} == {1}
    world.check()
