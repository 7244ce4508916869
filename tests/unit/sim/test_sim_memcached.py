"""Simulated memcached: one fleet, reached by each process over a network of its own."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import pytest

from cache.memory import VALUE_BYTES_MAX, MemoryMemcached
from sim.memcached import TIMEOUT_S, SimMemdsNode
from sim.network import Delay, Link, SimNetwork
from sim.process import SimProcess
from sim.scheduler import Scheduler
from sim.trace import Trace
from wire.ports import MemdsGet, MemdsOutcome, MemdsStore

LATENCY_S = 0.01
MARKER = "marker"


class Scene:
    """memds-1, with its marker and the key `a`, and two processes that use it."""

    def __init__(self) -> None:
        self.scheduler = Scheduler()
        delay = Delay(LATENCY_S, 0.0, 0.0, 0.0)
        self.network = SimNetwork(self.scheduler, random.Random(1), Trace(), delay)
        self.memcached = MemoryMemcached("memds-1", MARKER)
        self.memcached.store({MARKER: b"", "a": b"1"})
        self.requests: Counter[str] = Counter()
        self.links: dict[tuple[str, str], Link] = {}
        self.network.use_faults(lambda source, target: self.links.get((source, target)))
        self.processes = [SimProcess(self.scheduler, name, 1) for name in ("router-1", "storage-1")]
        self.router, self.storage = (
            SimMemdsNode(self.scheduler, self.network, process, self.memcached, self.requests)
            for process in self.processes
        )

    def answer(self, ask: Callable[[Callable[..., None]], None]) -> tuple[float, object]:
        """When a request was answered, from now, and how."""
        began_at, answers = self.scheduler.now, []
        ask(lambda *answer: answers.append((self.scheduler.now - began_at, answer)))
        assert not answers, "never inside the call"
        self.scheduler.run_until(began_at + 10.0)
        ((took_s, answer),) = answers
        return round(took_s, 9), answer[0] if len(answer) == 1 else answer

    def get(self, node: SimMemdsNode | None = None) -> tuple[float, MemdsGet]:
        node = node or self.router
        took_s, answer = self.answer(lambda done: node.get_many(["a", "b"], done))
        assert isinstance(answer, MemdsGet)
        return took_s, answer

    def set(self, value: bytes = b"2") -> tuple[float, object]:
        return self.answer(lambda done: self.router.set_many({"a": value}, done))


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_an_answer_takes_the_way_there_and_back(scene: Scene) -> None:
    assert scene.get() == (2 * LATENCY_S, MemdsGet(MemdsOutcome.OK, {"a": b"1"}))


def test_what_one_process_stores_the_other_reads(scene: Scene) -> None:
    assert scene.set() == (2 * LATENCY_S, MemdsOutcome.OK)
    assert scene.get(scene.storage)[1].values == {"a": b"2"}


def test_a_swap_is_refused_once_somebody_else_has_stored(scene: Scene) -> None:
    _, held = scene.answer(lambda done: scene.router.gets_many(["a"], done))
    assert isinstance(held, MemdsGet)
    token = held.tokens["a"]

    def swap(node: SimMemdsNode) -> object:
        return scene.answer(lambda done: node.cas("a", b"3", token, done))[1]

    assert swap(scene.storage) == (MemdsStore.STORED, MemdsOutcome.OK)
    assert swap(scene.router) == (MemdsStore.CONFLICT, MemdsOutcome.OK)
    scene.memcached.flush()
    assert swap(scene.router) == (MemdsStore.MISSING, MemdsOutcome.OK)


def test_an_add_is_of_the_first(scene: Scene) -> None:
    def add() -> object:
        return scene.answer(lambda done: scene.router.add("new", b"1", done))[1]

    assert add() == (MemdsStore.STORED, MemdsOutcome.OK)
    assert add() == (MemdsStore.CONFLICT, MemdsOutcome.OK)


def test_a_late_answer_is_a_timeout_though_the_store_took_effect(scene: Scene) -> None:
    scene.memcached.delay_s = 1.0
    assert scene.set() == (TIMEOUT_S, MemdsOutcome.TIMEOUT)
    assert scene.memcached.values["a"] == b"2"


def test_a_lost_answer_is_a_timeout_though_the_store_took_effect(scene: Scene) -> None:
    scene.links["memds-1", "router-1"] = Link(cut=True)
    assert scene.set() == (TIMEOUT_S, MemdsOutcome.TIMEOUT)
    assert scene.memcached.values["a"] == b"2"


@pytest.mark.parametrize("link", [Link(cut=True), Link(delay_s=1.0)], ids=["lost", "late"])
def test_a_request_that_does_not_arrive_in_time_has_no_effect(scene: Scene, link: Link) -> None:
    scene.links["router-1", "memds-1"] = link
    assert scene.set() == (TIMEOUT_S, MemdsOutcome.TIMEOUT)
    assert scene.memcached.values["a"] == b"1"


def test_a_node_that_is_down_refuses_and_does_not_wait(scene: Scene) -> None:
    """Unlike one that is slow, and even if it is slow besides."""
    scene.memcached.down = True
    scene.memcached.delay_s = 9.0
    assert scene.get() == (2 * LATENCY_S, MemdsGet(MemdsOutcome.DOWN))
    assert scene.set() == (2 * LATENCY_S, MemdsOutcome.DOWN)
    _, stored = scene.answer(lambda done: scene.router.add("new", b"", done))
    assert stored == (MemdsStore.FAILED, MemdsOutcome.DOWN)
    assert scene.memcached.values["a"] == b"1"


def test_the_refusal_of_a_node_that_is_down_can_be_lost_too(scene: Scene) -> None:
    scene.memcached.down = True
    scene.links["memds-1", "router-1"] = Link(cut=True)
    assert scene.get() == (TIMEOUT_S, MemdsGet(MemdsOutcome.TIMEOUT))


def test_a_broken_node_answers_with_errors(scene: Scene) -> None:
    scene.memcached.broken = True
    assert scene.get() == (2 * LATENCY_S, MemdsGet(MemdsOutcome.ERROR))


def test_a_value_that_is_too_large_is_refused(scene: Scene) -> None:
    assert scene.set(bytes(VALUE_BYTES_MAX + 1))[1] is MemdsOutcome.ERROR
    assert scene.memcached.values["a"] == b"1"


def test_the_misses_of_a_flushed_node_mean_nothing(scene: Scene) -> None:
    scene.memcached.flush()
    assert scene.get()[1] == MemdsGet(MemdsOutcome.EMPTY)


def test_a_stale_node_stores_what_it_is_given_and_shows_what_it_had(scene: Scene) -> None:
    scene.memcached.freeze()
    scene.set()
    assert scene.get()[1].values == {"a": b"1"}
    scene.memcached.thaw()
    assert scene.get()[1].values == {"a": b"2"}


def test_values_are_damaged_on_their_way_and_not_where_they_are(scene: Scene) -> None:
    scene.memcached.damage = lambda key, value: value + b"!"
    assert scene.get()[1].values == {"a": b"1!"}
    assert scene.memcached.values["a"] == b"1"


def test_requests_are_counted_by_who_sends_them_answered_or_not(scene: Scene) -> None:
    scene.get()
    scene.get(scene.storage)
    scene.links["router-1", "memds-1"] = Link(cut=True)
    scene.get()
    scene.memcached.down = True
    scene.get(scene.storage)
    assert scene.requests == {"router-1": 2, "storage-1": 2}


def test_a_partition_between_one_process_and_one_node_is_between_them_alone(
    scene: Scene,
) -> None:
    scene.links["router-1", "memds-1"] = scene.links["memds-1", "router-1"] = Link(cut=True)
    assert scene.get()[1].outcome is MemdsOutcome.TIMEOUT
    assert scene.get(scene.storage)[1].outcome is MemdsOutcome.OK


def test_a_store_takes_effect_though_its_sender_dies_meanwhile(scene: Scene) -> None:
    answers: list[object] = []
    scene.router.set_many({"a": b"2"}, answers.append)
    scene.processes[0].kill()
    scene.scheduler.run_until(1.0)
    assert answers == []
    assert scene.memcached.values["a"] == b"2"
