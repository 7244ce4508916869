"""The client's end of a connection: requests out, replies in."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sized
from typing import TYPE_CHECKING, Final, Protocol

from mypy_extensions import i64, mypyc_attr

from keyplane.model.errors import Code, KeyplaneError, Reason
from keyplane.model.numbers import read_u32_be
from keyplane.model.signature import HEADER
from wire.http2 import frames as h2
from wire.http2.blocks import TwoGenerations
from wire.http2.connection import OPENING, Connection
from wire.http2.frames import ConnectionFault, ErrorCode, StreamFault
from wire.http2.inbound import Inbound, TooLarge
from wire.http2.limits import STREAM_ID_LAST
from wire.http2.metadata import ResponseHead, metadata_block, response_head
from wire.http2.seal import CHALLENGE, NONCE_BYTES, Seal, hello_frame, read_challenge
from wire.http2.tls import speaks_http2
from wire.ports import Reply, ReplyFn
from wire.rpc import MESSAGE_BYTES_MAX

if TYPE_CHECKING:
    from wire.http2.client import Http2Transport

# How a status of HTTP reads in gRPC, where a proxy or a web server answered instead (the gRPC
# document "HTTP to gRPC status code mapping").
_BY_HTTP_STATUS: Final = {
    400: Code.INTERNAL,
    401: Code.UNAUTHENTICATED,
    403: Code.PERMISSION_DENIED,
    404: Code.UNIMPLEMENTED,
    429: Code.UNAVAILABLE,
    502: Code.UNAVAILABLE,
    503: Code.UNAVAILABLE,
    504: Code.UNAVAILABLE,
}


class Owner(Protocol):
    """Who asked for a connection, and hears of it."""

    @property
    def transport(self) -> Http2Transport: ...
    def block(self, method: str) -> bytes: ...
    def connected(self, connection: ClientConnection) -> None: ...
    def lost(self, connection: ClientConnection, why: str) -> None: ...
    def leaving(self, connection: ClientConnection) -> None: ...
    def again(self, call: ClientCall) -> None: ...
    def pump(self) -> None: ...

    @property
    def waiting(self) -> Sized: ...


@mypyc_attr(acyclic=True)
class ClientCall:
    """A call under way.

    connection: None while it waits for one; then nothing of it has left this process.
    on_reply: None once it has ended.
    """

    __slots__ = (
        *("address", "connection", "deadline", "fields", "id", "method", "on_reply", "payload"),
        *("retried", "transport"),
    )

    def __init__(
        self,
        transport: Http2Transport,
        address: str,
        method: str,
        payload: bytes,
        deadline: float,
        on_reply: ReplyFn,
        fields: bytes,
    ) -> None:
        self.transport = transport
        self.address = address
        self.method = method
        self.payload = payload
        self.deadline = deadline
        self.on_reply: ReplyFn | None = on_reply
        self.fields = fields
        self.connection: ClientConnection | None = None
        self.id = 0
        self.retried = False

    def cancel(self) -> None:
        self.transport.loop.call_soon(
            self.give_up, KeyplaneError(Reason.CANCELLED, "the caller gave up")
        )

    def give_up(self, error: KeyplaneError) -> None:
        """Ends the call from this side, and tells the server."""
        if self.on_reply is None:
            return
        connection = self.connection
        if connection is not None and not connection.finished:
            connection.calls.pop(self.id, None)
            connection.reset(self.id, ErrorCode.CANCEL)
        self.end(Reply(error=error, sent=connection is not None))

    def fail(self, code: int, text: str, details: bytes = b"") -> None:
        """Ends the call with a status of gRPC."""
        self.end(self.transport.failure(self.address, code, text, details))

    def end(self, reply: Reply) -> None:
        on_reply, self.on_reply = self.on_reply, None
        if on_reply is None:
            return
        self.transport.in_flight -= 1
        try:
            on_reply(reply)
        except Exception as error:  # noqa: BLE001 - a bug of one caller must not end all calls
            self.transport.callback_broke(error)


class _LastHead:
    """The field block that came last in its place of an answer, and what it says."""

    __slots__ = ("_block", "_head")

    def __init__(self) -> None:
        self._block = b""
        self._head: ResponseHead | None = None

    def find(self, known: dict[bytes, ResponseHead], block: bytes) -> ResponseHead | None:
        """None if the block is not known."""
        if block == self._block:
            return self._head
        head = known.get(block)
        if head is not None:
            self._block = block
            self._head = head
        return head


class ClientConnection(Connection):
    """calls: those sent and not answered, by stream."""

    def __init__(self, owner: Owner, known: TwoGenerations[ResponseHead]) -> None:
        super().__init__(owner.transport.loop)
        self.owner = owner
        self.calls: dict[int, ClientCall] = {}
        self.last_id = -1
        self._start = _LastHead()
        self._end = _LastHead()
        self.leaving = False
        self._known = known
        self._greeted = False
        self._timeouts = owner.transport.timeouts
        # That of our HELLO, while no challenge has come.
        self._nonce = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.owner.transport.opened(self)
        if self.finished:
            return
        if not speaks_http2(transport.get_extra_info("ssl_object")):
            self.close("the server did not agree to h2 by ALPN; is this a gRPC port?")
            return
        self.out.write(h2.PREFACE + OPENING)
        signer = self.owner.transport.signer
        if signer is not None:
            self._nonce = os.urandom(NONCE_BYTES)
            self.out.write(hello_frame(signer.secret, signer.key_id.encode(), self._nonce))
        self.flush()

    def _read(self, buf: bytes) -> bytes:
        if not self._greeted and len(buf) >= h2.FRAME_HEAD_BYTES:
            if buf[3] != h2.SETTINGS or buf[4] or read_u32_be(buf, 5):
                raise ConnectionFault(
                    ErrorCode.PROTOCOL_ERROR,
                    f"it does not speak HTTP/2 (it says {buf[:40]!r}); is this a gRPC port?",
                )
            self._greeted = True
        return super()._read(buf)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.owner.waiting:
            self.owner.pump()

    def on_extension(self, kind: int, stream: int, payload: bytes) -> None:
        if kind != CHALLENGE or not self._nonce or (nonce := read_challenge(payload)) is None:
            return
        signer = self.owner.transport.signer
        assert signer is not None
        if len(self.out):
            # Calls that are signed.
            self._push()
        self.seal = Seal(signer.secret, signer.key_id.encode(), self._nonce, nonce)
        self._nonce = b""

    # --- Requests --------------------------------------------------------------------------------

    def has_room(self) -> bool:
        return len(self.calls) < self.sending.streams_max

    def send(self, call: ClientCall, timeout_s: float) -> None:
        self.last_id += 2
        stream = int(self.last_id)
        call.connection = self
        call.id = stream
        self.calls[stream] = call
        block = self.owner.block(call.method)
        timeout = self._timeouts.field(timeout_s)
        payload = call.payload
        fields = call.fields
        if self.seal is None and (signer := self.owner.transport.signer) is not None:
            # The signature comes last, where servers look for it.
            fields += metadata_block(((HEADER, signer.value(call.method, payload)),))
        size = len(payload)
        sending = self.sending
        block_size = len(block) + len(timeout) + len(fields)
        if (
            size + 5 <= sending.quick_max
            and size + 5 <= sending.window
            and not sending.blocked
            and block_size <= h2.FRAME_BYTES_DEFAULT
        ):
            sending.window -= size + 5
            out = self.out
            h2.write_head(out, h2.HEADERS, h2.END_HEADERS, stream, block_size)
            out.write(block)
            out.write(timeout)
            out.write(fields)
            h2.write_message(out, h2.END_STREAM, stream, payload)
        else:
            block = sending.lead(block + timeout + fields)
            self.out.write(h2.headers_frames(stream, block, 0, sending.frame_bytes))
            sending.queue(stream, h2.MESSAGE_HEAD.pack(0, size) + payload, b"", True)
        self.call_written()
        if stream >= STREAM_ID_LAST:
            self._leave()

    # --- Replies ---------------------------------------------------------------------------------

    def on_headers(
        self, buf: bytes, start: i64, end: i64, size: i64, flags: i64, stream: i64
    ) -> i64:
        known = self._known.young
        if (
            self.reader.stateless
            and size - end >= 23
            and (head := self._start.find(known, buf[start:end])) is not None
            and head.plain_start
        ):
            # Field block, one DATA frame with one message, trailers: nearly every answer.
            after: i64 = end + 9 + (read_u32_be(buf, end) >> 8)
            length: i64 = read_u32_be(buf, end + 10)
            if (
                buf[end + 3] == h2.DATA
                and not buf[end + 4]
                and read_u32_be(buf, end + 5) == stream
                and not buf[end + 9]
                and after == end + 14 + length
                and size >= after + 9
                and length <= h2.FRAME_BYTES_DEFAULT - 5
            ):
                stop: i64 = after + 9 + (read_u32_be(buf, after) >> 8)
                if (
                    buf[after + 3] == h2.HEADERS
                    and buf[after + 4] == h2.END_HEADERS | h2.END_STREAM
                    and read_u32_be(buf, after + 5) == stream
                    and stop <= size
                    and (tail := self._end.find(known, buf[after + 9 : stop])) is not None
                    and tail.plain_end
                    and (call := self.calls.pop(int(stream), None)) is not None
                ):
                    self.receiving.consumed += length + 5
                    sending = self.sending
                    if sending.credit or sending.blocked:
                        sending.drop(int(stream))
                    call.end(Reply(buf[end + 14 : after]))
                    return stop
        self._on_frame(h2.HEADERS, int(flags), int(stream) & h2.STREAM_ID_MAX, buf[start:end])
        return end

    def on_block(self, block: bytes, flags: int, stream: int) -> None:
        self._check_begun(stream)
        head = self._known.get(block) if self.reader.stateless else None
        if head is None:
            fields = self.reader.fields(block)
            head = response_head(fields)
            if self.reader.stateless:
                self._known.put(block, head)
        call = self.calls.get(stream)
        if call is None:
            return
        ended = bool(flags & h2.END_STREAM)
        inbound = self.receiving.streams.get(stream)
        if ended:
            self._answered(call, inbound, head)
        elif inbound is not None:
            raise StreamFault(ErrorCode.PROTOCOL_ERROR, "a second field block on a stream")
        elif head.http_status is not None and 100 <= head.http_status < 200:
            return
        else:
            self.receiving.begin(stream, head, patient=True)

    def on_message(self, inbound: Inbound, stream: int, end_stream: bool) -> None:
        call = self.calls.get(stream)
        if call is None:
            self.forget(stream)
            return
        head = inbound.head
        assert isinstance(head, ResponseHead)
        if head.http_status != 200 or not head.grpc:
            self.calls.pop(stream)
            self.reset(stream, ErrorCode.CANCEL)
            self._no_grpc(call, head, bytes(inbound.body[:200]))
            return
        try:
            whole = inbound.measure()
        except TooLarge as error:
            self.calls.pop(stream)
            self.reset(stream, ErrorCode.CANCEL)
            limit = f"({error.size} vs. {MESSAGE_BYTES_MAX})"
            # In grpcio's words: the call may well have been carried out.
            call.fail(Code.RESOURCE_EXHAUSTED, f"CLIENT: Received message larger than max {limit}")
            return
        if whole and len(inbound.body) > inbound.need:
            raise StreamFault(ErrorCode.CANCEL, "more than one message answers a unary call")
        if end_stream:
            raise StreamFault(ErrorCode.PROTOCOL_ERROR, "the answer ended without trailers")
        self.receiving.settle(inbound, stream, 0)

    def _answered(self, call: ClientCall, inbound: Inbound | None, head: ResponseHead) -> None:
        """The stream has ended with these trailers."""
        stream = call.id
        self.calls.pop(stream, None)
        unsent = stream in self.sending.blocked
        if unsent:
            # Answered before all of the request was sent: the rest stays here.
            self.out.write(h2.rst_stream_frame(stream, ErrorCode.CANCEL))
            self.schedule_flush()
        body = bytes(inbound.body) if inbound is not None else b""
        self.forget(stream)
        code = head.code
        if code is None:
            self._no_grpc(call, head, body[:200])
        elif code != Code.OK:
            call.fail(code, head.message, head.details)
        elif len(body) < h2.MESSAGE_HEAD_BYTES or inbound is None or len(body) != inbound.need:
            call.fail(Code.INTERNAL, "the call ended well and without an answer")
        elif body[0]:
            call.fail(Code.INTERNAL, "the answer is compressed, which was not offered")
        else:
            call.end(Reply(body[h2.MESSAGE_HEAD_BYTES :]))

    def _no_grpc(self, call: ClientCall, head: ResponseHead, body: bytes) -> None:
        status = head.http_status
        text = f"HTTP status {status} and no gRPC status; is this a gRPC server? It says {body!r}"
        call.fail(_BY_HTTP_STATUS.get(status or 0, Code.UNKNOWN), text)

    def on_stream_fault(self, stream: int, fault: StreamFault) -> None:
        call = self.calls.pop(stream, None)
        if call is not None:
            call.fail(Code.INTERNAL, fault.message)

    def on_reset(self, stream: int, code: int) -> None:
        call = self.calls.pop(stream, None)
        if call is None:
            return
        if code == ErrorCode.REFUSED_STREAM:
            # It was not processed (RFC 9113, section 8.7).
            self.owner.again(call)
        elif code == ErrorCode.CANCEL:
            call.fail(Code.CANCELLED, "the server cancelled the call")
        elif code == ErrorCode.ENHANCE_YOUR_CALM:
            # Nobody can say how far it got, so it is not reported as overload, which is definite.
            call.fail(Code.UNAVAILABLE, "the server reset the call: too much at once")
        else:
            call.fail(Code.INTERNAL, f"the server reset the call with code {code}")

    def is_open(self, stream: int) -> bool:
        return stream in self.calls

    def is_busy(self) -> bool:
        return bool(self.calls)

    # --- The connection as a whole ---------------------------------------------------------------

    def on_settings(self) -> None:
        if not self.leaving:
            self.owner.connected(self)

    def on_goaway(self, last: int, code: int, message: str) -> None:
        """The server takes no more: what it has not seen goes elsewhere (section 6.8)."""
        self.why = f"the server said GOAWAY: {message or code}"
        self._leave()
        for stream in [stream for stream in self.calls if stream > last]:
            self.forget(stream)
            self.owner.again(self.calls.pop(stream))

    def _leave(self) -> None:
        if not self.leaving:
            self.leaving = True
            self.owner.leaving(self)

    def tick(self) -> None:
        super().tick()
        if self.leaving and not self.calls and not self.finished:
            self.shut(ErrorCode.NO_ERROR, "done")

    def on_finished(self) -> None:
        calls = list(self.calls.values())
        self.calls.clear()
        self.owner.lost(self, self.why)
        for call in calls:
            call.fail(Code.UNAVAILABLE, f"connection lost: {self.why}")

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.owner.transport.closed(self)
