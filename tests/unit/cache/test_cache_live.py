"""`MemcachedNode` against a real memcached, each outcome and each kind of store."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bench._memcached import MEMCACHED, Memcached, running
from cache.live import MemcachedConfig, MemcachedNode, connect
from wire.ports import MemdsGet, MemdsOutcome, MemdsStore

pytestmark = pytest.mark.skipif(MEMCACHED is None, reason="memcached is not installed")

MARKER = "kp1:test:marker"
PATIENT = MemcachedConfig(timeout_s=10.0)


@pytest.fixture
def server() -> Iterator[Memcached]:
    with running() as server:
        yield server


class Caller:
    """Calls a node on an event loop of its own and waits for the answer."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.opened: list[MemcachedNode] = []

    def node(self, address: str, config: MemcachedConfig = PATIENT) -> MemcachedNode:
        node = MemcachedNode(address, MARKER, self.loop, config)
        self.opened.append(node)
        return node

    def call(self, method: Callable[..., None], *arguments: Any) -> Any:
        async def ask() -> Any:
            answer = self.loop.create_future()
            method(*arguments, lambda *result: answer.set_result(result))
            assert not answer.done(), "a callback ran inside the call"
            return await answer

        result = self.loop.run_until_complete(ask())
        return result[0] if len(result) == 1 else result

    def close(self) -> None:
        for node in self.opened:
            node.close()
        self.loop.close()


@pytest.fixture
def caller() -> Iterator[Caller]:
    caller = Caller()
    yield caller
    caller.close()


def test_values_come_back_as_they_were_stored(server: Memcached, caller: Caller) -> None:
    """Binary values of up to a megabyte survive the way there and back; misses are left out."""
    node = caller.node(server.address)
    values = {"a": bytes(range(256)), "b": b"END\r\nVALUE x 0 1\r\n", "c": bytes(1_000_000)}
    assert caller.call(node.set_many, {MARKER: b"m", **values}) is MemdsOutcome.OK
    found: MemdsGet = caller.call(node.get_many, ["a", "b", "c", "gone"])
    assert found.outcome is MemdsOutcome.OK
    assert found.values == values


def test_a_node_without_its_marker_is_empty(server: Memcached, caller: Caller) -> None:
    """A flushed or restarted node says EMPTY: its misses mean nothing. Hits still count."""
    node = caller.node(server.address)
    assert caller.call(node.get_many, ["a"]).outcome is MemdsOutcome.EMPTY
    caller.call(node.set_many, {"a": b"1"})
    found = caller.call(node.get_many, ["a"])
    assert (found.outcome, found.values) == (MemdsOutcome.EMPTY, {"a": b"1"})
    caller.call(node.set_many, {MARKER: b""})
    assert caller.call(node.get_many, []).outcome is MemdsOutcome.OK
    server.stop()
    server.start()
    outcomes = {caller.call(node.get_many, ["a"]).outcome for _ in range(4)}
    assert MemdsOutcome.EMPTY in outcomes and MemdsOutcome.OK not in outcomes


def test_cas_and_add_have_three_ends(server: Memcached, caller: Caller) -> None:
    """STORED, CONFLICT and MISSING are told apart, for cas and for add."""
    node = caller.node(server.address)
    stored = (MemdsStore.STORED, MemdsOutcome.OK)
    conflict = (MemdsStore.CONFLICT, MemdsOutcome.OK)
    assert caller.call(node.cas, "a", b"1", b"1") == (MemdsStore.MISSING, MemdsOutcome.OK)
    assert caller.call(node.add, "a", b"1") == stored
    assert caller.call(node.add, "a", b"2") == conflict
    token = caller.call(node.gets_many, ["a"]).tokens["a"]
    assert caller.call(node.cas, "a", b"2", token) == stored
    assert caller.call(node.cas, "a", b"3", token) == conflict
    assert caller.call(node.get_many, ["a"]).values == {"a": b"2"}


def test_a_value_that_is_too_large_is_an_error(server: Memcached, caller: Caller) -> None:
    """memcached refuses it, the outcome says ERROR, and the node works on."""
    node = caller.node(server.address)
    assert caller.call(node.set_many, {"a": bytes(2_000_000)}) is MemdsOutcome.ERROR
    assert caller.call(node.set_many, {MARKER: b""}) is MemdsOutcome.OK
    assert caller.call(node.get_many, ["a"]).outcome is MemdsOutcome.OK


def test_a_node_that_is_not_there_is_down(server: Memcached, caller: Caller) -> None:
    """Refused connections are DOWN for every kind of request; it is used again once it is back."""
    node = caller.node(server.address)
    server.stop()
    assert caller.call(node.get_many, ["a"]).outcome is MemdsOutcome.DOWN
    assert caller.call(node.gets_many, ["a"]).outcome is MemdsOutcome.DOWN
    assert caller.call(node.set_many, {"a": b"1"}) is MemdsOutcome.DOWN
    assert caller.call(node.add, "a", b"1") == (MemdsStore.FAILED, MemdsOutcome.DOWN)
    assert caller.call(node.cas, "a", b"1", b"1") == (MemdsStore.FAILED, MemdsOutcome.DOWN)
    server.start()
    assert caller.call(node.set_many, {"a": b"1"}) is MemdsOutcome.OK


def test_a_node_that_hangs_times_out(server: Memcached, caller: Caller) -> None:
    """A stopped process takes connections and never answers: TIMEOUT, within the bound."""
    node = caller.node(server.address, MemcachedConfig(timeout_s=0.1))
    assert server.process is not None
    server.process.send_signal(signal.SIGSTOP)
    try:
        assert caller.call(node.get_many, ["a"]).outcome is MemdsOutcome.TIMEOUT
    finally:
        server.process.send_signal(signal.SIGCONT)


def test_past_the_bound_requests_are_shed(server: Memcached, caller: Caller) -> None:
    """With pending_max requests under way the next ends at once, as TIMEOUT."""
    node = caller.node(server.address, MemcachedConfig(timeout_s=10.0, workers=1, pending_max=1))
    first: list[MemdsGet] = []
    node.get_many(["a"], first.append)
    assert caller.call(node.get_many, ["a"]).outcome is MemdsOutcome.TIMEOUT
    while not first:
        caller.loop.run_until_complete(asyncio.sleep(0))
    assert first[0].outcome is MemdsOutcome.EMPTY


def test_garbage_is_an_error(caller: Caller) -> None:
    """Something that listens and does not speak memcached's protocol is an ERROR."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        node = caller.node(f"127.0.0.1:{listener.getsockname()[1]}")
        answer = caller.loop.create_future()
        node.get_many(["a"], answer.set_result)
        connection, _ = listener.accept()
        with connection:
            connection.recv(100)
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            found = caller.loop.run_until_complete(answer)
    assert found.outcome is MemdsOutcome.ERROR


def test_a_closed_node_is_down(server: Memcached, caller: Caller) -> None:
    """After close nothing is sent any more."""
    (node,) = connect([server.address], "test", caller.loop)
    node.close()
    assert caller.call(node.get_many, ["a"]).outcome is MemdsOutcome.DOWN
