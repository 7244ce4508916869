"""Calls between processes over grpcio: `GrpcTransport` makes them, `GrpcServer` takes them.

Both move bytes: messages are encoded and decoded by whoever owns them. A failed call carries
`google.rpc.Status` in its `grpc-status-details-bin` trailer, as every gRPC tool expects.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, NoReturn, TypeAlias

import grpc
import grpc.aio
import structlog
from google.protobuf.message import Message

from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.grpc_failures import DETAILS_KEY
from keyplane.model.signature import HEADER, Signer
from keyplane.route.v1 import route_pb2 as route
from wire.addresses import check_listen, format_address, is_loopback, parse_address
from wire.introspection import Introspection
from wire.loop import LoopClock
from wire.metrics import Metrics
from wire.ports import Handler, Reply, ReplyFn, Request, SealKeys
from wire.rpc import (
    CALLS_MAX,
    CHANNELS_MAX,
    KEEPALIVE_S,
    KEEPALIVE_TIMEOUT_S,
    MESSAGE_BYTES_MAX,
    METADATA_BYTES_MAX,
    RECONNECT_S_MAX,
    RECONNECT_S_MIN,
    SERVER_CALLS_MAX,
    broken_handler,
    failed_reply,
    unknown_method,
    wire_status,
)

_Rpc: TypeAlias = "grpc.aio.UnaryUnaryCall[bytes, bytes]"
_Method: TypeAlias = "grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]"
_Context: TypeAlias = "grpc.aio.ServicerContext[bytes, bytes]"
_MethodHandler: TypeAlias = "grpc.RpcMethodHandler[bytes, bytes]"

_log = structlog.get_logger("wire.grpcio")

_SHARED_OPTIONS = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_metadata_size", METADATA_BYTES_MAX),
    ("grpc.absolute_max_metadata_size", METADATA_BYTES_MAX),
    ("grpc.keepalive_time_ms", KEEPALIVE_S * 1000),
    ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_S * 1000),
)

_CHANNEL_OPTIONS = (
    *_SHARED_OPTIONS,
    ("grpc.initial_reconnect_backoff_ms", int(RECONNECT_S_MIN * 1000)),
    ("grpc.min_reconnect_backoff_ms", int(RECONNECT_S_MAX * 1000)),
    ("grpc.max_reconnect_backoff_ms", int(RECONNECT_S_MAX * 1000)),
    # Addresses are where to connect: no proxy from the environment, no configuration by DNS.
    ("grpc.enable_http_proxy", 0),
    ("grpc.service_config_disable_resolution", 1),
)

_SERVER_OPTIONS = (
    *_SHARED_OPTIONS,
    # Two servers on one port would each get a part of the calls.
    ("grpc.so_reuseport", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.max_ping_strikes", 0),
)

_STATUS_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


class _GrpcCall:
    __slots__ = ("_rpc",)

    def __init__(self, rpc: _Rpc | None) -> None:
        self._rpc = rpc

    def cancel(self) -> None:
        if self._rpc is not None:
            self._rpc.cancel()


@dataclass(slots=True, eq=False)
class _Peer:
    """The one channel to an address, and its callables by method."""

    channel: grpc.aio.Channel
    methods: dict[str, _Method] = field(default_factory=dict)
    in_flight: int = 0

    def method(self, name: str) -> _Method:
        found = self.methods.get(name)
        if found is None:
            found = self.methods[name] = self.channel.unary_unary(name)
        return found


class GrpcTransport:
    """The `Transport` of a real process: one multiplexed HTTP/2 connection per address.

    detail_types: typed error details to unpack from failed calls.
    channels_max: connections kept open; see CHANNELS_MAX.
    signer: signs every call.
    """

    def __init__(
        self,
        clock: LoopClock,
        detail_types: tuple[type[Message], ...] = (route.RouteHint,),
        channels_max: int = CHANNELS_MAX,
        signer: Signer | None = None,
    ) -> None:
        self._signer = signer
        self._clock = clock
        self._detail_types = detail_types
        self._channels_max = channels_max
        # In order of last use, oldest first.
        self._peers: dict[str, _Peer] = {}
        # Held here because the event loop alone does not keep tasks alive.
        self._calls: set[asyncio.Task[None]] = set()
        self._closing: set[asyncio.Task[None]] = set()
        self._closed = False

    def call(
        self,
        address: str,
        method: str,
        payload: bytes,
        deadline: float,
        on_reply: ReplyFn,
        metadata: Sequence[tuple[str, str]] = (),
    ) -> _GrpcCall:
        timeout_s = deadline - self._clock.now()
        if timeout_s <= 0:
            return self._refuse(
                on_reply, Reason.DEADLINE_EXCEEDED, f"no time is left to call {method}"
            )
        peer = None if self._closed or len(self._calls) >= CALLS_MAX else self._peer(address)
        if peer is None:
            if self._closed:
                return self._refuse(on_reply, Reason.SHUTTING_DOWN, "this process is stopping")
            return self._refuse(
                on_reply, Reason.OVERLOADED, "too many calls to other processes are under way"
            )
        if self._signer is not None:
            metadata = (*metadata, (HEADER, self._signer.value(method, payload)))
        rpc = peer.method(method)(
            payload,
            timeout=None if timeout_s == math.inf else timeout_s,
            metadata=tuple(metadata) or None,
        )
        peer.in_flight += 1
        task = self._clock.loop.create_task(self._finish(rpc, peer, address, on_reply))
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)
        return _GrpcCall(rpc)

    async def close(self) -> None:
        """Ends every call under way, and every connection."""
        self._closed = True
        for peer in self._peers.values():
            self._close(peer)
        self._peers.clear()
        if tasks := self._closing | self._calls:
            await asyncio.wait(tasks)

    async def _finish(self, rpc: _Rpc, peer: _Peer, address: str, on_reply: ReplyFn) -> None:
        try:
            reply = Reply(await rpc)
        except grpc.aio.AioRpcError as error:
            reply = self._failure(address, error)
        except asyncio.CancelledError:
            reply = Reply(error=KeyplaneError(Reason.CANCELLED, "the caller gave up"))
        peer.in_flight -= 1
        on_reply(reply)

    def _failure(self, address: str, error: grpc.aio.AioRpcError) -> Reply:
        text = error.details() or ""
        trailers = error.trailing_metadata()
        details = trailers.get(DETAILS_KEY) if trailers is not None else None
        if not isinstance(details, bytes):
            details = b""
        return failed_reply(address, error.code().value[0], text, details, self._detail_types)

    def _refuse(self, on_reply: ReplyFn, reason: Reason, message: str) -> _GrpcCall:
        reply = Reply(error=KeyplaneError(reason, message), sent=False)
        self._clock.call_soon(lambda: on_reply(reply))
        return _GrpcCall(None)

    def _peer(self, address: str) -> _Peer | None:
        """The channel to an address; None if there are too many, all of them in use."""
        peer = self._peers.pop(address, None)
        if peer is None:
            if len(self._peers) >= self._channels_max and not self._evict():
                return None
            peer = _Peer(grpc.aio.insecure_channel(address, options=_CHANNEL_OPTIONS))
        self._peers[address] = peer
        return peer

    def _evict(self) -> bool:
        for address, peer in self._peers.items():
            if not peer.in_flight:
                del self._peers[address]
                self._close(peer)
                return True
        return False

    def _close(self, peer: _Peer) -> None:
        task = self._clock.loop.create_task(peer.channel.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


class GrpcServer:
    """The `Server` of a real process, with health, reflection and, on loopback, channelz.

    service_names: full names of what it serves, for health and reflection. Services of the package
    `keyplane.<area>.v1` are described by its module `<area>_pb2`.
    """

    def __init__(
        self, clock: LoopClock, metrics: Metrics, service_names: Sequence[str] = ()
    ) -> None:
        self._clock = clock
        self._service_names = service_names
        self._methods: dict[str, _MethodHandler] = {}
        self._requests = metrics.counter("rpc_requests", "Calls taken, by method.", "method")
        self._errors = metrics.counter("rpc_errors", "Calls answered with an error.", "reason")
        self._introspection = Introspection(service_names)
        self._grpc: grpc.aio.Server | None = None
        self.in_flight = 0
        metrics.gauge("rpc_in_flight", "Calls not answered yet.", lambda: self.in_flight)

    def register(self, method: str, handler: Handler) -> None:
        async def serve(payload: bytes, context: _Context) -> bytes:
            return await self._serve(method, handler, payload, context)

        self._methods[method] = grpc.unary_unary_rpc_method_handler(serve)

    def take_seals(self, keys: SealKeys) -> None:
        """gRPC's own library has no frames to seal with."""

    def bind(self, address: str) -> str:
        """Takes the address, and returns it with the port that was chosen where it says 0.

        Raises OSError with a message for people, ValueError if it is no address.
        """
        host, _ = parse_address(address)
        check_listen(address)
        loopback = is_loopback(host)
        server = self._grpc = grpc.aio.server(
            options=(*_SERVER_OPTIONS, ("grpc.enable_channelz", int(loopback))),
            maximum_concurrent_rpcs=SERVER_CALLS_MAX,
        )
        try:
            port = server.add_insecure_port(address)
        except RuntimeError as error:
            raise OSError(f"cannot listen on {address}: {error}") from error
        self._introspection.add_to(server, loopback)
        # Last, because it takes every method that nobody else does.
        server.add_generic_rpc_handlers((_Methods(self._methods, self._unknown),))
        return format_address(host, port)

    async def start(self) -> None:
        """Takes calls. Health is NOT_SERVING until `set_serving(True)`."""
        assert self._grpc is not None, "bind first"
        await self._introspection.announce()
        await self._grpc.start()

    async def set_serving(self, serving: bool) -> None:
        await self._introspection.set_serving(serving)

    async def stop(self, grace_s: float) -> None:
        """Refuses new calls, and ends those still under way after `grace_s`."""
        assert self._grpc is not None, "bind first"
        await self._grpc.stop(grace_s)

    async def _serve(
        self, method: str, handler: Handler, payload: bytes, context: _Context
    ) -> bytes:
        self._requests.inc(method)
        answered: asyncio.Future[Reply] = self._clock.loop.create_future()

        def reply(answer: Reply) -> None:
            # The caller may be gone, and the future cancelled with it.
            if not answered.done():
                answered.set_result(answer)

        remaining_s = context.time_remaining()
        if remaining_s is not None and remaining_s <= 0:
            late = KeyplaneError(
                Reason.DEADLINE_BEFORE_START, "the deadline passed on the way here"
            )
            return await self._fail(context, late)
        deadline = math.inf if remaining_s is None else self._clock.now() + remaining_s
        metadata = {
            key: text for key, text in context.invocation_metadata() or () if isinstance(text, str)
        }
        self.in_flight += 1
        try:
            handler(Request(method, payload, deadline, context.peer(), metadata), reply)
            answer = await answered
        except KeyplaneError as error:
            answer = Reply(error=error)
        except Exception:  # noqa: BLE001 - a bug in one handler must not take the server down
            _log.exception("a handler failed", method=method)
            answer = Reply(error=broken_handler(method))
        finally:
            self.in_flight -= 1
        if answer.error is not None:
            return await self._fail(context, answer.error)
        return answer.payload

    async def _unknown(self, _payload: bytes, context: _Context) -> bytes:
        return await self._fail(context, unknown_method(", ".join(self._service_names)))

    async def _fail(self, context: _Context, error: KeyplaneError) -> NoReturn:
        self._errors.inc(error.reason.name)
        sent_as = error.sent_as
        if not isinstance(sent_as, _SentAs):
            status = wire_status(error)
            trailers = ((DETAILS_KEY, status.SerializeToString()),)
            sent_as = _SentAs(_STATUS_CODES[status.code], status.message, trailers)
            error.sent_as = sent_as
        await context.abort(sent_as.code, sent_as.message, sent_as.trailers)


class _SentAs(NamedTuple):
    """A `KeyplaneError` as this transport sends it."""

    code: grpc.StatusCode
    message: str
    trailers: tuple[tuple[str, bytes], ...]


class _Methods(grpc.GenericRpcHandler):
    def __init__(
        self,
        methods: dict[str, _MethodHandler],
        unknown: Callable[[bytes, _Context], Awaitable[bytes]],
    ) -> None:
        self._methods = methods
        self._unknown: _MethodHandler = grpc.unary_unary_rpc_method_handler(unknown)

    def service(self, details: grpc.HandlerCallDetails) -> _MethodHandler:
        return self._methods.get(details.method, self._unknown)
