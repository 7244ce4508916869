"""Calls between two processes whose network misbehaves: what the caller hears, and the server."""

from __future__ import annotations

import random
from collections.abc import Mapping

import pytest

from keyplane.model.errors import KeyplaneError, Reason
from wire.faults import Direction, Fault, FaultKind
from wire.injection import FaultTable, FaultyServer, FaultyTransport
from wire.injection.check import NETWORK_KINDS
from wire.memory import MemoryNetwork, VirtualClock
from wire.ports import Call, Reply, ReplyFn, Request

LATENCY_S = 0.25
METHOD = "/S/Echo"


class Scene:
    """router-1 calls storage-1 and storage-2, which answer at once with what they got.

    Faults of router-1 are on `at_caller`, those of storage-1 on `at_server`.
    """

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.network = MemoryNetwork(self.clock, LATENCY_S)
        self.at_caller = self._table("router-1")
        self.at_server = self._table("storage-1")
        inner = self.network.transport("router-1")
        self.transport = FaultyTransport(inner, self.at_caller, self.clock, random.Random(1))
        self.seen: dict[str, list[float]] = {"storage-1": [], "storage-2": []}
        self.replies: list[tuple[float, Reply]] = []
        faulty = FaultyServer(
            self.network.server("storage-1"), self.at_server, self.clock, random.Random(1)
        )
        faulty.register(METHOD, self._handler("storage-1"))
        self.network.server("storage-2").register(METHOD, self._handler("storage-2"))

    def _table(self, process: str) -> FaultTable:
        table = FaultTable(self.clock, process)
        for kind in NETWORK_KINDS:
            table.allow(kind)
        return table

    def _handler(self, name: str):
        def handle(request: Request, reply: ReplyFn) -> None:
            self.seen[name].append(self.clock.now())
            if request.payload == b"bad":
                raise KeyplaneError(Reason.INVALID_ARGUMENT, "no")
            reply(Reply(request.payload))

        return handle

    def fault(
        self,
        kind: FaultKind,
        direction: Direction = Direction.BOTH,
        probability: float = 1.0,
        parameters: Mapping[str, float] = {},
    ) -> None:
        """Between router-1 and storage-1."""
        fault = Fault(kind.value, kind, "router-1", "storage-1", direction, probability, parameters)
        self.at_caller.add(fault, ["storage-1"])

    def fault_with_everybody(
        self,
        kind: FaultKind,
        parameters: Mapping[str, float] = {},
    ) -> None:
        self.at_server.add(Fault("s", kind, "storage-1", parameters=parameters))

    def call(
        self, address: str = "storage-1", timeout_s: float = 5.0, payload: bytes = b"x"
    ) -> Call:
        return self.transport.call(
            address,
            METHOD,
            payload,
            self.clock.now() + timeout_s,
            lambda reply: self.replies.append((self.clock.now(), reply)),
        )

    def outcome(self) -> tuple[float, Reason | None, bool]:
        """When the one call ended, why, and whether it may have been sent."""
        self.clock.run_for(60.0)
        ((at, reply),) = self.replies
        return at, reply.error and reply.error.reason, reply.sent


LOST = (5.0, Reason.DEADLINE_EXCEEDED, True)


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_without_faults_nothing_is_different(scene: Scene) -> None:
    scene.call()
    assert scene.replies == [], "a callback never runs inside the call that took it"
    assert scene.outcome() == (2 * LATENCY_S, None, True)


def test_a_partition_is_silence_until_the_deadline_and_leaves_the_outcome_open(
    scene: Scene,
) -> None:
    scene.fault(FaultKind.PARTITION)
    scene.call()
    assert scene.outcome() == LOST
    assert not scene.replies[0][1].error.definite  # type: ignore[union-attr]
    assert scene.seen["storage-1"] == []


def test_a_partition_does_not_touch_calls_to_others(scene: Scene) -> None:
    scene.fault(FaultKind.PARTITION)
    scene.call("storage-2")
    assert scene.outcome() == (2 * LATENCY_S, None, True)


def test_one_way_to_the_peer_nothing_is_done(scene: Scene) -> None:
    scene.fault(FaultKind.PARTITION, Direction.TO_PEER)
    scene.call()
    assert scene.outcome() == LOST
    assert scene.seen["storage-1"] == []


def test_one_way_from_the_peer_it_is_done_and_the_caller_never_hears(scene: Scene) -> None:
    scene.fault(FaultKind.PARTITION, Direction.FROM_PEER)
    scene.call()
    assert scene.outcome() == LOST
    assert scene.seen["storage-1"] == [LATENCY_S]


def test_an_answer_under_way_when_the_fault_begins_is_lost_too(scene: Scene) -> None:
    scene.call()
    scene.clock.run_for(1.5 * LATENCY_S)
    scene.fault(FaultKind.PARTITION)
    assert scene.outcome() == LOST
    assert scene.seen["storage-1"] == [LATENCY_S]


def test_a_refused_connection_is_news_that_a_partition_keeps_back(scene: Scene) -> None:
    """Without it the caller knows at once that nothing was sent."""
    scene.network.remove("storage-1")
    scene.fault(FaultKind.PARTITION, Direction.FROM_PEER)
    scene.call()
    assert scene.outcome() == LOST


def test_latency_is_per_message_so_a_call_pays_it_twice(scene: Scene) -> None:
    scene.fault(FaultKind.LATENCY, parameters={"delay_s": 0.5})
    scene.call()
    assert scene.outcome() == (2 * LATENCY_S + 2 * 0.5, None, True)
    assert scene.seen["storage-1"] == [LATENCY_S + 0.5]


def test_latency_beyond_the_deadline_is_a_timeout(scene: Scene) -> None:
    scene.fault(FaultKind.LATENCY, Direction.FROM_PEER, parameters={"delay_s": 6.0})
    scene.call()
    assert scene.outcome() == LOST
    assert scene.seen["storage-1"] == [LATENCY_S]


def test_jitter_adds_up_to_its_bound_and_lets_requests_overtake_each_other(scene: Scene) -> None:
    scene.fault(FaultKind.LATENCY, Direction.TO_PEER, parameters={"delay_s": 0.5, "jitter_s": 1.0})
    for number in range(50):
        scene.call(payload=b"%d" % number)
    scene.clock.run_for(10.0)
    arrivals = scene.seen["storage-1"]
    assert LATENCY_S + 0.5 <= min(arrivals) < max(arrivals) <= LATENCY_S + 1.5
    assert [reply.payload for _, reply in scene.replies] != [b"%d" % n for n in range(50)]


def test_drop_loses_its_share_of_the_messages(scene: Scene) -> None:
    scene.fault(FaultKind.DROP, Direction.TO_PEER, probability=0.3)
    for _ in range(1000):
        scene.call()
    scene.clock.run_for(10.0)
    assert len(scene.replies) == 1000
    assert 600 < len(scene.seen["storage-1"]) < 800


def test_a_duplicate_arrives_twice_and_is_answered_once(scene: Scene) -> None:
    scene.fault(FaultKind.DUPLICATE, parameters={"delay_s": 1.0})
    scene.call()
    assert scene.outcome() == (2 * LATENCY_S, None, True)
    first, second = scene.seen["storage-1"]
    assert first == LATENCY_S < second <= LATENCY_S + 1.0


def test_a_lost_call_can_be_cancelled(scene: Scene) -> None:
    scene.fault(FaultKind.PARTITION)
    call = scene.call()
    scene.clock.run_for(1.0)
    call.cancel()
    assert scene.replies == []
    assert scene.outcome() == (1.0, Reason.CANCELLED, True)


def test_a_call_without_time_is_refused_as_ever(scene: Scene) -> None:
    scene.fault(FaultKind.PARTITION)
    scene.call(timeout_s=0.0)
    assert scene.outcome() == (0.0, Reason.DEADLINE_EXCEEDED, False)


def test_healed_in_the_middle_of_a_call_the_next_one_goes_through(scene: Scene) -> None:
    scene.fault(FaultKind.PARTITION)
    scene.call()
    scene.clock.run_for(1.0)
    scene.at_caller.heal_all()
    scene.call()
    scene.clock.run_for(60.0)
    assert [(at, reply.error is None) for at, reply in scene.replies] == [
        (1.0 + 2 * LATENCY_S, True),
        (5.0, False),
    ]


# --- With everybody: done by the server, whoever calls


def test_a_server_cut_from_everybody_neither_hears_nor_answers(scene: Scene) -> None:
    scene.fault_with_everybody(FaultKind.PARTITION)
    scene.call()
    assert scene.outcome() == LOST
    assert scene.seen["storage-1"] == []


def test_a_server_that_is_late_for_everybody_pays_for_each_message(scene: Scene) -> None:
    scene.fault_with_everybody(FaultKind.LATENCY, {"delay_s": 0.5})
    scene.call()
    assert scene.outcome() == (2 * LATENCY_S + 1.0, None, True)


def test_an_error_of_a_late_handler_is_its_answer_all_the_same(scene: Scene) -> None:
    scene.fault_with_everybody(FaultKind.LATENCY, {"delay_s": 0.5})
    scene.call(payload=b"bad")
    assert scene.outcome() == (2 * LATENCY_S + 1.0, Reason.INVALID_ARGUMENT, True)


def test_a_request_that_comes_twice_is_answered_once(scene: Scene) -> None:
    scene.fault_with_everybody(FaultKind.DUPLICATE)
    scene.call(payload=b"bad")
    assert scene.outcome() == (2 * LATENCY_S, Reason.INVALID_ARGUMENT, True)
    assert len(scene.seen["storage-1"]) == 2
