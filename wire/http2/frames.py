"""HTTP/2 frames as bytes, both ways (RFC 9113, sections 4 and 6). No state, no I/O."""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from librt.strings import BytesWriter

from keyplane.model.numbers import write_u32_be

# Section 3.4: what a client says first.
PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

# Section 6: frame types.
DATA: Final = 0x0
HEADERS: Final = 0x1
PRIORITY: Final = 0x2
RST_STREAM: Final = 0x3
SETTINGS: Final = 0x4
PUSH_PROMISE: Final = 0x5
PING: Final = 0x6
GOAWAY: Final = 0x7
WINDOW_UPDATE: Final = 0x8
CONTINUATION: Final = 0x9

# Flags. END_STREAM and ACK share a bit, of different frames.
END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
WITH_PRIORITY: Final = 0x20

# Section 6.5.2: settings.
HEADER_TABLE_SIZE: Final = 0x1
ENABLE_PUSH: Final = 0x2
MAX_CONCURRENT_STREAMS: Final = 0x3
INITIAL_WINDOW_SIZE: Final = 0x4
MAX_FRAME_SIZE: Final = 0x5
MAX_HEADER_LIST_SIZE: Final = 0x6

WINDOW_DEFAULT: Final = 65_535
WINDOW_MAX: Final = 2**31 - 1
STREAM_ID_MAX: Final = 2**31 - 1
# Section 4.2: what every peer takes, and the most that a peer may offer to take.
FRAME_BYTES_DEFAULT: Final = 16_384
FRAME_BYTES_LIMIT: Final = 2**24 - 1

FRAME_HEAD_BYTES: Final = 9
# Length and type in one number (length << 8 | type), flags, stream.
FRAME_HEAD: Final = struct.Struct(">IBI")
_SETTING: Final = struct.Struct(">HI")
_U32: Final = struct.Struct(">I")
_GOAWAY: Final = struct.Struct(">II")

# A gRPC message starts with a flag (compressed?) and its length.
MESSAGE_HEAD: Final = struct.Struct(">BI")
MESSAGE_HEAD_BYTES: Final = 5


class ErrorCode(enum.IntEnum):
    """Section 7."""

    NO_ERROR = 0x0
    PROTOCOL_ERROR = 0x1
    INTERNAL_ERROR = 0x2
    FLOW_CONTROL_ERROR = 0x3
    SETTINGS_TIMEOUT = 0x4
    STREAM_CLOSED = 0x5
    FRAME_SIZE_ERROR = 0x6
    REFUSED_STREAM = 0x7
    CANCEL = 0x8
    COMPRESSION_ERROR = 0x9
    CONNECT_ERROR = 0xA
    ENHANCE_YOUR_CALM = 0xB
    INADEQUATE_SECURITY = 0xC
    HTTP_1_1_REQUIRED = 0xD


class ConnectionFault(Exception):
    """The peer broke the protocol or a bound: the connection ends with GOAWAY (section 5.4.1)."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class StreamFault(Exception):
    """One stream cannot go on: it ends with RST_STREAM (section 5.4.2)."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Frame(NamedTuple):
    kind: int
    flags: int
    stream: int
    payload: bytes


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    return FRAME_HEAD.pack(len(payload) << 8 | kind, flags, stream) + payload


def write_head(out: BytesWriter, kind: int, flags: int, stream: int, length: int) -> None:
    """What a frame with so many bytes of payload begins with."""
    write_u32_be(out, length << 8 | kind)
    out.append(flags)
    write_u32_be(out, stream)


def write_message(out: BytesWriter, flags: int, stream: int, message: bytes) -> None:
    """A DATA frame that holds a whole gRPC message, not compressed."""
    size = len(message)
    write_head(out, DATA, flags, stream, size + MESSAGE_HEAD_BYTES)
    out.append(0)
    write_u32_be(out, size)
    out.write(message)


def frames(data: bytes) -> Iterator[Frame]:
    """The whole frames at the start of `data`; an incomplete one at its end is left out."""
    at = 0
    while len(data) - at >= FRAME_HEAD_BYTES:
        word, flags, stream = FRAME_HEAD.unpack_from(data, at)
        start = at + FRAME_HEAD_BYTES
        at = start + (word >> 8)
        if at > len(data):
            return
        yield Frame(word & 0xFF, flags, stream & STREAM_ID_MAX, data[start:at])


def settings_frame(values: Iterable[tuple[int, int]]) -> bytes:
    return frame(SETTINGS, payload=b"".join(_SETTING.pack(*pair) for pair in values))


SETTINGS_ACK: Final = frame(SETTINGS, ACK)


def window_update_frame(stream: int, increment: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream, _U32.pack(increment))


def rst_stream_frame(stream: int, code: ErrorCode) -> bytes:
    return frame(RST_STREAM, 0, stream, _U32.pack(code))


def goaway_frame(last_stream: int, code: ErrorCode, message: str = "") -> bytes:
    return frame(GOAWAY, payload=_GOAWAY.pack(last_stream, code) + message.encode())


def headers_frames(stream: int, block: bytes, flags: int, frame_bytes: int) -> bytes:
    """A field block as HEADERS, and as many CONTINUATION frames as it takes (section 4.3)."""
    if len(block) <= frame_bytes:
        return frame(HEADERS, flags | END_HEADERS, stream, block)
    parts = [block[at : at + frame_bytes] for at in range(0, len(block), frame_bytes)]
    return b"".join(
        (
            frame(HEADERS, flags, stream, parts[0]),
            *(frame(CONTINUATION, 0, stream, part) for part in parts[1:-1]),
            frame(CONTINUATION, END_HEADERS, stream, parts[-1]),
        )
    )


def unpadded(payload: bytes, flags: int) -> bytes:
    """The content of a DATA or HEADERS frame without padding (section 6.1).

    Raises ConnectionFault if there is more padding than frame.
    """
    if not flags & PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a frame holds more padding than content")
    return payload[1 : len(payload) - payload[0]]


def field_block(payload: bytes, flags: int) -> bytes:
    """The part of a field block in a HEADERS frame: no padding, no priority (section 6.2)."""
    block = unpadded(payload, flags)
    if not flags & WITH_PRIORITY:
        return block
    if len(block) < 5:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "a HEADERS frame is cut short")
    return block[5:]


def read_u32(payload: bytes, what: str) -> int:
    """The one number of a WINDOW_UPDATE or RST_STREAM frame. Raises ConnectionFault."""
    if len(payload) != 4:
        raise ConnectionFault(
            ErrorCode.FRAME_SIZE_ERROR, f"a {what} frame has {len(payload)} bytes, not 4"
        )
    number: int = _U32.unpack(payload)[0]
    return number


def read_goaway(payload: bytes) -> tuple[int, int, str]:
    """Last stream, error code and debug text. Raises ConnectionFault."""
    if len(payload) < 8:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "a GOAWAY frame is cut short")
    last, code = _GOAWAY.unpack_from(payload)
    return last & STREAM_ID_MAX, code, payload[8:].decode("utf-8", "replace")


def read_settings(payload: bytes) -> list[tuple[int, int]]:
    """The pairs of a SETTINGS frame, checked (section 6.5.2). Raises ConnectionFault."""
    if len(payload) % _SETTING.size:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "a SETTINGS frame is cut short")
    pairs = list(_SETTING.iter_unpack(payload))
    for key, value in pairs:
        if key == ENABLE_PUSH and value > 1:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"ENABLE_PUSH is {value}")
        if key == INITIAL_WINDOW_SIZE and value > WINDOW_MAX:
            raise ConnectionFault(
                ErrorCode.FLOW_CONTROL_ERROR, f"INITIAL_WINDOW_SIZE is {value}, above {WINDOW_MAX}"
            )
        if key == MAX_FRAME_SIZE and not FRAME_BYTES_DEFAULT <= value <= FRAME_BYTES_LIMIT:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"MAX_FRAME_SIZE is {value}")
    return pairs
