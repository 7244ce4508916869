"""Health, reflection and channelz on the engine's port, served by grpcio behind it.

They stream, they are rarely called, and grpcio's are the ones every tool is tested against. So
calls of their methods are handed, message by message, to a grpcio server of this process on a Unix
socket. Its name is abstract, so that a process that is killed leaves no file behind; whoever finds
it is served what the engine's port serves everybody.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import secrets
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, TypeAlias

import grpc
import grpc.aio

from keyplane.model.errors import KeyplaneError, Reason
from wire.http2 import frames as h2
from wire.http2.blocks import literal
from wire.http2.inbound import Inbound, TooLarge
from wire.http2.limits import (
    BRIDGED_BYTES_MAX,
    BRIDGED_MESSAGES_MAX,
    BRIDGED_STREAMS_MAX,
)
from wire.http2.metadata import (
    RESPONSE_BLOCK,
    TRAILERS_OK,
    RequestHead,
    from_base64,
    to_base64,
    trailers,
)
from wire.introspection import Introspection

if TYPE_CHECKING:
    from wire.http2.server_connection import ServerConnection

_Method: TypeAlias = "grpc.aio.StreamStreamMultiCallable[bytes, bytes]"


class Bridge:
    """The grpcio server behind an `Http2Server`, and the streams that lead to it."""

    def __init__(self, introspection: Introspection, loopback: bool) -> None:
        self._introspection = introspection
        self._loopback = loopback
        self._services = frozenset(introspection.names(loopback))
        self._server: grpc.aio.Server | None = None
        self.channel: grpc.aio.Channel | None = None
        self.streams: set[BridgedStream] = set()

    def serves(self, method: str) -> bool:
        _, _, rest = method.partition("/")
        return rest.partition("/")[0] in self._services

    async def start(self) -> None:
        name = f"unix-abstract:keyplane-{secrets.token_hex(16)}"
        server = self._server = grpc.aio.server(
            options=(("grpc.enable_channelz", int(self._loopback)),)
        )
        self._introspection.add_to(server, self._loopback)
        server.add_insecure_port(name)
        await self._introspection.announce()
        await server.start()
        self.channel = grpc.aio.insecure_channel(name, options=(("grpc.enable_http_proxy", 0),))

    async def stop(self) -> None:
        if self._server is None:
            return
        tasks = [stream.task for stream in self.streams]
        for stream in list(self.streams):
            stream.cancel()
        if tasks:
            await asyncio.wait(tasks)
        if self.channel is not None:
            await self.channel.close()
        await self._server.stop(0)
        self._server = None

    def open(
        self, connection: ServerConnection, stream: int, head: RequestHead
    ) -> BridgedStream | None:
        """None if too many are open."""
        if len(self.streams) >= BRIDGED_STREAMS_MAX or self.channel is None:
            return None
        return BridgedStream(self, self.channel, connection, stream, head)


class BridgedStream:
    """One call of a client, and the call behind it."""

    def __init__(
        self,
        bridge: Bridge,
        channel: grpc.aio.Channel,
        connection: ServerConnection,
        stream: int,
        head: RequestHead,
    ) -> None:
        self._bridge = bridge
        self._channel = channel
        self._connection = connection
        self._stream = stream
        self._head = head
        # Messages of the client; None ends them.
        self._messages: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._begun = False
        bridge.streams.add(self)
        connection.bridged[stream] = self
        self.task = connection.loop.create_task(self._run())

    def take(self, inbound: Inbound, end_stream: bool) -> None:
        """More of the client's messages has come."""
        try:
            while (popped := inbound.pop_message()) is not None:
                compressed, message = popped
                if compressed:
                    self._refuse(Reason.UNKNOWN_METHOD, "the message is compressed; send it plain")
                    return
                if self._messages.qsize() >= BRIDGED_MESSAGES_MAX:
                    self._refuse(Reason.OVERLOADED, "too many messages before their answers")
                    return
                self._messages.put_nowait(message)
                self._connection.receiving.settle(inbound, self._stream, len(message) + 5)
        except TooLarge as error:
            self._refuse(Reason.INVALID_ARGUMENT, str(error))
            return
        self._connection.receiving.settle(inbound, self._stream, 0)
        if end_stream:
            self._connection.receiving.drop(self._stream)
            self._messages.put_nowait(None)

    def cancel(self) -> None:
        self.task.cancel()

    def _refuse(self, reason: Reason, message: str) -> None:
        self.cancel()
        self._close()
        self._connection.refuse(self._stream, KeyplaneError(reason, message), False)

    async def _requests(self) -> AsyncIterator[bytes]:
        while (message := await self._messages.get()) is not None:
            yield message

    async def _run(self) -> None:
        head = self._head
        metadata = tuple(
            (
                name.decode(),
                from_base64(value) if name.endswith(b"-bin") else value.decode("latin-1"),
            )
            for name, value in head.user_fields()
        )
        timeout = None if head.timeout_s == math.inf else head.timeout_s
        method: _Method = self._channel.stream_stream(head.method)
        call = method(self._requests(), timeout=timeout, metadata=metadata)
        try:
            async for message in call:
                self._send(message)
            code, text = await call.code(), await call.details() or ""
            trailing = await call.trailing_metadata()
        except grpc.aio.AioRpcError as error:
            code, text = error.code(), error.details() or ""
            trailing = error.trailing_metadata()
        except asyncio.CancelledError:
            # The client has reset the stream, or this process stops.
            call.cancel()
            with contextlib.suppress(KeyError):
                del self._connection.bridged[self._stream]
                self._connection.end_stream(self._stream, trailers(1, "the server stops"))
            raise
        finally:
            self._bridge.streams.discard(self)
        if self._close():
            number: int = code.value[0]
            self._end(number, text, trailing)

    def _close(self) -> bool:
        """Whether the client's stream was still open."""
        return self._connection.bridged.pop(self._stream, None) is not None

    def _send(self, message: bytes) -> None:
        connection, stream = self._connection, self._stream
        if stream not in connection.bridged:
            return
        sending = connection.sending
        waiting = sending.blocked.get(stream)
        if waiting is not None and len(waiting.data) - waiting.at > BRIDGED_BYTES_MAX:
            self._refuse(Reason.OVERLOADED, "the answers are not read")
            return
        if not self._begun:
            self._begun = True
            block = sending.lead(RESPONSE_BLOCK)
            connection.out.write(h2.frame(h2.HEADERS, h2.END_HEADERS, stream, block))
        sending.queue(stream, h2.MESSAGE_HEAD.pack(0, len(message)) + message)
        connection.schedule_flush()

    def _end(self, code: int, text: str, trailing: grpc.aio.Metadata | None) -> None:
        block = TRAILERS_OK if not code else trailers(code, text)
        for name, value in trailing or ():
            raw = to_base64(value) if isinstance(value, bytes) else value.encode("latin-1")
            block += literal(name.encode(), raw)
        connection, stream = self._connection, self._stream
        connection.receiving.drop(stream)
        if not self._begun:
            connection.end_stream(stream, block)
            return
        tail = h2.headers_frames(stream, block, h2.END_STREAM, connection.sending.frame_bytes)
        connection.sending.queue(stream, b"", tail)
        connection.schedule_flush()
