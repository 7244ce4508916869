"""Which router is chosen, which are left alone, and how they come back."""

from __future__ import annotations

import random

import pytest

from keyplane.client.config import ClientConfig
from keyplane.client.pool import Outcome, Router, RouterPool, outcome_of
from keyplane.model.errors import KeyplaneError, Reason

CONFIG = ClientConfig(slow_samples=5)


def make(count: int = 3, config: ClientConfig = CONFIG) -> RouterPool:
    return RouterPool([f"router-{n}" for n in range(1, count + 1)], config, random.Random(1))


def answer(pool: RouterPool, router: Router, latency_s: float = 0.001, now: float = 0.0) -> None:
    pool.release(router, now, latency_s, Outcome.ANSWERED)


def test_the_router_with_the_fewest_outstanding_is_chosen() -> None:
    pool = make()
    first, second, third = (pool.acquire() for _ in range(3))
    assert {first.address, second.address, third.address} == {"router-1", "router-2", "router-3"}
    answer(pool, second)
    assert pool.acquire() is second


def test_ties_are_broken_at_random() -> None:
    """Clients that start together do not all begin with the same router."""
    first = {
        RouterPool(["a", "b", "c"], CONFIG, random.Random(seed)).acquire().address
        for seed in range(30)
    }
    assert first == {"a", "b", "c"}


def test_a_router_that_holds_its_requests_gets_no_more() -> None:
    """A router that hangs is avoided from its first request on, without being measured."""
    pool = make()
    stuck = pool.acquire()
    for _ in range(20):
        router = pool.acquire()
        assert router is not stuck
        answer(pool, router)


def test_a_lost_connection_ejects_at_once() -> None:
    """A router that fails fast would be the least loaded of all, and draw every request."""
    pool = make(2)
    dead = pool.acquire()
    pool.release(dead, 1.0, 0.001, Outcome.FAILED)
    for _ in range(10):
        router = pool.acquire()
        assert router is not dead
    assert repr(dead) == f"<{dead.address} ejected 0 outstanding>"


def test_a_single_timeout_does_not_eject_but_two_in_a_row_do() -> None:
    pool = make(2)
    router = pool.acquire()
    pool.release(router, 1.0, 2.5, Outcome.TIMED_OUT)
    assert "up" in repr(router)
    router.outstanding += 1
    pool.release(router, 1.0, 2.5, Outcome.TIMED_OUT)
    assert "ejected" in repr(router)


def test_an_answer_between_two_timeouts_keeps_a_router() -> None:
    pool = make(2)
    router = pool.acquire()
    for outcome in (Outcome.TIMED_OUT, Outcome.ANSWERED, Outcome.TIMED_OUT):
        pool.release(router, 1.0, 0.001, outcome)
        router.outstanding += 1
    assert "up" in repr(router)


def feed(pool: RouterPool, latencies: dict[str, float], times: int) -> None:
    for _ in range(times):
        for router in pool.routers:
            router.outstanding += 1
            answer(pool, router, latencies[router.address])


def test_a_router_much_slower_than_the_others_is_ejected() -> None:
    pool = make()
    feed(pool, {"router-1": 0.002, "router-2": 0.002, "router-3": 0.2}, 5)
    assert [router.state.value for router in pool.routers] == ["up", "up", "ejected"]


def test_routers_that_are_all_slow_are_all_kept() -> None:
    """A slow table is slow everywhere; that is no router's fault."""
    pool = make()
    feed(pool, {"router-1": 0.2, "router-2": 0.3, "router-3": 0.25}, 20)
    assert all("up" in repr(router) for router in pool.routers)


def test_a_difference_that_is_small_in_time_ejects_nobody() -> None:
    pool = make()
    feed(pool, {"router-1": 0.001, "router-2": 0.001, "router-3": 0.02}, 20)
    assert all("up" in repr(router) for router in pool.routers)


def test_the_last_router_is_never_ejected_for_being_slow() -> None:
    pool = make(2)
    pool.release(pool.acquire(), 0.0, 0.001, Outcome.FAILED)
    (left,) = [router for router in pool.routers if "up" in repr(router)]
    for _ in range(20):
        left.outstanding += 1
        answer(pool, left, 3.0)
    assert "up" in repr(left)


def test_an_ejected_router_comes_back_by_a_probe() -> None:
    pool = make(2)
    dead = pool.acquire()
    pool.release(dead, 1.0, 0.001, Outcome.FAILED)
    assert pool.probes_due(1.0) == []
    due_at = 1.0 + CONFIG.eject_base_s
    assert pool.probes_due(due_at) == [dead.address]
    assert pool.probes_due(due_at) == [], "one probe at a time"
    pool.probed(dead.address, True, due_at)
    assert "up" in repr(dead)


def test_failed_probes_are_further_and_further_apart() -> None:
    """The time doubles with each ejection in a row, up to a cap."""
    pool = make(2)
    dead = pool.acquire()
    pool.release(dead, 0.0, 0.001, Outcome.FAILED)
    waits = []
    now = 0.0
    for _ in range(8):
        waits.append(dead.probe_at - now)
        now = dead.probe_at
        pool.probes_due(now)
        pool.probed(dead.address, False, now)
    assert waits[:4] == pytest.approx([0.2, 0.4, 0.8, 1.6])
    assert waits[-1] == CONFIG.eject_cap_s


def test_with_no_router_up_the_ejected_ones_are_tried() -> None:
    """A request that may fail is better than one that is sure to."""
    pool = make(2)
    for _ in range(2):
        pool.release(pool.acquire(), 0.0, 0.001, Outcome.FAILED)
    router = pool.acquire()
    assert "ejected" in repr(router)
    answer(pool, router)
    assert "up" in repr(router)


def test_a_router_tried_already_is_avoided() -> None:
    pool = make()
    assert pool.acquire({"router-1", "router-3"}).address == "router-2"
    assert pool.has_untried({"router-1", "router-3"})
    assert not pool.has_untried({"router-1", "router-2", "router-3"})
    assert pool.acquire({"router-1", "router-2", "router-3"}).address in {"router-1", "router-3"}


@pytest.mark.parametrize("addresses", [[], [f"router-{n}" for n in range(257)]])
def test_a_client_needs_some_routers_and_not_too_many(addresses: list[str]) -> None:
    with pytest.raises(KeyplaneError) as caught:
        RouterPool(addresses, CONFIG, random.Random(1))
    assert caught.value.reason is Reason.INVALID_ARGUMENT


def test_a_router_named_twice_is_one_router() -> None:
    assert len(RouterPool(["a", "b", "a"], CONFIG, random.Random(1)).routers) == 2


@pytest.mark.parametrize(
    ("reason", "outcome"),
    [
        (Reason.CONNECTION_LOST, Outcome.FAILED),
        (Reason.NODE_UNREACHABLE, Outcome.FAILED),
        (Reason.SHUTTING_DOWN, Outcome.FAILED),
        (Reason.DEADLINE_EXCEEDED, Outcome.TIMED_OUT),
        (Reason.OVERLOADED, Outcome.ANSWERED),
        (Reason.THROTTLED, Outcome.ANSWERED),
        (Reason.CONDITION_FAILED, Outcome.ANSWERED),
        (Reason.NO_ROUTE, Outcome.ANSWERED),
    ],
)
def test_what_an_error_says_about_the_router(reason: Reason, outcome: Outcome) -> None:
    assert outcome_of(KeyplaneError(reason, "")) is outcome
