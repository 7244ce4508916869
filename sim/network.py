"""The simulated network: messages between processes that are late, lost, doubled or out of order.

A call is a request and a reply, each a message of its own with its own delay, so messages overtake
each other. What a live connection would do is kept:

* A request is for the life that its server is in when it is sent. If that ends before the answer,
  the caller gets CONNECTION_LOST, unless the network keeps even that from it.
* Where nobody listens the caller gets NODE_UNREACHABLE: nothing was sent.
* What the network loses is either silence until the deadline, or a broken connection.
* A server gets the time that was left when the request was *sent*, by its own clock, as gRPC's
  timeout header has it: what the way took, or a pause of the server, is not deducted.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from keyplane.model.errors import KeyplaneError, Reason
from sim.process import SimProcess, name_of
from sim.scheduler import Event, Scheduler
from sim.trace import Trace
from wire.ports import Reply, ReplyFn, Request

# The share of lost messages whose loss breaks the connection: TCP sends again for a while before it
# gives up, so silence is more common. Seconds after which the sender knows.
_BREAKS = 0.3
_BREAK_S = 0.2


@dataclass(frozen=True, slots=True)
class Delay:
    """How long a message takes, in seconds: `least_s`, up to `spread_s` more, and sometimes long.

    tail: the share of messages that take `tail_s` more.
    """

    least_s: float = 0.0002
    spread_s: float = 0.0008
    tail: float = 0.005
    tail_s: float = 0.03


@dataclass(slots=True)
class Link:
    """What faults do to messages in one direction between two processes; see `FaultKind`."""

    cut: bool = False
    loss: float = 0.0
    duplication: float = 0.0
    delay_s: float = 0.0
    jitter_s: float = 0.0

    @property
    def clean(self) -> bool:
        return not (self.cut or self.loss or self.duplication or self.delay_s or self.jitter_s)


# Of the faults in force, those on messages from one process to another; None if there are none.
LinkFinder = Callable[[str, str], Link | None]


class Tap:
    """Sees messages as they are sent and delivered; observers of invariants derive from it."""

    def on_send(self, call: SimCall) -> None:
        """A process makes a call. Whether the request arrives is open."""

    def on_request(self, call: SimCall, server: SimProcess) -> None:
        """A request has reached a server that is alive, and its handler runs next."""

    def on_answer(self, call: SimCall, server: SimProcess, reply: Reply) -> None:
        """A server answers. The answer has not been delivered, and may never be."""

    def on_reply(self, call: SimCall, reply: Reply) -> None:
        """The caller, which is alive, learns how its call ended, and acts on it next."""


class SimCall:
    """One call of one process. Implements `wire.ports.Call`."""

    __slots__ = (
        "_on_reply",
        "_timer",
        "address",
        "ended",
        "lamport",
        "metadata",
        "method",
        "network",
        "payload",
        "source",
    )

    def __init__(
        self,
        network: SimNetwork,
        source: SimProcess,
        address: str,
        method: str,
        payload: bytes,
        on_reply: ReplyFn,
        metadata: Mapping[str, str],
    ) -> None:
        self.network = network
        self.source = source
        self.address = address
        self.method = method
        self.payload = payload
        self.metadata = metadata
        self.ended = False
        # Lamport time of its latest message, of a full trace.
        self.lamport = 0
        self._on_reply = on_reply
        self._timer: Event | None = None

    def expire_in(self, delay_s: float) -> None:
        self._timer = self.source.clock.call_later(delay_s, self._expire)

    def end(self, reply: Reply) -> None:
        """The call is over for its caller, whose code runs now."""
        if self.ended:
            return
        self.ended = True
        if self._timer is not None:
            self._timer.cancel()
        self.network.replied(self, reply)
        self._on_reply(reply)

    def cancel(self) -> None:
        error = KeyplaneError(Reason.CANCELLED, "the caller gave up")
        self.source.clock.call_soon(lambda: self.end(Reply(error=error)))

    def _expire(self) -> None:
        late = KeyplaneError(
            Reason.DEADLINE_EXCEEDED, f"{self.method} at {self.address} took too long"
        )
        self.network.trace.mark(self.network.scheduler.now, f"expired {self.method}")
        self.end(Reply(error=late))


class SimNetwork:
    """sent: messages by what became of them."""

    def __init__(
        self, scheduler: Scheduler, rng: random.Random, trace: Trace, delay: Delay | None = None
    ) -> None:
        self.scheduler = scheduler
        self.trace = trace
        # Taps by what they override: most watch one kind of event, and messages are many.
        self._on_send: list[Callable[[SimCall], None]] = []
        self._on_request: list[Callable[[SimCall, SimProcess], None]] = []
        self._on_answer: list[Callable[[SimCall, SimProcess, Reply], None]] = []
        self._on_reply: list[Callable[[SimCall, Reply], None]] = []
        self.sent: Counter[str] = Counter()
        self._rng = rng
        self._random = rng.random
        self._delay = delay or Delay()
        self._servers: dict[str, SimProcess] = {}
        self._find_link: LinkFinder = lambda source, target: None
        # Links in use, as the faults in force make them. None: nothing is wrong with it.
        self._links: dict[tuple[str, str], Link | None] = {}

    def tap(self, tap: Tap) -> None:
        """Tells it of every message from now on."""
        kind = type(tap)
        if kind.on_send is not Tap.on_send:
            self._on_send.append(tap.on_send)
        if kind.on_request is not Tap.on_request:
            self._on_request.append(tap.on_request)
        if kind.on_answer is not Tap.on_answer:
            self._on_answer.append(tap.on_answer)
        if kind.on_reply is not Tap.on_reply:
            self._on_reply.append(tap.on_reply)

    def replied(self, call: SimCall, reply: Reply) -> None:
        """The caller is about to learn how its call ended."""
        for tell in self._on_reply:
            tell(call, reply)

    def listen(self, process: SimProcess) -> None:
        """Its address leads to this process until it dies."""
        self._servers[process.address] = process

        def gone() -> None:
            if self._servers.get(process.address) is process:
                del self._servers[process.address]

        process.on_death[gone] = None

    def use_faults(self, find: LinkFinder) -> None:
        """Asked once for each pair of processes, until the next call of this."""
        self._find_link = find
        self._links.clear()

    def transit(self, source: str, target: str) -> float | None:
        """Seconds that a message takes from one process to another; None if it is lost."""
        delay, roll = self._delay, self._random()
        seconds = delay.least_s + delay.spread_s * roll
        if roll < delay.tail:
            seconds = delay.least_s + delay.spread_s + delay.tail_s * roll / delay.tail
        try:
            link = self._links[source, target]
        except KeyError:
            link = self._link(source, target)
        if link is None:
            return seconds
        if link.cut or (link.loss and self._rng.random() < link.loss):
            return None
        if link.jitter_s:
            seconds += self._rng.random() * link.jitter_s
        return seconds + link.delay_s

    def call(
        self,
        source: SimProcess,
        address: str,
        method: str,
        payload: bytes,
        deadline: float,
        on_reply: ReplyFn,
        metadata: Sequence[tuple[str, str]],
    ) -> SimCall:
        call = SimCall(self, source, address, method, payload, on_reply, dict(metadata))
        timeout_s = deadline - source.clock.now()
        if timeout_s <= 0:
            expired = KeyplaneError(Reason.DEADLINE_EXCEEDED, f"no time is left to call {method}")
            source.clock.call_soon(lambda: call.end(Reply(error=expired, sent=False)))
            return call
        if timeout_s != math.inf:
            call.expire_in(timeout_s)
        self._send(call, timeout_s)
        return call

    # --- the way there --------------------------------------------------------------------------

    def _send(self, call: SimCall, timeout_s: float) -> None:
        source, target = call.source.name, name_of(call.address)
        server = self._servers.get(call.address)
        delay_s = self.transit(source, target)
        for tell in self._on_send:
            tell(call)
        if delay_s is None:
            self._lose(call)
            return
        self.sent["delivered"] += 1

        def arrive() -> None:
            self._arrive(call, server or self._servers.get(call.address), timeout_s)

        self.scheduler.after(delay_s, arrive)
        link = self._link(source, target)
        # Of a connection that is refused nothing is left that could arrive again.
        if link is None or server is None:
            return
        if link.duplication and self._rng.random() < link.duplication:
            again_s = self.transit(source, target)
            if again_s is not None:
                self.sent["doubled"] += 1
                self.scheduler.after(delay_s + again_s * 20, arrive)

    def _arrive(self, call: SimCall, server: SimProcess | None, timeout_s: float) -> None:
        if server is None:
            refused = KeyplaneError(Reason.NODE_UNREACHABLE, f"nothing listens at {call.address}")
            self._hand_over(call, name_of(call.address), Reply(error=refused, sent=False))
        elif not server.alive:
            self._break(call, server.name)
        else:
            self._accept(call, server, timeout_s)

    def _accept(self, call: SimCall, server: SimProcess, timeout_s: float) -> None:
        """The request is with the server, which answers it, or dies."""
        answered = False

        def died() -> None:
            nonlocal answered
            if not answered:
                answered = True
                self._break(call, server.name)

        def reply(answer: Reply) -> None:
            nonlocal answered
            if answered or not server.alive:
                return
            answered = True
            del server.on_death[died]
            self._answer(call, server, answer)

        def serve() -> None:
            self._serve(call, server, timeout_s, reply)

        server.on_death[died] = None
        self.scheduler.after(0.0, serve, server)

    def _serve(
        self,
        call: SimCall,
        server: SimProcess,
        timeout_s: float,
        reply: ReplyFn,
    ) -> None:
        """In the server: its handler runs, and answers now or later."""
        self.trace.mark(self.scheduler.now, f"{call.source.name}>{server.name} {call.method}")
        for tell in self._on_request:
            tell(call, server)
        handler = server.handlers.get(call.method)
        if handler is None:
            unknown = KeyplaneError(Reason.UNKNOWN_METHOD, f"{call.address} has no {call.method}")
            reply(Reply(error=unknown))
            return
        deadline = server.clock.now() + timeout_s
        request = Request(call.method, call.payload, deadline, call.source.name, call.metadata)
        try:
            handler(request, reply)
        except KeyplaneError as error:
            reply(Reply(error=error))

    # --- the way back ---------------------------------------------------------------------------

    def _answer(self, call: SimCall, server: SimProcess, answer: Reply) -> None:
        for tell in self._on_answer:
            tell(call, server, answer)
        self._hand_over(call, server.name, answer)

    def _hand_over(self, call: SimCall, sender: str, reply: Reply) -> None:
        """Sends a reply to the caller."""
        if call.ended:
            return
        delay_s = self.transit(sender, call.source.name)
        if delay_s is None:
            self._lose(call)
            return

        def take() -> None:
            if not call.ended:
                what = "ok" if reply.error is None else reply.error.reason.name
                self.trace.mark(self.scheduler.now, f"{sender}>{call.source.name} {what}")
                call.end(reply)

        self.scheduler.after(delay_s, take, call.source)

    def _break(self, call: SimCall, server: str) -> None:
        """The connection is gone. The caller is told, if the network lets it be told."""
        lost = KeyplaneError(Reason.CONNECTION_LOST, f"{server} went away")
        self._hand_over(call, server, Reply(error=lost))

    def _lose(self, call: SimCall) -> None:
        """A message is lost: silence, or after a while a broken connection."""
        self.sent["lost"] += 1
        if self._rng.random() < _BREAKS:
            broken = KeyplaneError(
                Reason.CONNECTION_LOST, f"the connection to {call.address} broke"
            )
            call.source.clock.call_later(_BREAK_S, lambda: call.end(Reply(error=broken)))

    def _link(self, source: str, target: str) -> Link | None:
        pair = (source, target)
        if pair in self._links:
            return self._links[pair]
        link = self._find_link(source, target)
        self._links[pair] = link if link is not None and not link.clean else None
        return self._links[pair]


class SimTransport:
    """Implements `wire.ports.Transport` for one process."""

    __slots__ = ("_network", "_process")

    def __init__(self, network: SimNetwork, process: SimProcess) -> None:
        self._network = network
        self._process = process

    def call(
        self,
        address: str,
        method: str,
        payload: bytes,
        deadline: float,
        on_reply: ReplyFn,
        metadata: Sequence[tuple[str, str]] = (),
    ) -> SimCall:
        return self._network.call(
            self._process, address, method, payload, deadline, on_reply, metadata
        )
