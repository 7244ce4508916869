"""The gRPC engines by name, for the benchmarks that compare them."""

from __future__ import annotations

from typing import Protocol

from wire.grpcio import GrpcServer, GrpcTransport
from wire.http2.client import Http2Transport
from wire.http2.server import Http2Server
from wire.loop import LoopClock
from wire.metrics import Metrics
from wire.ports import Server, Transport

HTTP2 = "http2"
GRPCIO = "grpcio"

TRANSPORTS = (HTTP2, GRPCIO)


class OwnTransport(Transport, Protocol):
    async def close(self) -> None: ...


class OwnServer(Server, Protocol):
    def bind(self, address: str) -> str: ...

    async def start(self) -> None: ...

    async def stop(self, grace_s: float) -> None: ...


def transport_named(name: str, clock: LoopClock) -> OwnTransport:
    """Raises ValueError for a name that is none."""
    check_name(name)
    return GrpcTransport(clock) if name == GRPCIO else Http2Transport(clock)


def server_named(name: str, clock: LoopClock, metrics: Metrics) -> OwnServer:
    """Raises ValueError for a name that is none."""
    check_name(name)
    return GrpcServer(clock, metrics) if name == GRPCIO else Http2Server(clock, metrics)


def check_name(name: str) -> None:
    if name not in TRANSPORTS:
        raise ValueError(f"there is no transport {name!r}; there are: {', '.join(TRANSPORTS)}")
