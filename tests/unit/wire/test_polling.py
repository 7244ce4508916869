"""The selector that looks again before it sleeps."""

from __future__ import annotations

import asyncio
import selectors
import socket
import threading
from collections.abc import Iterator

import pytest

from wire.polling import BUSY_POLL_US, WORTH_S, BusySelector, new_loop

LOOK_S = 0.0002


class Scene:
    """A selector over one end of a socket pair. Its clock moves by 10 µs at each look."""

    def __init__(self) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.time = 0.0
        self.pauses = 0
        self.selector = BusySelector(LOOK_S, self.now, self.pause)
        self.selector.register(self.ours, selectors.EVENT_READ)
        # At which pause a byte comes.
        self.sends_at: int | None = None

    def now(self) -> float:
        return self.time

    def pause(self) -> None:
        self.pauses += 1
        self.time += 1e-5
        if self.pauses == self.sends_at:
            self.theirs.send(b"x")

    def wait(self, timeout: float | None, sends_at: int | None = None) -> list[object]:
        self.pauses, self.sends_at = 0, sends_at
        found = [key.fileobj for key, events in self.selector.select(timeout)]
        if found:
            self.ours.recv(100)
        return found

    def pass_over(self, seconds: float) -> None:
        """Waits in vain, which takes so long on the scene's clock."""
        waits = iter((self.time, self.time + 1.0, self.time + seconds))
        self.selector._now = lambda: next(waits)
        assert self.wait(0.001) == []
        self.selector._now = self.now


@pytest.fixture
def scene() -> Iterator[Scene]:
    scene = Scene()
    yield scene
    scene.selector.close()
    scene.ours.close()
    scene.theirs.close()


def test_what_comes_while_it_looks_is_found_without_sleeping(scene: Scene) -> None:
    assert scene.wait(None, sends_at=5) == [scene.ours]
    assert scene.pauses == 5


def test_it_looks_no_longer_than_it_should(scene: Scene) -> None:
    assert scene.wait(0.001) == []
    assert scene.pauses == pytest.approx(LOOK_S / 1e-5, abs=1)


def test_it_does_not_look_beyond_a_timer(scene: Scene) -> None:
    assert scene.wait(0.00003) == []
    assert scene.pauses <= 4


def test_a_look_without_waiting_is_one_look(scene: Scene) -> None:
    assert scene.wait(0) == []
    assert scene.pauses == 0
    scene.theirs.send(b"x")
    assert scene.wait(0) == [scene.ours]


def test_where_events_are_far_apart_it_sleeps_at_once(scene: Scene) -> None:
    for _ in range(20):
        scene.pass_over(10 * WORTH_S)
    assert scene.wait(0.001) == []
    assert scene.pauses <= 1


def test_it_looks_again_when_events_come_close(scene: Scene) -> None:
    for _ in range(20):
        scene.pass_over(10 * WORTH_S)
    # It sleeps once more; what it sleeps for comes soon, on the scene's clock.
    sender = threading.Timer(0.02, scene.theirs.send, (b"x",))
    sender.start()
    assert scene.wait(None) == [scene.ours]
    sender.join()
    assert scene.wait(0.001) == []
    assert scene.pauses == pytest.approx(LOOK_S / 1e-5, abs=1)


def test_a_loop_runs_on_it() -> None:
    async def echo() -> bytes:
        ours, theirs = socket.socketpair()
        loop = asyncio.get_running_loop()
        reader, writer = await asyncio.open_connection(sock=ours)
        loop.call_later(0.005, theirs.send, b"hello")
        answer = await asyncio.wait_for(reader.readexactly(5), 5)
        writer.close()
        theirs.close()
        return answer

    for look_us in (0, BUSY_POLL_US):
        with asyncio.Runner(loop_factory=lambda us=look_us: new_loop(us)) as runner:  # type: ignore[misc]
            assert runner.run(echo()) == b"hello"
