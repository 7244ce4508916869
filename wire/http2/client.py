"""`Http2Transport`: what `wire.grpcio.GrpcTransport` is, on this engine."""

from __future__ import annotations

import asyncio
import math
import random
import ssl
from collections import deque
from collections.abc import Sequence

from google.protobuf.message import Message

from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.signature import Signer
from keyplane.route.v1 import route_pb2 as route
from wire.addresses import parse_address
from wire.http2.blocks import TwoGenerations, block_cache
from wire.http2.client_connection import ClientCall, ClientConnection
from wire.http2.connection import Ticker
from wire.http2.expiry import Expiry
from wire.http2.frames import ErrorCode
from wire.http2.limits import CONNECT_S_MAX, HELD_BYTES_MAX, TICK_S
from wire.http2.metadata import ResponseHead, Timeouts, metadata_block, request_block
from wire.loop import LoopClock
from wire.ports import Reply, ReplyFn
from wire.rpc import (
    CALLS_MAX,
    CHANNELS_MAX,
    MESSAGE_BYTES_MAX,
    RECONNECT_S_MAX,
    RECONNECT_S_MIN,
    failed_reply,
)

# A failure to connect that is younger than this ends calls at once, also while the next attempt is
# under way: a caller with other servers to turn to must not wait for one that is down.
FAILURE_FRESH_S = 2 * RECONNECT_S_MAX

# Methods called at one address whose first fields are kept.
_METHODS_MAX = 256


class _Peer:
    """The way to one address: a connection, an attempt to get one, or a wait until the next.

    connection: the one that new calls use.
    waiting: calls that have no connection yet, or no room on it; nothing of them was sent.
    """

    def __init__(self, transport: Http2Transport, address: str) -> None:
        self.transport = transport
        self.address = address
        self.connection: ClientConnection | None = None
        self.waiting: deque[ClientCall] = deque()
        self.used_at = 0.0
        self._blocks: dict[str, bytes] = {}
        self._attempt: asyncio.Task[None] | None = None
        self._failed_at = -math.inf
        self._next_at = -math.inf
        self._failure = ""
        self._backoff_s = RECONNECT_S_MIN

    def block(self, method: str) -> bytes:
        found = self._blocks.get(method)
        if found is None:
            if len(self._blocks) >= _METHODS_MAX:
                self._blocks.clear()
            scheme = "http" if self.transport.tls is None else "https"
            found = self._blocks[method] = request_block(method, self.address, scheme)
        return found

    def take(self, call: ClientCall, now: float) -> None:
        """A call without a connection that has room."""
        if self.connection is None:
            fresh = now - self._failed_at < FAILURE_FRESH_S
            if self._attempt is None and now >= self._next_at:
                self._attempt = self.transport.loop.create_task(self._connect())
            if fresh:
                self._refuse(call)
                return
        self.waiting.append(call)

    def _refuse(self, call: ClientCall) -> None:
        reply = self._unreachable()
        self.transport.loop.call_soon(call.end, reply)

    def _unreachable(self) -> Reply:
        text = f"{self.address}: failed to connect: {self._failure}"
        return Reply(error=KeyplaneError(Reason.NODE_UNREACHABLE, text), sent=False)

    async def _connect(self) -> None:
        transport = self.transport
        host, port = "", 0
        try:
            host, port = parse_address(self.address)
            async with asyncio.timeout(CONNECT_S_MAX):
                await transport.loop.create_connection(
                    lambda: ClientConnection(self, transport.known),
                    host,
                    port,
                    ssl=transport.tls,
                )
        except TimeoutError:
            self._failed(f"no answer within {CONNECT_S_MAX} s")
        except (OSError, ValueError, ssl.SSLError) as error:
            self._failed(str(error))

    def connected(self, connection: ClientConnection) -> None:
        if self.connection is None:
            self._attempt = None
            self._failed_at = -math.inf
            self._backoff_s = RECONNECT_S_MIN
            self.connection = connection
        self.pump()

    def _failed(self, why: str) -> None:
        now = self.transport.now()
        self._attempt = None
        self._failure = why
        self._failed_at = now
        # Spread, so that the clients of a restarted server do not come all at once.
        self._next_at = now + self._backoff_s * random.uniform(0.8, 1.2)
        self._backoff_s = min(RECONNECT_S_MAX, self._backoff_s * 1.6)
        reply = self._unreachable()
        while self.waiting:
            self.waiting.popleft().end(reply)

    def lost(self, connection: ClientConnection, why: str) -> None:
        if connection is self.connection:
            self.connection = None
            self._reconnect_for_waiting()
        elif not connection.ready and self._attempt is not None:
            self._failed(why)

    def leaving(self, connection: ClientConnection) -> None:
        """It takes no more calls; those on it go on."""
        if connection is self.connection:
            self.connection = None
            self._reconnect_for_waiting()

    def again(self, call: ClientCall) -> None:
        """A call that the server has certainly not processed."""
        call.connection = None
        if call.retried or self.transport.is_closed:
            text = f"{self.address}: the server takes no new calls"
            error = KeyplaneError(Reason.NODE_UNREACHABLE, text)
            call.end(Reply(error=error, sent=False))
            return
        call.retried = True
        self.take(call, self.transport.now())
        self.pump()

    def _reconnect_for_waiting(self) -> None:
        waiting, self.waiting = self.waiting, deque()
        now = self.transport.now()
        for call in waiting:
            self.take(call, now)

    def pump(self) -> None:
        """Sends what waits, as far as there is a connection and room on it."""
        while self.waiting and (connection := self.connection) is not None:
            if not connection.has_room():
                return
            call = self.waiting.popleft()
            if call.on_reply is not None:
                timeout_s = call.deadline - self.transport.now()
                if timeout_s > 0:
                    connection.send(call, timeout_s)
                else:
                    call.give_up(expired(call))

    def is_idle(self) -> bool:
        return not self.waiting and (self.connection is None or not self.connection.calls)

    def close(self) -> None:
        if self._attempt is not None:
            self._attempt.cancel()


class Http2Transport:
    """The `Transport` of a real process: one multiplexed HTTP/2 connection per address.

    detail_types: typed error details to unpack from failed calls.
    channels_max: connections kept open; see CHANNELS_MAX.
    tls: see `wire.http2.tls`; None for plain text.
    tick_s: the beat of `wire.http2.limits.TICK_S`, shorter for tests of what takes long.
    signer: signs every call, or seals connections to servers that take that (`wire.http2.seal`).
    """

    def __init__(
        self,
        clock: LoopClock,
        detail_types: tuple[type[Message], ...] = (route.RouteHint,),
        channels_max: int = CHANNELS_MAX,
        tls: ssl.SSLContext | None = None,
        tick_s: float = TICK_S,
        signer: Signer | None = None,
    ) -> None:
        self.loop = clock.loop
        self.now = clock.now
        self.tls = tls
        self.signer = signer
        self.known: TwoGenerations[ResponseHead] = block_cache()
        self.timeouts = Timeouts()
        self.in_flight = 0
        self.is_closed = False
        self._detail_types = detail_types
        self._channels_max = channels_max
        self._peers: dict[str, _Peer] = {}
        self._connections: set[ClientConnection] = set()
        self._expiry = Expiry(self.loop, self._end_due)
        self._ticker = Ticker(self.loop, tick_s, self._tick)

    def call(
        self,
        address: str,
        method: str,
        payload: bytes,
        deadline: float,
        on_reply: ReplyFn,
        metadata: Sequence[tuple[str, str | bytes]] = (),
    ) -> ClientCall:
        now = self.now()
        timeout_s = deadline - now
        peer = self._peers.get(address)
        if (
            peer is None
            or timeout_s <= 0
            or self.in_flight >= CALLS_MAX
            or len(payload) > MESSAGE_BYTES_MAX
        ):
            refusal = self._refusal(address, method, payload, timeout_s)
            if refusal is not None:
                return self._refuse(address, method, on_reply, refusal)
            peer = self._peers[address]
        fields = b""
        if metadata:
            try:
                fields = metadata_block(metadata)
            except KeyplaneError as error:
                return self._refuse(address, method, on_reply, error)
        call = ClientCall(self, address, method, payload, deadline, on_reply, fields)
        self.in_flight += 1
        peer.used_at = now
        if deadline < self._expiry.next_at:
            self._expiry.watch(deadline)
        connection = peer.connection
        if connection is None or peer.waiting or not connection.has_room():
            peer.take(call, now)
        else:
            connection.send(call, timeout_s)
        return call

    async def close(self) -> None:
        """Ends every call under way, and every connection."""
        self.is_closed = True
        stopped = KeyplaneError(Reason.CANCELLED, "this process is stopping")
        for call in self._calls():
            call.give_up(stopped)
        for peer in self._peers.values():
            peer.close()
        self._peers.clear()
        for connection in list(self._connections):
            connection.shut(ErrorCode.NO_ERROR, "the client stops")
        self._expiry.stop()
        self._ticker.stop()
        # A turn for the sockets to take what was written.
        await asyncio.sleep(0)

    # --- Refusals --------------------------------------------------------------------------------

    def _refusal(
        self, address: str, method: str, payload: bytes, timeout_s: float
    ) -> KeyplaneError | None:
        """Why a call cannot be made; otherwise there is a peer for it now."""
        if timeout_s <= 0:
            return KeyplaneError(Reason.DEADLINE_EXCEEDED, f"no time is left to call {method}")
        if self.is_closed:
            return KeyplaneError(Reason.SHUTTING_DOWN, "this process is stopping")
        if len(payload) > MESSAGE_BYTES_MAX:
            return KeyplaneError(
                Reason.INVALID_ARGUMENT,
                f"a request of {len(payload)} bytes; at most {MESSAGE_BYTES_MAX} can be sent",
            )
        if self.in_flight >= CALLS_MAX or not self._open(address):
            return KeyplaneError(
                Reason.OVERLOADED, "too many calls to other processes are under way"
            )
        return None

    def _refuse(
        self, address: str, method: str, on_reply: ReplyFn, error: KeyplaneError
    ) -> ClientCall:
        call = ClientCall(self, address, method, b"", math.inf, on_reply, b"")
        self.in_flight += 1
        self.loop.call_soon(call.end, Reply(error=error, sent=False))
        return call

    def failure(self, address: str, code: int, text: str, details: bytes) -> Reply:
        return failed_reply(address, code, text, details, self._detail_types)

    def callback_broke(self, error: Exception) -> None:
        self.loop.call_exception_handler(
            {"message": "a callback for a reply failed", "exception": error}
        )

    # --- Peers and connections -------------------------------------------------------------------

    def _open(self, address: str) -> bool:
        """Makes room for an address; False if all connections are in use."""
        if address in self._peers:
            return True
        if len(self._peers) >= self._channels_max:
            idle = [peer for peer in self._peers.values() if peer.is_idle()]
            if not idle:
                return False
            oldest = min(idle, key=lambda peer: peer.used_at)
            del self._peers[oldest.address]
            oldest.close()
            if oldest.connection is not None:
                oldest.connection.shut(ErrorCode.NO_ERROR, "not used for long")
        self._peers[address] = _Peer(self, address)
        return True

    def opened(self, connection: ClientConnection) -> None:
        self._connections.add(connection)
        self._ticker.start()
        if self.is_closed:
            connection.shut(ErrorCode.NO_ERROR, "the client stops")

    def closed(self, connection: ClientConnection) -> None:
        self._connections.discard(connection)

    def _calls(self) -> list[ClientCall]:
        sent = [call for each in self._connections for call in each.calls.values()]
        return sent + [call for peer in self._peers.values() for call in peer.waiting]

    # --- Time ------------------------------------------------------------------------------------

    def _end_due(self, now: float) -> float:
        earliest = math.inf
        due = []
        for call in self._calls():
            if call.deadline <= now:
                due.append(call)
            elif call.deadline < earliest and call.on_reply is not None:
                earliest = call.deadline
        for call in due:
            call.give_up(expired(call))
        return earliest

    def _tick(self) -> bool:
        held = 0
        for connection in list(self._connections):
            connection.tick()
            held += connection.held()
        if held > HELD_BYTES_MAX:
            worst = max(self._connections, key=ClientConnection.held)
            worst.abort("all connections together hold too much, and this one most")
        return bool(self._connections)


def expired(call: ClientCall) -> KeyplaneError:
    return KeyplaneError(Reason.DEADLINE_EXCEEDED, f"{call.method} at {call.address} took too long")
