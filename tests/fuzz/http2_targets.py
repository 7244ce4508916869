"""What a fuzzer feeds the HTTP/2 engine with: any bytes, cut anywhere.

A target raises for whatever must not happen. `scripts/fuzz` runs them under a coverage-guided
fuzzer; tests/property/test_http2.py gives each a few inputs, so that they stay in step.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from wire.http2 import frames as h2
from wire.http2.blocks import BlockReader, literals
from wire.http2.client import Http2Transport
from wire.http2.client_connection import ClientConnection
from wire.http2.frames import ConnectionFault, StreamFault
from wire.http2.metadata import request_head, response_head
from wire.http2.server import Http2Server
from wire.http2.server_connection import ServerConnection
from wire.loop import LoopClock
from wire.metrics import Metrics
from wire.ports import Reply, Request

# What is fed at once, and at most in all.
PIECES_MAX = 64
INPUT_BYTES_MAX = 64 << 10

_ADDRESS = "127.0.0.1:1"


class Wire(asyncio.Transport):
    """What a connection writes, kept; a socket that takes everything at once."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.closed = False

    def write(self, data: Any) -> None:
        assert not self.closed, "nothing is written after the end"
        self.written += data

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 5000) if name == "peername" else None

    def get_write_buffer_size(self) -> int:
        return 0

    def close(self) -> None:
        self.closed = True

    abort = close


def feed_server(pieces: list[bytes]) -> tuple[list[tuple[str, bytes]], Wire, ServerConnection]:
    """The calls that a server sees when a client's bytes come in these pieces."""

    async def run() -> tuple[list[tuple[str, bytes]], Wire, ServerConnection]:
        seen: list[tuple[str, bytes]] = []

        def handle(request: Request, reply: Any) -> None:
            seen.append((request.method, request.payload))
            reply(Reply(request.payload))

        server = Http2Server(LoopClock(asyncio.get_running_loop()), Metrics())
        server.register("/T/Echo", handle)
        connection, wire = ServerConnection(server), Wire()
        connection.connection_made(wire)
        for piece in pieces:
            connection.data_received(piece)
        await asyncio.sleep(0)
        server._ticker.stop()
        server.expiry.stop()
        return seen, wire, connection

    return asyncio.run(run())


def server(data: bytes) -> None:
    """A closed connection said why, and a call that was seen is answered."""
    seen, wire, connection = feed_server(_pieces(data, h2.PREFACE + h2.settings_frame(())))
    check_end(wire, connection)
    assert connection.server.in_flight == 0, seen


def check_end(wire: Wire, connection: ServerConnection) -> None:
    """A connection that was closed has said why, as the last thing."""
    said = bytes(wire.written)
    assert wire.closed == connection.finished
    if wire.closed and said and not said.startswith(b"HTTP/1.1"):
        assert list(h2.frames(said))[-1].kind == h2.GOAWAY
        assert connection.server.faults.total() == 1


def client(data: bytes) -> None:
    """Every call ends, and once."""

    async def run() -> None:
        clock = LoopClock(asyncio.get_running_loop())
        transport = Http2Transport(clock)
        replies: list[Reply] = []
        # No attempt to connect: the test is the connection.
        inside: Any = transport
        inside._open(_ADDRESS)
        connection, wire = ClientConnection(inside._peers[_ADDRESS], transport.known), Wire()
        connection.connection_made(wire)
        connection.data_received(h2.settings_frame(()))
        for _ in range(3):
            transport.call(_ADDRESS, "/T/Echo", b"x", clock.now() + 60, replies.append)
        await asyncio.sleep(0)
        for piece in _pieces(data, b""):
            connection.data_received(piece)
        connection.connection_lost(None)
        await transport.close()
        assert len(replies) == 3 and transport.in_flight == 0

    asyncio.run(run())


def blocks(data: bytes) -> None:
    """A field block ends in a fault or in a head; and where our quick reader reads it, it reads
    what the library does.
    """
    for read in (request_head, response_head):
        reading: Callable[[Any], object] = read
        try:
            reading(BlockReader().fields(data))
        except (ConnectionFault, StreamFault):
            continue
    quick = literals(data, 0)
    if quick is not None:
        assert BlockReader().fields(b"\x20" + data) == [field for field, _ in quick]


TARGETS: Mapping[str, Callable[[bytes], None]] = {
    "server": server,
    "client": client,
    "blocks": blocks,
}


def _pieces(data: bytes, greeting: bytes) -> list[bytes]:
    """The first byte says whether the peer greets first, and how long pieces are."""
    if not data:
        return [greeting]
    greets, step = data[0] & 1, (data[0] >> 1) * 8 + 1
    rest = (greeting if greets else b"") + data[1:INPUT_BYTES_MAX]
    step = max(step, len(rest) // PIECES_MAX + 1)
    return [rest[at : at + step] for at in range(0, len(rest), step)]
