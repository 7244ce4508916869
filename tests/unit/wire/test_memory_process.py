"""A killed process does nothing more, and its callers notice."""

from __future__ import annotations

import pytest

from keyplane.model.errors import Reason
from wire.memory import MemoryNetwork, VirtualClock
from wire.memory_process import MemoryProcess, ProcessKilledError, step_through_deaths
from wire.ports import Reply


@pytest.fixture
def network() -> MemoryNetwork:
    return MemoryNetwork(VirtualClock())


def test_no_timer_fires_and_no_answer_arrives_after_death(network: MemoryNetwork) -> None:
    process = MemoryProcess(network, "a:1")
    other = MemoryProcess(network, "b:1")
    other.server.register("/ping", lambda request, reply: reply(Reply(b"pong")))
    seen: list[object] = []
    process.clock.call_later(1, lambda: seen.append("timer"))
    process.transport.call("b:1", "/ping", b"", 5, seen.append)
    process.kill()
    network.clock.run_for(10)
    assert seen == []


def test_callers_of_a_killed_process_lose_their_connection(network: MemoryNetwork) -> None:
    process = MemoryProcess(network, "a:1")
    process.server.register("/wait", lambda request, reply: None)
    replies: list[Reply] = []
    network.transport().call("a:1", "/wait", b"", 5, replies.append)
    network.clock.run_for(1)
    process.kill()
    network.clock.run_for(1)
    assert replies[0].error is not None
    assert replies[0].error.reason is Reason.CONNECTION_LOST


def test_another_can_live_at_the_same_address(network: MemoryNetwork) -> None:
    MemoryProcess(network, "a:1").kill()
    heir = MemoryProcess(network, "a:1")
    heir.server.register("/ping", lambda request, reply: reply(Reply(b"pong")))
    replies: list[Reply] = []
    network.transport().call("a:1", "/ping", b"", 5, replies.append)
    network.clock.run_for(1)
    assert replies == [Reply(b"pong")]


def test_dying_ends_the_step_and_not_the_world(network: MemoryNetwork) -> None:
    process = MemoryProcess(network, "a:1")
    seen: list[str] = []

    def step() -> None:
        seen.append("before")
        process.die()

    process.clock.call_soon(step)
    network.clock.call_soon(lambda: seen.append("others"))
    while step_through_deaths(network.clock):
        pass
    assert seen == ["before", "others"]
    with pytest.raises(ProcessKilledError):
        process.die()
