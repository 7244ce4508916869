"""The gRPC engines by name, for the benchmarks that compare them."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any, Protocol, cast

from wire.grpcio import GrpcServer, GrpcTransport
from wire.loop import LoopClock
from wire.metrics import Metrics
from wire.ports import Server, Transport

GRPCIO = "grpcio"
HTTP2 = "http2"


class OwnTransport(Transport, Protocol):
    async def close(self) -> None: ...


class OwnServer(Server, Protocol):
    def bind(self, address: str) -> str: ...

    async def start(self) -> None: ...

    async def stop(self, grace_s: float) -> None: ...


def has_http2() -> bool:
    """Whether this version has an engine of its own."""
    return importlib.util.find_spec("wire.http2") is not None


def default_transport() -> str:
    return HTTP2 if has_http2() else GRPCIO


def transport_named(name: str, clock: LoopClock) -> OwnTransport:
    """Raises ValueError for a name that is none."""
    if name == GRPCIO:
        return GrpcTransport(clock)
    return cast(OwnTransport, _http2("client", "Http2Transport", name)(clock))


def server_named(name: str, clock: LoopClock, metrics: Metrics) -> OwnServer:
    """Raises ValueError for a name that is none."""
    if name == GRPCIO:
        return GrpcServer(clock, metrics)
    return cast(OwnServer, _http2("server", "Http2Server", name)(clock, metrics))


def _http2(module: str, kind: str, name: str) -> Any:
    if name != HTTP2 or not has_http2():
        names = f"{GRPCIO}, {HTTP2}" if has_http2() else GRPCIO
        raise ValueError(f"there is no transport {name!r}; there are: {names}")
    return getattr(importlib.import_module(f"wire.http2.{module}"), kind)
