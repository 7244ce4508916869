"""A process in memory: the ports of one node on the in-memory network, which can be killed.

Killing it silences everything that its code has asked for: no timer fires and no answer arrives any
more. What outlives a process (its engine, its files) is passed to the next one built in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NoReturn

from wire.memory import MemoryNetwork, VirtualClock, VirtualTimer
from wire.ports import Call, Reply, ReplyFn


class ProcessKilledError(Exception):
    """Unwinds the code of a process that has just been killed in the middle of a step."""


class MemoryProcess:
    """Listens at `address` from its birth to its death."""

    def __init__(self, network: MemoryNetwork, address: str) -> None:
        self._network = network
        self.address = address
        self.alive = True
        self.server = network.server(address)
        self.clock = ProcessClock(network.clock, self)
        self.transport = ProcessTransport(network, self)

    def kill(self) -> None:
        """As kill -9. Its callers are left with broken connections."""
        if self.alive:
            self.alive = False
            self._network.remove(self.address)

    def die(self) -> NoReturn:
        """Kills it from within its own code, which runs no further."""
        self.kill()
        raise ProcessKilledError(self.address)


class ProcessClock:
    """The network's clock, for as long as the process lives."""

    def __init__(self, clock: VirtualClock, process: MemoryProcess) -> None:
        self._clock = clock
        self._process = process

    def now(self) -> float:
        return self._clock.now()

    def wall(self) -> float:
        return self._clock.wall()

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> VirtualTimer:
        def fire() -> None:
            if self._process.alive:
                callback()

        return self._clock.call_later(delay_s, fire)

    def call_soon(self, callback: Callable[[], None]) -> None:
        self.call_later(0.0, callback)


class ProcessTransport:
    def __init__(self, network: MemoryNetwork, process: MemoryProcess) -> None:
        self._transport = network.transport(process.address)
        self._process = process

    def call(
        self,
        address: str,
        method: str,
        payload: bytes,
        deadline: float,
        on_reply: ReplyFn,
        metadata: Sequence[tuple[str, str]] = (),
    ) -> Call:
        def arrive(reply: Reply) -> None:
            if self._process.alive:
                on_reply(reply)

        return self._transport.call(address, method, payload, deadline, arrive, metadata)


def step_through_deaths(clock: VirtualClock) -> bool:
    """Runs the next event, even if a process dies in it. False if there is none."""
    try:
        return clock.step()
    except ProcessKilledError:
        return True
