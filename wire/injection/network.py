"""Calls whose messages are lost, late or doubled.

A call is two messages: the request, and its answer. A lost one is silence: the call goes on until
its deadline and ends as DEADLINE_EXCEEDED, which leaves open what the server did.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from keyplane.model.errors import KeyplaneError, Reason
from wire.faults import Direction
from wire.injection.fate import fate_of
from wire.injection.table import FaultTable
from wire.ports import (
    Call,
    Clock,
    Handler,
    Reply,
    ReplyFn,
    Request,
    Rng,
    SealKeys,
    Server,
    Timer,
    Transport,
)


class FaultyTransport:
    """Implements `wire.ports.Transport` around another: what this process sends, and is answered.

    A fault counts at the moment a message passes: an answer to a request that was sent before the
    fault began is lost all the same.
    """

    def __init__(self, inner: Transport, table: FaultTable, clock: Clock, rng: Rng) -> None:
        self._inner = inner
        self._table = table
        self._clock = clock
        self._rng = rng

    def call(
        self,
        address: str,
        method: str,
        payload: bytes,
        deadline: float,
        on_reply: ReplyFn,
        metadata: Sequence[tuple[str, str]] = (),
    ) -> Call:
        def send(on_answer: ReplyFn) -> Call:
            return self._inner.call(address, method, payload, deadline, on_answer, metadata)

        def answer_fate() -> tuple[bool, float]:
            fate = fate_of(self._table, self._rng, address, Direction.FROM_PEER)
            return fate.lost, fate.delay_s

        what = f"{method} at {address}"
        call = _FaultyCall(self._clock, what, deadline, on_reply, send, answer_fate)
        if deadline <= self._clock.now():
            call.send()
            return call
        fate = fate_of(self._table, self._rng, address, Direction.TO_PEER)
        if fate.lost:
            call.wait_in_vain()
        elif fate.delay_s:
            call.send_in(fate.delay_s)
        else:
            call.send()
        if fate.copy_after_s is not None and not fate.lost:
            self._clock.call_later(fate.delay_s + fate.copy_after_s, call.send_copy)
        return call


class _FaultyCall:
    """Ends once: by an answer that came through, a cancel, or the deadline."""

    __slots__ = (
        *("_clock", "_what", "_deadline", "_on_reply", "_send", "_answer_fate"),
        *("_inner", "_timer", "_ended"),
    )

    def __init__(
        self,
        clock: Clock,
        what: str,
        deadline: float,
        on_reply: ReplyFn,
        send: Callable[[ReplyFn], Call],
        answer_fate: Callable[[], tuple[bool, float]],
    ) -> None:
        self._clock = clock
        self._what = what
        self._deadline = deadline
        self._on_reply = on_reply
        self._send = send
        self._answer_fate = answer_fate
        self._inner: Call | None = None
        self._timer: Timer | None = None
        self._ended = False

    def cancel(self) -> None:
        if self._inner is not None:
            self._inner.cancel()
        error = KeyplaneError(Reason.CANCELLED, "the caller gave up")
        self._clock.call_soon(lambda: self._end(Reply(error=error)))

    def send(self) -> None:
        self._inner = self._send(self._arrived)

    def send_in(self, delay_s: float) -> None:
        self.wait_in_vain()

        def due() -> None:
            # Past the deadline the network would still deliver it; nobody would listen.
            if not self._ended and self._clock.now() < self._deadline:
                self.send()

        self._clock.call_later(delay_s, due)

    def send_copy(self) -> None:
        """The same request again. What is answered to it is nobody's."""
        if self._clock.now() < self._deadline:
            self._send(lambda _: None)

    def wait_in_vain(self) -> None:
        """Ends the call at its deadline, if nothing else does before."""
        if self._timer is not None or self._deadline == math.inf:
            return
        # Indefinite, and `sent`: the caller cannot know that nothing arrived.
        expired = KeyplaneError(Reason.DEADLINE_EXCEEDED, f"{self._what} took too long")
        self._timer = self._clock.call_later(
            self._deadline - self._clock.now(), lambda: self._end(Reply(error=expired))
        )

    def _arrived(self, reply: Reply) -> None:
        if self._ended:
            return
        if _is_own(reply):
            self._end(reply)
            return
        lost, delay_s = self._answer_fate()
        if lost:
            self.wait_in_vain()
        elif delay_s:
            self.wait_in_vain()
            self._clock.call_later(delay_s, lambda: self._end(reply))
        else:
            self._end(reply)

    def _end(self, reply: Reply) -> None:
        if not self._ended:
            self._ended = True
            if self._timer is not None:
                self._timer.cancel()
            self._on_reply(reply)


def _is_own(reply: Reply) -> bool:
    """Whether this process itself ended the call, with no message from the other end."""
    if reply.error is None:
        return False
    if reply.error.reason in (Reason.DEADLINE_EXCEEDED, Reason.CANCELLED):
        return True
    return not reply.sent and reply.error.reason is not Reason.NODE_UNREACHABLE


class FaultyServer:
    """Implements `wire.ports.Server` around another: what this process is asked, and answers.

    Who calls is not known here, so only faults with everybody for a peer touch these messages. A
    fault between two servers is done where the call is made.
    """

    def __init__(self, inner: Server, table: FaultTable, clock: Clock, rng: Rng) -> None:
        self._inner = inner
        self._table = table
        self._clock = clock
        self._rng = rng

    def register(self, method: str, handler: Handler) -> None:
        def handle(request: Request, reply: ReplyFn) -> None:
            self._receive(handler, request, lambda answer: self._answer(reply, answer))

        self._inner.register(method, handle)

    def take_seals(self, keys: SealKeys) -> None:
        self._inner.take_seals(keys)

    def _receive(self, handler: Handler, request: Request, reply: ReplyFn) -> None:
        def hand_over() -> None:
            try:
                handler(request, reply)
            except KeyplaneError as error:
                reply(Reply(error=error))

        fate = fate_of(self._table, self._rng, None, Direction.FROM_PEER)
        if fate.lost:
            return
        if fate.delay_s:
            self._clock.call_later(fate.delay_s, hand_over)
        else:
            hand_over()
        if fate.copy_after_s is not None:
            self._clock.call_later(
                fate.delay_s + fate.copy_after_s,
                lambda: self._receive_copy(handler, request),
            )

    def _receive_copy(self, handler: Handler, request: Request) -> None:
        try:
            handler(request, lambda _: None)
        except KeyplaneError:
            return  # As every answer to a copy, nobody hears it.

    def _answer(self, reply: ReplyFn, answer: Reply) -> None:
        fate = fate_of(self._table, self._rng, None, Direction.TO_PEER)
        if fate.lost:
            return
        if fate.delay_s:
            self._clock.call_later(fate.delay_s, lambda: reply(answer))
        else:
            reply(answer)
