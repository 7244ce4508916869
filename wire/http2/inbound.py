"""Messages that arrive in pieces: assembly, and the windows we give (RFC 9113, section 5.2)."""

from __future__ import annotations

from collections import deque

from librt.strings import BytesWriter

from wire.http2 import frames as h2
from wire.http2.frames import ConnectionFault, ErrorCode, StreamFault
from wire.http2.limits import (
    CONNECTION_WINDOW,
    PARTIAL_BYTES_MAX,
    RESERVED_BYTES_MAX,
    STREAM_WINDOW,
)
from wire.rpc import MESSAGE_BYTES_MAX


class TooLarge(Exception):
    """A message above MESSAGE_BYTES_MAX; `size` is what it says of itself."""

    def __init__(self, size: int) -> None:
        super().__init__(f"a message of {size} bytes")
        self.size = size


class Inbound:
    """One stream whose messages are not all here.

    need: bytes of the message under way with its head; 0 while the head is not here.
    window: what the peer may still send on this stream.
    patient: the peer may take its time to begin a message, though not to end it.
    """

    __slots__ = (
        *("body", "ended", "head", "idle_ticks", "need", "patient", "reserved", "waiting"),
        "window",
    )

    def __init__(self, head: object, patient: bool) -> None:
        self.head = head
        self.patient = patient
        self.body = bytearray()
        self.need = 0
        self.window = STREAM_WINDOW
        self.reserved = 0
        self.waiting = False
        self.ended = False
        self.idle_ticks = 0

    def measure(self) -> bool:
        """Whether a whole message is there. Raises TooLarge as soon as its head says so."""
        if not self.need:
            if len(self.body) < h2.MESSAGE_HEAD_BYTES:
                return False
            size = h2.MESSAGE_HEAD.unpack_from(self.body)[1]
            if size > MESSAGE_BYTES_MAX:
                raise TooLarge(size)
            self.need = size + h2.MESSAGE_HEAD_BYTES
        return len(self.body) >= self.need

    def pop_message(self) -> tuple[bool, bytes] | None:
        """Whether the next message is compressed, and the message; None if none is whole yet.

        Raises TooLarge.
        """
        if not self.measure():
            return None
        body = self.body
        message = bytes(memoryview(body)[h2.MESSAGE_HEAD_BYTES : self.need])
        compressed = bool(body[0])
        del body[: self.need]
        self.need = 0
        return compressed, message


class Receiving:
    """What a connection is receiving, within the bounds of its memory."""

    def __init__(self, out: BytesWriter) -> None:
        self.out = out
        self.streams: dict[int, Inbound] = {}
        # Bytes of the connection's window used since it was last renewed.
        self.consumed = 0
        self._reserved = 0
        # Bytes received of messages that are not whole.
        self.partial = 0
        # Streams that wait for room, in order.
        self._waiting: deque[int] = deque()

    def begin(self, stream: int, head: object, patient: bool = False) -> Inbound:
        inbound = self.streams[stream] = Inbound(head, patient)
        return inbound

    def take(self, size: int) -> None:
        """Counts a DATA frame, whoever it is for. Raises ConnectionFault."""
        self.consumed += size
        if self.consumed > CONNECTION_WINDOW:
            raise ConnectionFault(
                ErrorCode.FLOW_CONTROL_ERROR, "more data than the connection's window"
            )
        if self.consumed * 2 >= CONNECTION_WINDOW:
            self.renew_connection_window()

    def renew_connection_window(self) -> None:
        self.out.write(h2.window_update_frame(0, self.consumed))
        self.consumed = 0

    def add(
        self, inbound: Inbound, stream: int, content: bytes, size: int, end_stream: bool
    ) -> None:
        """Adds the content of a DATA frame of `size` bytes. Raises StreamFault."""
        if inbound.ended:
            raise StreamFault(ErrorCode.STREAM_CLOSED, "data after the end of the stream")
        inbound.window -= size
        if inbound.window < 0:
            raise StreamFault(ErrorCode.FLOW_CONTROL_ERROR, "more data than the stream's window")
        if size > len(content):
            # Padding is nobody's message: its part of the window goes straight back.
            self._renew(inbound, stream, size - len(content))
        inbound.body += content
        inbound.ended = end_stream
        inbound.idle_ticks = 0
        self.partial += len(content)

    def settle(self, inbound: Inbound, stream: int, handed_on: int) -> None:
        """After messages of `handed_on` bytes were taken out: windows for what is still to come.

        Raises StreamFault if too much has begun on this connection.
        """
        self.partial -= handed_on
        if handed_on and inbound.reserved:
            self._release(inbound)
        if inbound.ended:
            return
        if self.partial - self._reserved > PARTIAL_BYTES_MAX:
            raise StreamFault(
                ErrorCode.ENHANCE_YOUR_CALM, "too many messages are under way; send fewer at once"
            )
        missing = inbound.need - len(inbound.body) - inbound.window
        if missing > 0:
            if not inbound.waiting:
                inbound.waiting = True
                self._waiting.append(stream)
                self._grant()
        elif not inbound.need and inbound.window * 2 < STREAM_WINDOW:
            self._renew(inbound, stream, STREAM_WINDOW - inbound.window)

    def drop(self, stream: int) -> Inbound | None:
        inbound = self.streams.pop(stream, None)
        if inbound is not None:
            self.partial -= len(inbound.body)
            if inbound.reserved:
                self._release(inbound)
        return inbound

    def clear(self) -> None:
        self.streams.clear()
        self._waiting.clear()
        self.partial = 0

    def stalled(self, ticks_max: int) -> list[int]:
        """Called each tick: streams of which nothing has come for `ticks_max`, though it should."""
        found = []
        for stream, inbound in self.streams.items():
            if (inbound.body or not inbound.patient) and not inbound.waiting:
                inbound.idle_ticks += 1
                if inbound.idle_ticks >= ticks_max:
                    found.append(stream)
        return found

    def _renew(self, inbound: Inbound, stream: int, increment: int) -> None:
        inbound.window += increment
        self.out.write(h2.window_update_frame(stream, increment))

    def _release(self, inbound: Inbound) -> None:
        self._reserved -= inbound.reserved
        inbound.reserved = 0
        self._grant()

    def _grant(self) -> None:
        """Gives room to those that wait, in order, as far as there is any."""
        while self._waiting:
            stream = self._waiting[0]
            inbound = self.streams.get(stream)
            if inbound is not None:
                if self._reserved + inbound.need > RESERVED_BYTES_MAX:
                    return
                inbound.waiting = False
                inbound.reserved = inbound.need
                self._reserved += inbound.need
                missing = inbound.need - len(inbound.body) - inbound.window
                if missing > 0:
                    self._renew(inbound, stream, missing)
            self._waiting.popleft()
