"""One HTTP/2 connection: everything that client and server do alike.

What is written within a tick is collected in `out` and leaves in one piece. Frames are read over
one buffer; the two sides add what HEADERS and DATA mean to them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, cast

from librt.strings import BytesWriter
from mypy_extensions import i64

from keyplane.model.numbers import read_u32_be
from wire.http2 import frames as h2
from wire.http2.blocks import BlockReader
from wire.http2.frames import ConnectionFault, ErrorCode, StreamFault
from wire.http2.inbound import Inbound, Receiving
from wire.http2.limits import (
    BLOCKED_BYTES_MAX,
    CLOSING_TICKS_MAX,
    CONNECTION_WINDOW,
    CONTINUATIONS_MAX,
    DEAD_AFTER_TICKS,
    EMPTY_FREE,
    HANDSHAKE_TICKS_MAX,
    HEADER_LIST_BYTES_MAX,
    OUT_KEPT_MAX,
    PING_AFTER_TICKS,
    PINGS_FREE,
    PUSH_CALLS,
    RESETS_FREE,
    SETTINGS_FREE,
    STALLED_TICKS_MAX,
    STREAMS_MAX,
    WRITE_BUFFER_HIGH,
    WRITE_BUFFER_MAX,
    allowance,
)
from wire.http2.outbound import Sending
from wire.http2.seal import Seal
from wire.http2.tick import tick_of
from wire.loop import time_of

_OUR_SETTINGS: Final = h2.settings_frame(
    (
        (h2.HEADER_TABLE_SIZE, 0),
        (h2.MAX_CONCURRENT_STREAMS, STREAMS_MAX),
        (h2.INITIAL_WINDOW_SIZE, h2.WINDOW_DEFAULT),
        (h2.MAX_HEADER_LIST_SIZE, HEADER_LIST_BYTES_MAX),
    )
)
OPENING: Final = _OUR_SETTINGS + h2.window_update_frame(0, CONNECTION_WINDOW - h2.WINDOW_DEFAULT)
_KEEPALIVE: Final = b"keyplane"


class Connection(asyncio.Protocol):
    """The state of a connection, from the first byte to the last.

    throttles: whether nothing is read while the peer does not read. Only one end of a connection
        may do so, or two that are full would wait for each other for ever.
    ready: the peer's SETTINGS have come.
    finished: nothing more is read or sent, for the reason in `why`.
    """

    throttles = False

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._now = time_of(loop)
        self.transport: asyncio.Transport = cast(asyncio.Transport, None)
        self.out = BytesWriter()
        # Calls or answers in there.
        self._collected = 0
        # What all that is written here is sealed with.
        self.seal: Seal | None = None
        self.ready = False
        self.finished = False
        self.why = ""
        self.peer = ""
        self.last_id: i64 = 0
        # The last stream that our GOAWAY promises to answer; None before it.
        self.goaway_id: int | None = None
        self._tick = tick_of(loop)
        # True while somebody will flush `out` anyway.
        self.flushing = False
        self.reader = BlockReader()
        self.sending = Sending(self.out)
        self.receiving = Receiving(self.out)
        self._rest = b""
        self._block: list[bytes] = []
        self._block_bytes = 0
        self._block_head = (0, 0)
        self._paused = False
        self._opened_at = loop.time()
        # When the bytes now being read came.
        self.read_at = self._opened_at
        self._counts = {"reset": 0, "ping": 0, "settings": 0, "empty": 0}
        self.heard = False
        self._quiet_ticks = 0
        self._age_ticks = 0
        self._stalled_ticks = 0
        self._closing_ticks = 0

    # --- What the two sides define ---------------------------------------------------------------

    def on_headers(
        self, buf: bytes, start: i64, end: i64, size: i64, flags: i64, stream: i64
    ) -> i64:
        """A HEADERS frame, buf[start:end], that is plain: no padding, priority or continuation.

        size: of the buffer, where more frames may follow.
        Returns where reading goes on: after the frame, or after those that belong to it.
        """
        raise NotImplementedError

    def on_block(self, block: bytes, flags: int, stream: int) -> None:
        """A field block in the general way."""
        raise NotImplementedError

    def on_message(self, inbound: Inbound, stream: int, end_stream: bool) -> None:
        """More of a stream's data is there; all of it, with `end_stream`."""
        raise NotImplementedError

    def on_reset(self, stream: int, code: int) -> None:
        """The peer has ended a stream."""
        raise NotImplementedError

    def on_goaway(self, last: int, code: int, message: str) -> None:
        raise NotImplementedError

    def on_stream_fault(self, stream: int, fault: StreamFault) -> None:
        """A stream was ended because the peer broke its rules."""

    def on_settings(self) -> None:
        """The peer's settings have come or changed."""

    def on_finished(self) -> None:
        """The connection is over, for the reason in `why`. Called once."""
        raise NotImplementedError

    def on_extension(self, kind: int, stream: int, payload: bytes) -> None:
        """A frame of a type that HTTP/2 does not define."""

    def is_open(self, stream: int) -> bool:
        raise NotImplementedError

    def is_busy(self) -> bool:
        """Whether silence is worth a ping."""
        return True

    # --- Reading ---------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=WRITE_BUFFER_HIGH)
        self.peer = _peer_text(transport.get_extra_info("peername"))

    def data_received(self, data: bytes) -> None:
        if self.finished:
            return
        self.heard = True
        self.flushing = True
        self.read_at = self._now()
        self._tick.read_begins()
        try:
            self._rest = self._read(self._rest + data if self._rest else data)
            receiving = self.receiving
            if receiving.consumed * 2 >= CONNECTION_WINDOW:
                receiving.renew_connection_window()
        except ConnectionFault as fault:
            self.fail(fault)
        finally:
            self.flush()
            self._tick.read_ends()

    def _read(self, buf: bytes) -> bytes:
        """Handles every whole frame of the buffer and returns the rest. Raises ConnectionFault."""
        at: i64 = 0
        size: i64 = len(buf)
        while size - at >= 9:
            word: i64 = read_u32_be(buf, at)
            flags: i64 = buf[at + 4]
            stream: i64 = read_u32_be(buf, at + 5)
            length: i64 = word >> 8
            start: i64 = at + 9
            at = start + length
            if length > h2.FRAME_BYTES_DEFAULT:
                raise ConnectionFault(
                    ErrorCode.FRAME_SIZE_ERROR,
                    f"a frame of {length} bytes; at most {h2.FRAME_BYTES_DEFAULT} are taken",
                )
            if at > size:
                return buf[start - 9 :]
            kind: i64 = word & 0xFF
            if kind == h2.HEADERS and flags == 4 and self.ready and not self._block:
                at = self.on_headers(buf, start, at, size, flags, stream)
            else:
                self._on_frame(kind, flags, stream & h2.STREAM_ID_MAX, buf[start:at])
            if self.finished:
                return b""
        return buf[at:]

    def _on_frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if self._block and (kind != h2.CONTINUATION or stream != self._block_head[1]):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a field block was interrupted")
        if not self.ready and kind != h2.SETTINGS:
            raise ConnectionFault(
                ErrorCode.PROTOCOL_ERROR, "the first frame was no SETTINGS; is this an HTTP/2 peer?"
            )
        if kind == h2.DATA:
            self._on_data(flags, stream, payload)
        elif kind == h2.HEADERS:
            _on_stream(stream, "HEADERS")
            self._on_block_part(h2.field_block(payload, flags), flags, stream)
        elif kind == h2.WINDOW_UPDATE:
            self._on_window_update(stream, payload)
        elif kind == h2.RST_STREAM:
            _on_stream(stream, "RST_STREAM")
            code = h2.read_u32(payload, "RST_STREAM")
            self._check_begun(stream)
            self._count("reset", RESETS_FREE)
            self.forget(stream)
            self.on_reset(stream, code)
        elif kind == h2.PING:
            self._on_ping(flags, stream, payload)
        elif kind == h2.SETTINGS:
            self._on_settings(flags, stream, payload)
        elif kind == h2.GOAWAY:
            if stream:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "GOAWAY on a stream")
            self.on_goaway(*h2.read_goaway(payload))
        elif kind == h2.CONTINUATION:
            if not self._block:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "CONTINUATION of nothing")
            self._on_block_part(payload, flags | self._block_head[0], stream)
        elif kind == h2.PUSH_PROMISE:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "PUSH_PROMISE is not taken")
        else:
            if kind == h2.PRIORITY:
                _on_stream(stream, "PRIORITY")
            # Others that this build does not know must be ignored too (section 5.5).
            self._count("empty", EMPTY_FREE)
            self.on_extension(kind, stream, payload)

    def _on_block_part(self, part: bytes, flags: int, stream: int) -> None:
        self._block.append(part)
        self._block_bytes += len(part)
        if len(self._block) > CONTINUATIONS_MAX or self._block_bytes > HEADER_LIST_BYTES_MAX:
            raise ConnectionFault(
                ErrorCode.ENHANCE_YOUR_CALM,
                f"a field block of more than {HEADER_LIST_BYTES_MAX} bytes or "
                f"{CONTINUATIONS_MAX} frames; send less metadata",
            )
        if not flags & h2.END_HEADERS:
            self._block_head = (flags & h2.END_STREAM, stream)
            return
        block = b"".join(self._block)
        self._block.clear()
        self._block_bytes = 0
        try:
            self.on_block(block, flags & h2.END_STREAM, stream)
        except StreamFault as fault:
            self.stream_fault(stream, fault)

    def _on_data(self, flags: int, stream: int, payload: bytes) -> None:
        _on_stream(stream, "DATA")
        receiving = self.receiving
        receiving.take(len(payload))
        inbound = receiving.streams.get(stream)
        if inbound is None:
            self._check_begun(stream)
            # Of a stream that ended here while this was on its way.
            self._count("empty", EMPTY_FREE)
            return
        content = h2.unpadded(payload, flags)
        end_stream = bool(flags & h2.END_STREAM)
        if not content and not end_stream:
            self._count("empty", EMPTY_FREE)
        try:
            receiving.add(inbound, stream, content, len(payload), end_stream)
            self.on_message(inbound, stream, end_stream)
        except StreamFault as fault:
            self.stream_fault(stream, fault)

    def _on_window_update(self, stream: int, payload: bytes) -> None:
        increment = h2.read_u32(payload, "WINDOW_UPDATE") & h2.WINDOW_MAX
        self._count("empty", EMPTY_FREE)
        if stream:
            self._check_begun(stream)
            if not self.is_open(stream):
                return
        if not increment:
            if not stream:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE of nothing")
            self.stream_fault(
                stream, StreamFault(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE of nothing")
            )
            return
        try:
            self.sending.grant(stream, increment)
        except StreamFault as fault:
            self.stream_fault(stream, fault)

    def _on_ping(self, flags: int, stream: int, payload: bytes) -> None:
        if stream:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "PING on a stream")
        if len(payload) != 8:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "a PING frame has 8 bytes")
        self._count("ping", PINGS_FREE)
        if not flags & h2.ACK:
            self.out.write(h2.frame(h2.PING, h2.ACK, 0, payload))

    def _on_settings(self, flags: int, stream: int, payload: bytes) -> None:
        if stream:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "SETTINGS on a stream")
        self._count("settings", SETTINGS_FREE)
        if flags & h2.ACK:
            if payload:
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "a SETTINGS ACK with content")
            if not self.ready:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "the first SETTINGS was an ACK")
            return
        self.out.write(h2.SETTINGS_ACK)
        self.ready = True
        self.sending.apply(h2.read_settings(payload))
        self.on_settings()

    def _check_begun(self, stream: int) -> None:
        """Frames other than HEADERS may not come first on a stream (section 5.1)."""
        if stream > int(self.last_id) or not stream & 1:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"stream {stream} has not begun")

    def _count(self, name: str, free: tuple[int, float, float]) -> None:
        counts = self._counts
        counts[name] = count = counts[name] + 1
        if count > free[0]:
            age_s = self.loop.time() - self._opened_at
            if count > allowance(free, age_s, int(self.last_id) >> 1):
                raise ConnectionFault(
                    ErrorCode.ENHANCE_YOUR_CALM, f"too many frames of a kind: {count} ({name})"
                )

    # --- Ending ----------------------------------------------------------------------------------

    def stream_fault(self, stream: int, fault: StreamFault) -> None:
        self.reset(stream, fault.code)
        self.on_stream_fault(stream, fault)

    def reset(self, stream: int, code: ErrorCode) -> None:
        """Ends a stream from here."""
        self.forget(stream)
        self.out.write(h2.rst_stream_frame(stream, code))
        self.schedule_flush()

    def forget(self, stream: int) -> None:
        """Lets go of what is half received or half sent of a stream."""
        self.receiving.drop(stream)
        self.sending.drop(stream)

    def fail(self, fault: ConnectionFault) -> None:
        """Ends the connection for something the peer did."""
        self.shut(fault.code, fault.message)

    def shut(self, code: ErrorCode, message: str) -> None:
        """Says GOAWAY and closes; what was answered before goes out before it."""
        self.flush()
        if self.finished:
            return
        self.say_goaway(code, message)
        self.close(message)

    def say_goaway(self, code: ErrorCode, message: str) -> None:
        """Section 6.8: the stream it names may fall from one GOAWAY to the next, never rise."""
        if self.goaway_id is None:
            self.goaway_id = max(0, int(self.last_id))
        self.out.write(h2.goaway_frame(self.goaway_id, code, message[:200]))

    def close(self, why: str) -> None:
        """Closes once what is written has gone out."""
        if self.finished:
            return
        self.flush()
        self._finish(why)
        self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._finish(f"the connection broke: {exc}" if exc else "the peer closed the connection")

    def _finish(self, why: str) -> None:
        if self.finished:
            return
        self.finished = True
        self.why = why
        self._rest = b""
        self._block.clear()
        self.receiving.clear()
        self.sending.clear()
        self.on_finished()

    # --- Writing ---------------------------------------------------------------------------------

    def schedule_flush(self) -> None:
        if not self.flushing:
            self.flushing = True
            self._tick.add(self)

    def call_written(self) -> None:
        """A call or an answer has been added to `out`. It leaves with the tick; but when many have
        collected they leave at once, so that the peer can begin. Else two processes take turns,
        each waiting for a whole batch of the other.
        """
        self._collected += 1
        if self._collected >= PUSH_CALLS and not self._paused and not self.finished:
            self._push()
        elif not self.flushing:
            self.flushing = True
            self._tick.add(self)

    def flush(self) -> None:
        """Hands all that has collected to the socket, in one piece."""
        self.flushing = False
        sending = self.sending
        if sending.blocked and not self._paused:
            sending.pump(WRITE_BUFFER_HIGH)
        if len(self.out):
            if self.finished:
                self.out.truncate(0)
            else:
                self._push()
        if self._paused and self.owed() > WRITE_BUFFER_MAX:
            self.abort("the peer does not read what it asked for")
        elif sending.blocked_bytes > BLOCKED_BYTES_MAX:
            self.abort("the peer gives no window for what it asked for")
        elif sending.more and not self._paused and not self.finished:
            # A message of many frames: let others on first.
            self.schedule_flush()

    def _push(self) -> None:
        out = self.out
        seal = self.seal
        self.transport.write(out.getvalue() if seal is None else seal.records(out.getvalue()))
        self._collected = 0
        if len(out) <= OUT_KEPT_MAX:
            out.truncate(0)
        else:
            self.out = self.sending.out = self.receiving.out = BytesWriter()

    def owed(self) -> int:
        """Bytes that the peer has not read yet."""
        return self.transport.get_write_buffer_size()

    def held(self) -> int:
        """Bytes kept here for this peer: written and not read, waiting, and half received."""
        return self.owed() + self.sending.blocked_bytes + self.receiving.partial

    def abort(self, why: str) -> None:
        """Cuts the connection: nothing that was not sent yet is sent."""
        self._finish(why)
        self.transport.abort()

    def pause_writing(self) -> None:
        self._paused = True
        if self.throttles and not self.finished:
            self.transport.pause_reading()

    def resume_writing(self) -> None:
        self._paused = False
        self._stalled_ticks = 0
        if not self.finished:
            if self.throttles:
                self.transport.resume_reading()
            self.schedule_flush()

    # --- Time ------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Once a second: silence, stalls, and handshakes that do not end."""
        if self.finished:
            self._closing_ticks += 1
            if self._closing_ticks > CLOSING_TICKS_MAX:
                self.transport.abort()
            return
        self._age_ticks += 1
        if not self.ready and self._age_ticks > HANDSHAKE_TICKS_MAX:
            self.shut(ErrorCode.SETTINGS_TIMEOUT, "no SETTINGS came; is this an HTTP/2 peer?")
            return
        self._tick_silence()
        if self.finished:
            return
        self._tick_stalls()

    def _tick_silence(self) -> None:
        if self.heard or self._paused:
            self.heard = False
            self._quiet_ticks = 0
        elif self._quiet_ticks or self.is_busy():
            self._quiet_ticks += 1
            if self._quiet_ticks == PING_AFTER_TICKS:
                self.out.write(h2.frame(h2.PING, 0, 0, _KEEPALIVE))
                self.schedule_flush()
            elif self._quiet_ticks >= DEAD_AFTER_TICKS:
                self.abort("the peer answers no ping")

    def _tick_stalls(self) -> None:
        """Nothing goes out though there is something to send; and messages that do not go on."""
        if (self._paused or self.sending.blocked) and not self.sending.progress:
            self._stalled_ticks += 1
            if self._stalled_ticks >= STALLED_TICKS_MAX:
                if self._paused:
                    self.abort("the peer does not read")
                else:
                    self.shut(ErrorCode.ENHANCE_YOUR_CALM, "no window for what was asked for")
                return
        else:
            self._stalled_ticks = 0
        self.sending.progress = False
        for stream in self.receiving.stalled(STALLED_TICKS_MAX):
            self.stream_fault(
                stream, StreamFault(ErrorCode.CANCEL, "a message was begun and not sent")
            )


def _on_stream(stream: int, what: str) -> None:
    if not stream:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"{what} on stream 0")


def _peer_text(name: object) -> str:
    """A peer as gRPC writes it: ipv4:127.0.0.1:5000, ipv6:%5B::1%5D:5000."""
    if not isinstance(name, tuple):
        return f"unix:{name or ''}"
    host, port = name[:2]
    return f"ipv6:%5B{host}%5D:{port}" if ":" in host else f"ipv4:{host}:{port}"


class Ticker:
    """Beats once a second for all connections of one owner, while there are any."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, period_s: float, beat: Callable[[], bool]
    ) -> None:
        self._loop = loop
        self._period_s = period_s
        self._beat = beat
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(self._period_s, self._run)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _run(self) -> None:
        self._timer = None
        if self._beat():
            self.start()
