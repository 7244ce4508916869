"""Lanes: each carries one request at a time from the load generator to what it measures."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from bench._items import Op, Requests
from keyplane.model.errors import Reason
from wire.ports import Reply, Transport

# Seconds a request may take. What takes longer is a failure.
DEADLINE_S = 5.0

# Failures over HTTP, by the names that they have over gRPC.
LOST = Reason.CONNECTION_LOST.name
LATE = Reason.DEADLINE_EXCEEDED.name


class Lane(Protocol):
    """done: called with what went wrong, empty if nothing did, once for each `send`."""

    done: Callable[[str], None]

    def send(self, op: Op, number: int) -> None:
        """Only while nothing is under way. May call `done` only after it has returned."""

    def close(self) -> None: ...


def _unset(_failure: str) -> None:
    raise AssertionError("set `done` before the first request")


class GrpcLane:
    """Over any `Transport`: all lanes to an address share its connection."""

    __slots__ = (
        *("_address", "_encode", "_fault", "_methods", "_now", "_number", "_op", "_transport"),
        *("_reply", "done"),
    )

    def __init__(
        self,
        transport: Transport,
        address: str,
        requests: Requests,
        methods: Sequence[str],
        now: Callable[[], float],
    ) -> None:
        self.done: Callable[[str], None] = _unset
        self._transport = transport
        self._address = address
        self._encode = requests.encode
        self._fault = requests.fault
        self._methods = methods
        self._now = now
        self._op = Op.GET
        self._number = 0
        self._reply = self._on_reply

    def send(self, op: Op, number: int) -> None:
        self._op = op
        self._number = number
        self._transport.call(
            self._address,
            self._methods[op],
            self._encode(op, number),
            self._now() + DEADLINE_S,
            self._reply,
        )

    def close(self) -> None:
        pass

    def _on_reply(self, reply: Reply) -> None:
        error = reply.error
        if error is None:
            self.done(self._fault(self._op, self._number, reply.payload))
        else:
            self.done(error.reason.name)


class HttpLane(asyncio.Protocol):
    """One HTTP/1.1 connection, kept alive. A lane whose connection was lost fails from then on."""

    def __init__(self, requests: Requests, loop: asyncio.AbstractEventLoop) -> None:
        self.done: Callable[[str], None] = _unset
        self._requests = requests
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._op = Op.GET
        self._number = 0
        self._busy = False
        self._sent_at = 0.0
        self._received = b""

    async def connect(self, host: str, port: int) -> None:
        await self._loop.create_connection(lambda: self, host, port)

    def send(self, op: Op, number: int) -> None:
        if self._transport is None:
            self._loop.call_soon(self.done, LOST)
            return
        self._op = op
        self._number = number
        self._busy = True
        self._sent_at = self._loop.time()
        self._transport.write(self._requests.encode(op, number))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, received: bytes) -> None:
        # Nearly always the whole response in one piece.
        answer = self._received + received if self._received else received
        if not is_whole(answer):
            self._received = answer
            return
        self._received = b""
        if self._busy:
            self._busy = False
            late = self._loop.time() - self._sent_at > DEADLINE_S
            self.done(LATE if late else self._requests.fault(self._op, self._number, answer))

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        if self._busy:
            self._busy = False
            self.done(LOST)


def is_whole(answer: bytes) -> bool:
    """Whether an HTTP/1.1 response that states its Content-Length is complete.

    Raises ValueError for one that does not state it.
    """
    head = answer.find(b"\r\n\r\n")
    if head < 0:
        return False
    name = answer.find(b"Content-Length: ", 0, head)
    if name < 0:
        raise ValueError(f"a response without Content-Length: {answer[:head]!r}")
    length_at = name + len(b"Content-Length: ")
    length = int(answer[length_at : answer.index(b"\r\n", length_at)])
    return len(answer) >= head + 4 + length
