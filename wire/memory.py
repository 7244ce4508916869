"""Clock, network and disk in memory: the same ports, one thread, virtual time.

Given the same calls these do the same things in the same order. Time moves only when somebody runs
the clock, so a test that waits an hour takes no time.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from keyplane.model.errors import KeyplaneError, Reason
from wire.ports import Clock, Handler, Reply, ReplyFn, Request, SealKeys


@dataclass(slots=True)
class VirtualTimer:
    callback: Callable[[], None] | None

    def cancel(self) -> None:
        self.callback = None


class VirtualClock:
    """A heap of events. Events at one time run in the order in which they were asked for."""

    def __init__(self, wall_start: float = 1_000_000_000.0) -> None:
        self._now = 0.0
        self._wall_start = wall_start
        self._sequence = 0
        self._events: list[tuple[float, int, VirtualTimer]] = []

    def now(self) -> float:
        return self._now

    def wall(self) -> float:
        return self._wall_start + self._now

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> VirtualTimer:
        timer = VirtualTimer(callback)
        self._sequence += 1
        heapq.heappush(self._events, (self._now + max(0.0, delay_s), self._sequence, timer))
        return timer

    def call_soon(self, callback: Callable[[], None]) -> None:
        self.call_later(0.0, callback)

    def next_at(self) -> float | None:
        """When the next event is due; None if there is none."""
        while self._events and self._events[0][2].callback is None:
            heapq.heappop(self._events)
        return self._events[0][0] if self._events else None

    def step(self) -> bool:
        """Runs the next event. False if there is none."""
        if self.next_at() is None:
            return False
        self._now, _, timer = heapq.heappop(self._events)
        callback, timer.callback = timer.callback, None
        assert callback is not None
        callback()
        return True

    def run_for(self, seconds: float) -> None:
        """Runs everything due within `seconds` and ends exactly then."""
        end = self._now + seconds
        while (due := self.next_at()) is not None and due <= end:
            self.step()
        self._now = max(self._now, end)

    def run_until(self, done: Callable[[], bool], timeout_s: float = 60.0) -> None:
        """Runs events until `done()`. Raises TimeoutError in virtual time, or when all is quiet."""
        end = self._now + timeout_s
        while not done():
            due = self.next_at()
            if due is None:
                raise TimeoutError(f"not done, and nothing more happens after {self._now} s")
            if due > end:
                raise TimeoutError(f"not done after {timeout_s} virtual seconds")
            self.step()


@dataclass(slots=True, eq=False)
class _MemoryCall:
    """Ends once: by an answer, a cancel or the deadline, whichever is first."""

    network: MemoryNetwork
    on_reply: ReplyFn
    deadline_timer: VirtualTimer | None = None
    ended: bool = False

    def end(self, reply: Reply) -> None:
        if not self.ended:
            self.ended = True
            if self.deadline_timer is not None:
                self.deadline_timer.cancel()
            self.on_reply(reply)

    def cancel(self) -> None:
        error = KeyplaneError(Reason.CANCELLED, "the caller gave up")
        self.network.clock.call_soon(lambda: self.end(Reply(error=error)))


class MemoryNetwork:
    """Servers by address, and calls between them that take `latency_s` each way.

    A call to an address with no server fails with NODE_UNREACHABLE, `sent=False`. A server that is
    removed while it works on a call leaves the caller with CONNECTION_LOST. A handler answers by
    its reply function or by raising KeyplaneError; anything else it raises is a bug, and ends the
    run.
    """

    def __init__(self, clock: VirtualClock, latency_s: float = 0.0005) -> None:
        self.clock = clock
        self.latency_s = latency_s
        self._servers: dict[str, MemoryServer] = {}

    def server(self, address: str) -> MemoryServer:
        """Starts listening. An address can be taken again once its server is removed."""
        if address in self._servers:
            raise ValueError(f"address {address} is taken")
        server = self._servers[address] = MemoryServer(address)
        return server

    def remove(self, address: str) -> None:
        """As a killed process: every call it has not answered fails."""
        server = self._servers.pop(address, None)
        if server is not None:
            lost = KeyplaneError(Reason.CONNECTION_LOST, f"{address} went away")
            for call in list(server.calls):
                self.clock.call_later(self.latency_s, _ender(call, Reply(error=lost)))
            server.calls.clear()
            server.alive = False

    def transport(self, peer: str = "memory") -> MemoryTransport:
        """A transport for one process; `peer` is what servers see as the caller."""
        return MemoryTransport(self, peer)

    def find(self, address: str) -> MemoryServer | None:
        return self._servers.get(address)


@dataclass(slots=True)
class MemoryServer:
    address: str
    handlers: dict[str, Handler] = field(default_factory=dict)
    calls: dict[_MemoryCall, None] = field(default_factory=dict)
    alive: bool = True

    def register(self, method: str, handler: Handler) -> None:
        self.handlers[method] = handler

    def take_seals(self, keys: SealKeys) -> None:
        """There are no connections here."""


class MemoryTransport:
    def __init__(self, network: MemoryNetwork, peer: str) -> None:
        self._network = network
        self._peer = peer

    def call(
        self,
        address: str,
        method: str,
        payload: bytes,
        deadline: float,
        on_reply: ReplyFn,
        metadata: Sequence[tuple[str, str]] = (),
    ) -> _MemoryCall:
        network, clock = self._network, self._network.clock
        call = _MemoryCall(network, on_reply)
        expired = KeyplaneError(Reason.DEADLINE_EXCEEDED, f"{method} at {address} took too long")
        remaining_s = deadline - clock.now()
        call.deadline_timer = clock.call_later(
            remaining_s, _ender(call, Reply(error=expired, sent=remaining_s > 0))
        )
        if remaining_s <= 0:
            return call

        def arrive() -> None:
            if call.ended:
                return
            server = network.find(address)
            if server is None:
                refused = KeyplaneError(Reason.NODE_UNREACHABLE, f"nothing listens at {address}")
                call.end(Reply(error=refused, sent=False))
                return
            handler = server.handlers.get(method)
            if handler is None:
                unknown = KeyplaneError(Reason.UNKNOWN_METHOD, f"{address} has no {method}")
                call.end(Reply(error=unknown))
                return
            server.calls[call] = None

            def reply(answer: Reply) -> None:
                if server.alive and server.calls.pop(call, call) is None:
                    clock.call_later(network.latency_s, _ender(call, answer))

            try:
                handler(Request(method, payload, deadline, self._peer, dict(metadata)), reply)
            except KeyplaneError as error:
                reply(Reply(error=error))

        clock.call_later(network.latency_s, arrive)
        return call


def _ender(call: _MemoryCall, reply: Reply) -> Callable[[], None]:
    return lambda: call.end(reply)


class MemoryDisk:
    """Files that are replaced whole. `fail_with` makes every write fail until it is reset."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.files: dict[str, bytes] = {}
        self.fail_with: OSError | None = None

    def use(self, clock: Clock) -> None:
        """Hands the files to the process that follows on one that has died."""
        self._clock = clock

    def read(self, name: str) -> bytes | None:
        return self.files.get(name)

    def write_atomic(
        self, name: str, content: bytes, on_done: Callable[[OSError | None], None]
    ) -> None:
        error = self.fail_with
        if error is None:
            self.files[name] = content
        self._clock.call_soon(lambda: on_done(error))
