"""The server's end of a connection: requests in, answers out."""

from __future__ import annotations

import asyncio
import math
import os
from hmac import compare_digest
from typing import TYPE_CHECKING

from mypy_extensions import i64, mypyc_attr

from keyplane.model.errors import Code, KeyplaneError, Reason
from keyplane.model.numbers import read_u32_be
from wire.http2 import frames as h2
from wire.http2.blocks import literal
from wire.http2.bridge import BridgedStream
from wire.http2.connection import OPENING, Connection
from wire.http2.frames import ConnectionFault, ErrorCode, StreamFault
from wire.http2.greeting import NotHttp2, check_preface
from wire.http2.inbound import Inbound, TooLarge
from wire.http2.limits import BLOCKED_BYTES_HIGH, CONNECTIONS_MAX, STREAMS_MAX
from wire.http2.metadata import (
    COMPRESSIONS,
    RESPONSE_BLOCK,
    SIGNATURE_BYTES,
    SIGNATURE_START,
    TRAILERS_OK,
    RequestHead,
    error_trailers,
    signed_head,
    trailers,
)
from wire.http2.seal import (
    HELLO,
    MAC_BYTES,
    NONCE_BYTES,
    RECORD_BYTES_MAX,
    RECORD_FRAME,
    RECORD_HEAD_BYTES,
    Seal,
    challenge_frame,
    find_record,
    proof,
    read_hello,
)
from wire.http2.tls import speaks_http2
from wire.metrics import Series
from wire.ports import Handler, Reply, Request
from wire.rpc import MESSAGE_BYTES_MAX, SERVER_CALLS_MAX, broken_handler, unknown_method

if TYPE_CHECKING:
    from wire.http2.server import Http2Server


class Method:
    """One that is served, under its full name. calls: what counts them."""

    __slots__ = ("calls", "handler", "name")

    def __init__(self, name: str, handler: Handler, calls: Series) -> None:
        self.name = name
        self.handler = handler
        self.calls = calls


@mypyc_attr(acyclic=True)
class ServerCall:
    """A request under way. `reply` answers it; only the first answer counts.

    connection: None once it has ended, by an answer, a reset, the deadline or the connection's end.
    """

    __slots__ = ("connection", "deadline", "id")

    def __init__(self, connection: ServerConnection, stream: int, deadline: float) -> None:
        self.connection: ServerConnection | None = connection
        self.id = stream
        self.deadline = deadline

    def reply(self, answer: Reply) -> None:
        connection = self.connection
        if connection is None:
            return
        payload = answer.payload
        size = len(payload) + 5
        sending = connection.sending
        if answer.error is not None:
            self.fail(answer.error)
            return
        if size > sending.quick_max or size > sending.window or sending.blocked:
            self._reply_in_pieces(payload)
            return
        self.connection = None
        stream = self.id
        connection.calls.pop(stream, None)
        if sending.credit:
            sending.credit.pop(stream, None)
        sending.window -= size
        out = connection.out
        h2.write_head(out, h2.HEADERS, h2.END_HEADERS, stream, len(RESPONSE_BLOCK))
        out.write(RESPONSE_BLOCK)
        h2.write_message(out, 0, stream, payload)
        h2.write_head(out, h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, stream, len(TRAILERS_OK))
        out.write(TRAILERS_OK)
        connection.server.call_ended()
        connection.call_written()

    def _reply_in_pieces(self, payload: bytes) -> None:
        if len(payload) > MESSAGE_BYTES_MAX:
            self.fail(
                KeyplaneError(
                    Reason.INTERNAL,
                    f"the answer has {len(payload)} bytes; at most {MESSAGE_BYTES_MAX} can be sent",
                )
            )
            return
        if (connection := self._end()) is None:
            return
        stream = self.id
        start = connection.sending.lead(RESPONSE_BLOCK)
        connection.out.write(h2.frame(h2.HEADERS, h2.END_HEADERS, stream, start))
        data = h2.MESSAGE_HEAD.pack(0, len(payload)) + payload
        tail = h2.frame(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, stream, TRAILERS_OK)
        connection.sending.queue(stream, data, tail)
        connection.schedule_flush()

    def fail(self, error: KeyplaneError) -> None:
        connection = self._end()
        if connection is not None:
            connection.server.errors.inc(error.reason.name)
            connection.end_stream(self.id, connection.server.trailers_of(error))

    def drop(self) -> None:
        """The caller is gone: there is nobody to answer."""
        self._end()

    def _end(self) -> ServerConnection | None:
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.calls.pop(self.id, None)
            connection.server.call_ended()
        return connection


class ServerConnection(Connection):
    """calls: those whose handlers have not answered, by stream.

    bridged: streams that lead to the server behind.
    """

    throttles = True

    def __init__(self, server: Http2Server) -> None:
        super().__init__(server.loop)
        self.server = server
        self.calls: dict[int, ServerCall] = {}
        self.bridged: dict[int, BridgedStream] = {}
        # Who has sealed what is read from here on; None for nobody, or not yet.
        self.sealed_by: object = None
        # Who has said HELLO.
        self._claimed_by: object = None
        self._records: Seal | None = None
        # The start of a frame that goes on in the next record.
        self._unsealed = b""
        self._greeted = False
        self._draining = False
        # The field block that was read last, and what it means, if that is for ever.
        self._block_read = b""
        self._head_read: RequestHead | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        server = self.server
        server.opened(self)
        if not speaks_http2(transport.get_extra_info("ssl_object")):
            self.close("the client did not offer h2 by ALPN")
            return
        self.out.write(OPENING)
        if len(server.connections) > CONNECTIONS_MAX:
            self.fail(
                ConnectionFault(
                    ErrorCode.ENHANCE_YOUR_CALM,
                    f"this server has {CONNECTIONS_MAX} connections already",
                )
            )
        elif server.stopping:
            self.shut(ErrorCode.NO_ERROR, "the server stops")

    def _read(self, buf: bytes) -> bytes:
        if self._greeted:
            if self._records is None:
                return super()._read(buf)
            return self._read_records(buf)
        if not check_preface(buf, self.transport.get_extra_info("ssl_object")):
            return buf
        self._greeted = True
        return super()._read(buf[len(h2.PREFACE) :])

    # --- Seals (`wire.http2.seal`) ---------------------------------------------------------------

    def on_extension(self, kind: int, stream: int, payload: bytes) -> None:
        if kind != HELLO or (hello := read_hello(payload)) is None:
            return
        if self._records is not None:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a second HELLO on a connection")
        key_id, client_nonce, claim = hello
        keys = self.server.seal_keys
        found = keys.seal_key(key_id) if keys is not None else None
        if found is None or not compare_digest(proof(found[1], key_id, client_nonce), claim):
            # The client signs its calls, and is told with them what is wrong with its key.
            return
        self._claimed_by, secret = found
        nonce = os.urandom(NONCE_BYTES)
        self._records = Seal(secret, key_id, client_nonce, nonce)
        self.out.write(challenge_frame(nonce))

    def _read_records(self, buf: bytes) -> bytes:
        """What `_read` does, once records may come. Nothing of a record is looked at before its
        MAC is right.
        """
        records = self._records
        assert records is not None
        if self.sealed_by is None:
            first = find_record(buf)
            if first < 0:
                return super()._read(buf)
            if super()._read(buf[:first]) or self.finished:
                return b""
            buf = buf[first:]
        at: i64 = 0
        size: i64 = len(buf)
        while size - at >= RECORD_HEAD_BYTES:
            start: i64 = at + RECORD_HEAD_BYTES
            length: i64 = read_u32_be(buf, at + h2.FRAME_HEAD_BYTES)
            if buf[at : at + h2.FRAME_HEAD_BYTES] != RECORD_FRAME:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a frame outside of the records")
            if not 0 < length <= RECORD_BYTES_MAX:
                raise ConnectionFault(
                    ErrorCode.FRAME_SIZE_ERROR,
                    f"a record of {length} bytes; from 1 to {RECORD_BYTES_MAX} are taken",
                )
            if start + length > size:
                break
            at = start + length
            data = buf[start:at]
            mac = buf[start - MAC_BYTES : start]
            if not compare_digest(records.mac(data), mac):
                raise ConnectionFault(
                    ErrorCode.PROTOCOL_ERROR,
                    "a record does not bear its seal; check that nothing between client and server"
                    " changes, keeps or repeats what is sent",
                )
            self.sealed_by = self._claimed_by
            self._unsealed = super()._read(self._unsealed + data if self._unsealed else data)
            if self.finished:
                return b""
        return buf[at:]

    # --- Requests --------------------------------------------------------------------------------

    def on_headers(
        self, buf: bytes, start: i64, end: i64, size: i64, flags: i64, stream: i64
    ) -> i64:
        signature = b""
        stop: i64 = end - SIGNATURE_BYTES
        if (
            stop > start
            and not buf[stop]
            and buf[stop + 1] == SIGNATURE_START[1]
            and buf[stop : stop + len(SIGNATURE_START)] == SIGNATURE_START
        ):
            signature = buf[stop + len(SIGNATURE_START) : end]
        else:
            stop = end
        block = buf[start:stop]
        head = self._head_read
        if head is None or block != self._block_read:
            head = self._read_head(block)
        if head is None:
            block = buf[start:end]
            self._on_frame(h2.HEADERS, int(flags), int(stream) & h2.STREAM_ID_MAX, block)
            return end
        method = self.server.methods.get(head.method)
        if method is not None and size - end >= 14:
            # Field block, and one DATA frame with one message: nearly every request.
            length: i64 = read_u32_be(buf, end + 10)
            after: i64 = end + 14 + length
            if (
                read_u32_be(buf, end) == length + 5 << 8
                and buf[end + 4] == h2.END_STREAM
                and read_u32_be(buf, end + 5) == stream
                and not buf[end + 9]
                and after <= size
                and self.last_id < stream <= h2.STREAM_ID_MAX
                and stream & 1
                and length <= h2.FRAME_BYTES_DEFAULT - 5
                and len(self.calls) < STREAMS_MAX
                and not self._draining
                and self.sending.blocked_bytes <= BLOCKED_BYTES_HIGH
            ):
                self.last_id = stream
                self.receiving.consumed += length + 5
                self._run(method, head, buf[end + 14 : after], int(stream), signature)
                return after
        if signature:
            head = signed_head(head, buf[start:end], signature)
        self._begin(head, 0, int(stream) & h2.STREAM_ID_MAX)
        return end

    def _read_head(self, block: bytes) -> RequestHead | None:
        """Of a block whose meaning is in its bytes alone, and is a call of gRPC; else None."""
        heads = self.server.heads
        head = heads.known.young.get(block)
        known = head is not None
        if head is None and self.reader.stateless:
            try:
                head = heads.read(self.reader, block)
            except StreamFault:
                return None
        if head is None or head.fault or head.http_status or not self.reader.stateless:
            return None
        if known:
            self._block_read = block
            self._head_read = head
        return head

    def on_block(self, block: bytes, flags: int, stream: int) -> None:
        inbound = self.receiving.streams.get(stream)
        if inbound is not None:
            # Trailers of a request: allowed by HTTP, never sent in gRPC.
            if not flags & h2.END_STREAM:
                raise StreamFault(ErrorCode.PROTOCOL_ERROR, "a second field block on a stream")
            self.reader.fields(block)
            inbound.ended = True
            self.on_message(inbound, stream, True)
            return
        if stream <= int(self.last_id):
            # Of a stream that ended here. It must be decoded all the same, to keep in step.
            self.reader.fields(block)
            return
        try:
            head = self.server.heads.read(self.reader, block)
        except StreamFault:
            self.last_id = max(int(self.last_id), stream)
            raise
        self._begin(head, flags, stream)

    def _begin(self, head: RequestHead, flags: int, stream: int) -> None:
        """A request has opened a stream."""
        if not stream & 1 or stream <= int(self.last_id):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"stream {stream} cannot be opened")
        self.last_id = stream
        if self._draining:
            # Above the last stream of our GOAWAY: the caller knows that it was not processed.
            return
        receiving = self.receiving
        ended = bool(flags & h2.END_STREAM)
        under_way = len(self.calls) + len(receiving.streams) + len(self.sending.blocked)
        if under_way >= STREAMS_MAX:
            self.reset(stream, ErrorCode.REFUSED_STREAM)
        elif self.sending.blocked_bytes > BLOCKED_BYTES_HIGH:
            self.refuse(
                stream, KeyplaneError(Reason.OVERLOADED, "too many answers are not read"), ended
            )
        elif head.http_status:
            self._answer_http(stream, head.http_status)
        elif head.fault:
            self.refuse(stream, KeyplaneError(Reason.MALFORMED_REQUEST, head.fault), ended)
        elif head.method not in self.server.methods:
            self._bridge(head, stream, ended)
        else:
            inbound = receiving.begin(stream, head)
            inbound.ended = ended
            if ended:
                self.on_message(inbound, stream, True)

    def _bridge(self, head: RequestHead, stream: int, ended: bool) -> None:
        """A call that is not ours: for the server behind, or nobody's."""
        bridge = self.server.bridge
        if bridge is None or not bridge.serves(head.method):
            served = ", ".join(self.server.service_names)
            self.refuse(stream, unknown_method(served), ended)
            return
        bridged = bridge.open(self, stream, head)
        if bridged is None:
            self.refuse(
                stream, KeyplaneError(Reason.OVERLOADED, "too many streams are open here"), ended
            )
            return
        inbound = self.receiving.begin(stream, bridged, patient=True)
        inbound.ended = ended
        if ended:
            bridged.take(inbound, True)

    def on_message(self, inbound: Inbound, stream: int, end_stream: bool) -> None:
        head = inbound.head
        if isinstance(head, BridgedStream):
            head.take(inbound, end_stream)
            return
        assert isinstance(head, RequestHead)
        try:
            whole = inbound.measure()
        except TooLarge as error:
            # In grpcio's words, which every gRPC client here understands.
            text = (
                f"SERVER: Received message larger than max ({error.size} vs. {MESSAGE_BYTES_MAX})"
            )
            self._refuse_with(stream, trailers(Code.RESOURCE_EXHAUSTED, text), end_stream)
            return
        if whole and len(inbound.body) > inbound.need:
            self.refuse(
                stream,
                KeyplaneError(Reason.MALFORMED_REQUEST, "more than one message; the call is unary"),
                end_stream,
            )
        elif not end_stream:
            self.receiving.settle(inbound, stream, 0)
        elif not whole:
            self.refuse(
                stream,
                KeyplaneError(Reason.MALFORMED_REQUEST, "the request ended before its message"),
                True,
            )
        else:
            self.receiving.drop(stream)
            message = inbound.pop_message()
            assert message is not None
            compressed, payload = message
            if compressed:
                unread = KeyplaneError(
                    Reason.UNKNOWN_METHOD, "the message is compressed; send it uncompressed"
                )
                self.server.errors.inc(unread.reason.name)
                self.end_stream(stream, COMPRESSIONS + error_trailers(unread))
            else:
                self._run(self.server.methods[head.method], head, payload, stream)

    def _run(
        self, method: Method, head: RequestHead, payload: bytes, stream: int, signature: bytes = b""
    ) -> None:
        """Hands a whole request to its handler. signature: if it is not in the head."""
        server = self.server
        method.calls.inc()
        timeout_s = head.timeout_s
        if timeout_s == math.inf:
            deadline = timeout_s
        else:
            deadline = self.read_at + timeout_s
            if deadline < server.expiry.next_at:
                server.expiry.watch(deadline)
        call = ServerCall(self, stream, deadline)
        server.in_flight += 1
        if server.in_flight > SERVER_CALLS_MAX:
            call.fail(KeyplaneError(Reason.OVERLOADED, "too many calls are under way here"))
            return
        if timeout_s <= 0:
            call.fail(
                KeyplaneError(Reason.DEADLINE_BEFORE_START, "the deadline passed on the way here")
            )
            return
        self.calls[stream] = call
        try:
            method.handler(
                Request(
                    *(method.name, payload, deadline, self.peer, head.metadata, signature),
                    self.sealed_by,
                ),
                call.reply,
            )
        except KeyplaneError as error:
            call.fail(error)
        except Exception:  # noqa: BLE001 - a bug in one handler must not take the server down
            server.handler_broke(method.name)
            call.fail(broken_handler(method.name))

    def on_reset(self, stream: int, code: int) -> None:
        call = self.calls.get(stream)
        if call is not None:
            call.drop()
        self._unbridge(stream)

    def on_stream_fault(self, stream: int, fault: StreamFault) -> None:
        self.on_reset(stream, fault.code)

    def _unbridge(self, stream: int) -> None:
        bridged = self.bridged.pop(stream, None)
        if bridged is not None:
            bridged.cancel()

    # --- Answers ---------------------------------------------------------------------------------

    def refuse(self, stream: int, error: KeyplaneError, ended: bool) -> None:
        """Answers a request that no handler sees. ended: whether all of it has come."""
        self.server.errors.inc(error.reason.name)
        self._refuse_with(stream, error_trailers(error), ended)

    def _refuse_with(self, stream: int, block: bytes, ended: bool) -> None:
        self.end_stream(stream, block)
        if not ended:
            # Nobody needs the rest of the request (RFC 9113, section 8.1).
            self.out.write(h2.rst_stream_frame(stream, ErrorCode.NO_ERROR))

    def end_stream(self, stream: int, block: bytes) -> None:
        """An answer that is trailers only."""
        self.forget(stream)
        sending = self.sending
        block = sending.lead(RESPONSE_BLOCK + block)
        self.out.write(h2.headers_frames(stream, block, h2.END_STREAM, sending.frame_bytes))
        self.schedule_flush()

    def _answer_http(self, stream: int, status: int) -> None:
        """To a caller that does not speak gRPC, in words for people."""
        text = b"This port speaks gRPC. Try grpcurl, buf curl or a generated client.\n"
        block = literal(b":status", b"%d" % status) + literal(b"content-type", b"text/plain")
        block = self.sending.lead(block)
        self.out.write(h2.headers_frames(stream, block, 0, self.sending.frame_bytes))
        self.sending.queue(stream, text, b"", True)
        self.schedule_flush()

    def is_open(self, stream: int) -> bool:
        return (
            stream in self.calls
            or stream in self.bridged
            or stream in self.receiving.streams
            or stream in self.sending.blocked
        )

    # --- The end ---------------------------------------------------------------------------------

    def drain(self) -> None:
        """Takes no new calls, and finishes those under way."""
        if not self._draining and not self.finished:
            self._draining = True
            self.say_goaway(ErrorCode.NO_ERROR, "the server stops")
            self.schedule_flush()

    def fail(self, fault: ConnectionFault) -> None:
        self.server.faulted(fault.code, fault.message, self.peer)
        if isinstance(fault, NotHttp2):
            self.out.truncate(0)
            self.out.write(fault.answer)
            self.close(fault.message)
        else:
            super().fail(fault)

    def on_goaway(self, last: int, code: int, message: str) -> None:
        """The client opens no more streams; it closes when it has its answers."""

    def on_finished(self) -> None:
        for call in list(self.calls.values()):
            call.drop()
        for stream in list(self.bridged):
            self._unbridge(stream)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.server.closed(self)
