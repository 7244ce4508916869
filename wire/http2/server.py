"""`Http2Server`: what `wire.grpcio.GrpcServer` is, on this engine."""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
import ssl
from collections.abc import Sequence

import structlog

from keyplane.model.errors import KeyplaneError, Reason
from wire.addresses import check_listen, format_address, is_loopback, parse_address
from wire.http2.bridge import Bridge
from wire.http2.connection import Ticker
from wire.http2.expiry import Expiry
from wire.http2.frames import ErrorCode
from wire.http2.limits import HELD_BYTES_MAX, KEPT_ERRORS_MAX, LISTEN_BACKLOG, TICK_S
from wire.http2.metadata import RequestHeads, error_trailers
from wire.http2.server_connection import Method, ServerConnection
from wire.introspection import Introspection
from wire.loop import LoopClock
from wire.metrics import Metrics
from wire.ports import Handler, SealKeys

_log = structlog.get_logger("wire.http2")


class Http2Server:
    """The `Server` of a real process, with health, reflection and, on loopback, channelz.

    service_names: full names of what it serves, for health and reflection. Services of the package
    `keyplane.<area>.v1` are described by its module `<area>_pb2`.
    tls: see `wire.http2.tls`; None for plain text.
    tick_s: the beat of `wire.http2.limits.TICK_S`, shorter for tests of what takes long.
    """

    def __init__(
        self,
        clock: LoopClock,
        metrics: Metrics,
        service_names: Sequence[str] = (),
        tls: ssl.SSLContext | None = None,
        tick_s: float = TICK_S,
    ) -> None:
        self.clock = clock
        self.loop = clock.loop
        self.now = clock.now
        self.service_names = service_names
        self.methods: dict[str, Method] = {}
        self.heads = RequestHeads()
        self.requests = metrics.counter("rpc_requests", "Calls taken, by method.", "method")
        self.errors = metrics.counter("rpc_errors", "Calls answered with an error.", "reason")
        self.faults = metrics.counter(
            "http2_connection_faults", "Connections closed for what the peer did.", "code"
        )
        # Errors that are told again and again, as trailers, and the one told last.
        self._kept_trailers: dict[KeyplaneError, bytes] = {}
        self._told: KeyplaneError | None = None
        self.connections: set[ServerConnection] = set()
        self.expiry = Expiry(self.loop, self._end_due)
        self.in_flight = 0
        self.stopping = False
        self.bridge: Bridge | None = None
        self.seal_keys: SealKeys | None = None
        self._introspection = Introspection(service_names)
        self._tls = tls
        self._ticker = Ticker(self.loop, tick_s, self._tick)
        self._socket: socket.socket | None = None
        self._listener: asyncio.Server | None = None
        self._idle: asyncio.Future[None] | None = None
        metrics.gauge("rpc_in_flight", "Calls not answered yet.", lambda: self.in_flight)
        metrics.gauge(
            "http2_connections", "Open connections to this server.", lambda: len(self.connections)
        )
        metrics.gauge(
            "http2_sealed_connections",
            "Open connections that their clients have sealed.",
            lambda: sum(each.sealed_by is not None for each in self.connections),
        )

    def trailers_of(self, error: KeyplaneError) -> bytes:
        """A refusal that is made once and told to many is encoded once, too."""
        kept = self._kept_trailers.get(error)
        if kept is None:
            kept = error_trailers(error)
            if error is self._told:
                if len(self._kept_trailers) >= KEPT_ERRORS_MAX:
                    self._kept_trailers.clear()
                self._kept_trailers[error] = kept
            self._told = error
        return kept

    def register(self, method: str, handler: Handler) -> None:
        self.methods[method] = Method(method, handler, self.requests.series(method))

    def take_seals(self, keys: SealKeys) -> None:
        self.seal_keys = keys

    def bind(self, address: str) -> str:
        """Takes the address, and returns it with the port that was chosen where it says 0.

        Raises OSError with a message for people, ValueError if it is no address.
        """
        host, port = parse_address(address)
        check_listen(address)
        try:
            family, kind, proto, _, place = socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            listener = socket.socket(family, kind, proto)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(place)
            listener.listen(LISTEN_BACKLOG)
        except OSError as error:
            raise OSError(error.errno, f"cannot listen on {address}: {error.strerror}") from error
        listener.setblocking(False)
        self._socket = listener
        self.bridge = Bridge(self._introspection, is_loopback(host))
        return format_address(host, listener.getsockname()[1])

    async def start(self) -> None:
        """Takes calls. Health is NOT_SERVING until `set_serving(True)`."""
        assert self._socket is not None and self.bridge is not None, "bind first"
        await self.bridge.start()
        self._listener = await self.loop.create_server(
            lambda: ServerConnection(self),
            sock=self._socket,
            backlog=LISTEN_BACKLOG,
            ssl=self._tls,
        )

    async def set_serving(self, serving: bool) -> None:
        await self._introspection.set_serving(serving)

    async def stop(self, grace_s: float) -> None:
        """Refuses new calls, and ends those still under way after `grace_s`."""
        assert self._socket is not None, "bind first"
        self.stopping = True
        end = self.now() + grace_s
        if self._listener is not None:
            self._listener.close()
        self._socket.close()
        for connection in list(self.connections):
            connection.drain()
        if self.in_flight and grace_s > 0:
            self._idle = self.loop.create_future()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._idle, grace_s)
        while any(each.sending.blocked for each in self.connections) and self.now() < end:
            # Answers that still wait for windows.
            await asyncio.sleep(0.01)
        if self.bridge is not None:
            await self.bridge.stop()
        for connection in list(self.connections):
            connection.shut(ErrorCode.NO_ERROR, "the server stops")
        # A turn for the sockets to take what was written.
        await asyncio.sleep(0)
        self._ticker.stop()
        self.expiry.stop()

    # --- For its connections ---------------------------------------------------------------------

    def opened(self, connection: ServerConnection) -> None:
        self.connections.add(connection)
        self._ticker.start()

    def closed(self, connection: ServerConnection) -> None:
        self.connections.discard(connection)

    def call_ended(self) -> None:
        self.in_flight -= 1
        if self._idle is not None and not self.in_flight and not self._idle.done():
            self._idle.set_result(None)

    def handler_broke(self, method: str) -> None:
        _log.exception("a handler failed", method=method)

    def faulted(self, code: ErrorCode, message: str, peer: str) -> None:
        self.faults.inc(code.name)
        _log.warning("closed a connection", peer=peer, code=code.name, why=message)

    # --- Time ------------------------------------------------------------------------------------

    def _end_due(self, now: float) -> float:
        """Answers calls whose deadline has passed, whatever their handlers still do."""
        earliest = math.inf
        for connection in self.connections:
            for call in list(connection.calls.values()):
                if call.deadline <= now:
                    late = KeyplaneError(Reason.DEADLINE_EXCEEDED, "the deadline passed here")
                    call.fail(late)
                elif call.deadline < earliest:
                    earliest = call.deadline
        return earliest

    def _tick(self) -> bool:
        held = 0
        for connection in list(self.connections):
            connection.tick()
            held += connection.held()
        if held > HELD_BYTES_MAX:
            worst = max(self.connections, key=ServerConnection.held)
            worst.abort("all connections together hold too much, and this one most")
        return bool(self.connections)
