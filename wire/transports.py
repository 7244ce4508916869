"""The live transports: the engine of `wire.http2`, and grpcio. On the wire they are one."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Protocol

from keyplane.model.signature import Signer
from wire.grpcio import GrpcServer, GrpcTransport
from wire.http2.client import Http2Transport
from wire.http2.server import Http2Server
from wire.loop import LoopClock
from wire.metrics import Metrics
from wire.ports import Server, Transport


class TransportKind(enum.StrEnum):
    HTTP2 = "http2"
    GRPCIO = "grpcio"


class LiveServer(Server, Protocol):
    """A `Server` that listens."""

    def bind(self, address: str) -> str:
        """Takes the address, and returns it with the port that was chosen where it says 0.

        Raises OSError with a message for people, ValueError if it is no address.
        """

    async def start(self) -> None:
        """Takes calls. Health is NOT_SERVING until `set_serving(True)`."""

    async def set_serving(self, serving: bool) -> None: ...

    async def stop(self, grace_s: float) -> None:
        """Refuses new calls, and ends those still under way after `grace_s`."""


class LiveTransport(Transport, Protocol):
    """A `Transport` with connections."""

    async def close(self) -> None:
        """Ends every call under way, and every connection."""


def make_server(
    kind: TransportKind, clock: LoopClock, metrics: Metrics, service_names: Sequence[str]
) -> LiveServer:
    """service_names: full names of what it serves, for health and reflection."""
    if kind is TransportKind.GRPCIO:
        return GrpcServer(clock, metrics, service_names)
    return Http2Server(clock, metrics, service_names)


def make_transport(
    kind: TransportKind, clock: LoopClock, signer: Signer | None = None
) -> LiveTransport:
    """signer: of all calls, whether each is signed or connections are sealed."""
    if kind is TransportKind.GRPCIO:
        return GrpcTransport(clock, signer=signer)
    return Http2Transport(clock, signer=signer)
