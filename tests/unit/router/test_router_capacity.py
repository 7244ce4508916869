"""What answers say of capacity units, for each kind of request."""

from __future__ import annotations

from typing import Any

import pytest
from router_world import DATA, World

from keyplane.data.v1 import data_pb2 as data
from keyplane.model.errors import Reason
from keyplane.model.items import item_size, to_item

TOTAL = data.RETURN_CONSUMED_CAPACITY_TOTAL
INDEXES = data.RETURN_CONSUMED_CAPACITY_INDEXES

SILENT = (data.RETURN_CONSUMED_CAPACITY_UNSPECIFIED, data.RETURN_CONSUMED_CAPACITY_NONE)

_RESPONSES = {
    "GetItem": data.GetItemResponse,
    "PutItem": data.PutItemResponse,
    "DeleteItem": data.DeleteItemResponse,
    "BatchGetItem": data.BatchGetItemResponse,
    "BatchWriteItem": data.BatchWriteItemResponse,
    "Query": data.QueryResponse,
    "Scan": data.ScanResponse,
}

# 5,000 bytes, names included: two read units, five write units.
LARGE = {"artist": "Miles", "song": "So What", "notes": "x" * (5000 - 27)}
SMALL = {"artist": "Miles", "song": "Freddie Freeloader"}
KEY = {"artist": "Miles", "song": "So What"}


@pytest.fixture
def world() -> World:
    world = World(sort_key=True)
    world.start_router()
    for item in (LARGE, SMALL):
        ask(world, "PutItem", data.PutItemRequest(table="music", item=to_item(item)))
    return world


def ask(world: World, method: str, request: Any) -> Any:
    return world.call(DATA + method, request, _RESPONSES[method]).wait()


def requests(wanted: data.ReturnConsumedCapacity.ValueType) -> dict[str, Any]:
    """One of each kind."""
    how: Any = {"return_consumed_capacity": wanted}
    key, item = to_item(KEY), to_item(LARGE)
    writes = [data.WriteRequest(put=to_item(SMALL)), data.WriteRequest(delete=key)]
    table_writes = data.TableWrites(writes=writes)
    table_keys = data.TableKeys(keys=[key, to_item({"artist": "Miles", "song": "none"})])
    artist = data.AttributeValue(s="Miles")
    return {
        "GetItem": data.GetItemRequest(table="music", key=key, **how),
        "Query": data.QueryRequest(table="music", partition_key=artist, **how),
        "Scan": data.ScanRequest(table="music", consistent_read=True, **how),
        "BatchGetItem": data.BatchGetItemRequest(requests={"music": table_keys}, **how),
        "PutItem": data.PutItemRequest(table="music", item=item, **how),
        "BatchWriteItem": data.BatchWriteItemRequest(requests={"music": table_writes}, **how),
        "DeleteItem": data.DeleteItemRequest(table="music", key=key, **how),
    }


def test_the_items_are_of_the_sizes_that_the_tests_count_with() -> None:
    assert item_size(to_item(LARGE)) == 5000
    assert item_size(to_item(SMALL)) < 100


@pytest.mark.parametrize("wanted", [TOTAL, INDEXES])
def test_every_kind_of_request_says_what_it_consumed(
    world: World, wanted: data.ReturnConsumedCapacity.ValueType
) -> None:
    expected = {
        "GetItem": (1.0, 0.0),
        # Both items of the page count as one of 5,041 bytes.
        "Query": (1.0, 0.0),
        "Scan": (2.0, 0.0),
        # The item, and the key that is not there.
        "BatchGetItem": (1.5, 0.0),
        "PutItem": (0.0, 5.0),
        # A small put, and the deletion of the large item.
        "BatchWriteItem": (0.0, 6.0),
        # By then there is nothing to delete.
        "DeleteItem": (0.0, 1.0),
    }
    for method, request in requests(wanted).items():
        response = ask(world, method, request)
        consumed = response.consumed_capacity
        if method.startswith("Batch"):
            (consumed,) = consumed
        read, write = expected[method]
        assert (consumed.read_capacity_units, consumed.write_capacity_units) == (read, write), (
            method
        )
        assert consumed.capacity_units == read + write
        assert consumed.table == "music"
        part = consumed.table_capacity
        assert consumed.HasField("table_capacity") == (wanted == INDEXES)
        if wanted == INDEXES:
            assert (part.read_capacity_units, part.write_capacity_units) == (read, write)
            assert part.capacity_units == read + write


@pytest.mark.parametrize("wanted", SILENT)
def test_nothing_is_said_unasked(
    world: World, wanted: data.ReturnConsumedCapacity.ValueType
) -> None:
    for method, request in requests(wanted).items():
        response = ask(world, method, request)
        field = response.consumed_capacity
        told = len(field) if method.startswith("Batch") else response.HasField("consumed_capacity")
        assert not told, method


def test_an_unknown_wish_is_refused_before_anything_is_done(world: World) -> None:
    for method, request in requests(9).items():  # type: ignore[arg-type]
        error = world.call(DATA + method, request, _RESPONSES[method]).error()
        assert error.reason is Reason.INVALID_ARGUMENT, method
        assert "NONE, TOTAL or INDEXES" in error.message
    assert ask(world, "GetItem", requests(TOTAL)["GetItem"]).version


@pytest.mark.parametrize("consistent", [False, True])
def test_storage_nodes_are_told_how_a_read_is_paid(world: World, consistent: bool) -> None:
    key, artist = to_item(KEY), data.AttributeValue(s="Miles")
    table_keys = data.TableKeys(keys=[key], consistent_read=consistent)
    how: Any = {"table": "music", "consistent_read": consistent}
    reads = {
        "GetItem": data.GetItemRequest(key=key, **how),
        "Query": data.QueryRequest(partition_key=artist, **how),
        "Scan": data.ScanRequest(**how),
        "BatchGetItem": data.BatchGetItemRequest(requests={"music": table_keys}),
    }
    for method, request in reads.items():
        for node in world.nodes.values():
            node.asked.clear()
        ask(world, method, request)
        told = {each.consistent for node in world.nodes.values() for each in node.asked}
        assert told == {consistent}, method


def test_a_page_of_nothing_costs_as_much_as_the_smallest(world: World) -> None:
    how: Any = {"return_consumed_capacity": TOTAL, "consistent_read": True}
    nobody = data.AttributeValue(s="nobody")
    request = data.QueryRequest(table="music", partition_key=nobody, **how)
    assert ask(world, "Query", request).consumed_capacity.read_capacity_units == 1
    # Nothing is above the last key, and nobody needs to be asked.
    request.partition_key.s = "Miles"
    request.sort_key.from_exclusive = request.sort_key.to_exclusive = True
    getattr(request.sort_key, "from").s = request.sort_key.to.s = "x"
    assert ask(world, "Query", request).consumed_capacity.read_capacity_units == 1


def test_a_scan_over_many_partitions_rounds_up_once(world: World) -> None:
    """Eight artists of 1,500 bytes, in six partitions: 12,000 bytes and those of the fixture."""
    for number in range(8):
        item = {"artist": f"artist {number}", "song": "x"}
        item["notes"] = "x" * (1500 - item_size(to_item(item)) - len("notes"))
        ask(world, "PutItem", data.PutItemRequest(table="music", item=to_item(item)))
    request = data.ScanRequest(table="music", consistent_read=True, return_consumed_capacity=TOTAL)
    response = ask(world, "Scan", request)
    assert len(response.items) == 10
    size = sum(map(item_size, response.items))
    assert size > 17_000
    assert response.consumed_capacity.read_capacity_units == -(-size // 4096)


def test_keys_without_an_item_count_as_the_smallest(world: World) -> None:
    """Of a table that does not hold them, no word."""
    (node,) = {id(each): each for each in world.nodes.values() if each.items}.values()
    table_keys = data.TableKeys(keys=[to_item(KEY), to_item(SMALL)], consistent_read=True)
    request = data.BatchGetItemRequest(
        requests={"music": table_keys}, return_consumed_capacity=TOTAL
    )
    assert ask(world, "BatchGetItem", request).consumed_capacity[0].capacity_units == 3
    node.items.clear()
    node.sizes.clear()
    assert ask(world, "BatchGetItem", request).consumed_capacity[0].capacity_units == 2
