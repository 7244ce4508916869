"""Calls on real ports, over grpcio and over our engine: how they end, and what each side hears."""

from __future__ import annotations

import asyncio
import math
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import grpc
import pytest
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from cache.callers import Callers, operator
from keyplane.catalog.v1 import catalog_pb2 as catalog
from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.signature import HEADER, VALUE_CHARS, Signer
from keyplane.model.throttling import Limit, throttled
from keyplane.route.v1 import route_pb2 as route
from wire.addresses import is_loopback
from wire.grpcio import GrpcServer, GrpcTransport
from wire.http2.client import Http2Transport
from wire.http2.limits import PARTIAL_BYTES_MAX
from wire.http2.server import Http2Server
from wire.loop import LoopClock
from wire.metrics import Metrics
from wire.ports import Reply, ReplyFn, Request
from wire.rpc import MESSAGE_BYTES_MAX

SERVICE = "keyplane.data.v1.DataService"
KEY_ID = "KPOPERATOR0000000000"

# Longer than any call here takes; only what is expected to time out has less.
TIMEOUT_S = 30.0


class Engine(NamedTuple):
    server: type[GrpcServer] | type[Http2Server]
    transport: type[GrpcTransport] | type[Http2Transport]


ENGINES = {
    "grpcio": Engine(GrpcServer, GrpcTransport),
    "http2": Engine(Http2Server, Http2Transport),
    # Each end against the other's.
    "http2_client": Engine(GrpcServer, Http2Transport),
    "http2_server": Engine(Http2Server, GrpcTransport),
}
engine = ENGINES["grpcio"]


@pytest.fixture(autouse=True, params=ENGINES)
def _engine(request: pytest.FixtureRequest) -> None:
    global engine
    engine = ENGINES[request.param]


class Scene:
    """One server and one transport on the event loop of the test."""

    def __init__(self) -> None:
        self.clock = LoopClock(asyncio.get_running_loop())
        self.metrics = Metrics()
        self.transport = engine.transport(self.clock)
        self.seen: list[Request] = []
        # Set once a call to /T/Hold has arrived; it is never answered.
        self.held = asyncio.Event()
        self.server = engine.server(self.clock, self.metrics, [SERVICE])
        self.server.register("/T/Echo", self.echo)
        self.server.register("/T/Hold", self.hold)
        self.address = self.server.bind("127.0.0.1:0")

    def echo(self, request: Request, reply: ReplyFn) -> None:
        self.seen.append(request)
        reply(Reply(request.payload))

    def hold(self, request: Request, reply: ReplyFn) -> None:
        self.seen.append(request)
        self.held.set()

    async def call(
        self,
        method: str = "/T/Echo",
        payload: bytes = b"",
        timeout_s: float = TIMEOUT_S,
        metadata: tuple[tuple[str, str], ...] = (),
        **to: str,
    ) -> Reply:
        ended: asyncio.Future[Reply] = self.clock.loop.create_future()
        deadline = self.clock.now() + timeout_s
        address = to.get("address", self.address)
        self.transport.call(address, method, payload, deadline, ended.set_result, metadata)
        assert not ended.done(), "a callback never runs inside the call that took it"
        return await ended

    async def failure(self, method: str = "/T/Echo", **how: Any) -> tuple[Reason, bool]:
        """Why the call failed, and whether it may have been sent."""
        reply = await self.call(method, **how)
        assert reply.error is not None
        return reply.error.reason, reply.sent

    def counted(self, name: str, label: str) -> float:
        return self.metrics.counter(name, "", {"rpc_errors": "reason"}.get(name, "method")).value(
            label
        )


@asynccontextmanager
async def scene() -> AsyncIterator[Scene]:
    scene = Scene()
    await scene.server.start()
    try:
        yield scene
    finally:
        await scene.transport.close()
        await scene.server.stop(0)


def play(story: Callable[[Scene], Awaitable[None]]) -> None:
    async def run() -> None:
        async with scene() as stage:
            await story(stage)

    asyncio.run(run())


def free_address() -> str:
    """Where nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


# --- Answers -------------------------------------------------------------------------------------


def test_bytes_go_there_and_back_unread() -> None:
    async def story(scene: Scene) -> None:
        payload = bytes(range(256)) * 100
        assert await scene.call(payload=payload) == Reply(payload)
        assert scene.counted("rpc_requests", "/T/Echo") == 1

    play(story)


def test_a_message_of_the_largest_size_passes() -> None:
    async def story(scene: Scene) -> None:
        reply = await scene.call(payload=b"x" * MESSAGE_BYTES_MAX)
        assert len(reply.payload) == MESSAGE_BYTES_MAX

    play(story)


def test_messages_that_came_in_pieces_leave_nothing_behind() -> None:
    """More of them, one after the other on one connection, than may be under way at once."""

    async def story(scene: Scene) -> None:
        payload = b"x" * MESSAGE_BYTES_MAX
        for _ in range(2 + PARTIAL_BYTES_MAX // MESSAGE_BYTES_MAX):
            reply = await scene.call(payload=payload)
            assert reply.error is None
            assert len(reply.payload) == MESSAGE_BYTES_MAX

    play(story)


def test_an_answer_may_come_later_and_only_the_first_counts() -> None:
    async def story(scene: Scene) -> None:
        def later(request: Request, reply: ReplyFn) -> None:
            scene.clock.call_soon(lambda: reply(Reply(b"first")))
            scene.clock.call_soon(lambda: reply(Reply(b"second")))

        scene.server.register("/T/Later", later)
        assert (await scene.call("/T/Later")).payload == b"first"

    play(story)


def test_a_server_sees_the_deadline_the_caller_and_the_metadata() -> None:
    async def story(scene: Scene) -> None:
        ended: asyncio.Future[Reply] = scene.clock.loop.create_future()
        deadline = scene.clock.now() + TIMEOUT_S
        scene.transport.call(
            scene.address, "/T/Echo", b"", deadline, ended.set_result, [("trace", "1")]
        )
        await ended
        (request,) = scene.seen
        # gRPC sends a duration of two or three digits, rounded up, and does not count the way.
        assert deadline - 0.01 <= request.deadline <= scene.clock.now() + TIMEOUT_S * 1.05
        assert request.metadata["trace"] == "1"
        assert request.peer.startswith("ipv4:127.0.0.1:")

    play(story)


def test_a_signature_arrives_whatever_it_comes_with() -> None:
    """Alone and among other fields, beside messages of every size, and one after the other."""

    async def story(scene: Scene) -> None:
        callers = Callers(scene.clock, operator(b"s" * 32, KEY_ID))
        signer = Signer(KEY_ID, b"s" * 32, scene.clock.wall)
        sizes = [0, 1, 100, 100, 100, 16_379, 16_380, 100_000]
        for size in sizes:
            for before, after in (((), ()), ((("trace", "7"),), ()), ((), (("trace", "7"),))):
                payload = bytes(size)
                signature = (HEADER, signer.value("/T/Echo", payload))
                reply = await scene.call(payload=payload, metadata=(*before, signature, *after))
                assert reply.payload == payload
                request = scene.seen[-1]
                assert callers.authenticate(request).key_id == KEY_ID
                assert request.metadata.get("trace") == ("7" if before or after else None)
        both = await asyncio.gather(
            *(
                scene.call(metadata=((HEADER, signer.value("/T/Echo", b"")),), timeout_s=20.0)
                for _ in range(200)
            )
        )
        assert len(both) == 200
        for request in scene.seen[-200:]:
            callers.authenticate(request)
        await scene.call()
        assert not scene.seen[-1].authorization
        assert HEADER not in scene.seen[-1].metadata
        # Of its length, and nothing like it.
        await scene.call(metadata=((HEADER, "x" * VALUE_CHARS),))
        with pytest.raises(KeyplaneError, match="not of the form"):
            callers.authenticate(scene.seen[-1])

    play(story)


def test_an_error_that_is_told_to_many_says_the_same_to_each() -> None:
    errors = [
        KeyplaneError(Reason.THROTTLED, f"told {n}", {"n": str(n)}, retry_after_s=n + 0.5)
        for n in range(3)
    ]

    async def story(scene: Scene) -> None:
        told: list[int] = [0, 0, 0, 1, 1, 2, 0, 1, 1, 2, 2, 0]
        order = iter(told)
        refuse = lambda request, reply: reply(Reply(error=errors[next(order)]))  # noqa: E731
        scene.server.register("/T/Refuse", refuse)
        for n in told:
            error = (await scene.call("/T/Refuse")).error
            assert error is not None
            assert (error.message, error.metadata) == (f"told {n}", {"n": str(n)})
            assert error.retry_after_s == n + 0.5

    play(story)


def test_a_caller_without_a_deadline_has_for_ever() -> None:
    async def story(scene: Scene) -> None:
        assert (await scene.call(timeout_s=math.inf)).error is None
        assert scene.seen[0].deadline == math.inf

    play(story)


# --- Errors from the server ----------------------------------------------------------------------


def answering(error: KeyplaneError) -> Callable[[Request, ReplyFn], None]:
    return lambda request, reply: reply(Reply(error=error))


def test_all_of_an_error_arrives() -> None:
    hint = route.RouteHint(partitions=[catalog.Partition(partition_id=7, epoch=2)])
    told = KeyplaneError(Reason.STALE_ROUTE, "es wär' drüben", {"epoch": "2"}, 0.5, (hint,))

    async def story(scene: Scene) -> None:
        scene.server.register("/T/Stale", answering(told))
        reply = await scene.call("/T/Stale")
        error = reply.error
        assert error is not None and reply.sent
        assert (error.reason, error.message) == (told.reason, told.message)
        assert (error.metadata, error.retry_after_s) == (told.metadata, told.retry_after_s)
        assert error.detail(route.RouteHint) == hint
        assert scene.counted("rpc_errors", "STALE_ROUTE") == 1

    play(story)


def test_a_hint_of_hundreds_of_partitions_fits_and_one_of_thousands_is_left_out() -> None:
    def hint(count: int) -> route.RouteHint:
        partitions = [
            catalog.Partition(partition_id=n, start=n << 50, epoch=9, leader="storage-123")
            for n in range(count)
        ]
        return route.RouteHint(partitions=partitions)

    async def story(scene: Scene) -> None:
        for count in (300, 5000):
            error = KeyplaneError(Reason.STALE_ROUTE, "split often", {}, 1.5, (hint(count),))
            scene.server.register("/T/Stale", answering(error))
            got = (await scene.call("/T/Stale")).error
            assert got is not None
            assert (got.reason, got.message, got.retry_after_s) == (
                Reason.STALE_ROUTE,
                "split often",
                1.5,
            )
            assert (got.detail(route.RouteHint) == hint(300)) == (count == 300)

    play(story)


def test_a_refusal_is_encoded_once_and_read_once() -> None:
    """Of equal ones: whoever passes them on passes on one object, with what is sent for it."""
    told = throttled(Limit.KEY_RANGE, True, "music", "zu viel — später wieder", 0.25)

    async def test(scene: Scene) -> None:
        scene.server.register("/T/Busy", answering(told))
        first = (await scene.call("/T/Busy")).error
        sent_as = told.sent_as
        assert sent_as is not None
        again = (await scene.call("/T/Busy")).error
        assert first is not None and again is first
        assert told.sent_as is sent_as
        assert (first.reason, first.message) == (told.reason, told.message)
        assert (first.metadata, first.retry_after_s) == (told.metadata, told.retry_after_s)
        assert scene.counted("rpc_errors", "THROTTLED") == 2
        # One that was read is sent on like any other.
        scene.server.register("/T/On", answering(first))
        on = (await scene.call("/T/On")).error
        assert on is not None and on.metadata == told.metadata
        # Another wait is another error, and so are the same words without a wait.
        later = throttled(Limit.KEY_RANGE, True, "music", told.message, 0.5)
        scene.server.register("/T/Later", answering(later))
        got = (await scene.call("/T/Later")).error
        assert got is not None and got.retry_after_s == 0.5

    play(test)


def test_an_error_that_is_no_refusal_is_read_anew() -> None:
    """Callers may keep what it carries, and raise it: it is theirs alone."""
    told = KeyplaneError(Reason.CONDITION_FAILED, "it is there")

    async def test(scene: Scene) -> None:
        scene.server.register("/T/Fail", answering(told))
        first = (await scene.call("/T/Fail")).error
        again = (await scene.call("/T/Fail")).error
        assert first is not None and again is not None and again is not first
        assert again.message == first.message == told.message

    play(test)


def test_a_raised_error_is_an_answer() -> None:
    def busy(request: Request, reply: ReplyFn) -> None:
        raise KeyplaneError(Reason.OVERLOADED, "try later", retry_after_s=2.0)

    async def story(scene: Scene) -> None:
        scene.server.register("/T/Busy", busy)
        error = (await scene.call("/T/Busy")).error
        assert error is not None
        assert (error.reason, error.retry_after_s) == (Reason.OVERLOADED, 2.0)

    play(story)


def test_a_bug_in_a_handler_fails_its_call_and_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    def bug(request: Request, reply: ReplyFn) -> None:
        raise ZeroDivisionError("secret of the server")

    async def story(scene: Scene) -> None:
        scene.server.register("/T/Bug", bug)
        reply = await scene.call("/T/Bug")
        assert reply.error is not None and reply.error.reason is Reason.INTERNAL
        assert "secret" not in reply.error.message
        assert (await scene.call(payload=b"still here")).payload == b"still here"
        assert scene.server.in_flight == 0

    play(story)
    assert "ZeroDivisionError" in capsys.readouterr().out


def test_an_unknown_method_is_answered_with_what_there_is() -> None:
    async def story(scene: Scene) -> None:
        error = (await scene.call("/T/Nope")).error
        assert error is not None and error.reason is Reason.UNKNOWN_METHOD
        assert SERVICE in error.message
        assert scene.counted("rpc_errors", "UNKNOWN_METHOD") == 1

    play(story)


# --- Calls that end without an answer ------------------------------------------------------------


def test_the_deadline_ends_a_call_on_both_sides() -> None:
    async def story(scene: Scene) -> None:
        assert await scene.failure("/T/Hold", timeout_s=0.2) == (Reason.DEADLINE_EXCEEDED, True)
        # The server has let go of it too, as soon as it has heard.
        while scene.server.in_flight:
            await asyncio.sleep(0)

    play(story)


def test_a_call_without_time_left_is_never_sent() -> None:
    async def story(scene: Scene) -> None:
        assert await scene.failure(timeout_s=0.0) == (Reason.DEADLINE_EXCEEDED, False)
        assert scene.seen == []

    play(story)


def test_cancelling_ends_a_call_once_and_the_server_lets_go_of_it() -> None:
    async def story(scene: Scene) -> None:
        replies: list[Reply] = []
        deadline = scene.clock.now() + TIMEOUT_S
        call = scene.transport.call(scene.address, "/T/Hold", b"", deadline, replies.append)
        await scene.held.wait()
        call.cancel()
        call.cancel()
        assert replies == [], "a callback never runs inside the call that took it"
        while not replies or scene.server.in_flight:
            await asyncio.sleep(0)
        (reply,) = replies
        assert reply.error is not None and reply.error.reason is Reason.CANCELLED

    play(story)


def test_a_refused_connection_is_known_not_to_have_been_sent() -> None:
    async def story(scene: Scene) -> None:
        address = free_address()
        assert await scene.failure(address=address) == (Reason.NODE_UNREACHABLE, False)
        # Also while the channel waits before it tries again.
        assert await scene.failure(address=address) == (Reason.NODE_UNREACHABLE, False)

    play(story)


def test_a_host_that_does_not_exist_is_known_not_to_have_been_sent() -> None:
    async def story(scene: Scene) -> None:
        failure = await scene.failure(address="no-such-host.invalid:80")
        assert failure == (Reason.NODE_UNREACHABLE, False)

    play(story)


def test_a_connection_lost_while_the_server_works_leaves_it_open() -> None:
    """A server that takes a request and then drops the connection, as a killed one does."""

    async def serve_and_die(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A server's HTTP/2 preface (an empty SETTINGS frame), then death once a HEADERS frame
        # (type 1) of a request has come.
        writer.write(b"\x00\x00\x00\x04\x00\x00\x00\x00\x00")
        await reader.readexactly(24)
        kind = -1
        while kind != 1:
            head = await reader.readexactly(9)
            await reader.readexactly(int.from_bytes(head[:3], "big"))
            kind = head[3]
            if kind == 4 and not head[4]:
                writer.write(b"\x00\x00\x00\x04\x01\x00\x00\x00\x00")
        writer.transport.abort()

    async def story(scene: Scene) -> None:
        dying = await asyncio.start_server(serve_and_die, "127.0.0.1", 0)
        port = dying.sockets[0].getsockname()[1]
        failure = await scene.failure(address=f"127.0.0.1:{port}")
        assert failure == (Reason.CONNECTION_LOST, True)
        dying.close()

    play(story)


def test_a_request_that_is_too_large_is_never_sent() -> None:
    async def story(scene: Scene) -> None:
        failure = await scene.failure(payload=b"x" * (MESSAGE_BYTES_MAX + 1))
        assert failure == (Reason.INVALID_ARGUMENT, False)

    play(story)


def test_an_answer_that_is_too_large_is_not_taken_for_one_that_was_not_given() -> None:
    """gRPC reports it with the code of overload, which would claim that nothing was done."""

    async def story(scene: Scene) -> None:
        small = grpc.aio.server(options=[("grpc.max_send_message_length", -1)])

        async def much(_request: bytes, _context: object) -> bytes:
            return b"x" * (MESSAGE_BYTES_MAX + 1)

        handlers = {"Much": grpc.unary_unary_rpc_method_handler(much)}
        small.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("T", handlers),))
        port = small.add_insecure_port("127.0.0.1:0")
        await small.start()
        failure = await scene.failure("/T/Much", address=f"127.0.0.1:{port}")
        assert failure == (Reason.INTERNAL, True)
        await small.stop(0)

    play(story)


def test_a_request_too_large_for_its_server_is_not_retried() -> None:
    async def story(scene: Scene) -> None:
        small = grpc.aio.server(options=[("grpc.max_receive_message_length", 10)])
        small.add_generic_rpc_handlers(
            (
                grpc.method_handlers_generic_handler(
                    "T", {"Echo": grpc.unary_unary_rpc_method_handler(lambda request, _: request)}
                ),
            )
        )
        port = small.add_insecure_port("127.0.0.1:0")
        await small.start()
        failure = await scene.failure(payload=b"x" * 100, address=f"127.0.0.1:{port}")
        assert failure == (Reason.INVALID_ARGUMENT, True)
        await small.stop(0)

    play(story)


def test_closing_ends_what_is_under_way_and_refuses_what_is_new() -> None:
    async def story(scene: Scene) -> None:
        pending = scene.clock.loop.create_task(scene.failure("/T/Hold"))
        await scene.held.wait()
        await scene.transport.close()
        assert (await pending)[0] is Reason.CANCELLED
        assert await scene.failure() == (Reason.SHUTTING_DOWN, False)

    play(story)


def test_a_bug_in_a_callback_reaches_the_event_loop_and_no_other_call() -> None:
    async def story(scene: Scene) -> None:
        bugs: list[BaseException] = []
        scene.clock.loop.set_exception_handler(lambda _, context: bugs.append(context["exception"]))
        deadline = scene.clock.now() + TIMEOUT_S
        scene.transport.call(scene.address, "/T/Echo", b"", deadline, lambda reply: 1 / 0)
        while not bugs:
            assert (await scene.call(payload=b"fine")).payload == b"fine"
        assert isinstance(bugs[0], ZeroDivisionError)
        scene.transport.call(scene.address, "/T/Hold", b"", deadline, lambda reply: 1 / 0)
        await scene.held.wait()
        await scene.transport.close()

    play(story)


# --- Connections ---------------------------------------------------------------------------------


def test_calls_share_one_connection() -> None:
    async def story(scene: Scene) -> None:
        await asyncio.gather(*(scene.call() for _ in range(50)))
        assert len({request.peer for request in scene.seen}) == 1

    play(story)


def test_past_the_bound_the_longest_unused_connection_is_closed_unless_in_use() -> None:
    async def story(scene: Scene) -> None:
        transport = scene.transport = engine.transport(scene.clock, channels_max=2)
        pending = scene.clock.loop.create_task(scene.failure("/T/Hold"))
        await scene.held.wait()
        first, second = free_address(), free_address()
        await scene.failure(address=first)
        await scene.failure(address=second)
        assert list(transport._peers) == [scene.address, second]
        # Now both are in use, and there is no room for a third.
        scene.held.clear()
        server = engine.server(scene.clock, Metrics())
        server.register("/T/Hold", scene.hold)
        other = server.bind("127.0.0.1:0")
        await server.start()
        also_pending = scene.clock.loop.create_task(scene.failure("/T/Hold", address=other))
        await scene.held.wait()
        assert await scene.failure(address=first) == (Reason.OVERLOADED, False)
        await transport.close()
        await asyncio.gather(pending, also_pending)
        await server.stop(0)

    play(story)


def test_a_peer_that_comes_back_is_reached_again() -> None:
    async def story(scene: Scene) -> None:
        assert (await scene.call()).error is None
        await scene.server.stop(0)
        # Until the client has seen the connection end, a call may still go out on it.
        while (failure := await scene.failure()) == (Reason.CONNECTION_LOST, True):
            await asyncio.sleep(0.02)
        assert failure == (Reason.NODE_UNREACHABLE, False)
        back = engine.server(scene.clock, scene.metrics)
        back.register("/T/Echo", scene.echo)
        back.bind(scene.address)
        await back.start()
        # Reconnects wait a second at most; the deadline of this test is far longer.
        while (reply := await scene.call(payload=b"again")).error is not None:
            assert not reply.sent
            await asyncio.sleep(0.02)
        assert reply.payload == b"again"
        await back.stop(0)

    play(story)


def test_a_taken_port_is_refused_with_its_address() -> None:
    async def story(scene: Scene) -> None:
        server = engine.server(scene.clock, Metrics())
        with pytest.raises(OSError, match=f"cannot listen on {scene.address}: Address already"):
            server.bind(scene.address)
        with pytest.raises(ValueError, match="host:port"):
            server.bind("8000")

    play(story)


def test_a_server_that_never_started_gives_its_port_back() -> None:
    """As when the core of a process cannot be built."""
    if engine.server is GrpcServer:
        pytest.skip("grpcio keeps the port for as long as the server object lives")

    async def story(scene: Scene) -> None:
        server = engine.server(scene.clock, Metrics())
        address = server.bind("127.0.0.1:0")
        await server.stop(0)
        again = engine.server(scene.clock, Metrics())
        assert again.bind(address) == address
        await again.stop(0)

    play(story)


# --- What every gRPC tool expects ----------------------------------------------------------------


def test_health_follows_the_server_and_watchers_see_it() -> None:
    serving, not_serving = (
        health_pb2.HealthCheckResponse.SERVING,
        health_pb2.HealthCheckResponse.NOT_SERVING,
    )

    async def story(scene: Scene) -> None:
        async with grpc.aio.insecure_channel(scene.address) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            watch = health.Watch(health_pb2.HealthCheckRequest(service=SERVICE))
            assert (await watch.read()).status == not_serving
            await scene.server.set_serving(True)
            assert (await watch.read()).status == serving
            for name in ("", SERVICE):
                request = health_pb2.HealthCheckRequest(service=name)
                assert (await health.Check(request)).status == serving
            await scene.server.set_serving(False)
            assert (await watch.read()).status == not_serving
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await health.Check(health_pb2.HealthCheckRequest(service="no.such.Service"))
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND

    play(story)


def test_reflection_lists_the_services_and_describes_their_messages() -> None:
    async def story(scene: Scene) -> None:
        ask = reflection_pb2.ServerReflectionRequest
        requests = [ask(list_services=""), ask(file_containing_symbol=SERVICE)]
        async with grpc.aio.insecure_channel(scene.address) as channel:
            stub = reflection_pb2_grpc.ServerReflectionStub(channel)
            answers = [answer async for answer in stub.ServerReflectionInfo(iter(requests))]
        names = [service.name for service in answers[0].list_services_response.service]
        assert names == sorted(names)
        assert {SERVICE, "grpc.health.v1.Health", "grpc.channelz.v1.Channelz"} <= set(names)
        (file,) = answers[1].file_descriptor_response.file_descriptor_proto[:1]
        assert b"GetItemRequest" in file

    play(story)


def test_channelz_shows_the_server_on_loopback_only() -> None:
    async def story(scene: Scene) -> None:
        async with grpc.aio.insecure_channel(scene.address) as channel:
            stub = channelz_pb2_grpc.ChannelzStub(channel)
            servers = await stub.GetServers(channelz_pb2.GetServersRequest())
            assert servers.server
        everywhere = engine.server(scene.clock, Metrics())
        address = everywhere.bind("0.0.0.0:0")
        assert not is_loopback(address.partition(":")[0])
        await everywhere.start()
        async with grpc.aio.insecure_channel(address) as channel:
            stub = channelz_pb2_grpc.ChannelzStub(channel)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.GetServers(channelz_pb2.GetServersRequest())
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        await everywhere.stop(0)

    play(story)


def test_stopping_lets_what_is_under_way_finish() -> None:
    async def story(scene: Scene) -> None:
        answer: list[ReplyFn] = []
        arrived = asyncio.Event()

        def slow(request: Request, reply: ReplyFn) -> None:
            answer.append(reply)
            arrived.set()

        scene.server.register("/T/Slow", slow)
        pending = scene.clock.loop.create_task(scene.call("/T/Slow"))
        await arrived.wait()
        stopping = scene.clock.loop.create_task(scene.server.stop(TIMEOUT_S))
        # A new connection is refused from now on; only then is the old call answered.
        other = engine.transport(scene.clock)
        while True:
            ended: asyncio.Future[Reply] = scene.clock.loop.create_future()
            deadline = scene.clock.now() + TIMEOUT_S
            other.call(scene.address, "/T/Echo", b"", deadline, ended.set_result)
            if (await ended).error is not None:
                break
        answer[0](Reply(b"in time"))
        assert (await pending).payload == b"in time"
        await stopping
        await other.close()

    play(story)
