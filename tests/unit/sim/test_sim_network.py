"""The simulated network: what callers hear, what servers see, and what never happens."""

from __future__ import annotations

import math

import pytest
from sim_calls import LATENCY_S, Scene

from keyplane.model.errors import Reason
from sim.network import Delay, SimCall, Tap
from sim.process import SimProcess
from wire.ports import Reply


@pytest.fixture
def scene() -> Scene:
    return Scene()


# --- a network that works -----------------------------------------------------------------------


def test_an_answer_takes_the_way_there_the_work_and_the_way_back(scene: Scene) -> None:
    scene.work_s = 1.0
    scene.call()
    assert scene.heard == [], "a callback never runs inside the call that took it"
    heard = scene.outcome()
    assert (heard.at, heard.reply) == (1.5, Reply(b"payload"))
    (life, request) = scene.seen[0]
    assert (life, request.peer, dict(request.metadata)) == (1, "router-1", {"trace": "1"})


def test_a_handler_answers_with_an_error_by_raising_it(scene: Scene) -> None:
    scene.call(b"bad")
    assert scene.outcome().reason is Reason.INVALID_ARGUMENT


def test_a_method_that_nobody_registered_is_said_to_be_unknown(scene: Scene) -> None:
    scene.call(method="/S/Other")
    assert scene.outcome().reason is Reason.UNKNOWN_METHOD


def test_messages_have_delays_of_their_own_and_overtake_each_other() -> None:
    scene = Scene(delay=Delay(0.001, 0.01, 0.0, 0.0))
    for number in range(50):
        scene.call(b"%d" % number)
    scene.scheduler.run_until(1.0)
    arrived = [int(request.payload) for _, request in scene.seen]
    answered = [int(heard.reply.payload) for heard in scene.heard]
    assert sorted(arrived) == sorted(answered) == list(range(50))
    assert len({tuple(arrived), tuple(answered), tuple(range(50))}) == 3
    assert all(0.002 <= heard.at < 0.022 for heard in scene.heard)


def test_a_few_messages_are_late_by_far() -> None:
    scene = Scene(delay=Delay(0.001, 0.001, 0.05, 1.0))
    delays = [scene.network.transit("a", "b") for _ in range(2000)]
    late = [delay for delay in delays if delay is not None and delay > 0.002]
    assert 50 < len(late) < 150
    assert max(late) > 0.5


def test_delays_follow_from_the_seed() -> None:
    def delays(seed: int) -> list[float | None]:
        network = Scene(seed, Delay()).network
        return [network.transit("a", "b") for _ in range(20)]

    assert delays(1) == delays(1) != delays(2)


# --- deadlines and giving up --------------------------------------------------------------------


def test_the_deadline_ends_a_call_and_a_late_answer_is_not_heard(scene: Scene) -> None:
    scene.work_s = 10.0
    scene.call(timeout_s=2.0)
    heard = scene.outcome()
    assert (heard.at, heard.reason, heard.reply.sent) == (2.0, Reason.DEADLINE_EXCEEDED, True)
    assert len(scene.seen) == 1


def test_a_call_without_time_left_is_not_sent(scene: Scene) -> None:
    scene.call(timeout_s=0.0)
    heard = scene.outcome()
    assert (heard.at, heard.reason, heard.reply.sent) == (0.0, Reason.DEADLINE_EXCEEDED, False)
    assert scene.seen == []


def test_a_server_gets_the_time_that_was_left_by_its_own_clock() -> None:
    """As in gRPC's timeout header: what the way took is not deducted, and clocks need not agree."""
    scene = Scene()
    scene.server.kill()
    scene.start(rate=0.5, started_at=7000.0)
    scene.scheduler.run_until(10.0)
    scene.call(timeout_s=2.0)
    scene.scheduler.run_until(20.0)
    assert scene.seen[0][1].deadline == 7000.0 + (10.0 + LATENCY_S) * 0.5 + 2.0


def test_a_call_without_a_deadline_has_none_at_the_server_either(scene: Scene) -> None:
    scene.work_s = 50.0
    scene.call(timeout_s=math.inf)
    assert scene.outcome().reply.payload == b"payload"
    assert scene.seen[0][1].deadline == math.inf


def test_a_call_given_up_is_told_so_though_the_server_carries_it_out(scene: Scene) -> None:
    scene.work_s = 1.0
    call = scene.call()
    scene.at(0.5, call.cancel)
    heard = scene.outcome()
    assert (heard.at, heard.reason) == (0.5, Reason.CANCELLED)
    assert len(scene.seen) == 1


def test_to_give_up_a_call_that_has_ended_changes_nothing(scene: Scene) -> None:
    call = scene.call()
    scene.at(3.0, call.cancel)
    assert scene.outcome().reply == Reply(b"payload")


def test_a_dead_caller_hears_nothing(scene: Scene) -> None:
    scene.call()
    scene.at(0.3, scene.client.kill)
    scene.scheduler.run_until(60.0)
    assert scene.heard == []
    assert len(scene.seen) == 1


# --- servers that are not there -----------------------------------------------------------------


def test_where_nobody_listens_nothing_was_sent(scene: Scene) -> None:
    scene.server.kill()
    scene.call()
    heard = scene.outcome()
    assert (heard.at, heard.reason, heard.reply.sent) == (0.5, Reason.NODE_UNREACHABLE, False)


def test_a_server_that_dies_in_the_middle_of_a_call_leaves_open_what_it_did(
    scene: Scene,
) -> None:
    scene.work_s = 9.0
    scene.call()
    scene.at(1.0, scene.server.kill)
    heard = scene.outcome()
    assert (heard.at, heard.reason, heard.reply.sent) == (1.25, Reason.CONNECTION_LOST, True)


def test_a_restarted_server_never_sees_a_request_to_its_former_life(scene: Scene) -> None:
    """Its address is the same, but the connection was to the process that died."""
    scene.call(b"to life 1")
    scene.at(0.1, scene.server.kill)
    scene.at(0.2, scene.start)
    scene.at(0.3, lambda: scene.call(b"to life 2"))
    scene.scheduler.run_until(60.0)
    assert [(life, request.payload) for life, request in scene.seen] == [(2, b"to life 2")]
    reasons = {heard.reason for heard in scene.heard}
    assert reasons == {None, Reason.CONNECTION_LOST}


def test_an_answer_of_a_life_that_has_ended_is_not_given_by_the_next(scene: Scene) -> None:
    scene.work_s = 2.0
    scene.call()
    scene.at(1.0, scene.server.kill)
    scene.at(1.1, scene.start)
    assert scene.outcome().reason is Reason.CONNECTION_LOST


def test_a_server_that_starts_while_the_request_is_under_way_takes_it(scene: Scene) -> None:
    scene.server.kill()
    scene.call()
    scene.at(0.2, scene.start)
    assert scene.outcome().reply.payload == b"payload"


def test_callers_of_a_stopped_server_that_is_killed_are_told(scene: Scene) -> None:
    """The request had arrived, and its handler never ran; the connection breaks all the same."""
    scene.server.stop()
    scene.call(timeout_s=30.0)
    scene.at(4.0, scene.server.kill)
    heard = scene.outcome()
    assert (heard.at, heard.reason) == (4.25, Reason.CONNECTION_LOST)
    assert scene.seen == []


def test_a_stopped_server_answers_when_it_goes_on(scene: Scene) -> None:
    scene.server.stop()
    scene.call(timeout_s=30.0)
    scene.at(4.0, lambda: scene.server.resume(unnoticed=False))
    assert scene.outcome().at == 4.25


# --- what watches it ----------------------------------------------------------------------------


class Listener(Tap):
    def __init__(self) -> None:
        self.told: list[str] = []

    def on_send(self, call: SimCall) -> None:
        self.told.append(f"{call.source.name} sends")

    def on_request(self, call: SimCall, server: SimProcess) -> None:
        self.told.append(f"{server.name} gets")

    def on_answer(self, call: SimCall, server: SimProcess, reply: Reply) -> None:
        self.told.append(f"{server.name} answers")

    def on_reply(self, call: SimCall, reply: Reply) -> None:
        self.told.append(
            f"{call.source.name} hears {reply.error.reason.name if reply.error else 'ok'}"
        )


def test_a_tap_is_told_of_each_message_where_it_happens(scene: Scene) -> None:
    tap = Listener()
    scene.network.tap(tap)
    scene.call()
    scene.scheduler.run_until(9.0)
    assert tap.told == [
        "router-1 sends",
        "storage-1 gets",
        "storage-1 answers",
        "router-1 hears ok",
    ]


def test_a_tap_hears_of_answers_that_never_arrive(scene: Scene) -> None:
    tap = Listener()
    scene.network.tap(tap)
    scene.cut("storage-1", "router-1")
    scene.call()
    heard = scene.outcome()
    assert heard.reason is not None
    assert tap.told[2:] == ["storage-1 answers", f"router-1 hears {heard.reason.name}"]


def test_the_same_calls_leave_the_same_fingerprint() -> None:
    def fingerprint(seed: int) -> str:
        scene = Scene(seed, Delay())
        for _ in range(5):
            scene.call()
        scene.scheduler.run_until(1.0)
        return scene.trace.fingerprint()

    assert fingerprint(1) == fingerprint(1) != fingerprint(2)
