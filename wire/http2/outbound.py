"""Messages that do not fit the peer's windows or frames: sent piece by piece (RFC 9113, 5.2)."""

from __future__ import annotations

from collections.abc import Iterable

from librt.strings import BytesWriter

from wire.http2 import frames as h2
from wire.http2.blocks import TABLE_SIZE_ZERO
from wire.http2.frames import ConnectionFault, ErrorCode, StreamFault

# Frames of one message that go out before the next one gets its turn.
_FRAMES_A_TURN = 16


class Outbound:
    """What is left to send of one stream: data, then how it ends.

    tail: whole frames that follow the data; empty while more data may come.
    end_stream: the last DATA frame ends the stream.
    """

    __slots__ = ("at", "data", "end_stream", "tail")

    def __init__(self, data: bytes, tail: bytes, end_stream: bool) -> None:
        self.data = data
        self.at = 0
        self.tail = tail
        self.end_stream = end_stream


class Sending:
    """The peer's windows, and what waits for them.

    window: of the whole connection. A stream's own is `initial_window` plus its credit, which
    starts at 0; so a change of INITIAL_WINDOW_SIZE moves all streams by itself (section 6.9.2).
    quick_max: the largest message with its head that may go out at once, on a fresh stream, with
        field blocks that are ready made.
    """

    def __init__(self, out: BytesWriter) -> None:
        self.out = out
        self.window = h2.WINDOW_DEFAULT
        self.initial_window = h2.WINDOW_DEFAULT
        self.frame_bytes = h2.FRAME_BYTES_DEFAULT
        self.streams_max = h2.STREAM_ID_MAX
        # Nothing is quick before the first field block has gone out.
        self.quick_max = 0
        self._lead = TABLE_SIZE_ZERO
        self.credit: dict[int, int] = {}
        self.blocked: dict[int, Outbound] = {}
        self.blocked_bytes = 0
        # Whether the last pump ended by its own choice, not for want of window.
        self.more = False
        # Whether anything that had been blocked went out since this was last set to False.
        self.progress = False

    def apply(self, settings: Iterable[tuple[int, int]]) -> None:
        """The peer's SETTINGS. Raises ConnectionFault if they break a window (section 6.9.2)."""
        for key, value in settings:
            if key == h2.INITIAL_WINDOW_SIZE:
                self.initial_window = value
                if self.credit and max(self.credit.values()) + value > h2.WINDOW_MAX:
                    raise ConnectionFault(
                        ErrorCode.FLOW_CONTROL_ERROR, "INITIAL_WINDOW_SIZE overflows a window"
                    )
            elif key == h2.MAX_FRAME_SIZE:
                # Larger frames bring nothing, and make others wait.
                self.frame_bytes = h2.FRAME_BYTES_DEFAULT
            elif key == h2.MAX_CONCURRENT_STREAMS:
                self.streams_max = value
        self._choose_quick()

    def _choose_quick(self) -> None:
        self.quick_max = 0 if self._lead else min(self.initial_window, self.frame_bytes)

    def lead(self, block: bytes) -> bytes:
        """A block as it is to be sent: the first one says that our table is empty.

        Peers that asked for that insist on being told (RFC 7541, section 4.2).
        """
        if self._lead:
            block, self._lead = self._lead + block, b""
            self._choose_quick()
        return block

    def grant(self, stream: int, increment: int) -> None:
        """A WINDOW_UPDATE. Raises a fault if it overflows the window."""
        if not stream:
            self.window += increment
            if self.window > h2.WINDOW_MAX:
                raise ConnectionFault(
                    ErrorCode.FLOW_CONTROL_ERROR, "WINDOW_UPDATE overflows the connection's window"
                )
            return
        credit = self.credit[stream] = self.credit.get(stream, 0) + increment
        if credit + self.initial_window > h2.WINDOW_MAX:
            raise StreamFault(
                ErrorCode.FLOW_CONTROL_ERROR, "WINDOW_UPDATE overflows the stream's window"
            )

    def queue(self, stream: int, data: bytes, tail: bytes = b"", end_stream: bool = False) -> None:
        """Sends data as the windows allow, and then the tail."""
        waiting = self.blocked.get(stream)
        if waiting is None:
            self.blocked[stream] = Outbound(data, tail, end_stream)
        else:
            waiting.data = waiting.data[waiting.at :] + data
            waiting.at = 0
            waiting.tail = tail
            waiting.end_stream = end_stream
        self.blocked_bytes += len(data)

    def drop(self, stream: int) -> None:
        if self.credit:
            self.credit.pop(stream, None)
        if self.blocked and (waiting := self.blocked.pop(stream, None)) is not None:
            self.blocked_bytes -= len(waiting.data) - waiting.at

    def clear(self) -> None:
        self.blocked.clear()
        self.credit.clear()
        self.blocked_bytes = 0

    def pump(self, bytes_max: int) -> None:
        """Frames what the windows let through, in turns, until about `bytes_max`."""
        self.more = False
        idle = 0
        while self.blocked and idle < len(self.blocked):
            stream = next(iter(self.blocked))
            waiting = self.blocked.pop(stream)
            sent = self._send(stream, waiting)
            bytes_max -= sent
            idle = 0 if sent else idle + 1
            if waiting.at < len(waiting.data):
                self.blocked[stream] = waiting
            else:
                if waiting.tail or waiting.end_stream:
                    self.credit.pop(stream, None)
                self.out.write(waiting.tail)
                idle = 0
                self.progress = True
            if bytes_max <= 0:
                self.more = bool(self.blocked)
                return

    def _send(self, stream: int, waiting: Outbound) -> int:
        """One turn of one stream; returns the bytes of data sent."""
        out, size = self.out, len(waiting.data)
        sent = 0
        for _ in range(_FRAMES_A_TURN):
            credit = self.credit.get(stream, 0)
            length = min(
                self.frame_bytes, self.window, self.initial_window + credit, size - waiting.at
            )
            if length <= 0:
                break
            self.window -= length
            self.credit[stream] = credit - length
            start, waiting.at = waiting.at, waiting.at + length
            ends = waiting.end_stream and waiting.at == size
            h2.write_head(out, h2.DATA, int(ends), stream, length)
            out.write(waiting.data[start : waiting.at])
            sent += length
        if sent:
            self.progress = True
        self.blocked_bytes -= sent
        return sent
