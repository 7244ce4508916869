"""The engine against clients and servers that nobody here wrote."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc.status_pb2 import Status

from keyplane.model.errors import Code, KeyplaneError, Reason
from keyplane.model.grpc_failures import DETAILS_KEY
from wire.http2.client import Http2Transport
from wire.http2.server import Http2Server
from wire.loop import LoopClock
from wire.metrics import Metrics
from wire.ports import Reply, ReplyFn, Request

TIMEOUT_S = 30.0
SERVICE = "keyplane.data.v1.DataService"

CODES = [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK]
# A reason for each code that any reason has; the message holds what percent-encoding is for.
REASONS = {int(reason.code): reason for reason in Reason}
TEXT = "100 % wär' schön\n☃"


class OurServer:
    """An `Http2Server` with the methods that the stories call."""

    def __init__(self) -> None:
        self.clock = LoopClock(asyncio.get_running_loop())
        self.server = Http2Server(self.clock, Metrics(), [SERVICE])
        self.seen: list[Request] = []
        self.held = asyncio.Event()
        self.server.register("/T/Echo", self._echo)
        self.server.register("/T/Hold", self._hold)
        self.server.register("/T/Fail", self._fail)
        self.address = self.server.bind("127.0.0.1:0")

    def _echo(self, request: Request, reply: ReplyFn) -> None:
        self.seen.append(request)
        reply(Reply(request.payload))

    def _hold(self, request: Request, reply: ReplyFn) -> None:
        self.held.set()

    def _fail(self, request: Request, reply: ReplyFn) -> None:
        reply(Reply(error=KeyplaneError(REASONS[int(request.payload)], TEXT, {"a": "b"})))


def with_our_server(story: Callable[[OurServer], Awaitable[None]]) -> None:
    async def run() -> None:
        ours = OurServer()
        await ours.server.start()
        try:
            await story(ours)
        finally:
            await ours.server.stop(0)

    asyncio.run(run())


def check_failures(call: Callable[[bytes], Any]) -> None:
    for code in sorted(REASONS):
        with pytest.raises(grpc.RpcError) as caught:
            call(b"%d" % code)
        error: Any = caught.value
        assert error.code().value[0] == code
        assert error.details() == TEXT
        details = dict(error.trailing_metadata())[DETAILS_KEY]
        status = Status.FromString(details)
        assert (status.code, status.message) == (code, TEXT)
        assert KeyplaneError.from_status(code, TEXT, details).reason is REASONS[code]


# --- grpcio calls us -----------------------------------------------------------------------------


def test_the_sync_client_of_grpcio_is_served() -> None:
    def use(address: str) -> None:
        with grpc.insecure_channel(address) as channel:
            echo, fail = channel.unary_unary("/T/Echo"), channel.unary_unary("/T/Fail")
            for size in (0, 1, 16_379, 16_380, 100_000, 3_000_000):
                assert echo(bytes(size)) == bytes(size)
            check_failures(lambda payload: fail(payload, timeout=TIMEOUT_S))
            with pytest.raises(grpc.RpcError) as caught:
                channel.unary_unary("/T/Hold")(b"", timeout=0.2)
            error: Any = caught.value
            assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            calls = [echo.future(b"%d" % n, timeout=TIMEOUT_S) for n in range(1000)]
            assert [call.result() for call in calls] == [b"%d" % n for n in range(1000)]

    async def story(ours: OurServer) -> None:
        with ThreadPoolExecutor(1) as thread:
            await ours.clock.loop.run_in_executor(thread, use, ours.address)

    with_our_server(story)


def test_a_thousand_calls_of_grpcio_are_open_at_once_and_can_be_cancelled() -> None:
    async def story(ours: OurServer) -> None:
        async with grpc.aio.insecure_channel(ours.address) as channel:
            hold = channel.unary_unary("/T/Hold")
            calls = [hold(b"x") for _ in range(1000)]
            waiting = [asyncio.ensure_future(call) for call in calls]
            while ours.server.in_flight < 1000:
                await asyncio.sleep(0.001)
            for call in calls:
                call.cancel()
            await asyncio.wait(waiting)
            while ours.server.in_flight:
                await asyncio.sleep(0.001)
            assert await channel.unary_unary("/T/Echo")(b"fine") == b"fine"
            assert len(ours.server.connections) == 1

    with_our_server(story)


def test_metadata_of_grpcio_arrives_and_bytes_are_left_out_as_with_grpcio() -> None:
    async def story(ours: OurServer) -> None:
        async with grpc.aio.insecure_channel(ours.address) as channel:
            metadata = (("trace", "a, b"), ("raw-bin", b"\x00\xff"), ("long", "x" * 5000))
            for _ in range(3):
                await channel.unary_unary("/T/Echo")(b"", metadata=metadata, timeout=9.0)
        for request in ours.seen:
            assert request.metadata.keys() == {"trace", "long", "user-agent"}
            assert request.metadata["trace"] == "a, b" and request.metadata["long"] == "x" * 5000
            assert request.peer.startswith("ipv4:127.0.0.1:")
            assert request.deadline < ours.clock.now() + 9.1

    with_our_server(story)


def test_a_compressed_request_is_refused_with_what_is_taken() -> None:
    async def story(ours: OurServer) -> None:
        async with grpc.aio.insecure_channel(
            ours.address, compression=grpc.Compression.Gzip
        ) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await channel.unary_unary("/T/Echo")(b"x" * 10_000)
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED

    with_our_server(story)


def test_once_grpcio_has_followed_our_settings_its_blocks_are_known_by_their_bytes() -> None:
    async def story(ours: OurServer) -> None:
        async with grpc.aio.insecure_channel(ours.address) as channel:
            for _ in range(5):
                await channel.unary_unary("/T/Echo")(b"x")
        assert len(ours.server.heads.known) == 1

    with_our_server(story)


# --- We call grpcio ------------------------------------------------------------------------------


@asynccontextmanager
async def our_client(address: str) -> AsyncIterator[Callable[..., Awaitable[Reply]]]:
    clock = LoopClock(asyncio.get_running_loop())
    transport = Http2Transport(clock)

    async def call(
        method: str, payload: bytes = b"", timeout_s: float = TIMEOUT_S, **more: Any
    ) -> Reply:
        ended: asyncio.Future[Reply] = clock.loop.create_future()
        transport.call(address, method, payload, clock.now() + timeout_s, ended.set_result, **more)
        return await ended

    try:
        yield call
    finally:
        await transport.close()
        assert transport.in_flight == 0


def fail_with(request: bytes, context: Any) -> bytes:
    code = next(code for code in grpc.StatusCode if code.value[0] == int(request))
    context.set_code(code)
    context.set_details(TEXT)
    return b""


def echo_sync(request: bytes, context: Any) -> bytes:
    context.set_trailing_metadata((("seen-bin", b"\x00\x01"),))
    sent = dict(context.invocation_metadata())
    return request or repr(sorted(key for key in sent if key != "user-agent")).encode()


HANDLERS = {"Fail": fail_with, "Echo": echo_sync}


@asynccontextmanager
async def grpcio_server(sync: bool) -> AsyncIterator[str]:
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(handler) for name, handler in HANDLERS.items()
    }
    generic = grpc.method_handlers_generic_handler("T", handlers)
    if sync:
        server: Any = grpc.server(ThreadPoolExecutor(4))
        server.add_generic_rpc_handlers((generic,))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield f"127.0.0.1:{port}"
        server.stop(None).wait()
    else:
        aio = grpc.aio.server()
        aio.add_generic_rpc_handlers((generic,))
        port = aio.add_insecure_port("127.0.0.1:0")
        await aio.start()
        yield f"127.0.0.1:{port}"
        await aio.stop(None)


@pytest.mark.parametrize("sync", [True, False])
def test_servers_of_grpcio_are_called(sync: bool) -> None:
    async def run() -> None:
        async with grpcio_server(sync) as address, our_client(address) as call:
            for size in (1, 16_379, 16_380, 100_000, 3_000_000):
                assert (await call("/T/Echo", bytes(size))).payload == bytes(size)
            replies = await asyncio.gather(*(call("/T/Echo", b"%d" % n) for n in range(1, 1001)))
            assert [reply.payload for reply in replies] == [b"%d" % n for n in range(1, 1001)]
            for code in CODES:
                number = code.value[0]
                error = (await call("/T/Fail", b"%d" % number)).error
                assert error is not None and error.message == f"{address}: {TEXT}"
                expected = KeyplaneError.from_status(number, "")
                assert error.reason is expected.reason
            error = (await call("/T/Nope")).error
            assert error is not None and error.reason is Reason.UNKNOWN_METHOD
            metadata = [("trace", "1"), ("raw-bin", b"\x00\xff")]
            reply = await call("/T/Echo", metadata=metadata)
            assert reply.payload == b"['raw-bin', 'trace']"

    asyncio.run(run())


def test_metadata_that_grpc_cannot_carry_is_refused_before_anything_is_sent() -> None:
    async def run() -> None:
        async with our_client("127.0.0.1:1") as call:
            for pair in (("Upper", "x"), ("a", "snow ☃"), ("grpc-x", "y"), ("a", "two\nlines")):
                reply = await call("/T/Echo", metadata=[pair])
                assert reply.error is not None and not reply.sent
                assert reply.error.reason is Reason.INVALID_ARGUMENT

    asyncio.run(run())


# --- Tools ---------------------------------------------------------------------------------------


def tool(name: str) -> Any:
    return pytest.mark.skipif(shutil.which(name) is None, reason=f"{name} is not installed")


async def run_tool(*command: str) -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    return process.returncode, output.decode()


@tool("h2load")
def test_h2load_gets_all_its_answers(tmp_path: Path) -> None:
    body = tmp_path / "body"
    body.write_bytes(b"\x00\x00\x00\x00\x05hello")

    async def story(ours: OurServer) -> None:
        command = ["h2load", "-n", "5000", "-c", "8", "-m", "32", "-d", str(body)]
        command += ["-H", "content-type: application/grpc", "-H", "te: trailers"]
        code, output = await run_tool(*command, f"http://{ours.address}/T/Echo")
        assert code == 0
        assert "5000 succeeded, 0 failed, 0 errored, 0 timeout" in output
        assert len(ours.seen) == 5000 and ours.seen[0].payload == b"hello"

    with_our_server(story)


@tool("grpcurl")
def test_grpcurl_lists_describes_and_calls() -> None:
    async def story(ours: OurServer) -> None:
        code, output = await run_tool("grpcurl", "-plaintext", ours.address, "list")
        assert code == 0 and SERVICE in output
        code, output = await run_tool(
            "grpcurl", "-plaintext", ours.address, "grpc.health.v1.Health/Check"
        )
        assert code == 0 and "NOT_SERVING" in output

    with_our_server(story)


@tool("buf")
def test_buf_curl_calls() -> None:
    async def story(ours: OurServer) -> None:
        url = f"http://{ours.address}/grpc.health.v1.Health/Check"
        command = ("buf", "curl", "--protocol", "grpc", "--http2-prior-knowledge", url)
        code, output = await run_tool(*command)
        assert code == 0 and "NOT_SERVING" in output

    with_our_server(story)


@tool("curl")
def test_curl_without_grpc_is_told_what_this_is() -> None:
    async def story(ours: OurServer) -> None:
        _, output = await run_tool("curl", "-s", f"http://{ours.address}/")
        assert "gRPC" in output
        command = ("curl", "-s", "--http2-prior-knowledge", f"http://{ours.address}/")
        _, output = await run_tool(*command)
        assert "gRPC" in output or not output

    with_our_server(story)


def test_every_code_that_has_a_reason_is_covered() -> None:
    assert set(REASONS) >= {int(code) for code in Code} - {
        *(Code.OK, Code.OUT_OF_RANGE, Code.UNAUTHENTICATED)
    }
