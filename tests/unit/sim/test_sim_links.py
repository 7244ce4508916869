"""Links of the simulated network that lose, double, delay or cut off messages."""

from __future__ import annotations

import pytest
from sim_calls import LATENCY_S, Scene

from keyplane.model.errors import Reason
from sim.network import Link
from wire.ports import Reply


@pytest.fixture
def scene() -> Scene:
    return Scene()


# --- loss ---------------------------------------------------------------------------------------


def test_a_lost_message_is_silence_or_a_broken_connection() -> None:
    """Both happen, and either way the caller must take it that the request may have arrived."""
    scene = Scene()
    scene.links["router-1", "storage-1"] = Link(loss=1.0)
    for _ in range(100):
        scene.call(timeout_s=2.0)
    scene.scheduler.run_until(60.0)
    assert scene.seen == []
    ends = [(heard.at, heard.reason) for heard in scene.heard]
    assert set(ends) == {(0.2, Reason.CONNECTION_LOST), (2.0, Reason.DEADLINE_EXCEEDED)}
    assert len(ends) == 100
    assert all(heard.reply.sent for heard in scene.heard)


def test_a_lost_answer_leaves_the_work_done(scene: Scene) -> None:
    scene.links["storage-1", "router-1"] = Link(loss=1.0)
    scene.call()
    assert scene.outcome().reason in (Reason.CONNECTION_LOST, Reason.DEADLINE_EXCEEDED)
    assert len(scene.seen) == 1


def test_loss_is_of_the_share_that_was_asked_for(scene: Scene) -> None:
    scene.links["a", "b"] = Link(loss=0.25)
    lost = sum(scene.network.transit("a", "b") is None for _ in range(2000))
    assert 400 < lost < 600


# --- duplication --------------------------------------------------------------------------------


def test_a_doubled_request_is_carried_out_twice_and_answered_once(scene: Scene) -> None:
    scene.links["router-1", "storage-1"] = Link(duplication=1.0)
    scene.call()
    assert scene.outcome().reply == Reply(b"payload")
    assert [request.payload for _, request in scene.seen] == [b"payload", b"payload"]
    assert scene.network.sent["doubled"] == 1


def test_the_double_of_a_request_never_reaches_a_later_life(scene: Scene) -> None:
    scene.links["router-1", "storage-1"] = Link(duplication=1.0)
    scene.call()
    scene.at(1.0, scene.server.kill)
    scene.at(1.1, scene.start)
    scene.scheduler.run_until(60.0)
    assert [life for life, _ in scene.seen] == [1]


def test_a_request_that_was_refused_does_not_arrive_after_all(scene: Scene) -> None:
    """Its caller is told that nothing was sent, which must stay true if a server starts then."""
    scene.links["router-1", "storage-1"] = Link(duplication=1.0)
    scene.server.kill()
    scene.call()
    scene.at(0.5, scene.start)
    heard = scene.outcome()
    assert (heard.reason, heard.reply.sent) == (Reason.NODE_UNREACHABLE, False)
    assert scene.seen == []


# --- links --------------------------------------------------------------------------------------


def test_a_partition_in_both_directions_lets_nothing_through(scene: Scene) -> None:
    scene.cut("router-1", "storage-1")
    scene.cut("storage-1", "router-1")
    scene.call()
    assert scene.outcome().reason in (Reason.CONNECTION_LOST, Reason.DEADLINE_EXCEEDED)
    assert scene.seen == []


def test_a_partition_of_the_way_back_lets_the_work_be_done(scene: Scene) -> None:
    scene.cut("storage-1", "router-1")
    scene.call()
    assert scene.outcome().reason in (Reason.CONNECTION_LOST, Reason.DEADLINE_EXCEEDED)
    assert len(scene.seen) == 1


def test_a_partition_hides_that_nobody_listens(scene: Scene) -> None:
    """Where no refusal can come back, the caller cannot know that nothing was sent."""
    scene.cut("storage-1", "router-1")
    scene.server.kill()
    scene.call()
    assert scene.outcome().reply.sent


def test_what_is_on_its_way_when_a_partition_begins_still_arrives(scene: Scene) -> None:
    scene.call()

    def part() -> None:
        scene.cut("router-1", "storage-1")
        scene.network.use_faults(lambda source, target: scene.links.get((source, target)))

    scene.at(0.1, part)
    assert scene.outcome().reply == Reply(b"payload")


def test_others_are_not_touched(scene: Scene) -> None:
    scene.cut("router-2", "storage-1")
    scene.cut("storage-1", "router-2")
    scene.call()
    assert scene.outcome().reply == Reply(b"payload")


def test_a_slow_link_adds_to_the_delay_and_jitter_is_up_to_its_bound(scene: Scene) -> None:
    scene.links["a", "b"] = Link(delay_s=1.0)
    assert scene.network.transit("a", "b") == LATENCY_S + 1.0
    scene.links["c", "d"] = Link(delay_s=1.0, jitter_s=0.5)
    delays = [scene.network.transit("c", "d") for _ in range(100)]
    assert all(delay is not None and 1.25 <= delay < 1.75 for delay in delays)
    assert len(set(delays)) > 50
