"""The lane over HTTP/1.1. (That over gRPC is compiled, and so not in one module with this.)"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from bench._items import GET, Op, Requests
from bench._lanes import DEADLINE_S, unset
from keyplane.model.errors import Reason

# Failures over HTTP, by the names that they have over gRPC.
LOST = Reason.CONNECTION_LOST.name
LATE = Reason.DEADLINE_EXCEEDED.name


class HttpLane(asyncio.Protocol):
    """One HTTP/1.1 connection, kept alive. A lane whose connection was lost fails from then on."""

    def __init__(self, requests: Requests, loop: asyncio.AbstractEventLoop) -> None:
        self.done: Callable[[str], None] = unset
        self._requests = requests
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._op = GET
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
