"""I10: bad input is refused with a reason, counted, and changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from google.protobuf.message import Message
from metadata_world import ADDRESS, World, describe, new_table, refused

from keyplane.catalog.v1 import catalog_pb2 as catalog
from keyplane.metadata.v1 import metadata_pb2 as pb
from keyplane.model.errors import Reason
from metadata.config import MetadataConfig
from wire.ports import Reply, Request


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Partitions 1 and 4 of `orders` are on a, 2 on b, 3 on c. Node d is dead, e is drained."""
    world = World(tmp_path, nodes=["a", "b", "c", "d", "e"])
    world.fleet.nodes["d"].kill()
    world.done(world.drain("e"))
    world.run(7)
    world.done(world.create())
    return world


def table(**changes: object) -> pb.CreateTableRequest:
    request = new_table("more")
    for name, value in changes.items():
        field = getattr(request, name)
        field.CopyFrom(value) if isinstance(value, Message) else setattr(request, name, value)
    return request


def key(name: str, type_: int = catalog.SCALAR_TYPE_STRING) -> catalog.KeyAttribute:
    return catalog.KeyAttribute(name=name, type=type_)


def node(node_id: str = "f", address: str = "f:7000", zone: str = "z") -> pb.RegisterNodeRequest:
    return pb.RegisterNodeRequest(node=catalog.Node(node_id=node_id, address=address, zone=zone))


def units(reads: int, writes: int) -> catalog.ProvisionedThroughput:
    return catalog.ProvisionedThroughput(read_capacity_units=reads, write_capacity_units=writes)


def on_demand(**units: int) -> catalog.OnDemandThroughput:
    return catalog.OnDemandThroughput(**units)


ON_DEMAND = catalog.CAPACITY_MODE_ON_DEMAND
PROVISIONED = catalog.CAPACITY_MODE_PROVISIONED

SPLIT, MERGE, MOVE = (
    pb.SplitPartitionRequest,
    pb.MergePartitionsRequest,
    pb.MovePartitionRequest,
)

BAD: list[tuple[str, str, Message, Reason]] = [
    ("no name", "CreateTable", table(table=""), Reason.INVALID_ARGUMENT),
    ("short name", "CreateTable", table(table="ab"), Reason.INVALID_ARGUMENT),
    ("long name", "CreateTable", table(table="x" * 256), Reason.INVALID_ARGUMENT),
    ("name out of pattern", "CreateTable", table(table="../etc"), Reason.INVALID_ARGUMENT),
    ("name with newline", "CreateTable", table(table="orders\n"), Reason.INVALID_ARGUMENT),
    ("taken name", "CreateTable", new_table("orders"), Reason.TABLE_EXISTS),
    ("no key", "CreateTable", pb.CreateTableRequest(table="more"), Reason.INVALID_ARGUMENT),
    ("key without name", "CreateTable", table(partition_key=key("")), Reason.INVALID_ARGUMENT),
    ("long key", "CreateTable", table(partition_key=key("k" * 256)), Reason.INVALID_ARGUMENT),
    ("untyped key", "CreateTable", table(partition_key=key("k", 0)), Reason.INVALID_ARGUMENT),
    ("unknown type", "CreateTable", table(partition_key=key("k", 9)), Reason.INVALID_ARGUMENT),
    ("same keys", "CreateTable", table(sort_key=key("id")), Reason.INVALID_ARGUMENT),
    ("too many", "CreateTable", table(partitions=1_000_001), Reason.INVALID_ARGUMENT),
    ("absurdly many", "CreateTable", table(partitions=2**32 - 1), Reason.INVALID_ARGUMENT),
    ("durability", "CreateTable", table(durability=7), Reason.INVALID_ARGUMENT),
    ("capacity", "CreateTable", table(capacity_mode=9), Reason.INVALID_ARGUMENT),
    ("no units", "CreateTable", table(capacity_mode=PROVISIONED), Reason.INVALID_ARGUMENT),
    ("no mode", "CreateTable", table(provisioned=units(1, 1)), Reason.INVALID_ARGUMENT),
    (
        "units on demand",
        "CreateTable",
        table(capacity_mode=catalog.CAPACITY_MODE_ON_DEMAND, provisioned=units(1, 1)),
        Reason.INVALID_ARGUMENT,
    ),
    *(
        (
            f"{reads} and {writes} units",
            "CreateTable",
            table(capacity_mode=PROVISIONED, provisioned=units(reads, writes)),
            Reason.INVALID_ARGUMENT,
        )
        for reads, writes in ((0, 1), (1, 0), (40_001, 1), (1, 2**32 - 1))
    ),
    (
        "maximum without mode",
        "CreateTable",
        table(on_demand=on_demand(max_read_units=5)),
        Reason.INVALID_ARGUMENT,
    ),
    (
        "maximum of provisioned",
        "CreateTable",
        table(
            capacity_mode=PROVISIONED,
            provisioned=units(1, 1),
            on_demand=on_demand(max_read_units=5),
        ),
        Reason.INVALID_ARGUMENT,
    ),
    *(
        (
            f"{what} of on-demand",
            "CreateTable",
            table(capacity_mode=ON_DEMAND, on_demand=on_demand(**settings)),
            Reason.INVALID_ARGUMENT,
        )
        for what, settings in {
            "nothing": {},
            "too high maximum": {"max_read_units": 40_001},
            "absurd maximum": {"max_write_units": 2**32 - 1},
            "too high warmth": {"warm_write_units": 40_001},
            "less warmth than a new table": {"warm_read_units": 11_999},
            "less warm writes than a new table": {"warm_write_units": 3_999},
            "no warmth": {"warm_write_units": 0},
            "more warmth than the maximum": {"warm_write_units": 5_000, "max_write_units": 4_999},
        }.items()
    ),
    (
        "maximum of a table without",
        "UpdateTable",
        pb.UpdateTableRequest(table="orders", on_demand=on_demand(max_read_units=5)),
        Reason.INVALID_ARGUMENT,
    ),
    (
        "maximum of a table that is to be provisioned",
        "UpdateTable",
        pb.UpdateTableRequest(
            table="orders",
            capacity_mode=PROVISIONED,
            provisioned=units(1, 1),
            on_demand=on_demand(max_read_units=5),
        ),
        Reason.INVALID_ARGUMENT,
    ),
    (
        "units of a table without",
        "UpdateTable",
        pb.UpdateTableRequest(table="orders", provisioned=units(1, 1)),
        Reason.INVALID_ARGUMENT,
    ),
    (
        "provisioned without units",
        "UpdateTable",
        pb.UpdateTableRequest(table="orders", capacity_mode=PROVISIONED),
        Reason.INVALID_ARGUMENT,
    ),
    ("no table", "DescribeTable", pb.DescribeTableRequest(table="none"), Reason.TABLE_NOT_FOUND),
    ("no table", "DeleteTable", pb.DeleteTableRequest(table="none"), Reason.TABLE_NOT_FOUND),
    ("nothing new", "UpdateTable", pb.UpdateTableRequest(table="orders"), Reason.INVALID_ARGUMENT),
    (
        "unknown durability",
        "UpdateTable",
        pb.UpdateTableRequest(table="orders", durability=7),
        Reason.INVALID_ARGUMENT,
    ),
    (
        "unknown capacity mode",
        "UpdateTable",
        pb.UpdateTableRequest(table="orders", capacity_mode=9),
        Reason.INVALID_ARGUMENT,
    ),
    (
        "no table to update",
        "UpdateTable",
        pb.UpdateTableRequest(table="none", durability=catalog.DURABILITY_POWER),
        Reason.TABLE_NOT_FOUND,
    ),
    ("page size", "ListTables", pb.ListTablesRequest(page_size=1001), Reason.INVALID_ARGUMENT),
    ("token", "ListTables", pb.ListTablesRequest(page_token="garbage"), Reason.INVALID_ARGUMENT),
    ("token", "ListTables", pb.ListTablesRequest(page_token="é"), Reason.INVALID_ARGUMENT),
    (
        "token",
        "ListPartitions",
        pb.ListPartitionsRequest(table="orders", page_token="AAAA"),
        Reason.INVALID_ARGUMENT,
    ),
    (
        "token",
        "ListOperations",
        pb.ListOperationsRequest(page_token="////"),
        Reason.INVALID_ARGUMENT,
    ),
    ("no table", "SplitPartition", SPLIT(table="none", partition_id=1), Reason.TABLE_NOT_FOUND),
    (
        "no partition",
        "SplitPartition",
        SPLIT(table="orders", partition_id=99),
        Reason.PARTITION_NOT_FOUND,
    ),
    (
        "hash below",
        "SplitPartition",
        SPLIT(table="orders", partition_id=2, split_hash=7),
        Reason.SPLIT_KEY_OUTSIDE_RANGE,
    ),
    (
        "hash at the start",
        "SplitPartition",
        SPLIT(table="orders", partition_id=2, split_hash=1 << 62),
        Reason.SPLIT_KEY_OUTSIDE_RANGE,
    ),
    (
        "hash at the end",
        "SplitPartition",
        SPLIT(table="orders", partition_id=2, split_hash=1 << 63),
        Reason.SPLIT_KEY_OUTSIDE_RANGE,
    ),
    (
        "request id",
        "SplitPartition",
        SPLIT(table="orders", partition_id=1, request_id="r" * 65),
        Reason.INVALID_ARGUMENT,
    ),
    (
        "not neighbours",
        "MergePartitions",
        MERGE(table="orders", left_id=1, right_id=3),
        Reason.NOT_NEIGHBOURS,
    ),
    (
        "the wrong way round",
        "MergePartitions",
        MERGE(table="orders", left_id=2, right_id=1),
        Reason.NOT_NEIGHBOURS,
    ),
    (
        "with itself",
        "MergePartitions",
        MERGE(table="orders", left_id=2, right_id=2),
        Reason.NOT_NEIGHBOURS,
    ),
    (
        "round the end",
        "MergePartitions",
        MERGE(table="orders", left_id=4, right_id=1),
        Reason.NOT_NEIGHBOURS,
    ),
    (
        "to itself",
        "MovePartition",
        MOVE(table="orders", partition_id=1, target_node_id="a"),
        Reason.INVALID_ARGUMENT,
    ),
    (
        "to nobody",
        "MovePartition",
        MOVE(table="orders", partition_id=1, target_node_id="nobody"),
        Reason.NODE_NOT_FOUND,
    ),
    (
        "to the dead",
        "MovePartition",
        MOVE(table="orders", partition_id=1, target_node_id="d"),
        Reason.NODE_UNAVAILABLE,
    ),
    (
        "to a drained node",
        "MovePartition",
        MOVE(table="orders", partition_id=1, target_node_id="e"),
        Reason.NODE_UNAVAILABLE,
    ),
    (
        "to a bad id",
        "MovePartition",
        MOVE(table="orders", partition_id=1, target_node_id="a/b"),
        Reason.INVALID_ARGUMENT,
    ),
    (
        "no operation",
        "GetOperation",
        pb.GetOperationRequest(operation_id="x"),
        Reason.OPERATION_NOT_FOUND,
    ),
    (
        "no operation",
        "CancelOperation",
        pb.CancelOperationRequest(operation_id="x"),
        Reason.OPERATION_NOT_FOUND,
    ),
    ("no node", "RegisterNode", pb.RegisterNodeRequest(), Reason.INVALID_ARGUMENT),
    ("bad id", "RegisterNode", node("a b"), Reason.INVALID_ARGUMENT),
    ("no port", "RegisterNode", node(address="f"), Reason.INVALID_ARGUMENT),
    ("port 0", "RegisterNode", node(address="f:0"), Reason.INVALID_ARGUMENT),
    ("port too high", "RegisterNode", node(address="f:65536"), Reason.INVALID_ARGUMENT),
    ("bad zone", "RegisterNode", node(zone="z\0"), Reason.INVALID_ARGUMENT),
    ("another's address", "RegisterNode", node(address="a:7000"), Reason.INVALID_ARGUMENT),
    ("bad id", "Heartbeat", pb.HeartbeatRequest(node_id=""), Reason.INVALID_ARGUMENT),
    (
        "too many loads",
        "Heartbeat",
        pb.HeartbeatRequest(node_id="a", loads=[pb.PartitionLoad()] * 1001),
        Reason.INVALID_ARGUMENT,
    ),
    ("unknown node", "DrainNode", pb.DrainNodeRequest(node_id="x"), Reason.NODE_NOT_FOUND),
    ("dead node", "DrainNode", pb.DrainNodeRequest(node_id="d"), Reason.NODE_UNAVAILABLE),
]


def test_bad_requests_are_refused_with_a_reason_and_change_nothing(world: World) -> None:
    """Each is counted under its reason; memory and database are what they were."""
    before = describe(world.core.catalog)
    for what, method, request, reason in BAD:
        counted = world.rejected(reason)
        error = refused(lambda: world.ask(method, request, pb.GetOperationResponse))  # noqa: B023
        assert error.reason is reason, (what, method, error)
        assert world.rejected(reason) == counted + 1
        assert describe(world.core.catalog) == before, (what, method)
    world.check()


def test_bytes_that_are_no_message_are_refused(world: World) -> None:
    """On every method, without touching anything."""
    server = world.network.find(ADDRESS)
    assert server is not None
    for method in server.handlers:
        replies: list[Reply] = []
        world.network.transport().call(
            ADDRESS, method, b"\xff\xff\xff", world.clock.now() + 1, replies.append
        )
        world.run_until(lambda replies=replies: bool(replies))
        error = replies[0].error
        assert error is not None
        assert error.reason in (Reason.MALFORMED_REQUEST, Reason.TABLE_NOT_FOUND), method
    world.check()


def test_a_request_whose_time_is_up_is_not_begun(world: World) -> None:
    """Its deadline passed on the way: nothing is created."""
    replies: list[Reply] = []
    method = "/keyplane.metadata.v1.MetadataService/CreateTable"
    late = Request(method, new_table("more").SerializeToString(), world.clock.now())
    server = world.network.find(ADDRESS)
    assert server is not None
    server.handlers[method](late, replies.append)
    world.run(1)
    assert replies[0].error is not None
    assert replies[0].error.reason is Reason.DEADLINE_BEFORE_START
    assert "more" not in world.core.catalog.by_name


# --- The same request twice --------------------------------------------------------------------


def test_a_request_id_names_one_operation(world: World) -> None:
    """Asked again it is the same operation, even after it has ended and after a restart."""
    first = world.split(1, 5, request_id="r1")
    assert world.split(1, 5, request_id="r1").operation_id == first.operation_id
    world.done(first)
    world.restart()
    assert world.split(1, 5, request_id="r1").operation_id == first.operation_id
    assert len(world.partitions()) == 5


@pytest.mark.parametrize(
    "other",
    [
        lambda world: world.split(1, 6, request_id="r1"),
        lambda world: world.split(2, 5, request_id="r1"),
        lambda world: world.move(1, "c", request_id="r1"),
        lambda world: world.merge(1, 2, request_id="r1"),
        lambda world: world.drain("a", request_id="r1"),
    ],
)
def test_a_request_id_cannot_name_two(world: World, other: Callable[[World], pb.Operation]) -> None:
    world.split(1, 5, request_id="r1")
    assert refused(lambda: other(world)).reason is Reason.OPERATION_EXISTS


def test_one_operation_at_a_time_on_a_partition(world: World) -> None:
    """The next is refused with PARTITION_BUSY, or TABLE_BUSY where the whole table is meant."""
    world.fleet.polls_per_move = 1000
    operation = world.move(2, "c")
    for again in (
        lambda: world.split(2),
        lambda: world.merge(1, 2),
        lambda: world.merge(2, 3),
        lambda: world.move(2, "a"),
    ):
        error = refused(again)
        assert error.reason is Reason.PARTITION_BUSY
        assert error.metadata["operation_id"] == operation.operation_id
    assert refused(lambda: world.delete()).reason is Reason.TABLE_BUSY
    assert refused(lambda: world.update(catalog.DURABILITY_POWER)).reason is Reason.TABLE_BUSY
    world.split(4)


def test_nothing_begins_on_a_table_that_is_being_deleted(world: World) -> None:
    world.fleet.nodes["a"].kill()
    world.delete()
    assert refused(lambda: world.split(2)).reason is Reason.TABLE_BUSY
    assert refused(lambda: world.delete()).reason is Reason.TABLE_BUSY
    assert refused(lambda: world.create()).reason is Reason.TABLE_EXISTS


def test_two_requests_in_one_tick_do_not_both_get_the_name(world: World) -> None:
    """Each is decided on what the one before it left."""
    replies: list[Reply] = []
    for _ in range(2):
        world.network.transport().call(
            ADDRESS,
            "/keyplane.metadata.v1.MetadataService/CreateTable",
            new_table("more").SerializeToString(),
            world.clock.now() + 5,
            replies.append,
        )
    world.run_until(lambda: len(replies) == 2)
    errors = [reply.error.reason for reply in replies if reply.error is not None]
    assert errors == [Reason.TABLE_EXISTS]


def test_a_drain_begun_twice_is_refused(world: World) -> None:
    world.fleet.polls_per_move = 1000
    first = world.drain("a")
    error = refused(lambda: world.drain("a"))
    assert error.reason is Reason.OPERATION_EXISTS
    assert error.metadata["operation_id"] == first.operation_id


def test_the_last_node_cannot_be_drained(tmp_path: Path) -> None:
    world = World(tmp_path, nodes=["a"])
    world.done(world.create())
    assert refused(lambda: world.drain("a")).reason is Reason.NO_STORAGE_NODES


def test_nodes_cannot_all_be_drained(world: World) -> None:
    """Even if they are empty: one that is up must remain. d is dead and e is drained already."""
    world.done(world.delete())
    world.drain("a")
    world.drain("b")
    assert refused(lambda: world.drain("c")).reason is Reason.NO_STORAGE_NODES


def test_a_table_needs_a_node(tmp_path: Path) -> None:
    world = World(tmp_path, nodes=[])
    assert refused(lambda: world.create()).reason is Reason.NO_STORAGE_NODES


# --- Bounds ------------------------------------------------------------------------------------


def test_operations_past_the_bound_are_refused(tmp_path: Path) -> None:
    """I9: OVERLOADED, with a hint when to come again; an ended one makes room."""
    world = World(tmp_path, config=MetadataConfig(operations_active_max=2))
    world.done(world.create())
    world.fleet.polls_per_move = 1000
    first = world.move(1, "c")
    world.move(2, "c")
    error = refused(lambda: world.split(3))
    assert error.reason is Reason.OVERLOADED
    assert error.retry_after_s is not None
    world.cancel(first.operation_id)
    world.done(world.split(3))


def test_operations_wait_their_turn(tmp_path: Path) -> None:
    """With one place, the second move begins when the first has ended."""
    world = World(tmp_path, config=MetadataConfig(operations_driven_max=1))
    world.done(world.create())
    first, second = world.move(1, "c"), world.move(2, "c")
    world.done(first)
    assert world.operation(second.operation_id).state < pb.OPERATION_STATE_SUCCEEDED
    world.done(second)


def test_a_drain_ends_though_moves_have_one_place(tmp_path: Path) -> None:
    """A drain takes no place of its own."""
    world = World(tmp_path, config=MetadataConfig(operations_driven_max=1, drain_moves_max=1))
    world.done(world.create(partitions=9))
    world.done(world.drain("a"))
    world.check()


def test_old_operations_are_forgotten(tmp_path: Path) -> None:
    """Memory and database keep a bounded number of those that have ended."""
    world = World(tmp_path, config=MetadataConfig(operations_kept_max=3))
    world.done(world.create(partitions=1))
    for _ in range(8):
        world.done(world.split(world.partitions()[0].partition_id))
    assert len(world.core.catalog.operations) <= 4
    world.check()


def test_old_tombstones_are_forgotten(tmp_path: Path) -> None:
    world = World(tmp_path, config=MetadataConfig(tombstones_max=2))
    for number in range(5):
        world.done(world.create(f"table{number}"))
        world.done(world.delete(f"table{number}"))
    assert [each.name for each in world.core.catalog.tables.values()] == ["table3", "table4"]
    world.check()


# --- Listing -----------------------------------------------------------------------------------


def test_tables_are_listed_by_name_in_pages(world: World) -> None:
    """Every table once, deleted ones not at all."""
    for name in ("zebra", "apple", "mango"):
        world.done(world.create(name, 1))
    world.done(world.delete("mango"))
    names, token = [], ""
    while True:
        request = pb.ListTablesRequest(page_size=2, page_token=token)
        answer = world.ask("ListTables", request, pb.ListTablesResponse)
        names += [each.name for each in answer.tables]
        token = answer.next_page_token
        if not token:
            break
    assert names == ["apple", "orders", "zebra"]


def test_partitions_are_listed_in_hash_order_with_their_loads(world: World) -> None:
    """In pages that follow each other although the map changes in between."""
    beat = pb.HeartbeatRequest(
        node_id="b", loads=[pb.PartitionLoad(partition_id=2, reads_per_second=5)]
    )
    world.ask("Heartbeat", beat, pb.HeartbeatResponse)
    request = pb.ListPartitionsRequest(table="orders", page_size=3)
    first = world.ask("ListPartitions", request, pb.ListPartitionsResponse)
    assert [each.partition_id for each in first.partitions] == [1, 2, 3]
    assert [each.partition_id for each in first.loads] == [2]
    world.done(world.split(4))
    request.page_token = first.next_page_token
    second = world.ask("ListPartitions", request, pb.ListPartitionsResponse)
    assert [each.partition_id for each in second.partitions] == [5, 6]
    assert (second.next_page_token, second.map_version) == ("", 2)


def test_a_page_token_of_another_list_is_refused(world: World) -> None:
    world.done(world.create("more"))
    request = pb.ListPartitionsRequest(table="orders", page_size=1)
    token = world.ask("ListPartitions", request, pb.ListPartitionsResponse).next_page_token
    other = pb.ListPartitionsRequest(table="more", page_token=token)
    error = refused(lambda: world.ask("ListPartitions", other, pb.ListPartitionsResponse))
    assert error.reason is Reason.INVALID_ARGUMENT


def test_operations_are_listed_newest_first(world: World) -> None:
    """In pages; with active_only, only those that have not ended."""
    world.fleet.polls_per_move = 1000
    world.done(world.split(4))
    moving = world.move(1, "c")
    found, token = [], ""
    while True:
        request = pb.ListOperationsRequest(page_size=1, page_token=token)
        answer = world.ask("ListOperations", request, pb.ListOperationsResponse)
        found += [each.kind for each in answer.operations]
        token = answer.next_page_token
        if not token:
            break
    assert found == [
        pb.OPERATION_KIND_MOVE,
        pb.OPERATION_KIND_SPLIT,
        pb.OPERATION_KIND_CREATE_TABLE,
        pb.OPERATION_KIND_DRAIN,
    ]
    only = pb.ListOperationsRequest(active_only=True)
    answer = world.ask("ListOperations", only, pb.ListOperationsResponse)
    assert [each.operation_id for each in answer.operations] == [moving.operation_id]
