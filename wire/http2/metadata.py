"""What field blocks say in gRPC: PROTOCOL-HTTP2, and RFC 9113 sections 8.2 and 8.3."""

from __future__ import annotations

import base64
import binascii
import math
import re
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from keyplane.model.errors import Code, KeyplaneError, Reason
from keyplane.model.grpc_failures import DETAILS_KEY
from keyplane.model.signature import HEADER, VALUE_CHARS
from wire.http2.blocks import (
    BlockReader,
    Field,
    TwoGenerations,
    block,
    block_cache,
    literal,
    literals,
)
from wire.http2.frames import ErrorCode, StreamFault
from wire.http2.limits import CACHED_BLOCK_BYTES_MAX, NAMES_MAX, TIMEOUTS_MAX
from wire.rpc import wire_status

_CONTENT_TYPE: Final = b"application/grpc"
_DETAILS_KEY: Final = DETAILS_KEY.encode()

# RFC 9113, section 8.2.2: they speak of one connection, and have no place in HTTP/2.
_OF_ONE_CONNECTION: Final = frozenset(
    (b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade")
)
# RFC 9113, section 8.2.1, with what gRPC allows in names.
_NAME: Final = re.compile(rb"[a-z0-9_.-]+")
_BAD_IN_VALUE: Final = re.compile(rb"[\x00\r\n]").search
_METADATA_NAME: Final = re.compile(r"[a-z0-9_.-]+")
_METADATA_TEXT: Final = re.compile(r"[\x20-\x7e]*")

_TIMEOUT: Final = re.compile(rb"([0-9]{1,8})([HMSmun])")
_UNIT_S: Final = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}

# Names that are the same in all calls of one client to one method.
_STEADY: Final = frozenset(
    (b":method", b":scheme", b":path", b":authority", b"te", b"content-type", b"user-agent")
) | {b"grpc-accept-encoding", b"grpc-encoding"}

# Never handed to handlers: HTTP/2's and gRPC's own.
_RESERVED: Final = frozenset((b"te", b"content-type", b"grpc-timeout", b"grpc-encoding")) | {
    b"grpc-accept-encoding",
    b"grpc-message-type",
    b"host",
}


# Names of callers' own fields that were checked, as text.
_USER_NAMES: Final[dict[bytes, str]] = {}
# Values of grpc-timeout in seconds.
_TIMEOUTS: Final[dict[bytes, float]] = {}


@dataclass(slots=True)
class RequestHead:
    """What a request's field block says.

    metadata: text by name; binary values (names ending in -bin) are left out, as with grpcio.
    fields: all fields; None if they must be read again from the block.
    http_status: what a caller that does not speak gRPC is answered; 0 for one that does.
    fault: what a caller is answered that speaks it wrongly.
    """

    method: str = ""
    timeout_s: float = math.inf
    metadata: Mapping[str, str] = field(default_factory=dict)
    fields: Sequence[Field] | None = ()
    block: bytes = b""
    http_status: int = 0
    fault: str = ""

    def user_fields(self) -> list[Field]:
        """The caller's own fields, but for its user-agent."""
        fields = self.fields
        if fields is None:
            fields = [part for part, _ in literals(self.block, 0) or ()]
        return [part for part in fields if part[0] not in _RESERVED and part[0] not in _STEADY]


class RequestHeads:
    """Reads the field blocks of requests; its memory may be shared by all connections of a process.

    Three ways, from the cheap to the general: the block is known; its steady start is known and
    the rest is read field by field; all of it is read.
    """

    # Lengths of known starts that are tried; a client has one for each of its methods.
    LENGTHS_MAX = 16

    def __init__(self) -> None:
        self.known: TwoGenerations[RequestHead] = block_cache()
        self._starts: TwoGenerations[tuple[list[Field], RequestHead]] = block_cache()
        self._lengths: dict[int, None] = {}
        self._seen = [0] * 4096

    def read(self, reader: BlockReader, data: bytes) -> RequestHead:
        """Raises ConnectionFault or StreamFault."""
        if not reader.stateless:
            return request_head(reader.fields(data))
        found = self.known.get(data)
        if found is None:
            found = self._by_start(data)
            if found is None:
                found = self._learn(reader, data)
                if reader.stateless:
                    self.known.put(data, found)
            elif self._seen_before(data):
                self.known.put(data, found)
        return found

    def _by_start(self, data: bytes) -> RequestHead | None:
        starts = self._starts
        for length in self._lengths:
            start = starts.young.get(data[:length]) or starts.get(data[:length])
            if start is not None:
                quick = _quickly_extended(start[1], data, length)
                if quick is not None:
                    return quick
                rest = literals(data, length)
                return None if rest is None else _extended(start[0], start[1], rest)
        return None

    def _seen_before(self, data: bytes) -> bool:
        """Whether a block with fields of the caller's own is worth keeping: it has come twice.

        Most such blocks carry a trace that never comes again. A hash that another block left
        behind makes one be kept too early, which harms nothing.
        """
        seen = self._seen
        key = hash(data)
        slot = key & (len(seen) - 1)
        before, seen[slot] = seen[slot], key
        return before == key

    def _learn(self, reader: BlockReader, data: bytes) -> RequestHead:
        parts = literals(data, 0)
        if parts is None:
            return request_head(reader.fields(data))
        steady = 0
        while steady < len(parts) and parts[steady][0][0] in _STEADY:
            steady += 1
        head = request_head([part for part, _ in parts])
        fields = [part for part, _ in parts[:steady]]
        length = parts[steady - 1][1] if steady else 0
        if length and any(name == b":path" for name, _ in fields):
            try:
                start = request_head(fields)
            except StreamFault:
                return head
            if len(self._lengths) >= self.LENGTHS_MAX:
                del self._lengths[next(iter(self._lengths))]
            self._lengths[length] = None
            self._starts.put(data[:length], (fields, start))
        return head


def _quickly_extended(start: RequestHead, data: bytes, at: int) -> RequestHead | None:
    """A head whose steady start is known, where the rest is of the plainest kind; otherwise None.

    That is: literals with short names that were checked before, and short values.
    """
    size = len(data)
    timeout_s = start.timeout_s
    metadata = dict(start.metadata)
    try:
        while at < size:
            value_at = at + 2 + data[at + 1]
            name = data[at + 2 : value_at]
            length = data[value_at]
            if data[at] or data[at + 1] >= 0x7F or length >= 0x7F:
                return None
            at = value_at + 1 + length
            value = data[value_at + 1 : at]
            text = _USER_NAMES.get(name)
            if text is not None:
                if _BAD_IN_VALUE(value) is not None:
                    return None
                if text[-4:] != "-bin":
                    metadata[text] = value.decode("latin-1")
            elif name == b"grpc-timeout" and value in _TIMEOUTS:
                timeout_s = _TIMEOUTS[value]
            else:
                return None
    except IndexError:
        return None
    if at != size or size > CACHED_BLOCK_BYTES_MAX:
        return None
    return RequestHead(
        *(start.method, timeout_s, metadata, None, data, start.http_status, start.fault)
    )


def _extended(
    fields: list[Field], start: RequestHead, rest: Sequence[tuple[Field, int]]
) -> RequestHead:
    """A head whose steady start is known."""
    metadata = dict(start.metadata)
    timeout_s = start.timeout_s
    for (name, value), _ in rest:
        text = _USER_NAMES.get(name)
        if text is None:
            if name == b"grpc-timeout" and (timeout := _TIMEOUT.fullmatch(value)) is not None:
                timeout_s = int(timeout[1]) * _UNIT_S[timeout[2]]
                if len(_TIMEOUTS) < TIMEOUTS_MAX:
                    _TIMEOUTS[value] = timeout_s
                continue
            if (
                name in _STEADY
                or name in _RESERVED
                or name in _OF_ONE_CONNECTION
                or _NAME.fullmatch(name) is None
            ):
                return request_head([*fields, *(each for each, _ in rest)])
            text = name.decode()
            if len(_USER_NAMES) < NAMES_MAX:
                _USER_NAMES[name] = text
        if _BAD_IN_VALUE(value) is not None:
            return request_head([*fields, *(each for each, _ in rest)])
        if not text.endswith("-bin"):
            metadata[text] = value.decode("latin-1")
    return RequestHead(
        start.method,
        timeout_s,
        metadata,
        [part for part, _ in rest],
        b"",
        start.http_status,
        start.fault,
    )


def _checked(fields: Sequence[Field]) -> dict[bytes, bytes]:
    """The pseudo-fields. Raises StreamFault for a malformed list (RFC 9113, section 8.1.1)."""
    pseudo: dict[bytes, bytes] = {}
    ordinary = False
    for name, value in fields:
        if name.startswith(b":"):
            if ordinary or name in pseudo:
                raise StreamFault(ErrorCode.PROTOCOL_ERROR, f"misplaced field {name!r}")
            pseudo[name] = value
            continue
        ordinary = True
        if _NAME.fullmatch(name) is None or name in _OF_ONE_CONNECTION:
            raise StreamFault(ErrorCode.PROTOCOL_ERROR, f"field {name!r} is not allowed in HTTP/2")
        if _BAD_IN_VALUE(value) is not None:
            raise StreamFault(ErrorCode.PROTOCOL_ERROR, f"field {name!r} has control characters")
    return pseudo


def request_head(fields: Sequence[Field]) -> RequestHead:
    """Raises StreamFault for what is not even an HTTP request."""
    pseudo = _checked(fields)
    if not {b":method", b":scheme", b":path"} <= pseudo.keys() or not pseudo.keys() <= {
        *(b":method", b":scheme", b":path", b":authority")
    }:
        raise StreamFault(ErrorCode.PROTOCOL_ERROR, "a request without method, scheme or path")
    head = RequestHead(pseudo[b":path"].decode("latin-1"))
    content_type = b""
    metadata: dict[str, str] = {}
    for name, value in fields:
        if name == b"content-type":
            content_type = value
        elif name == b"grpc-timeout":
            timeout = _TIMEOUT.fullmatch(value)
            if timeout is None:
                head.fault = f"grpc-timeout is {value[:20]!r}; send up to 8 digits and a unit"
            else:
                head.timeout_s = int(timeout[1]) * _UNIT_S[timeout[2]]
        elif name not in _RESERVED and name[:1] != b":" and not name.endswith(b"-bin"):
            metadata[name.decode()] = value.decode("latin-1")
    head.metadata = metadata
    head.fields = fields
    if pseudo[b":method"] != b"POST":
        head.http_status = 405
    elif not content_type.startswith(_CONTENT_TYPE):
        head.http_status = 415
    return head


@dataclass(slots=True)
class ResponseHead:
    """What a block of response fields or trailers says; None for what it does not hold."""

    http_status: int | None = None
    grpc: bool = False
    code: int | None = None
    message: str = ""
    details: bytes = b""
    # A response that ends well needs no second look.
    plain_start: bool = False
    plain_end: bool = False


def response_head(fields: Sequence[Field]) -> ResponseHead:
    """Raises StreamFault for a malformed list."""
    pseudo = _checked(fields)
    head = ResponseHead()
    status = pseudo.pop(b":status", None)
    if pseudo:
        raise StreamFault(ErrorCode.PROTOCOL_ERROR, "a response with the fields of a request")
    if status is not None:
        head.http_status = int(status) if status.isdigit() and len(status) == 3 else 0
    for name, value in fields:
        if name == b"grpc-status":
            head.code = int(value) if value.isdigit() and len(value) < 4 else int(Code.UNKNOWN)
        elif name == b"grpc-message":
            head.message = urllib.parse.unquote_to_bytes(value).decode("utf-8", "replace")
        elif name == _DETAILS_KEY:
            head.details = from_base64(value)
        elif name == b"content-type":
            head.grpc = value.startswith(_CONTENT_TYPE)
    head.plain_start = head.http_status == 200 and head.grpc and head.code is None
    head.plain_end = head.http_status is None and head.code == 0
    return head


def from_base64(text: bytes) -> bytes:
    """Peers pad or do not; garbage is no detail at all."""
    try:
        return base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except binascii.Error:
        return b""


def to_base64(data: bytes) -> bytes:
    return base64.b64encode(data).rstrip(b"=")


def percent_encoded(message: str) -> bytes:
    """`grpc-message`: UTF-8 with everything but printable ASCII, and %, as %XX."""
    return urllib.parse.quote(message, safe=_PRINTABLE).encode()


_PRINTABLE: Final = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")

# --- What we send --------------------------------------------------------------------------------

RESPONSE_BLOCK: Final = b"\x88" + literal(b"content-type", _CONTENT_TYPE)
TRAILERS_OK: Final = literal(b"grpc-status", b"0")
COMPRESSIONS: Final = literal(b"grpc-accept-encoding", b"identity")


# How a signature begins where it is the last field of a block, as this engine's clients send it.
# Its value has one length, so all before it is a block of its own that comes again and again.
SIGNATURE_START: Final = literal(HEADER.encode(), b"")[:-1] + bytes([VALUE_CHARS])
SIGNATURE_BYTES: Final = len(SIGNATURE_START) + VALUE_CHARS


def signed_head(head: RequestHead, block: bytes, signature: bytes) -> RequestHead:
    """The head of a whole block, from that of all before the signature."""
    metadata = {**head.metadata, HEADER: signature.decode("latin-1")}
    return RequestHead(head.method, head.timeout_s, metadata, None, block)


def request_block(method: str, authority: str, scheme: str) -> bytes:
    """The part of a request's block that is the same for all calls of a method."""
    return (b"\x83\x87" if scheme == "https" else b"\x83\x86") + block(
        (
            (b":path", method.encode()),
            (b":authority", authority.encode()),
            (b"te", b"trailers"),
            (b"content-type", _CONTENT_TYPE),
            (b"user-agent", b"grpc-python-keyplane"),
        )
    )


# Names of metadata that were checked, with how their fields begin.
_NAME_STARTS: Final[dict[str, bytes]] = {}


def metadata_block(metadata: Sequence[tuple[str, str | bytes]]) -> bytes:
    """The caller's own fields. Raises KeyplaneError for what gRPC cannot carry."""
    parts = []
    for name, value in metadata:
        start = _NAME_STARTS.get(name)
        if (
            start is not None
            and type(value) is str
            and len(value) < 127
            and value.isascii()
            and value.isprintable()
        ):
            # A plain name that was checked before, with a short text.
            parts.append(b"%b%c%b" % (start, len(value), value.encode()))
            continue
        if not _METADATA_NAME.fullmatch(name) or name.startswith("grpc-"):
            raise KeyplaneError(
                Reason.INVALID_ARGUMENT,
                f"metadata name {name!r}; use lower case, digits and _.- and no grpc- prefix",
            )
        if name.endswith("-bin"):
            raw = value if isinstance(value, bytes) else value.encode()
            parts.append(literal(name.encode(), to_base64(raw)))
        elif isinstance(value, str) and _METADATA_TEXT.fullmatch(value):
            parts.append(literal(name.encode(), value.encode()))
            if len(_NAME_STARTS) < NAMES_MAX:
                # A literal without its value, which is empty.
                _NAME_STARTS[name] = literal(name.encode(), b"")[:-1]
        else:
            raise KeyplaneError(
                Reason.INVALID_ARGUMENT,
                f"metadata {name!r} is not printable ASCII; end its name in -bin to send bytes",
            )
    return b"".join(parts)


def trailers(code: int, message: str, details: bytes = b"") -> bytes:
    """The trailers of a call that failed."""
    fields = [(b"grpc-status", b"%d" % code), (b"grpc-message", percent_encoded(message))]
    if details:
        fields.append((_DETAILS_KEY, to_base64(details)))
    return block(fields)


def error_trailers(error: KeyplaneError) -> bytes:
    sent_as = error.sent_as
    if isinstance(sent_as, bytes):
        return sent_as
    status = wire_status(error)
    block = trailers(status.code, status.message, status.SerializeToString())
    error.sent_as = block
    return block


class Timeouts:
    """Durations as `grpc-timeout` fields, in few distinct values.

    Rounded up to about three digits: at most 1 % more than was asked for (0.1 ms below 10 ms), and
    so few different blocks that a server knows nearly all of them by their bytes. The caller keeps
    its own exact deadline.
    """

    def __init__(self) -> None:
        self._fields: dict[int, bytes] = {}

    def field(self, timeout_s: float) -> bytes:
        """The encoded field; empty for no deadline."""
        if timeout_s >= 100.0:
            if timeout_s == math.inf:
                return b""
            micros = math.ceil(timeout_s) * 1_000_000
        elif timeout_s >= 10.0:
            micros = (int(timeout_s * 10) + 1) * 100_000
        elif timeout_s >= 1.0:
            micros = (int(timeout_s * 100) + 1) * 10_000
        elif timeout_s >= 0.1:
            micros = (int(timeout_s * 1000) + 1) * 1_000
        else:
            micros = (int(timeout_s * 10_000) + 1) * 100
        found = self._fields.get(micros)
        if found is None:
            if len(self._fields) >= TIMEOUTS_MAX:
                self._fields.clear()
            found = self._fields[micros] = literal(b"grpc-timeout", timeout_text(micros))
        return found


def timeout_text(micros: int) -> bytes:
    """Microseconds in the finest unit that 8 digits hold, rounded up (PROTOCOL-HTTP2)."""
    for unit, in_unit in ((b"u", 1), (b"m", 1000), (b"S", 10**6), (b"M", 60 * 10**6)):
        value = -(-micros // in_unit)
        if value < 10**8:
            return b"%d%b" % (value, unit)
    return b"%dH" % min(10**8 - 1, -(-micros // (3600 * 10**6)))
