"""BatchGetItem and BatchWriteItem: spread over partitions, done in part, sent again."""

from __future__ import annotations

from typing import Any

import pytest
from router_world import DATA, Pending, World, artist_in
from storage_peer import Fault

from keyplane.data.v1 import data_pb2 as data
from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.items import from_item, to_item
from keyplane.model.throttling import Limit, throttled
from keyplane.storage.v1 import storage_pb2 as storage
from router.config import RouterConfig

CLIENT = bytes(range(16))
THROTTLED = throttled(Limit.KEY_RANGE, True, "music", "too much", 0.1)
LOST = KeyplaneError(Reason.CONNECTION_LOST, "went away")


def booted(**settings: Any) -> World:
    world = World(config=RouterConfig(**settings))
    world.start_router()
    world.get("nobody")
    for node in world.nodes.values():
        node.asked.clear()
    return world


def get(world: World, *artists: str, timeout_s: float = 5.0) -> Pending:
    keys = data.TableKeys(keys=[to_item({"artist": artist}) for artist in artists])
    request = data.BatchGetItemRequest(requests={"music": keys})
    return world.call(DATA + "BatchGetItem", request, data.BatchGetItemResponse, timeout_s)


def put_request(*artists: str, attempt: int = 0) -> data.BatchWriteItemRequest:
    """Puts under sequence numbers from 100 on."""
    writes = [
        data.WriteRequest(put=to_item({"artist": artist, "plays": 1}), sequence=100 + at)
        for at, artist in enumerate(artists)
    ]
    return data.BatchWriteItemRequest(
        requests={"music": data.TableWrites(writes=writes)},
        token=data.WriteToken(client_id=CLIENT, sequence=100, attempt=attempt),
    )


def write(world: World, request: data.BatchWriteItemRequest, timeout_s: float = 5.0) -> Pending:
    return world.call(DATA + "BatchWriteItem", request, data.BatchWriteItemResponse, timeout_s)


def found(response: data.BatchGetItemResponse) -> set[str]:
    return {from_item(item)["artist"] for item in response.items["music"].items}


def test_a_batch_is_spread_over_the_partitions_it_touches() -> None:
    """One call per partition, not per key."""
    world = booted()
    artists = [
        artist
        for partition in world.partitions
        for artist in (
            artist_in(world.table, partition),
            artist_in(world.table, partition, start=1000),
        )
    ]
    assert not write(world, put_request(*artists)).wait().unprocessed
    asked = [each for node in world.nodes.values() for each in node.asked]
    assert len(asked) == len(world.partitions)
    assert all(len(each.batch_write.writes) == 2 for each in asked)
    sequences = {each.token.sequence for some in asked for each in some.batch_write.writes}
    assert sequences == set(range(100, 112))

    response = get(world, *artists, "not there").wait()
    assert found(response) == set(artists)
    assert not response.unprocessed_keys


def test_a_split_in_the_middle_of_a_batch_spreads_it_further() -> None:
    world = booted()
    parent = world.partitions[0]
    left, right = world.split(parent)
    artists = [artist_in(world.table, left), artist_in(world.table, right)]
    assert not write(world, put_request(*artists)).wait().unprocessed
    node = world.owner(0)
    assert [len(each.batch_write.writes) for each in node.asked] == [2, 1, 1]
    assert found(get(world, *artists).wait()) == set(artists)


def test_what_could_not_be_read_in_time_comes_back_before_the_deadline() -> None:
    world = booted()
    world.nodes["storage-1"].stop()
    dead = artist_in(world.table, world.partitions[0])
    alive = artist_in(world.table, world.partitions[1])
    world.put(alive)
    response = get(world, dead, alive, timeout_s=1.0).wait()
    assert found(response) == {alive}
    left = response.unprocessed_keys["music"]
    assert [from_item(key) for key in left.keys] == [{"artist": dead}]


def test_a_batch_of_which_nothing_could_be_read_says_why() -> None:
    world = booted()
    world.nodes["storage-1"].stop()
    pending = get(world, artist_in(world.table, world.partitions[0]), timeout_s=1.0)
    assert pending.error().reason is Reason.NODE_UNREACHABLE


def test_what_is_throttled_of_a_batch_is_left_over() -> None:
    world = booted()
    artists = [artist_in(world.table, each) for each in world.partitions[:3]]
    write(world, put_request(*artists)).wait()
    world.nodes["storage-2"].fail_next(Fault(THROTTLED), Fault(THROTTLED))
    left = write(world, put_request(*artists)).wait().unprocessed["music"].writes
    assert [from_item(each.put)["artist"] for each in left] == [artists[1]]
    assert not left[0].indefinite
    response = get(world, *artists).wait()
    assert found(response) == {artists[0], artists[2]}
    keys = response.unprocessed_keys["music"].keys
    assert [from_item(key)["artist"] for key in keys] == [artists[1]]


def test_a_batch_of_which_all_was_throttled_fails() -> None:
    world = booted()
    artists = [artist_in(world.table, each) for each in world.partitions[:2]]
    for name in ("storage-1", "storage-2"):
        world.nodes[name].fail_next(Fault(THROTTLED), Fault(THROTTLED))
    for pending in (write(world, put_request(*artists)), get(world, *artists)):
        error = pending.error()
        assert error.reason is Reason.THROTTLED
        assert error.metadata["reason"] == "TableWriteKeyRangeThroughputExceeded"


def test_unprocessed_writes_say_whether_they_may_have_been_done() -> None:
    """Of a batch on three nodes one part is done, one is not, and one nobody can tell."""
    world = booted()
    artists = [artist_in(world.table, each) for each in world.partitions[:3]]
    world.nodes["storage-2"].stop()
    world.nodes["storage-3"].fail_next(Fault(None, after=True))
    response = write(world, put_request(*artists), timeout_s=1.0).wait()
    left = {from_item(each.put)["artist"]: each for each in response.unprocessed["music"].writes}
    assert set(left) == {artists[1], artists[2]}
    assert not left[artists[1]].indefinite
    assert left[artists[2]].indefinite
    assert [left[artist].sequence for artist in artists[1:]] == [101, 102]


def test_only_writes_in_doubt_are_sent_again_as_retries() -> None:
    """A write known not to have been done counts as new, so no memory need cover it."""
    world = booted()
    artists = [artist_in(world.table, each) for each in world.partitions[:2]]
    request = put_request(*artists, attempt=1)
    request.requests["music"].writes[1].indefinite = True
    write(world, request).wait()
    attempts = {
        each.token.sequence: each.token.attempt
        for node in world.nodes.values()
        for some in node.asked
        for each in some.batch_write.writes
    }
    assert attempts == {100: 0, 101: 1}


def test_a_client_that_marks_nothing_is_taken_to_have_tried_everything() -> None:
    world = booted()
    artists = [artist_in(world.table, each) for each in world.partitions[:2]]
    write(world, put_request(*artists, attempt=2)).wait()
    for name in ("storage-1", "storage-2"):
        assert world.nodes[name].asked[0].batch_write.writes[0].token.attempt == 2


def test_an_indefinite_part_is_retried_by_the_router_under_its_tokens() -> None:
    world = booted()
    artists = [
        artist_in(world.table, world.partitions[0]),
        artist_in(world.table, world.partitions[0], start=1000),
    ]
    world.owner(0).fail_next(Fault(LOST, after=True))
    assert not write(world, put_request(*artists)).wait().unprocessed
    tokens = [[w.token.attempt for w in each.batch_write.writes] for each in world.owner(0).asked]
    assert tokens == [[0, 0], [1, 1]]


def test_a_write_that_failed_by_itself_is_left_over_alone() -> None:
    world = booted()
    artists = [
        artist_in(world.table, world.partitions[0]),
        artist_in(world.table, world.partitions[0], start=1000),
    ]
    world.owner(0)._do_batch_write = lambda *_: storage.BatchWriteResult(  # type: ignore[method-assign]
        results=[storage.WriteResult(version=1), storage.WriteResult(reason="RETRY_NOT_COVERED")]
    )
    response = write(world, put_request(*artists)).wait()
    (left,) = response.unprocessed["music"].writes
    assert from_item(left.put)["artist"] == artists[1]
    assert left.indefinite


def test_writes_of_a_bare_client_get_tokens_of_the_router() -> None:
    world = booted()
    request = put_request(artist_in(world.table, world.partitions[0]))
    request.ClearField("token")
    write(world, request).wait()
    token = world.owner(0).asked[0].batch_write.writes[0].token
    assert len(token.client_id) == 16
    assert token.client_id != CLIENT


def test_deletes_and_puts_mix() -> None:
    world = booted()
    artist = artist_in(world.table, world.partitions[0])
    world.put(artist)
    request = put_request(artist_in(world.table, world.partitions[1]))
    request.requests["music"].writes.add(delete=to_item({"artist": artist}))
    assert not write(world, request).wait().unprocessed
    assert world.get(artist) is None


def test_a_response_of_more_than_16_megabytes_leaves_keys_over() -> None:
    world = booted()
    artists = [f"artist {number}" for number in range(50)]
    for artist in artists:
        world.put(artist, data=b"." * 400_000)
    response = get(world, *artists).wait()
    left = [from_item(key)["artist"] for key in response.unprocessed_keys["music"].keys]
    assert len(found(response)) == 41
    assert found(response) | set(left) == set(artists)


@pytest.mark.parametrize(
    ("count", "reason"),
    [(0, Reason.INVALID_ARGUMENT), (26, Reason.BATCH_TOO_LARGE)],
)
def test_batches_of_writes_have_1_to_25(count: int, reason: Reason) -> None:
    world = booted()
    request = put_request(*(f"artist {number}" for number in range(count)))
    assert write(world, request).error().reason is reason


@pytest.mark.parametrize(
    ("count", "reason"),
    [(0, Reason.INVALID_ARGUMENT), (101, Reason.BATCH_TOO_LARGE)],
)
def test_batches_of_keys_have_1_to_100(count: int, reason: Reason) -> None:
    world = booted()
    pending = get(world, *(f"artist {number}" for number in range(count)))
    assert pending.error().reason is reason


def test_a_batch_with_one_bad_write_is_refused_whole() -> None:
    """I10: nothing of it is carried out."""
    world = booted()
    bad_writes = {
        Reason.MISSING_KEY: data.WriteRequest(put=to_item({"plays": 1})),
        Reason.WRONG_KEY_TYPE: data.WriteRequest(delete=to_item({"artist": 1})),
        Reason.INVALID_ARGUMENT: data.WriteRequest(),
    }
    for reason, bad in bad_writes.items():
        request = put_request("good")
        request.requests["music"].writes.append(bad)
        assert write(world, request).error().reason is reason
    twice = put_request("good", "good")
    assert write(world, twice).error().reason is Reason.INVALID_ARGUMENT
    tokenless = put_request("good")
    tokenless.token.client_id = b"short"
    assert write(world, tokenless).error().reason is Reason.INVALID_ARGUMENT
    assert get(world, "good", "good").error().reason is Reason.INVALID_ARGUMENT
    assert all(not node.items for node in world.nodes.values())


def test_a_batch_with_an_unknown_table_is_refused_whole() -> None:
    world = booted()
    request = put_request("good")
    request.requests["nothing"].writes.add(put=to_item({"artist": "x"}))
    assert write(world, request).error().reason is Reason.TABLE_NOT_FOUND
    assert all(not node.asked for node in world.nodes.values())
