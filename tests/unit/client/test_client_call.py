"""What becomes of one call: attempts, other routers, back-off, tokens, deadline, errors."""

from __future__ import annotations

import pytest
from client_world import CLIENT, HANGS, LOST, REFUSED, ClientWorld

from keyplane import ConditionFailed, DeadlineExceeded, OutcomeUnknown, Throttled, Unavailable
from keyplane.client.call import Call, Send
from keyplane.client.config import ClientConfig
from keyplane.client.requests import VersionedItem
from keyplane.data.v1 import data_pb2 as data
from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.items import to_item

FOUND = data.GetItemResponse(item=to_item({"artist": "x", "plays": 1}), version=4)
WRITTEN = data.PutItemResponse(version=5)
OVERLOADED = KeyplaneError(Reason.OVERLOADED, "too much")


def get(world: ClientWorld, timeout_s: float | None = None) -> Call[VersionedItem | None]:
    return world.core.get(world.now, "music", {"artist": "x"}, True, timeout_s)


def put(world: ClientWorld, timeout_s: float | None = None) -> Call[int]:
    return world.core.put(world.now, "music", {"artist": "x"}, None, timeout_s)


def test_an_answer_ends_the_call() -> None:
    world = ClientWorld(answers=[FOUND])
    assert world.run(get(world)) == VersionedItem({"artist": "x", "plays": 1}, 4)
    (sent,) = world.sent
    assert sent.request == data.GetItemRequest(
        table="music", key=to_item({"artist": "x"}), consistent_read=True
    )
    assert [router.outstanding for router in world.core.pool.routers] == [0, 0, 0]


def test_an_item_that_is_not_there_is_none() -> None:
    world = ClientWorld(answers=[data.GetItemResponse()])
    assert world.run(get(world)) is None


def test_a_lost_router_is_replaced_by_another_at_once() -> None:
    """kill -9 of a router costs a read one attempt and no waiting."""
    world = ClientWorld(answers=[LOST, FOUND])
    assert world.run(get(world)) is not None
    first, second = world.sent
    assert first.router != second.router
    assert second.at - first.at == pytest.approx(world.latency_s)


def test_a_write_lost_with_its_router_is_sent_again_under_its_token() -> None:
    """The same token, told that it may have been carried out, and how long ago it was."""
    world = ClientWorld(answers=[LOST, REFUSED, WRITTEN], latency_s=0.01)
    assert world.run(put(world)) == 5
    tokens = [sent.request.token for sent in world.sent]
    assert [token.client_id for token in tokens] == [CLIENT] * 3
    assert [token.sequence for token in tokens] == [1, 1, 1]
    assert [token.attempt for token in tokens] == [0, 1, 1]
    assert [token.age_ms for token in tokens] == [0, 10, 20]
    assert len({sent.router for sent in world.sent}) == 3


def test_a_definite_failure_leaves_the_attempt_as_it_is() -> None:
    world = ClientWorld(answers=[REFUSED, OVERLOADED, WRITTEN])
    world.run(put(world))
    assert [sent.request.token.attempt for sent in world.sent] == [0, 0, 0]


def test_losing_a_router_spends_nothing_of_the_retry_budget() -> None:
    """Any number of calls may be in flight at a router that dies, and all go on."""
    config = ClientConfig(retry_burst=0, retry_floor_per_s=0, retry_ratio=0)
    world = ClientWorld(config=config, answers=[LOST, FOUND])
    assert world.run(get(world)) is not None


def test_other_failures_are_paid_for_and_end_when_the_budget_is_spent() -> None:
    config = ClientConfig(retry_burst=2, retry_floor_per_s=0, retry_ratio=0)
    world = ClientWorld(config=config, answers=[OVERLOADED])
    error = world.error(get(world))
    assert error.reason is Reason.RETRY_BUDGET_SPENT
    assert isinstance(error, Unavailable)
    assert len(world.sent) == 3


def test_a_throttled_call_is_tried_again_when_it_makes_sense() -> None:
    throttled = KeyplaneError(Reason.THROTTLED, "too much", retry_after_s=0.3)
    world = ClientWorld(answers=[throttled, WRITTEN])
    world.run(put(world))
    first, second = world.sent
    assert second.at - first.at >= 0.3
    assert second.request.token.attempt == 0


def test_without_a_budget_a_throttled_call_says_that_it_was_throttled() -> None:
    """Nothing is in trouble; whoever is refused has to know by which limit."""
    config = ClientConfig(retry_burst=1, retry_floor_per_s=0, retry_ratio=0)
    facts = {"reason": "TableReadKeyRangeThroughputExceeded"}
    world = ClientWorld(
        config=config, answers=[KeyplaneError(Reason.THROTTLED, "too much", metadata=facts)]
    )
    error = world.error(get(world))
    assert isinstance(error, Throttled)
    assert error.metadata == facts
    assert len(world.sent) == 2


def test_a_router_that_hangs_costs_one_attempt_timeout() -> None:
    world = ClientWorld(answers=[HANGS, FOUND])
    assert world.run(get(world)) is not None
    assert [sent.timeout_s for sent in world.sent] == [2.5, 2.5]
    assert world.sent[0].router != world.sent[1].router
    assert world.sent[1].at - world.sent[0].at == 2.5


def test_the_deadline_is_for_all_attempts_together() -> None:
    world = ClientWorld(answers=[HANGS])
    started_at = world.now
    error = world.error(get(world, timeout_s=3.0))
    assert isinstance(error, DeadlineExceeded)
    assert world.now - started_at == pytest.approx(3.0)
    assert [sent.timeout_s for sent in world.sent] == pytest.approx([2.5, 0.5])


def test_the_last_failure_is_told_when_time_is_up() -> None:
    """REFUSED says more than that a deadline has passed."""
    world = ClientWorld(answers=[REFUSED])
    started_at = world.now
    error = world.error(get(world, timeout_s=2.0))
    assert error.reason is Reason.NODE_UNREACHABLE
    assert isinstance(error, Unavailable)
    assert world.now - started_at <= 2.0


def test_without_any_time_nothing_is_sent() -> None:
    world = ClientWorld(answers=[FOUND])
    error = world.error(get(world, timeout_s=0.0))
    assert error.reason is Reason.DEADLINE_BEFORE_START
    assert not world.sent


def test_what_the_server_asks_for_is_waited() -> None:
    later = KeyplaneError(Reason.OVERLOADED, "too much", retry_after_s=0.5)
    world = ClientWorld(answers=[later, FOUND])
    world.run(get(world))
    assert world.sent[1].at - world.sent[0].at >= 0.5


def test_errors_that_repeating_does_not_help_are_raised_at_once() -> None:
    for reason in (Reason.CONDITION_FAILED, Reason.TABLE_NOT_FOUND, Reason.ITEM_TOO_LARGE):
        world = ClientWorld(answers=[KeyplaneError(reason, "no")])
        assert world.error(put(world)).reason is reason
        assert len(world.sent) == 1


def test_a_failed_condition_has_its_own_class() -> None:
    world = ClientWorld(answers=[KeyplaneError(Reason.CONDITION_FAILED, "no")])
    with pytest.raises(ConditionFailed):
        world.run(put(world))


def test_a_doubt_stays_when_later_attempts_fail_definitely() -> None:
    """One attempt may have worked: a definite end of the last one does not undo that."""
    world = ClientWorld(answers=[LOST, REFUSED])
    error = world.error(put(world, timeout_s=1.0))
    assert isinstance(error, OutcomeUnknown)
    assert not error.definite


def test_a_call_that_was_seen_before_may_have_been_carried_out() -> None:
    """Something on the way has doubled it, and the answer to the second came first."""
    replayed = KeyplaneError(Reason.REPLAYED, "seen before")
    suspended = KeyplaneError(Reason.TENANT_SUSPENDED, "since then")
    world = ClientWorld(answers=[replayed, suspended])
    error = world.error(put(world))
    assert isinstance(error, OutcomeUnknown)
    assert not error.definite
    assert [sent.request.token.attempt for sent in world.sent] == [0, 1]


def test_a_failed_condition_settles_a_doubt() -> None:
    """Storage nodes judge a condition only when no earlier attempt was carried out."""
    world = ClientWorld(answers=[LOST, KeyplaneError(Reason.CONDITION_FAILED, "no")])
    assert isinstance(world.error(put(world)), ConditionFailed)


def test_reads_have_no_doubts() -> None:
    world = ClientWorld(answers=[LOST, REFUSED])
    error = world.error(get(world, timeout_s=1.0))
    assert error.reason is Reason.NODE_UNREACHABLE


def test_attempts_are_bounded() -> None:
    config = ClientConfig(attempts_max=4)
    world = ClientWorld(config=config, answers=[OVERLOADED])
    assert world.error(get(world, timeout_s=60)).reason is Reason.OVERLOADED
    assert len(world.sent) == 4


def test_abandoning_a_call_frees_its_router() -> None:
    world = ClientWorld()
    call = get(world)
    call.next(world.now)
    assert sum(router.outstanding for router in world.core.pool.routers) == 1
    call.abandoned(world.now)
    assert sum(router.outstanding for router in world.core.pool.routers) == 0


def test_probes_ride_along_with_calls() -> None:
    """An ejected router is asked for its health when some call is sent anyway."""
    world = ClientWorld(answers=[LOST, FOUND])
    world.run(get(world))
    dead = world.sent[0].router
    world.now += 1.0
    step = get(world).next(world.now)
    assert getattr(step, "probes", None) == [dead]


# --- Hedged reads --------------------------------------------------------------------------------


def hedged(world: ClientWorld) -> tuple[Call[VersionedItem | None], str, str]:
    """A read that two routers have, the first for 40 ms longer."""
    call = get(world)
    first = call.next(world.now)
    assert isinstance(first, Send) and first.hedge_after_s == 0.04
    second = call.hedge(world.now + 0.04)
    assert second is not None and second.hedge_after_s is None
    assert second.router != first.router
    return call, first.router, second.router


def outstanding(world: ClientWorld) -> int:
    return sum(router.outstanding for router in world.core.pool.routers)


HEDGES = ClientConfig(hedge_after_s=0.04)


@pytest.mark.parametrize("second_wins", [True, False])
def test_the_first_of_two_routers_to_answer_counts(second_wins: bool) -> None:
    """The other one has taken at least until now, and is the slower for it."""
    world = ClientWorld(config=HEDGES)
    call, first, second = hedged(world)
    assert outstanding(world) == 2
    winner, loser = (second, first) if second_wins else (first, second)
    call.keep(winner, world.now + 0.05)
    assert call.answered(world.now + 0.05, FOUND)
    assert call.result is not None
    assert outstanding(world) == 0
    seen = {router.address: router.latency_s for router in world.core.pool.routers}
    begun = {first: 0.05, second: 0.01}
    assert seen[winner] == pytest.approx(begun[winner])
    assert seen[loser] == pytest.approx(begun[loser])


def test_when_one_of_two_fails_the_other_is_waited_for() -> None:
    world = ClientWorld(config=HEDGES)
    call, first, second = hedged(world)
    call.keep(first, world.now + 0.05, LOST)
    assert outstanding(world) == 1
    states = {router.address: router.state.value for router in world.core.pool.routers}
    assert states[second] == "ejected"
    call.failed(world.now + 0.06, LOST)
    assert outstanding(world) == 0
    third = call.next(world.now + 0.06)
    assert isinstance(third, Send) and third.router not in (first, second)


def test_an_abandoned_call_frees_both_routers() -> None:
    world = ClientWorld(config=HEDGES)
    call, _, _ = hedged(world)
    call.abandoned(world.now)
    assert outstanding(world) == 0


def test_hedges_are_paid_for_like_retries() -> None:
    world = ClientWorld(config=ClientConfig(hedge_after_s=0.04, retry_burst=1, retry_floor_per_s=0))
    hedged(world)
    call = get(world)
    call.next(world.now)
    assert call.hedge(world.now) is None
    assert outstanding(world) == 3


def test_only_reads_are_hedged_and_only_where_there_is_another_router() -> None:
    step = put(world := ClientWorld(config=HEDGES)).next(world.now)
    assert isinstance(step, Send) and step.hedge_after_s is None
    alone = ClientWorld(routers=1, config=HEDGES)
    call = get(alone)
    call.next(alone.now)
    assert call.hedge(alone.now) is None
    step = get(world := ClientWorld()).next(world.now)
    assert isinstance(step, Send) and step.hedge_after_s is None
