"""TLS and mutual TLS between real ends, grpcio's among them."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path

import grpc
import pytest

from keyplane.model.errors import Reason
from wire.http2.client import Http2Transport
from wire.http2.server import Http2Server
from wire.http2.tls import client_context, server_context
from wire.loop import LoopClock
from wire.metrics import Metrics
from wire.ports import Reply

TIMEOUT_S = 30.0

pytestmark = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="openssl, which makes the certificates, is not here"
)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, and certificates of a server and a client that it has signed."""
    folder = tmp_path_factory.mktemp("certificates")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl(*("req", "-x509", *new_key, "-subj", "/CN=authority", "-days", "2"),
            *("-keyout", "ca.key", "-out", "ca.pem"))  # fmt: skip
    (folder / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    for name in ("server", "client"):
        openssl(*("req", *new_key, "-subj", f"/CN={name}"),
                *("-keyout", f"{name}.key", "-out", f"{name}.csr"))  # fmt: skip
        openssl(*("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key"),
                *("-CAcreateserial", "-days", "2", "-extfile", "names"),
                *("-out", f"{name}.pem"))  # fmt: skip
    return folder


def play(tls: ssl.SSLContext, story: Callable[[str, LoopClock], Awaitable[None]]) -> None:
    async def run() -> None:
        clock = LoopClock(asyncio.get_running_loop())
        server = Http2Server(clock, Metrics(), tls=tls)
        server.register("/T/Echo", lambda request, reply: reply(Reply(request.payload)))
        address = server.bind("127.0.0.1:0")
        await server.start()
        try:
            await story(address, clock)
        finally:
            await server.stop(0)

    asyncio.run(run())


async def call(clock: LoopClock, address: str, tls: ssl.SSLContext | None, size: int = 10) -> Reply:
    transport = Http2Transport(clock, tls=tls)
    ended: asyncio.Future[Reply] = clock.loop.create_future()
    deadline = clock.now() + TIMEOUT_S
    transport.call(address, "/T/Echo", bytes(size), deadline, ended.set_result)
    try:
        return await ended
    finally:
        await transport.close()


def test_calls_go_over_tls(certificates: Path) -> None:
    tls = server_context(certificates / "server.pem", certificates / "server.key")

    async def story(address: str, clock: LoopClock) -> None:
        trusting = client_context(certificates / "ca.pem")
        assert (await call(clock, address, trusting, 3_000_000)).payload == bytes(3_000_000)
        # Who does not know the authority, or speaks plain text, sends nothing.
        for stranger in (client_context(), None):
            reply = await call(clock, address, stranger)
            assert reply.error is not None and not reply.sent
            assert reply.error.reason is Reason.NODE_UNREACHABLE

    play(tls, story)


def test_mutual_tls_lets_in_who_shows_a_certificate(certificates: Path) -> None:
    tls = server_context(
        certificates / "server.pem", certificates / "server.key", certificates / "ca.pem"
    )

    async def story(address: str, clock: LoopClock) -> None:
        known = client_context(
            certificates / "ca.pem", certificates / "client.pem", certificates / "client.key"
        )
        assert (await call(clock, address, known)).payload == bytes(10)
        reply = await call(clock, address, client_context(certificates / "ca.pem"))
        assert reply.error is not None and not reply.sent

    play(tls, story)


def test_grpcio_calls_over_tls(certificates: Path) -> None:
    tls = server_context(certificates / "server.pem", certificates / "server.key")

    async def story(address: str, clock: LoopClock) -> None:
        credentials = grpc.ssl_channel_credentials((certificates / "ca.pem").read_bytes())
        async with grpc.aio.secure_channel(address, credentials) as channel:
            assert await channel.unary_unary("/T/Echo")(b"over tls") == b"over tls"

    play(tls, story)


def test_a_client_that_does_not_agree_to_http2_is_not_served(certificates: Path) -> None:
    tls = server_context(certificates / "server.pem", certificates / "server.key")

    async def story(address: str, clock: LoopClock) -> None:
        context = ssl.create_default_context(cafile=str(certificates / "ca.pem"))
        host, _, port = address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port), ssl=context)
        assert await reader.read() == b""
        writer.close()

    play(tls, story)


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    (tmp_path / "bad.pem").write_text("no certificate")
    with pytest.raises(ValueError, match=r"bad\.pem"):
        server_context(tmp_path / "bad.pem", tmp_path / "bad.pem")
    with pytest.raises(ValueError, match=r"none\.pem"):
        client_context(tmp_path / "none.pem")


def test_our_client_calls_grpcio_over_tls(certificates: Path) -> None:
    async def run() -> None:
        clock = LoopClock(asyncio.get_running_loop())
        pem = [(certificates / f"server.{end}").read_bytes() for end in ("key", "pem")]
        server = grpc.aio.server()

        async def echo(request: bytes, _context: object) -> bytes:
            return request

        handlers = {"Echo": grpc.unary_unary_rpc_method_handler(echo)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("T", handlers),))
        port = server.add_secure_port(
            "127.0.0.1:0", grpc.ssl_server_credentials([(pem[0], pem[1])])
        )
        await server.start()
        trusting = client_context(certificates / "ca.pem")
        reply = await call(clock, f"127.0.0.1:{port}", trusting)
        assert reply.payload == bytes(10)
        await server.stop(0)

    asyncio.run(run())
