"""Our client against servers that do what servers may do, and what they may not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from raw_http2 import RawClient, message, of_source

from keyplane.model.errors import Reason
from wire.http2 import frames as h2
from wire.http2.blocks import block
from wire.http2.client import Http2Transport
from wire.http2.client_connection import ClientCall
from wire.http2.frames import ErrorCode, Frame
from wire.loop import LoopClock
from wire.ports import Reply

TIMEOUT_S = 30.0

START = block([(b":status", b"200"), (b"content-type", b"application/grpc")])
OK = block([(b"grpc-status", b"0")])


def answer(stream: int, payload: bytes = b"answer") -> bytes:
    return (
        h2.frame(h2.HEADERS, h2.END_HEADERS, stream, START)
        + h2.frame(h2.DATA, 0, stream, message(payload))
        + h2.frame(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, stream, OK)
    )


class Stage:
    """A listener that plays a server by hand, and our transport.

    peers: its ends of the connections that came, in order.
    """

    def __init__(self, settings: bytes, tick_s: float) -> None:
        self.clock = LoopClock(asyncio.get_running_loop())
        self.transport = Http2Transport(self.clock, tick_s=tick_s)
        self.address = ""
        self.settings = settings
        self.peers: asyncio.Queue[RawClient] = asyncio.Queue()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = RawClient(reader, writer)
        peer.say(self.settings)
        if self.settings.startswith(b"\x00"):
            await reader.readexactly(len(h2.PREFACE))
            await peer.hear(h2.SETTINGS)
        self.peers.put_nowait(peer)

    def call(self, timeout_s: float = TIMEOUT_S) -> tuple[ClientCall, asyncio.Future[Reply]]:
        ended: asyncio.Future[Reply] = self.clock.loop.create_future()
        deadline = self.clock.now() + timeout_s
        call = self.transport.call(self.address, "/T/Echo", b"x", deadline, ended.set_result)
        return call, ended

    async def failure(self, ended: asyncio.Future[Reply]) -> tuple[Reason, bool, str]:
        reply = await ended
        assert reply.error is not None
        return reply.error.reason, reply.sent, reply.error.message


def play(
    story: Callable[[Stage], Awaitable[None]],
    settings: bytes = h2.settings_frame(()),
    tick_s: float = 1.0,
) -> None:
    async def run() -> None:
        stage = Stage(settings, tick_s)
        listener = await asyncio.start_server(stage.accept, "127.0.0.1", 0)
        stage.address = f"127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        try:
            await story(stage)
        finally:
            await stage.transport.close()
            listener.close()
        assert stage.transport.in_flight == 0

    asyncio.run(run())


async def next_request(peer: RawClient) -> Frame:
    return await peer.hear(h2.HEADERS)


# --- Calls that the server has certainly not processed -------------------------------------------


def test_a_call_past_the_last_stream_of_a_goaway_goes_to_a_new_connection() -> None:
    async def story(stage: Stage) -> None:
        _, first = stage.call()
        _, second = stage.call()
        old = await stage.peers.get()
        assert [(await next_request(old)).stream for _ in range(2)] == [1, 3]
        old.say(h2.goaway_frame(1, ErrorCode.NO_ERROR))
        new = await stage.peers.get()
        new.say(answer((await next_request(new)).stream, b"from the new one"))
        assert (await second).payload == b"from the new one"
        old.say(answer(1, b"from the old one"))
        assert (await first).payload == b"from the old one"

    play(story)


def test_a_refused_stream_is_tried_once_more_and_then_known_not_to_be_done() -> None:
    async def story(stage: Stage) -> None:
        _, ended = stage.call()
        peer = await stage.peers.get()
        for _ in range(2):
            request = await next_request(peer)
            peer.say(h2.rst_stream_frame(request.stream, ErrorCode.REFUSED_STREAM))
        reason, sent, _ = await stage.failure(ended)
        assert (reason, sent) == (Reason.NODE_UNREACHABLE, False)

    play(story)


def test_calls_past_the_servers_bound_of_streams_wait_for_room() -> None:
    async def story(stage: Stage) -> None:
        calls = [stage.call()[1] for _ in range(3)]
        peer = await stage.peers.get()
        for call in calls:
            stream = (await next_request(peer)).stream
            peer.say(answer(stream))
            await call
        assert [frame.stream for frame in peer.heard if frame.kind == h2.HEADERS] == [1, 3, 5]

    play(story, h2.settings_frame([(h2.MAX_CONCURRENT_STREAMS, 1)]))


def test_a_call_that_waits_past_its_deadline_was_never_sent() -> None:
    async def story(stage: Stage) -> None:
        stage.call()
        _, waiting = stage.call(timeout_s=0.05)
        peer = await stage.peers.get()
        await next_request(peer)
        reason, sent, _ = await stage.failure(waiting)
        assert (reason, sent) == (Reason.DEADLINE_EXCEEDED, False)

    play(story, h2.settings_frame([(h2.MAX_CONCURRENT_STREAMS, 1)]))


# --- Ends of a call ------------------------------------------------------------------------------

RESETS = {
    ErrorCode.CANCEL: Reason.CANCELLED,
    ErrorCode.INTERNAL_ERROR: Reason.INTERNAL,
    ErrorCode.PROTOCOL_ERROR: Reason.INTERNAL,
    # Overload would claim that nothing was done, which nobody knows here.
    ErrorCode.ENHANCE_YOUR_CALM: Reason.CONNECTION_LOST,
}


@pytest.mark.parametrize("code", RESETS)
def test_a_reset_ends_its_call_and_is_never_taken_for_definite(code: ErrorCode) -> None:
    async def story(stage: Stage) -> None:
        _, ended = stage.call()
        peer = await stage.peers.get()
        peer.say(h2.rst_stream_frame((await next_request(peer)).stream, code))
        reason, sent, _ = await stage.failure(ended)
        assert (reason, sent) == (RESETS[code], True)
        assert not reason.definite

    play(story)


def http(status: bytes, *more: tuple[bytes, bytes]) -> bytes:
    return block([(b":status", status), *more])


ANSWERS = {
    "trailers only": (
        h2.headers_frames(1, START + block([(b"grpc-status", b"5")]), h2.END_STREAM, 16_384),
        Reason.INTERNAL,
        "",
    ),
    "no status": (
        h2.frame(h2.HEADERS, h2.END_HEADERS, 1, START)
        + h2.frame(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, 1, block([(b"a", b"b")])),
        Reason.INTERNAL,
        "no gRPC status",
    ),
    "a web server": (
        h2.frame(h2.HEADERS, h2.END_HEADERS, 1, http(b"404", (b"content-type", b"text/html")))
        + h2.frame(h2.DATA, h2.END_STREAM, 1, b"<h1>Not here</h1>"),
        Reason.UNKNOWN_METHOD,
        "Not here",
    ),
    "a proxy": (
        h2.frame(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, 1, http(b"503")),
        Reason.CONNECTION_LOST,
        "HTTP status 503",
    ),
    "well and empty": (
        h2.headers_frames(1, START + OK, h2.END_STREAM, 16_384),
        Reason.INTERNAL,
        "without an answer",
    ),
    "two messages": (
        h2.frame(h2.HEADERS, h2.END_HEADERS, 1, START)
        + h2.frame(h2.DATA, 0, 1, message(b"one") + message(b"two")),
        Reason.INTERNAL,
        "more than one message",
    ),
    "no trailers": (
        h2.frame(h2.HEADERS, h2.END_HEADERS, 1, START)
        + h2.frame(h2.DATA, h2.END_STREAM, 1, message(b"one")),
        Reason.INTERNAL,
        "without trailers",
    ),
    "compressed": (
        h2.frame(h2.HEADERS, h2.END_HEADERS, 1, START)
        + h2.frame(h2.DATA, 0, 1, message(b"one", compressed=1))
        + h2.frame(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, 1, OK),
        Reason.INTERNAL,
        "compressed",
    ),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_that_is_none_says_what_was_wrong(name: str) -> None:
    said, reason, words = ANSWERS[name]

    async def story(stage: Stage) -> None:
        _, ended = stage.call()
        peer = await stage.peers.get()
        await next_request(peer)
        peer.say(said)
        got, sent, text = await stage.failure(ended)
        assert (got, sent) == (reason, True)
        assert words in text and stage.address in text

    play(story)


def test_an_answer_comes_in_any_pieces_after_an_interim_response() -> None:
    async def story(stage: Stage) -> None:
        _, ended = stage.call()
        peer = await stage.peers.get()
        await next_request(peer)
        peer.say(h2.frame(h2.HEADERS, h2.END_HEADERS, 1, http(b"103")))
        for byte in answer(1, b"piece by piece"):
            peer.say(bytes([byte]))
            await asyncio.sleep(0)
        assert (await ended).payload == b"piece by piece"

    play(story)


def test_cancelling_tells_the_server() -> None:
    async def story(stage: Stage) -> None:
        call, ended = stage.call()
        peer = await stage.peers.get()
        await next_request(peer)
        call.cancel()
        reset = await peer.hear(h2.RST_STREAM, 1)
        assert h2.read_u32(reset.payload, "RST_STREAM") == ErrorCode.CANCEL
        assert (await ended).error is not None
        # What was on its way when the call ended is of no concern to the next one.
        _, after = stage.call()
        peer.say(answer(1), answer((await next_request(peer)).stream, b"next"))
        assert (await after).payload == b"next"

    play(story)


# --- Connections ---------------------------------------------------------------------------------


def test_a_port_that_speaks_something_else_is_named_as_such() -> None:
    async def story(stage: Stage) -> None:
        reason, sent, text = await stage.failure(stage.call()[1])
        assert (reason, sent) == (Reason.NODE_UNREACHABLE, False)
        assert "HTTP/1.1 400" in text and "gRPC port" in text

    play(story, b"HTTP/1.1 400 Bad Request\r\n\r\n")


def test_a_server_that_goes_silent_while_it_works_is_given_up() -> None:
    async def story(stage: Stage) -> None:
        _, ended = stage.call()
        peer = await stage.peers.get()
        await next_request(peer)
        await peer.hear(h2.PING)
        reason, sent, text = await stage.failure(ended)
        assert (reason, sent) == (Reason.CONNECTION_LOST, True)
        assert "ping" in text

    play(story, tick_s=0.005)


def test_a_connection_without_calls_is_left_in_peace() -> None:
    """Servers of grpcio take pings without calls for an attack."""

    async def story(stage: Stage) -> None:
        _, ended = stage.call()
        peer = await stage.peers.get()
        peer.say(answer((await next_request(peer)).stream))
        await ended
        await asyncio.sleep(0.2)
        _, ended = stage.call()
        peer.say(answer((await next_request(peer)).stream))
        await ended
        assert all(frame.kind != h2.PING for frame in peer.heard)

    play(story, tick_s=0.005)


@of_source
def test_before_stream_ids_run_out_a_new_connection_takes_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("wire.http2.client_connection.STREAM_ID_LAST", 3)

    async def story(stage: Stage) -> None:
        calls = []
        peers: list[RawClient] = []
        for _ in range(4):
            _, ended = stage.call()
            if len(calls) % 2 == 0:
                peers.append(await stage.peers.get())
            peers[-1].say(answer((await next_request(peers[-1])).stream))
            calls.append(await ended)
        assert [reply.error for reply in calls] == [None] * 4
        assert len(peers) == 2

    play(story)


def test_after_a_failed_attempt_calls_fail_at_once_until_the_next() -> None:
    """A dead server must not hold up callers that have others to turn to."""

    async def run() -> None:
        clock = LoopClock(asyncio.get_running_loop())
        listener = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
        address = f"127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        transport = Http2Transport(clock)
        for _ in range(20):
            ended: asyncio.Future[Reply] = clock.loop.create_future()
            transport.call(address, "/T/Echo", b"", clock.now() + TIMEOUT_S, ended.set_result)
            reply = await ended
            assert reply.error is not None and not reply.sent
            assert reply.error.reason is Reason.NODE_UNREACHABLE
        await transport.close()
        listener.close()

    asyncio.run(run())
