"""Query and Scan: pages, across partitions, and across changes between pages."""

from __future__ import annotations

from typing import Any

import pytest
from router_world import DATA, World, artist_in
from storage_peer import Fault

from keyplane.data.v1 import data_pb2 as data
from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.items import from_item, to_item
from router.config import RouterConfig


def booted(sort_key: bool = False, **settings: Any) -> World:
    world = World(sort_key=sort_key, config=RouterConfig(**settings))
    world.start_router()
    return world


def put(world: World, **attributes: Any) -> None:
    request = data.PutItemRequest(table="music", item=to_item(attributes))
    world.call(DATA + "PutItem", request, data.PutItemResponse).wait()


def query_page(world: World, request: data.QueryRequest) -> data.QueryResponse:
    response = world.call(DATA + "Query", request, data.QueryResponse).wait()
    assert isinstance(response, data.QueryResponse)
    return response


def query(world: World, artist: str, **fields: Any) -> list[str]:
    """The songs of every page."""
    request = data.QueryRequest(
        table="music", partition_key=data.AttributeValue(s=artist), **fields
    )
    songs = []
    while True:
        response = query_page(world, request)
        songs += [from_item(item)["song"] for item in response.items]
        if not response.HasField("last_evaluated_key"):
            return songs
        request.exclusive_start_key.CopyFrom(response.last_evaluated_key)


def scan_page(world: World, request: data.ScanRequest) -> data.ScanResponse:
    response = world.call(DATA + "Scan", request, data.ScanResponse).wait()
    assert isinstance(response, data.ScanResponse)
    return response


def scan(world: World, **fields: Any) -> list[list[str]]:
    """The artists of every page."""
    request = data.ScanRequest(table="music", **fields)
    pages = []
    while True:
        response = scan_page(world, request)
        pages.append([from_item(item)["artist"] for item in response.items])
        if not response.HasField("last_evaluated_key"):
            return pages
        request.exclusive_start_key.CopyFrom(response.last_evaluated_key)


def flat(pages: list[list[str]]) -> list[str]:
    return [artist for page in pages for artist in page]


def with_songs(*songs: str) -> World:
    world = booted(sort_key=True)
    for song in songs:
        put(world, artist="miles", song=song)
    put(world, artist="other", song="b")
    return world


def test_a_query_gives_one_partition_key_in_sort_order_either_way() -> None:
    world = with_songs("c", "a", "b")
    assert query(world, "miles") == ["a", "b", "c"]
    assert query(world, "miles", scan_index_backward=True) == ["c", "b", "a"]
    assert query(world, "nobody") == []


def test_query_bounds() -> None:
    world = with_songs("aa", "ab", "b", "c")
    value = data.AttributeValue
    bounds = {
        ("ab", "b"): data.SortKeyRange(**{"from": value(s="ab"), "to": value(s="b")}),
        ("b",): data.SortKeyRange(
            **{"from": value(s="ab"), "from_exclusive": True, "to": value(s="b")}
        ),
        ("aa", "ab"): data.SortKeyRange(begins_with=value(s="a")),
        ("b", "c"): data.SortKeyRange(**{"from": value(s="b")}),
        (): data.SortKeyRange(**{"from": value(s="x")}),
    }
    for expected, wanted in bounds.items():
        assert query(world, "miles", sort_key=wanted) == list(expected)


@pytest.mark.parametrize("backward", [False, True])
def test_query_pages_go_on_where_the_last_one_ended(backward: bool) -> None:
    songs = [f"song {number:02}" for number in range(10)]
    world = with_songs(*songs)
    pages = query(world, "miles", limit=3, scan_index_backward=backward)
    assert pages == (songs[::-1] if backward else songs)


def test_query_pages_go_on_across_a_split() -> None:
    """The next page goes to the child that has the partition key now."""
    songs = [f"song {number:02}" for number in range(10)]
    world = with_songs(*songs)
    request = data.QueryRequest(
        table="music", partition_key=data.AttributeValue(s="miles"), limit=4
    )
    first = query_page(world, request)
    for partition in world.partitions:
        world.split(partition)
    request.exclusive_start_key.CopyFrom(first.last_evaluated_key)
    request.limit = 0
    second = query_page(world, request)
    seen = [from_item(item)["song"] for item in (*first.items, *second.items)]
    assert seen == songs


def test_a_query_page_holds_a_megabyte() -> None:
    world = booted(sort_key=True)
    for number in range(5):
        put(world, artist="miles", song=f"{number}", data=b"." * 300_000)
    request = data.QueryRequest(table="music", partition_key=data.AttributeValue(s="miles"))
    assert len(query_page(world, request).items) == 4
    assert query(world, "miles") == list("01234")


def test_a_query_that_cannot_be_is_refused() -> None:
    world = with_songs("a")
    value = data.AttributeValue
    cases = {
        Reason.WRONG_KEY_TYPE: data.QueryRequest(partition_key=value(n="1")),
        Reason.INVALID_ARGUMENT: data.QueryRequest(
            partition_key=value(s="miles"),
            exclusive_start_key=to_item({"artist": "other", "song": "b"}),
        ),
        Reason.MISSING_KEY: data.QueryRequest(
            partition_key=value(s="miles"), exclusive_start_key=to_item({"song": "b"})
        ),
    }
    for reason, request in cases.items():
        request.table = "music"
        error = world.call(DATA + "Query", request, data.QueryResponse).error()
        assert error.reason is reason


def filled(count: int = 60, **settings: Any) -> tuple[World, set[str]]:
    world = booted(**settings)
    artists = {f"artist {number}" for number in range(count)}
    for artist in artists:
        world.put(artist)
    return world, artists


def test_a_scan_sees_every_item_once() -> None:
    world, artists = filled()
    assert sorted(flat(scan(world))) == sorted(artists)


def test_scan_pages_hold_what_they_may() -> None:
    world, artists = filled()
    pages = scan(world, limit=7)
    assert sorted(flat(pages)) == sorted(artists)
    assert all(len(page) <= 7 for page in pages)


def test_segments_divide_a_table() -> None:
    """Every item is in exactly one segment, however the segments lie to the partitions."""
    world, artists = filled()
    for total in (1, 2, 5, 13):
        seen = [
            artist
            for segment in range(total)
            for artist in flat(scan(world, segment=segment, total_segments=total, limit=4))
        ]
        assert sorted(seen) == sorted(artists)


def test_a_scan_goes_on_across_splits_and_moves_between_pages() -> None:
    """Nothing is missed or seen twice, and the router is told by nobody but the storage nodes."""
    world, artists = filled()
    request = data.ScanRequest(table="music", limit=10)
    seen: list[str] = []
    changes = [
        lambda: world.split(world.partitions[0]),
        lambda: world.move(world.partitions[2], "storage-1"),
        lambda: world.split(world.partitions[5]),
        lambda: world.move(world.partitions[4], "storage-3"),
    ]
    while True:
        response = scan_page(world, request)
        seen += [from_item(item)["artist"] for item in response.items]
        if not response.HasField("last_evaluated_key"):
            break
        request.exclusive_start_key.CopyFrom(response.last_evaluated_key)
        if changes:
            changes.pop()()
    assert sorted(seen) == sorted(artists)


def test_a_scan_of_empty_partitions_ends_its_page_between_two_of_them() -> None:
    """A page visits a bounded number of partitions; its key then names a place, not an item."""
    world = booted(scan_partitions_max=2)
    response = scan_page(world, data.ScanRequest(table="music"))
    assert not response.items
    assert set(response.last_evaluated_key.attributes) == {""}
    assert scan(world) == [[], [], []]


def test_a_scan_keeps_what_it_read_when_a_later_partition_fails() -> None:
    world, artists = filled()
    world.nodes["storage-2"].fail_next(Fault(KeyplaneError(Reason.CORRUPT, "bad block")))
    request = data.ScanRequest(table="music")
    first = scan_page(world, request)
    assert first.items
    request.exclusive_start_key.CopyFrom(first.last_evaluated_key)
    second = scan_page(world, request)
    seen = [from_item(item)["artist"] for item in (*first.items, *second.items)]
    assert sorted(seen) == sorted(artists)


@pytest.mark.parametrize(
    "fields",
    [
        {"segment": 2, "total_segments": 2},
        {"segment": 0, "total_segments": 1_000_001},
        {"exclusive_start_key": data.Item(attributes={"": data.AttributeValue(n="x")})},
        {"exclusive_start_key": data.Item(attributes={"": data.AttributeValue(n="-1")})},
        {"exclusive_start_key": data.Item(attributes={"": data.AttributeValue(n=str(1 << 64))})},
        {
            "segment": 1,
            "total_segments": 2,
            "exclusive_start_key": data.Item(attributes={"": data.AttributeValue(n="5")}),
        },
    ],
)
def test_a_scan_that_cannot_be_is_refused(fields: dict[str, Any]) -> None:
    world = booted()
    request = data.ScanRequest(table="music", **fields)
    error = world.call(DATA + "Scan", request, data.ScanResponse).error()
    assert error.reason is Reason.INVALID_ARGUMENT


def test_a_scan_of_one_item_pages_crosses_every_partition() -> None:
    """Where a page ends with the last item of a partition, the next starts in the next one."""
    world = booted()
    artists = [artist_in(world.table, partition) for partition in world.partitions]
    for artist in artists:
        world.put(artist)
    assert sorted(flat(scan(world, limit=1))) == sorted(artists)
