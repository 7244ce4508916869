"""HTTP/2 by hand: a peer that says exactly what a test wants it to say."""

from __future__ import annotations

import asyncio

import pytest
from hpack import Decoder

from keyplane import native
from wire.http2 import frames as h2
from wire.http2.blocks import block, literal
from wire.http2.frames import ErrorCode, Frame

METHOD = "/T/Echo"

of_source = pytest.mark.skipif(
    native.is_active(), reason="puts another value in the place of one that is compiled in"
)

# The longest that anything here takes.
TIMEOUT_S = 30.0


def request_block(method: str = METHOD, **more: str) -> bytes:
    fields = [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", method.encode()),
        (b":authority", b"test"),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
    ]
    fields += [(name.replace("_", "-").encode(), value.encode()) for name, value in more.items()]
    return block(fields)


def message(payload: bytes, compressed: int = 0) -> bytes:
    return h2.MESSAGE_HEAD.pack(compressed, len(payload)) + payload


def request(stream: int, payload: bytes = b"hello", method: str = METHOD) -> bytes:
    """HEADERS and DATA of one whole call."""
    return h2.frame(h2.HEADERS, h2.END_HEADERS, stream, request_block(method)) + h2.frame(
        h2.DATA, h2.END_STREAM, stream, message(payload)
    )


class RawClient:
    """A connection to a server, on which bytes are said and frames heard."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.heard: list[Frame] = []
        self._decoder = Decoder()

    @classmethod
    async def connect(cls, address: str, greet: bool = True) -> RawClient:
        host, _, port = address.rpartition(":")
        client = cls(*await asyncio.open_connection(host, int(port)))
        if greet:
            client.say(h2.PREFACE, h2.settings_frame(()))
            await client.hear(h2.SETTINGS)
        return client

    def say(self, *parts: bytes) -> None:
        self.writer.write(b"".join(parts))

    async def next(self) -> Frame | None:
        """The next frame; None at the end of the connection."""
        async with asyncio.timeout(TIMEOUT_S):
            try:
                head = await self.reader.readexactly(9)
                word, flags, stream = h2.FRAME_HEAD.unpack(head)
                payload = await self.reader.readexactly(word >> 8)
            except (asyncio.IncompleteReadError, ConnectionError):
                return None
        frame = Frame(word & 0xFF, flags, stream, payload)
        self.heard.append(frame)
        return frame

    async def hear(self, kind: int, stream: int | None = None) -> Frame:
        """The next frame of a kind; others before it are passed over."""
        while (frame := await self.next()) is not None:
            if frame.kind == kind and (stream is None or frame.stream == stream):
                return frame
        raise AssertionError(f"the connection ended without a frame of kind {kind}")

    async def end(self) -> tuple[ErrorCode, str] | None:
        """Code and text of the GOAWAY with which the server ends the connection; None without."""
        last = None
        while (frame := await self.next()) is not None:
            if frame.kind == h2.GOAWAY:
                _, code, text = h2.read_goaway(frame.payload)
                last = (ErrorCode(code), text)
        return last

    def fields(self, frame: Frame) -> dict[bytes, bytes]:
        """Of a HEADERS frame. All of them must be read, in order."""
        return dict(self._decoder.decode(frame.payload, raw=True))  # type: ignore[arg-type]

    async def answer(self, stream: int) -> bytes:
        """The payload of one call's answer."""
        body = b""
        while (frame := await self.next()) is not None:
            if frame.stream == stream and frame.kind == h2.DATA:
                body += frame.payload
            if frame.stream == stream and frame.flags & h2.END_STREAM:
                return body[5:]
        raise AssertionError("the connection ended without an answer")

    def close(self) -> None:
        self.writer.close()


__all__ = ["METHOD", "RawClient", "literal", "message", "request", "request_block"]
