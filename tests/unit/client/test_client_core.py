"""Tokens, batches and pages: what calls of a client share and what they go on with."""

from __future__ import annotations

from typing import Any

import pytest
from client_world import LOST, REFUSED, ClientWorld

from keyplane import BatchIncomplete, Delete, KeyplaneError, OutcomeUnknown, Put, Reason, Spent
from keyplane.client import requests
from keyplane.client.call import Call
from keyplane.client.config import ClientConfig
from keyplane.client.core import PageCursor, query_request, scan_request
from keyplane.client.requests import Item
from keyplane.data.v1 import data_pb2 as data
from keyplane.model.items import to_item

DONE = data.BatchWriteItemResponse()


def write(world: ClientWorld, count: int = 3, timeout_s: float | None = None) -> Call[None]:
    puts = [Put({"artist": f"{n}"}) for n in range(count)]
    return world.core.batch_write(world.now, {"music": puts}, timeout_s)


def left_over(*places: int, indefinite: bool = False) -> data.BatchWriteItemResponse:
    writes = [
        data.WriteRequest(
            put=to_item({"artist": f"{place}"}), sequence=1 + place, indefinite=indefinite
        )
        for place in places
    ]
    return data.BatchWriteItemResponse(unprocessed={"music": data.TableWrites(writes=writes)})


def test_every_write_has_a_sequence_number_of_its_own() -> None:
    """Puts, deletes and each write of a batch; batches take as many as they have writes."""
    world = ClientWorld(answers=[data.PutItemResponse()])
    world.run(world.core.put(world.now, "music", {"artist": "x"}, None, None))
    world.answers = [DONE]
    batch = {"a": [Put({"artist": "x"}), Delete({"artist": "y"})], "b": [Put({"artist": "z"})]}
    world.run(world.core.batch_write(world.now, batch, None))
    world.answers = [data.DeleteItemResponse(deleted=True)]
    assert world.run(world.core.delete(world.now, "music", {"artist": "x"}, None, None))
    put, writes, delete = (sent.request for sent in world.sent)
    numbered = [w.sequence for table in ("a", "b") for w in writes.requests[table].writes]
    assert put.token.sequence == 1
    assert numbered == [2, 3, 4]
    assert writes.token.sequence == 2
    assert delete.token.sequence == 5


def test_writes_left_over_are_sent_again_alone_under_their_numbers() -> None:
    world = ClientWorld(answers=[left_over(1, 2), DONE])
    world.run(write(world))
    first, second = (sent.request for sent in world.sent)
    assert [w.sequence for w in first.requests["music"].writes] == [1, 2, 3]
    assert [w.sequence for w in second.requests["music"].writes] == [2, 3]
    assert second.token.attempt == 0
    assert world.sent[1].at > world.sent[0].at + world.latency_s, "after a while"


def test_writes_in_doubt_are_sent_again_as_retries() -> None:
    world = ClientWorld(answers=[left_over(1, indefinite=True), left_over(1), DONE])
    world.run(write(world))
    _, second, third = (sent.request for sent in world.sent)
    assert second.token.attempt == 1
    assert second.token.age_ms > 0
    assert second.requests["music"].writes[0].indefinite
    assert third.token.attempt == 0


def test_a_batch_lost_with_its_router_is_all_in_doubt() -> None:
    world = ClientWorld(answers=[LOST, DONE])
    world.run(write(world))
    second = world.sent[1].request
    assert second.token.attempt == 1
    assert all(w.indefinite for w in second.requests["music"].writes)


def test_a_batch_that_cannot_be_finished_says_what_is_left() -> None:
    world = ClientWorld(answers=[left_over(2)])
    with pytest.raises(BatchIncomplete) as caught:
        world.run(write(world, timeout_s=1.0))
    (left,) = caught.value.unprocessed_writes["music"].writes
    assert left.sequence == 3
    assert caught.value.definite


def test_a_batch_that_ends_in_doubt_is_indefinite() -> None:
    world = ClientWorld(answers=[left_over(2, indefinite=True), REFUSED])
    with pytest.raises(BatchIncomplete) as caught:
        world.run(write(world, timeout_s=1.0))
    assert not caught.value.definite


def test_a_batch_of_which_nothing_is_known_ends_like_a_single_write() -> None:
    world = ClientWorld(answers=[LOST, REFUSED])
    with pytest.raises(OutcomeUnknown):
        world.run(write(world, timeout_s=1.0))


def read(world: ClientWorld, timeout_s: float | None = None) -> Call[dict[str, list[Item]]]:
    keys = {"music": [{"artist": "1"}, {"artist": "2"}]}
    return world.core.batch_get(world.now, keys, True, timeout_s)


def items(*artists: str) -> dict[str, data.TableItems]:
    return {"music": data.TableItems(items=[to_item({"artist": each}) for each in artists])}


def keys(*artists: str) -> dict[str, data.TableKeys]:
    wanted = [to_item({"artist": each}) for each in artists]
    return {"music": data.TableKeys(keys=wanted, consistent_read=True)}


def test_keys_left_over_are_asked_for_again() -> None:
    first = data.BatchGetItemResponse(items=items("1"), unprocessed_keys=keys("2"))
    world = ClientWorld(answers=[first, data.BatchGetItemResponse(items=items("2"))])
    assert world.run(read(world)) == {"music": [{"artist": "1"}, {"artist": "2"}]}
    assert world.sent[1].request.requests["music"] == keys("2")["music"]


def test_keys_that_cannot_be_read_in_time_are_named() -> None:
    partly = data.BatchGetItemResponse(items=items("1"), unprocessed_keys=keys("2"))
    world = ClientWorld(answers=[partly])
    with pytest.raises(BatchIncomplete) as caught:
        world.run(read(world, timeout_s=1.0))
    assert caught.value.unprocessed_keys == keys("2")


def test_a_batch_without_hits_has_an_empty_list_for_its_table() -> None:
    world = ClientWorld(answers=[data.BatchGetItemResponse()])
    assert world.run(read(world)) == {"music": []}


def drain(world: ClientWorld, cursor: PageCursor) -> list[requests.Page]:
    pages = []
    while not cursor.exhausted:
        pages.append(world.run(cursor.next_page(world.now)))
    return pages


def query_page(*songs: str, last: str | None = None) -> data.QueryResponse:
    return data.QueryResponse(
        items=[to_item({"artist": "x", "song": song}) for song in songs],
        last_evaluated_key=None if last is None else to_item({"artist": "x", "song": last}),
    )


def test_pages_go_on_where_the_last_one_ended() -> None:
    world = ClientWorld(answers=[query_page("a", "b", last="b"), query_page("c")])
    request = query_request("music", "x", None, False, 0, None, True)
    first, second = drain(world, world.core.query(request, None))
    assert [item["song"] for item in (*first.items, *second.items)] == ["a", "b", "c"]
    assert first.next_key == {"artist": "x", "song": "b"}
    assert second.next_key is None
    assert world.sent[1].request.exclusive_start_key == to_item({"artist": "x", "song": "b"})


def test_a_limit_is_for_all_pages_together() -> None:
    world = ClientWorld(answers=[query_page("a", "b", last="b"), query_page("c", last="c")])
    request = query_request("music", "x", None, False, 3, None, True)
    assert len(drain(world, world.core.query(request, None))) == 2
    assert [sent.request.limit for sent in world.sent] == [3, 1]


def test_a_scan_can_be_taken_up_from_an_earlier_pages_key() -> None:
    """Also from the opaque key between two partitions, whose one attribute has no name."""
    world = ClientWorld(answers=[data.ScanResponse()])
    for key in ({"artist": "x"}, {"": 1 << 63}):
        request = scan_request("music", 1, 2, 0, key, False)
        drain(world, world.core.scan(request, None))
        assert world.sent[-1].request.exclusive_start_key == to_item(key)


@pytest.mark.parametrize(
    "arguments",
    [{"gt": 1, "gte": 1}, {"lt": 1, "lte": 2}],
)
def test_two_bounds_on_one_side_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(KeyplaneError) as caught:
        requests.sort_range(**arguments)
    assert caught.value.reason is Reason.INVALID_ARGUMENT


def test_sort_ranges() -> None:
    assert requests.sort_range() is None
    value = data.AttributeValue
    expected = data.SortKeyRange(
        **{"from": value(n="1"), "from_exclusive": True, "to": value(n="5")}
    )
    assert requests.sort_range(gt=1, lte=5) == expected
    assert requests.sort_range(begins_with="a") == data.SortKeyRange(begins_with=value(s="a"))
    assert requests.sort_range(gte=0) == data.SortKeyRange(**{"from": value(n="0")})


def test_conditions() -> None:
    assert requests.condition(None, None) is None
    assert requests.condition(False, None) == data.Condition(exists=False)
    assert requests.condition(None, 7) == data.Condition(version_equals=7)
    with pytest.raises(KeyplaneError):
        requests.condition(True, 7)


def test_addresses_in_one_string_are_refused() -> None:
    """Iterating over the characters of an address would fail much later, and strangely."""
    with pytest.raises(KeyplaneError, match="list of addresses"):
        type(ClientWorld().core)("router:1", ClientConfig(), None, bytes(16), 0.0)  # type: ignore[arg-type]


def units(table: str, read: float, write: float) -> data.ConsumedCapacity:
    return data.ConsumedCapacity(
        table=table,
        capacity_units=read + write,
        read_capacity_units=read,
        write_capacity_units=write,
    )


def test_what_calls_consumed_is_added_up_over_what_is_left_over() -> None:
    """A batch that takes three answers, and then a read."""
    world = ClientWorld()
    left = data.TableKeys(keys=[to_item({"id": "b"})])
    world.answers = [
        data.BatchGetItemResponse(
            unprocessed_keys={"users": left}, consumed_capacity=[units("users", 1.5, 0)]
        ),
        LOST,
        data.BatchGetItemResponse(consumed_capacity=[units("users", 2, 0), units("music", 0.5, 0)]),
        data.GetItemResponse(consumed_capacity=units("users", 4, 0)),
        data.PutItemResponse(consumed_capacity=units("music", 0, 3)),
        # Of a router that says nothing of it.
        data.PutItemResponse(),
    ]
    spent = Spent()
    batch = world.core.batch_get(world.now, {"users": [{"id": "a"}, {"id": "b"}]}, True, 5.0)
    single = world.core.get(world.now, "users", {"id": "a"}, True, 5.0)
    puts = [world.core.put(world.now, "music", {"id": "a"}, None, 5.0) for _ in range(2)]
    for call in (batch, single, *puts):
        call.meter(spent)
        world.run(call)
    assert spent.tables == {"users": (7.5, 0), "music": (0.5, 3)}
    assert spent.total == (8, 3)
    assert all(
        sent.request.return_consumed_capacity == data.RETURN_CONSUMED_CAPACITY_TOTAL
        for sent in world.sent
    )


def test_writes_that_are_left_over_are_counted_too() -> None:
    world = ClientWorld()
    left = data.TableWrites(writes=[data.WriteRequest(put=to_item({"id": "b"}), sequence=2)])
    world.answers = [
        data.BatchWriteItemResponse(
            unprocessed={"users": left}, consumed_capacity=[units("users", 0, 1)]
        ),
        data.BatchWriteItemResponse(consumed_capacity=[units("users", 0, 2)]),
    ]
    spent = Spent()
    call = world.core.batch_write(world.now, {"users": [Put({"id": "a"}), Put({"id": "b"})]}, 5.0)
    call.meter(spent)
    world.run(call)
    assert spent.tables == {"users": (0, 3)}
    assert [sent.request.return_consumed_capacity for sent in world.sent] == [
        data.RETURN_CONSUMED_CAPACITY_TOTAL
    ] * 2


def test_nothing_is_asked_for_that_nobody_adds_up() -> None:
    world = ClientWorld()
    world.answers = [data.GetItemResponse()]
    call = world.core.get(world.now, "users", {"id": "a"}, True, 5.0)
    call.meter(None)
    world.run(call)
    assert not world.sent[0].request.return_consumed_capacity
