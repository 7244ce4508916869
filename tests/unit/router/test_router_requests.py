"""Deadlines, retries, tokens, shedding and refusals: what happens to a single request."""

from __future__ import annotations

import pytest
from google.protobuf.message import Message
from router_world import DATA, World, artist_in
from storage_peer import Fault

from keyplane.data.v1 import data_pb2 as data
from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.items import to_item
from keyplane.model.throttling import Limit, throttled
from router.config import RouterConfig
from wire.ports import Reply, Request

CLIENT = bytes(range(16))
LOST = KeyplaneError(Reason.CONNECTION_LOST, "went away")


def token(sequence: int = 1, attempt: int = 0, age_ms: int = 0) -> data.WriteToken:
    return data.WriteToken(client_id=CLIENT, sequence=sequence, attempt=attempt, age_ms=age_ms)


def booted(**settings: object) -> World:
    world = World(config=RouterConfig(**settings))  # type: ignore[arg-type]
    world.start_router()
    world.get("nobody")
    for node in world.nodes.values():
        node.asked.clear()
    return world


def test_put_get_delete() -> None:
    world = booted()
    artist = artist_in(world.table, world.partitions[3])
    assert world.put(artist, plays=1) == 1
    assert world.put(artist, plays=2) == 2
    assert world.get(artist) == {"artist": artist, "plays": 2}
    request = data.DeleteItemRequest(table="music", key=to_item({"artist": artist}))
    assert world.call(DATA + "DeleteItem", request, data.DeleteItemResponse).wait().deleted
    assert not world.call(DATA + "DeleteItem", request, data.DeleteItemResponse).wait().deleted
    assert world.get(artist) is None


def test_the_condition_and_the_token_reach_the_storage_node() -> None:
    world = booted()
    artist = artist_in(world.table, world.partitions[0])
    condition = data.Condition(version_equals=7)
    world.start_put(artist, token(5), condition).wait()
    write = world.owner(0).asked[-1].write
    assert write.condition == condition
    assert write.token == token(5)


def test_a_failed_condition_is_the_callers() -> None:
    world = booted()
    node = world.owner(0)
    node.fail_next(Fault(KeyplaneError(Reason.CONDITION_FAILED, "it exists")))
    artist = artist_in(world.table, world.partitions[0])
    assert world.start_put(artist).error().reason is Reason.CONDITION_FAILED
    assert len(node.asked) == 1


def test_an_indefinite_write_is_retried_under_its_token_with_attempt_raised() -> None:
    """The storage node gets the same token again, told that it may have been carried out."""
    world = booted()
    node = world.owner(0)
    node.fail_next(Fault(LOST, after=True))
    artist = artist_in(world.table, world.partitions[0])
    world.start_put(artist, token(9), plays=1).wait()
    first, second = (each.write.token for each in node.asked)
    assert (first.sequence, first.attempt, first.age_ms) == (9, 0, 0)
    assert (second.sequence, second.attempt) == (9, 1)
    assert second.age_ms >= 1


def test_a_throttled_request_goes_back_at_once_with_all_that_was_said() -> None:
    """To wait is for the caller: a router that held it back would fill with what cannot be done."""
    world = booted()
    node = world.owner(0)
    error = throttled(Limit.KEY_RANGE, True, "music", "too much", 0.4)
    node.fail_next(Fault(error))
    pending = world.start_put(artist_in(world.table, world.partitions[0]), token(9))
    told = pending.error()
    assert (told.reason, told.metadata, told.retry_after_s) == (
        Reason.THROTTLED,
        error.metadata,
        0.4,
    )
    assert len(node.asked) == 1


def test_a_definite_failure_does_not_raise_the_attempt() -> None:
    world = booted()
    node = world.owner(0)
    node.fail_next(Fault(KeyplaneError(Reason.OVERLOADED, "later")))
    world.start_put(artist_in(world.table, world.partitions[0]), token(9)).wait()
    assert [each.write.token.attempt for each in node.asked] == [0, 0]


def test_a_clients_own_retry_keeps_its_count_and_its_age() -> None:
    """Attempts and age go on from what the client says, by the time spent in this router."""
    world = booted()
    node = world.owner(0)
    node.fail_next(Fault(LOST))
    artist = artist_in(world.table, world.partitions[0])
    world.start_put(artist, token(9, attempt=2, age_ms=400)).wait()
    first, second = (each.write.token for each in node.asked)
    assert (first.attempt, second.attempt) == (2, 3)
    assert first.age_ms == 400
    assert 400 < second.age_ms < 500


def test_time_that_a_router_holds_a_write_back_counts_to_its_age() -> None:
    """However the attempts between ended: its age is what it is when it is sent on."""
    world = booted()
    node = world.owner(0)
    later = KeyplaneError(Reason.OVERLOADED, "later", retry_after_s=1.0)
    node.fail_next(Fault(later), Fault(LOST), Fault(later))
    artist = artist_in(world.table, world.partitions[0])
    started_at = world.clock.now()
    world.start_put(artist, token(9, attempt=1, age_ms=400), timeout_s=10).wait()
    tokens = [each.write.token for each in node.asked]
    assert [each.attempt for each in tokens] == [1, 1, 2, 2]
    ages = [each.age_ms for each in tokens]
    assert ages == sorted(ages)
    held_ms = (world.clock.now() - started_at) * 1000
    assert 2400 <= ages[-1] <= 400 + held_ms


def test_a_write_without_a_token_gets_one_of_the_routers() -> None:
    """A bare gRPC tool is retried as safely as the SDK."""
    world = booted()
    node = world.owner(0)
    node.fail_next(Fault(LOST, after=True))
    artist = artist_in(world.table, world.partitions[0])
    world.put(artist, plays=1)
    world.put(artist, plays=2)
    tokens = [each.write.token for each in node.asked]
    assert len(tokens[0].client_id) == 16
    assert [each.client_id for each in tokens] == [tokens[0].client_id] * 3
    assert [each.attempt for each in tokens] == [0, 1, 0]
    assert tokens[0].sequence == tokens[1].sequence != tokens[2].sequence


def test_a_doubt_stays_when_later_attempts_fail_definitely() -> None:
    """One attempt was lost and the node then stays away: the caller hears that it is open."""
    world = booted()
    node = world.owner(0)
    node.fail_next(Fault(LOST, after=True))
    pending = world.start_put(artist_in(world.table, world.partitions[0]), token(9), timeout_s=1)
    world.clock.run_until(lambda: len(node.asked) == 1)
    node.stop()
    error = pending.error()
    assert not error.definite


def test_a_write_whose_retry_is_not_covered_is_indefinite() -> None:
    world = booted()
    world.owner(0).fail_next(
        Fault(LOST), Fault(KeyplaneError(Reason.RETRY_NOT_COVERED, "restarted since"))
    )
    pending = world.start_put(artist_in(world.table, world.partitions[0]), token(9))
    assert pending.error().reason is Reason.RETRY_NOT_COVERED


def test_a_failed_condition_settles_a_doubt() -> None:
    world = booted()
    world.owner(0).fail_next(Fault(LOST), Fault(KeyplaneError(Reason.CONDITION_FAILED, "no")))
    pending = world.start_put(artist_in(world.table, world.partitions[0]), token(9))
    assert pending.error().reason is Reason.CONDITION_FAILED


def test_the_deadline_travels_to_the_storage_node_and_ends_the_request() -> None:
    world = booted()
    world.owner(0).fail_next(Fault(None))
    artist = artist_in(world.table, world.partitions[0])
    started_at = world.clock.now()
    error = world.start_get(artist, timeout_s=0.3).error()
    assert error.reason is Reason.DEADLINE_EXCEEDED
    assert world.clock.now() - started_at == pytest.approx(0.3, abs=0.01)
    world.clock.run_for(1)
    assert world.counter("router_attempts").value("DEADLINE_EXCEEDED") == 1


def test_a_deadline_that_has_passed_is_refused_before_any_work() -> None:
    world = booted()
    replies = []
    server = world.network.find("router-1:7000")
    assert server is not None
    request = data.GetItemRequest(table="music", key=to_item({"artist": "x"}))
    late = Request(DATA + "GetItem", request.SerializeToString(), world.clock.now())
    server.handlers[DATA + "GetItem"](late, replies.append)
    assert replies[0].error.reason is Reason.DEADLINE_BEFORE_START
    assert all(not node.asked for node in world.nodes.values())


def test_a_caller_without_a_deadline_gets_the_default_and_long_ones_are_cut() -> None:
    world = booted(timeout_s=2.0, timeout_s_max=3.0)
    artist = artist_in(world.table, world.partitions[0])
    for timeout_s, expected in ((float("inf"), 2.0), (100.0, 3.0)):
        world.owner(0).fail_next(Fault(None))
        started_at = world.clock.now()
        world.start_get(artist, timeout_s=timeout_s).error()
        assert world.clock.now() - started_at == pytest.approx(expected, abs=0.01)


def test_too_many_requests_in_flight_are_shed_early() -> None:
    """I9: past the bound a request is refused at once, and told when to come back."""
    world = booted(inflight_max=3)
    world.owner(0).fail_next(*[Fault(None)] * 3)
    artist = artist_in(world.table, world.partitions[0])
    stuck = [world.start_get(artist, timeout_s=1.0) for _ in range(3)]
    error = world.start_get(artist).error()
    assert error.reason is Reason.OVERLOADED
    assert error.retry_after_s
    for each in stuck:
        each.error()
    world.clock.run_for(0.1)
    assert world.get(artist) is None


def test_retries_end_when_their_budget_is_spent() -> None:
    """A node that refuses everything gets each request little more often than once."""
    world = booted(retry_burst=10, retry_floor_per_s=0)
    artist = artist_in(world.table, world.partitions[0])
    node = world.owner(0)
    busy = Fault(KeyplaneError(Reason.OVERLOADED, "too much"))
    node.fail_next(*[busy] * 1000)
    pending = [world.start_get(artist, timeout_s=10) for _ in range(200)]
    reasons = {each.error().reason for each in pending}
    assert Reason.RETRY_BUDGET_SPENT in reasons
    assert len(node.asked) <= 200 + 10 + 0.1 * 200 + 1


def test_a_request_fails_early_when_the_next_attempt_would_come_too_late() -> None:
    world = booted()
    busy = KeyplaneError(Reason.OVERLOADED, "too much", retry_after_s=5.0)
    world.owner(0).fail_next(Fault(busy))
    started_at = world.clock.now()
    error = world.start_get(artist_in(world.table, world.partitions[0]), timeout_s=2).error()
    assert error.reason is Reason.OVERLOADED
    assert world.clock.now() - started_at < 0.1


def test_draining_answers_what_is_in_flight_and_refuses_the_rest() -> None:
    world = booted()
    router = world.router
    assert router is not None
    artist = artist_in(world.table, world.partitions[0])
    world.owner(0).fail_next(Fault(KeyplaneError(Reason.NOT_SERVING, "fenced")))
    pending = world.start_get(artist)
    world.clock.run_for(0.001)
    drained: list[bool] = []
    router.drain(lambda: drained.append(True))
    assert not router.ready
    assert world.start_get(artist).error().reason is Reason.SHUTTING_DOWN
    assert pending.wait() == data.GetItemResponse()
    world.clock.run_for(0.1)
    assert drained == [True]


def test_an_answer_that_does_not_fit_is_an_internal_error() -> None:
    """A storage node of another build cannot bring a router down, nor be believed."""
    world = booted()
    node = world.owner(0)
    node._do_get = lambda *_: (_ for _ in ()).throw(  # type: ignore[method-assign]
        KeyplaneError(Reason.INTERNAL, "bug")
    )
    artist = artist_in(world.table, world.partitions[0])
    assert world.start_get(artist).error().reason is Reason.INTERNAL
    node.network.remove(node.address)
    server = world.network.server(node.address)
    for payload in (b"\xff", b""):
        server.register(
            "/keyplane.storage.v1.StorageService/Execute",
            lambda _request, reply, payload=payload: reply(Reply(payload)),
        )
        error = world.start_get(artist).error()
        assert error.reason is Reason.INTERNAL
        assert "does not fit" in error.message


def test_a_stored_item_that_cannot_be_read_is_corrupt() -> None:
    world = booted()
    artist = artist_in(world.table, world.partitions[0])
    world.put(artist)
    node = world.owner(0)
    node.items = dict.fromkeys(node.items, (b"\xff\xff", 1))
    assert world.start_get(artist).error().reason is Reason.CORRUPT


KEY = to_item({"artist": "x"})

BAD = {
    "bytes that are no message": ("GetItem", b"\xff", Reason.MALFORMED_REQUEST),
    "no table name": ("GetItem", data.GetItemRequest(key=KEY), Reason.INVALID_ARGUMENT),
    "a table name that cannot be": (
        "GetItem",
        data.GetItemRequest(table="a b", key=KEY),
        Reason.INVALID_ARGUMENT,
    ),
    "no key": ("GetItem", data.GetItemRequest(table="music"), Reason.MISSING_KEY),
    "a key of another type": (
        "GetItem",
        data.GetItemRequest(table="music", key=to_item({"artist": 5})),
        Reason.WRONG_KEY_TYPE,
    ),
    "more than the key": (
        "DeleteItem",
        data.DeleteItemRequest(table="music", key=to_item({"artist": "x", "more": 1})),
        Reason.INVALID_ARGUMENT,
    ),
    "an item without its key": (
        "PutItem",
        data.PutItemRequest(table="music", item=to_item({"plays": 1})),
        Reason.MISSING_KEY,
    ),
    "an item that is too large": (
        "PutItem",
        data.PutItemRequest(table="music", item=to_item({"artist": "x", "data": b"." * 500_000})),
        Reason.ITEM_TOO_LARGE,
    ),
    "a token without a client": (
        "PutItem",
        data.PutItemRequest(table="music", item=KEY, token=data.WriteToken(sequence=1)),
        Reason.INVALID_ARGUMENT,
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_with_its_reason_and_counted(case: str) -> None:
    """I10: nothing reaches a storage node."""
    method, request, reason = BAD[case]
    assert isinstance(request, Message | bytes)
    world = booted()
    assert world.call(DATA + method, request, data.GetItemResponse).error().reason is reason
    assert world.counter("router_errors").value(reason.name) == 1
    assert all(not node.asked for node in world.nodes.values())
