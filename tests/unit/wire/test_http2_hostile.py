"""Peers that break the rules: each is answered with the right code, and no other notices."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from raw_http2 import RawClient, message, of_source, request, request_block

from wire.http2 import frames as h2
from wire.http2 import limits
from wire.http2.blocks import literal
from wire.http2.client import Http2Transport
from wire.http2.frames import ErrorCode
from wire.http2.server import Http2Server
from wire.loop import LoopClock
from wire.metrics import Metrics
from wire.ports import Reply, ReplyFn, Request

TIMEOUT_S = 30.0


class Stage:
    """A server with a patient neighbour: a transport whose calls must go on working."""

    def __init__(self) -> None:
        self.clock = LoopClock(asyncio.get_running_loop())
        self.metrics = Metrics()
        # A beat so short that what takes a minute takes less than a second here.
        self.server = Http2Server(self.clock, self.metrics, tick_s=0.005)
        self.server.register("/T/Echo", lambda request, reply: reply(Reply(request.payload)))
        self.server.register("/T/Hold", self._hold)
        self.held: list[ReplyFn] = []
        self.server.register("/T/Much", lambda request, reply: reply(Reply(bytes(1_000_000))))
        self.address = self.server.bind("127.0.0.1:0")
        self.transport = Http2Transport(self.clock)

    def _hold(self, request: Request, reply: ReplyFn) -> None:
        self.held.append(reply)

    async def call(self, payload: bytes = b"neighbour") -> bytes:
        ended: asyncio.Future[Reply] = self.clock.loop.create_future()
        deadline = self.clock.now() + TIMEOUT_S
        self.transport.call(self.address, "/T/Echo", payload, deadline, ended.set_result)
        reply = await ended
        assert reply.error is None, reply.error
        return reply.payload


def play(story: Callable[[Stage, RawClient], Awaitable[None]], greet: bool = True) -> None:
    """The story of one peer. Its neighbour is on the same connection before and after."""

    async def run() -> None:
        stage = Stage()
        await stage.server.start()
        try:
            assert await stage.call() == b"neighbour"
            (neighbour,) = stage.server.connections
            client = await RawClient.connect(stage.address, greet)
            await story(stage, client)
            assert await stage.call() == b"neighbour"
            assert neighbour in stage.server.connections
            client.close()
        finally:
            await stage.transport.close()
            await stage.server.stop(0)

    asyncio.run(run())


def headers(stream: int, flags: int = h2.END_HEADERS, block: bytes | None = None) -> bytes:
    return h2.frame(h2.HEADERS, flags, stream, request_block() if block is None else block)


def resets(count: int) -> bytes:
    return b"".join(
        headers(stream, block=request_block("/T/Hold"))
        + h2.rst_stream_frame(stream, ErrorCode.CANCEL)
        for stream in range(1, 2 * count, 2)
    )


# What a peer says, and the code that it hears. The bounds are those of `wire.http2.limits`.
FAULTS = {
    "a frame above the largest": (
        h2.frame(h2.DATA, 0, 1, bytes(h2.FRAME_BYTES_DEFAULT + 1)),
        ErrorCode.FRAME_SIZE_ERROR,
    ),
    "data on a stream that never began": (h2.frame(h2.DATA, 0, 1), ErrorCode.PROTOCOL_ERROR),
    "data on stream 0": (h2.frame(h2.DATA, 0, 0, b"x"), ErrorCode.PROTOCOL_ERROR),
    "headers on stream 0": (headers(0), ErrorCode.PROTOCOL_ERROR),
    "a stream of the server's": (headers(2), ErrorCode.PROTOCOL_ERROR),
    "a reset of a stream that never began": (
        h2.rst_stream_frame(7, ErrorCode.CANCEL),
        ErrorCode.PROTOCOL_ERROR,
    ),
    "a reset cut short": (
        request(1) + h2.frame(h2.RST_STREAM, 0, 1, b"xx"),
        ErrorCode.FRAME_SIZE_ERROR,
    ),
    "a push promise": (h2.frame(h2.PUSH_PROMISE, 4, 1, b"\0\0\0\2"), ErrorCode.PROTOCOL_ERROR),
    "a ping on a stream": (h2.frame(h2.PING, 0, 1, bytes(8)), ErrorCode.PROTOCOL_ERROR),
    "a ping cut short": (h2.frame(h2.PING, 0, 0, bytes(7)), ErrorCode.FRAME_SIZE_ERROR),
    "settings cut short": (h2.frame(h2.SETTINGS, 0, 0, bytes(5)), ErrorCode.FRAME_SIZE_ERROR),
    "settings on a stream": (h2.frame(h2.SETTINGS, 0, 1), ErrorCode.PROTOCOL_ERROR),
    "an acknowledgement with content": (
        h2.frame(h2.SETTINGS, h2.ACK, 0, bytes(6)),
        ErrorCode.FRAME_SIZE_ERROR,
    ),
    "a window above the largest": (
        h2.settings_frame([(h2.INITIAL_WINDOW_SIZE, 2**31)]),
        ErrorCode.FLOW_CONTROL_ERROR,
    ),
    "a frame size below the smallest": (
        h2.settings_frame([(h2.MAX_FRAME_SIZE, 100)]),
        ErrorCode.PROTOCOL_ERROR,
    ),
    "a window that overflows": (
        h2.window_update_frame(0, 2**31 - 1),
        ErrorCode.FLOW_CONTROL_ERROR,
    ),
    "a window that grows by nothing": (h2.window_update_frame(0, 0), ErrorCode.PROTOCOL_ERROR),
    "more padding than frame": (
        headers(1) + h2.frame(h2.DATA, h2.PADDED, 1, b"\x09abc"),
        ErrorCode.PROTOCOL_ERROR,
    ),
    "a field block that no table explains": (
        headers(1, block=b"\xff\xff\xff\xff\x0f"),
        ErrorCode.COMPRESSION_ERROR,
    ),
    "a continuation of nothing": (
        h2.frame(h2.CONTINUATION, h2.END_HEADERS, 1, b"x"),
        ErrorCode.PROTOCOL_ERROR,
    ),
    "a frame inside a field block": (
        headers(1, flags=0) + h2.frame(h2.PING, 0, 0, bytes(8)),
        ErrorCode.PROTOCOL_ERROR,
    ),
    "a flood of continuations": (
        headers(1, flags=0) + h2.frame(h2.CONTINUATION, 0, 1, b"") * (limits.CONTINUATIONS_MAX + 1),
        ErrorCode.ENHANCE_YOUR_CALM,
    ),
    "a field block without end": (
        headers(1, flags=0) + h2.frame(h2.CONTINUATION, 0, 1, bytes(16_000)) * 5,
        ErrorCode.ENHANCE_YOUR_CALM,
    ),
    "a header list that unpacks to too much": (
        # One entry of 3,000 bytes in the table, named again and again.
        headers(1, block=request_block() + b"\x40\x01a\x7f\xb9\x16" + b"y" * 3000 + b"\xbe" * 100),
        ErrorCode.COMPRESSION_ERROR,
    ),
    "rapid resets": (resets(limits.RESETS_FREE[0] * 2 + 100), ErrorCode.ENHANCE_YOUR_CALM),
    "a flood of pings": (
        h2.frame(h2.PING, 0, 0, bytes(8)) * (limits.PINGS_FREE[0] + 100),
        ErrorCode.ENHANCE_YOUR_CALM,
    ),
    "a flood of settings": (
        h2.settings_frame(()) * (limits.SETTINGS_FREE[0] + 100),
        ErrorCode.ENHANCE_YOUR_CALM,
    ),
    "a flood of empty frames": (
        headers(1) + h2.frame(h2.DATA, 0, 1) * (limits.EMPTY_FREE[0] + 500),
        ErrorCode.ENHANCE_YOUR_CALM,
    ),
    "a flood of priorities": (
        h2.frame(h2.PRIORITY, 0, 1, bytes(5)) * (limits.EMPTY_FREE[0] + 500),
        ErrorCode.ENHANCE_YOUR_CALM,
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_peer_that_breaks_the_rules_hears_why(name: str) -> None:
    said, code = FAULTS[name]

    async def story(stage: Stage, client: RawClient) -> None:
        client.say(said)
        heard = await client.end()
        assert heard is not None and heard[0] is code, heard
        assert stage.server.faults.value(code.name) == 1

    play(story)


STREAM_FAULTS = {
    "a field in upper case": (request_block() + literal(b"Bad", b"x"), ErrorCode.PROTOCOL_ERROR),
    "a field of one connection": (
        request_block() + literal(b"connection", b"close"),
        ErrorCode.PROTOCOL_ERROR,
    ),
    "a pseudo-field after others": (
        request_block() + literal(b":path", b"/x"),
        ErrorCode.PROTOCOL_ERROR,
    ),
    "a request without a path": (b"\x83\x86", ErrorCode.PROTOCOL_ERROR),
    "a line break in a value": (
        request_block() + literal(b"a", b"x\r\ny"),
        ErrorCode.PROTOCOL_ERROR,
    ),
}


@pytest.mark.parametrize("name", STREAM_FAULTS)
def test_a_malformed_request_ends_its_stream_and_no_other(name: str) -> None:
    block, code = STREAM_FAULTS[name]

    async def story(stage: Stage, client: RawClient) -> None:
        client.say(headers(1, block=block), request(3, b"next"))
        reset = await client.hear(h2.RST_STREAM, 1)
        assert h2.read_u32(reset.payload, "RST_STREAM") == code
        assert await client.answer(3) == b"next"

    play(story)


def test_more_data_than_a_streams_window_ends_the_stream() -> None:
    async def story(stage: Stage, client: RawClient) -> None:
        big = h2.MESSAGE_HEAD.pack(0, 1000)
        client.say(headers(1), h2.frame(h2.DATA, 0, 1, big))
        client.say(h2.frame(h2.DATA, 0, 1, bytes(16_000)) * 5, request(3, b"next"))
        await client.hear(h2.RST_STREAM, 1)
        assert await client.answer(3) == b"next"

    play(story)


@of_source
def test_more_data_than_the_connections_window_ends_the_connection() -> None:
    """Frames of streams that have ended count too; a peer may not send them without limit."""

    async def story(stage: Stage, client: RawClient) -> None:
        connection = max(stage.server.connections, key=lambda each: each._opened_at)
        # A peer that sends more than it was given: as if we had given it nothing more.
        connection.receiving.renew_connection_window = lambda: None  # type: ignore[method-assign]
        client.say(request(1))
        frame = h2.frame(h2.DATA, 0, 1, bytes(16_000))
        client.say(frame * (limits.CONNECTION_WINDOW // 16_000 + 1))
        heard = await client.end()
        assert heard is not None and heard[0] is ErrorCode.FLOW_CONTROL_ERROR

    play(story)


def test_past_the_bound_of_streams_a_new_one_is_refused() -> None:
    async def story(stage: Stage, client: RawClient) -> None:
        hold = request_block("/T/Hold")
        body = message(b"")
        for stream in range(1, 2 * limits.STREAMS_MAX, 2):
            client.say(headers(stream, block=hold), h2.frame(h2.DATA, 1, stream, body))
        over = 2 * limits.STREAMS_MAX + 1
        client.say(request(over))
        reset = await client.hear(h2.RST_STREAM, over)
        assert h2.read_u32(reset.payload, "RST_STREAM") == ErrorCode.REFUSED_STREAM
        assert stage.server.in_flight == limits.STREAMS_MAX

    play(story)


# --- Before the preface --------------------------------------------------------------------------


def test_http_1_is_answered_in_words_for_people() -> None:
    async def story(stage: Stage, client: RawClient) -> None:
        client.say(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
        answer = await client.reader.read()
        assert answer.startswith(b"HTTP/1.1 505 ") and b"grpcurl" in answer

    play(story, greet=False)


@pytest.mark.parametrize("garbage", [b"\x00" * 50, b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", b"\xff"])
def test_garbage_before_the_preface_is_answered_with_goaway(garbage: bytes) -> None:
    async def story(stage: Stage, client: RawClient) -> None:
        client.say(garbage)
        heard = await client.end()
        assert heard is not None and heard[0] is ErrorCode.PROTOCOL_ERROR

    play(story, greet=False)


def test_a_tls_handshake_on_a_plain_port_is_closed() -> None:
    async def story(stage: Stage, client: RawClient) -> None:
        client.say(b"\x16\x03\x01\x02\x00\x01\x00")
        assert await client.reader.read() == b""

    play(story, greet=False)


def test_the_first_frame_must_be_settings() -> None:
    async def story(stage: Stage, client: RawClient) -> None:
        client.say(h2.PREFACE, request(1))
        heard = await client.end()
        assert heard is not None and heard[0] is ErrorCode.PROTOCOL_ERROR

    play(story, greet=False)


# --- Peers that do nothing -----------------------------------------------------------------------


@pytest.mark.parametrize("said", [b"", h2.PREFACE[:10], h2.PREFACE])
def test_a_handshake_that_does_not_end_is_given_up(said: bytes) -> None:
    async def story(stage: Stage, client: RawClient) -> None:
        client.say(said)
        heard = await client.end()
        assert heard is not None and heard[0] is ErrorCode.SETTINGS_TIMEOUT

    play(story, greet=False)


def test_a_silent_peer_is_asked_and_then_given_up() -> None:
    async def story(stage: Stage, client: RawClient) -> None:
        await client.hear(h2.PING)
        assert await client.end() is None

    play(story)


def test_a_peer_that_answers_pings_stays() -> None:
    async def story(stage: Stage, client: RawClient) -> None:
        for _ in range(3):
            ping = await client.hear(h2.PING)
            client.say(h2.frame(h2.PING, h2.ACK, 0, ping.payload))
        client.say(request(1, b"still here"))
        assert await client.answer(1) == b"still here"

    play(story)


async def chatter(client: RawClient) -> None:
    """Keeps a peer from being taken for dead, while it does nothing useful."""
    while True:
        client.say(h2.frame(h2.PING, 0, 0, b"chatters"))
        await asyncio.sleep(0.01)


def test_a_peer_that_gives_no_window_is_given_up() -> None:
    async def story(stage: Stage, client: RawClient) -> None:
        client.say(h2.settings_frame([(h2.INITIAL_WINDOW_SIZE, 0)]), request(1))
        talking = stage.clock.loop.create_task(chatter(client))
        heard = await client.end()
        talking.cancel()
        assert heard is not None and heard[0] is ErrorCode.ENHANCE_YOUR_CALM
        assert not any(frame.kind == h2.DATA for frame in client.heard)

    play(story)


def test_a_message_that_is_begun_and_not_sent_is_given_up() -> None:
    async def story(stage: Stage, client: RawClient) -> None:
        client.say(headers(1), h2.frame(h2.DATA, 0, 1, message(b"hello")[:7]))
        talking = stage.clock.loop.create_task(chatter(client))
        await client.hear(h2.RST_STREAM, 1)
        talking.cancel()

    play(story)


def test_a_reader_that_does_not_read_is_cut() -> None:
    """It asks for gigabytes with every window open: what it does not read is bounded."""

    async def story(stage: Stage, client: RawClient) -> None:
        wide = h2.settings_frame([(h2.INITIAL_WINDOW_SIZE, 2**31 - 1)])
        client.say(wide, h2.window_update_frame(0, 2**31 - 1 - 65_535))
        await client.hear(h2.SETTINGS)
        (connection,) = (
            each for each in stage.server.connections if each.ready and each.last_id == 0
        )
        client.reader._transport.pause_reading()  # type: ignore[attr-defined]
        for stream in range(1, 600, 2):
            client.say(request(stream, method="/T/Much"))
        owed = 0
        while not connection.finished:
            await asyncio.sleep(0.001)
            owed = max(owed, connection.owed() + connection.sending.blocked_bytes)
        # Far less than the 300 MB that were asked for.
        assert 0 < owed <= limits.BLOCKED_BYTES_HIGH + limits.WRITE_BUFFER_HIGH + 2_000_000

    play(story)


# --- Rules that a good server keeps --------------------------------------------------------------


def test_padding_priority_and_unknown_frames_are_taken() -> None:
    async def story(stage: Stage, client: RawClient) -> None:
        flags = h2.END_HEADERS | h2.PADDED | h2.WITH_PRIORITY
        padded = b"\x03" + b"\0\0\0\0\x10" + request_block() + bytes(3)
        client.say(
            h2.frame(h2.HEADERS, flags, 1, padded),
            h2.frame(h2.PRIORITY, 0, 1, bytes(5)),
            h2.frame(0xFA, 0xFF, 1, b"from the future"),
            h2.frame(h2.DATA, h2.PADDED, 1, b"\x04" + message(b"padded")[:3] + bytes(4)),
            h2.frame(h2.DATA, h2.PADDED | h2.END_STREAM, 1, b"\x00" + message(b"padded")[3:]),
        )
        assert await client.answer(1) == b"padded"

    play(story)


def test_a_field_block_may_come_in_continuations() -> None:
    async def story(stage: Stage, client: RawClient) -> None:
        block = request_block()
        client.say(
            h2.frame(h2.HEADERS, 0, 1, block[:5]),
            h2.frame(h2.CONTINUATION, 0, 1, block[5:9]),
            h2.frame(h2.CONTINUATION, h2.END_HEADERS, 1, block[9:]),
            h2.frame(h2.DATA, h2.END_STREAM, 1, message(b"in pieces")),
        )
        assert await client.answer(1) == b"in pieces"

    play(story)


def test_an_answer_follows_the_windows_and_their_changes() -> None:
    async def story(stage: Stage, client: RawClient) -> None:
        client.say(h2.settings_frame([(h2.INITIAL_WINDOW_SIZE, 10)]), request(1, b"x" * 95))
        assert (await client.hear(h2.DATA, 1)).payload == message(b"x" * 95)[:10]
        client.say(h2.window_update_frame(1, 20))
        assert len((await client.hear(h2.DATA, 1)).payload) == 20
        # 30 more, by a change of the setting (section 6.9.2).
        client.say(h2.settings_frame([(h2.INITIAL_WINDOW_SIZE, 40)]))
        assert len((await client.hear(h2.DATA, 1)).payload) == 30
        # Now below zero: nothing may be sent until it is above again.
        client.say(h2.settings_frame([(h2.INITIAL_WINDOW_SIZE, 0)]), h2.window_update_frame(1, 50))
        assert len((await client.hear(h2.DATA, 1)).payload) == 10
        client.say(h2.window_update_frame(1, 1000))
        assert len((await client.hear(h2.DATA, 1)).payload) == 30
        assert (await client.hear(h2.HEADERS, 1)).flags & h2.END_STREAM

    play(story)


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({b":method": b"GET"}, b"405"),
        ({b"content-type": b"application/json"}, b"415"),
    ],
)
def test_http_that_is_not_grpc_is_told_so(change: dict[bytes, bytes], status: bytes) -> None:
    async def story(stage: Stage, client: RawClient) -> None:
        fields = {
            b":method": b"POST",
            b":scheme": b"http",
            b":path": b"/T/Echo",
            b"content-type": b"application/grpc",
            **change,
        }
        block = b"".join(literal(*field) for field in fields.items())
        client.say(headers(1, h2.END_HEADERS | h2.END_STREAM, block))
        assert client.fields(await client.hear(h2.HEADERS, 1))[b":status"] == status
        assert b"gRPC" in (await client.hear(h2.DATA, 1)).payload

    play(story)


BAD_CALLS = {
    "compressed": (message(b"x", compressed=1), b"12"),
    "no message": (b"", b"3"),
    "half a message": (message(b"hello")[:7], b"3"),
    "two messages": (message(b"one") + message(b"two"), b"3"),
    "a message too large": (h2.MESSAGE_HEAD.pack(0, 2**31), b"8"),
}


@pytest.mark.parametrize("name", BAD_CALLS)
def test_a_call_that_is_not_one_message_is_answered_with_a_status(name: str) -> None:
    body, status = BAD_CALLS[name]

    async def story(stage: Stage, client: RawClient) -> None:
        client.say(headers(1), h2.frame(h2.DATA, h2.END_STREAM, 1, body))
        trailers = client.fields(await client.hear(h2.HEADERS, 1))
        assert trailers[b"grpc-status"] == status
        client.say(request(3, b"next"))
        assert await client.answer(3) == b"next"

    play(story)


# --- All connections together --------------------------------------------------------------------


@of_source
def test_one_connection_too_many_is_closed_and_told_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wire.http2.server_connection.CONNECTIONS_MAX", 2)

    async def story(stage: Stage, client: RawClient) -> None:
        third = await RawClient.connect(stage.address, greet=False)
        heard = await third.end()
        assert heard is not None and heard[0] is ErrorCode.ENHANCE_YOUR_CALM
        client.say(request(1, b"the second stays"))
        assert await client.answer(1) == b"the second stays"

    play(story)


@of_source
def test_past_the_bound_of_the_process_the_worst_connection_is_cut(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("wire.http2.server.HELD_BYTES_MAX", 10_000)

    async def story(stage: Stage, client: RawClient) -> None:
        client.say(headers(1), h2.frame(h2.DATA, 0, 1, message(bytes(15_000))[:12_000]))
        assert await client.end() is None

    play(story)


def test_a_request_that_never_begins_its_message_is_given_up() -> None:
    async def story(stage: Stage, client: RawClient) -> None:
        client.say(headers(1))
        talking = stage.clock.loop.create_task(chatter(client))
        await client.hear(h2.RST_STREAM, 1)
        talking.cancel()

    play(story)


def test_two_full_ends_do_not_wait_for_each_other() -> None:
    """Large messages both ways at once, more than both write buffers hold."""

    async def story(stage: Stage, client: RawClient) -> None:
        payload = bytes(2_000_000)
        answers = await asyncio.gather(*(stage.call(payload) for _ in range(24)))
        assert all(answer == payload for answer in answers)

    play(story)
