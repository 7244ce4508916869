"""The in-memory network and disk keep the rules of the ports."""

from __future__ import annotations

import pytest

from keyplane.model.errors import KeyplaneError, Reason
from wire.memory import MemoryDisk, MemoryNetwork, VirtualClock
from wire.ports import Call, Reply, ReplyFn, Request

LATENCY_S = 0.25


class Scene:
    """One caller and one server, "store", that answers with what it got, and after `delay_s`."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.network = MemoryNetwork(self.clock, LATENCY_S)
        self.transport = self.network.transport("router-1")
        self.seen: list[Request] = []
        self.replies: list[tuple[float, Reply]] = []
        self.delay_s = 0.0
        self.server = self.network.server("store")
        self.server.register("/S/Echo", self.echo)

    def echo(self, request: Request, reply: ReplyFn) -> None:
        self.seen.append(request)
        self.clock.call_later(self.delay_s, lambda: reply(Reply(request.payload)))

    def call(self, address: str = "store", method: str = "/S/Echo", timeout_s: float = 5.0) -> Call:
        return self.transport.call(
            address,
            method,
            b"payload",
            self.clock.now() + timeout_s,
            lambda reply: self.replies.append((self.clock.now(), reply)),
            metadata=[("trace", "1")],
        )

    def outcome(self) -> tuple[float, Reason | None, bool]:
        """When the one call ended, why, and whether it may have been sent."""
        self.clock.run_for(60.0)
        ((at, reply),) = self.replies
        return at, reply.error and reply.error.reason, reply.sent


def test_an_answer_takes_the_latency_both_ways() -> None:
    scene = Scene()
    scene.call()
    assert scene.replies == [], "a callback never runs inside the call that took it"
    assert scene.outcome() == (0.5, None, True)
    assert scene.replies[0][1].payload == b"payload"


def test_a_server_sees_who_calls_until_when_and_with_what() -> None:
    scene = Scene()
    scene.call()
    scene.clock.run_for(1.0)
    (seen,) = scene.seen
    assert (seen.method, seen.payload, seen.deadline) == ("/S/Echo", b"payload", 5.0)
    assert (seen.peer, seen.metadata) == ("router-1", {"trace": "1"})


def test_nobody_listening_is_definite() -> None:
    scene = Scene()
    scene.call("nowhere")
    assert scene.outcome() == (LATENCY_S, Reason.NODE_UNREACHABLE, False)


def test_a_server_that_dies_with_a_call_leaves_it_open_whether_it_was_done() -> None:
    scene = Scene()
    scene.delay_s = 10.0
    scene.call()
    scene.clock.run_for(1.0)
    scene.network.remove("store")
    at, reason, sent = scene.outcome()
    assert (at, reason, sent) == (1.25, Reason.CONNECTION_LOST, True)


def test_a_server_that_died_before_the_call_arrived_never_saw_it() -> None:
    scene = Scene()
    scene.call()
    scene.network.remove("store")
    assert scene.outcome() == (LATENCY_S, Reason.NODE_UNREACHABLE, False)
    assert scene.seen == []


def test_an_answer_of_a_dead_server_is_not_taken_for_one_of_its_successor() -> None:
    scene = Scene()
    scene.delay_s = 10.0
    scene.call()
    scene.clock.run_for(1.0)
    scene.network.remove("store")
    scene.network.server("store").register("/S/Echo", scene.echo)
    assert scene.outcome()[1] is Reason.CONNECTION_LOST


def test_the_deadline_ends_a_call_and_a_late_answer_is_dropped() -> None:
    scene = Scene()
    scene.delay_s = 10.0
    scene.call(timeout_s=2.0)
    assert scene.outcome() == (2.0, Reason.DEADLINE_EXCEEDED, True)


def test_a_call_without_time_left_is_never_sent() -> None:
    scene = Scene()
    scene.call(timeout_s=0.0)
    assert scene.outcome() == (0.0, Reason.DEADLINE_EXCEEDED, False)
    assert scene.seen == []


def test_cancelling_ends_a_call_once() -> None:
    scene = Scene()
    call = scene.call()
    call.cancel()
    assert scene.replies == []
    assert scene.outcome() == (0.0, Reason.CANCELLED, True)
    call.cancel()
    scene.clock.run_for(60.0)
    assert len(scene.replies) == 1


def test_cancelling_after_the_answer_changes_nothing() -> None:
    scene = Scene()
    call = scene.call()
    assert scene.outcome()[1] is None
    call.cancel()
    assert scene.outcome()[1] is None


def test_an_unknown_method_is_told_from_an_unknown_address() -> None:
    scene = Scene()
    scene.call(method="/S/Nope")
    assert scene.outcome()[1:] == (Reason.UNKNOWN_METHOD, True)


def test_a_raised_error_is_an_answer_and_any_other_exception_a_bug() -> None:
    scene = Scene()

    def busy(request: Request, reply: ReplyFn) -> None:
        raise KeyplaneError(Reason.OVERLOADED, "try later")

    def broken(request: Request, reply: ReplyFn) -> None:
        raise ZeroDivisionError

    scene.server.register("/S/Busy", busy)
    scene.server.register("/S/Broken", broken)
    scene.call(method="/S/Busy")
    assert scene.outcome()[1] is Reason.OVERLOADED
    scene.call(method="/S/Broken")
    with pytest.raises(ZeroDivisionError):
        scene.clock.run_for(1.0)


def test_a_second_answer_is_dropped() -> None:
    scene = Scene()

    def twice(request: Request, reply: ReplyFn) -> None:
        reply(Reply(b"first"))
        reply(Reply(b"second"))

    scene.server.register("/S/Twice", twice)
    scene.call(method="/S/Twice")
    scene.clock.run_for(1.0)
    assert [reply.payload for _, reply in scene.replies] == [b"first"]


def test_an_address_is_taken_until_its_server_is_gone() -> None:
    scene = Scene()
    with pytest.raises(ValueError, match="taken"):
        scene.network.server("store")
    scene.network.remove("store")
    scene.network.remove("store")
    scene.network.server("store")


def test_a_disk_that_refuses_writes_keeps_what_it_had() -> None:
    clock = VirtualClock()
    disk = MemoryDisk(clock)
    done: list[OSError | None] = []
    assert disk.read("map") is None
    disk.write_atomic("map", b"old", done.append)
    assert done == []
    disk.fail_with = OSError(28, "No space left on device")
    disk.write_atomic("map", b"new", done.append)
    clock.run_for(0.0)
    assert done == [None, disk.fail_with]
    assert disk.read("map") == b"old"
