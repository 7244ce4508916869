"""Sealed connections: what a client wrote is run as its own, and nothing else is run."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from raw_http2 import RawClient, request, request_block

from cache.callers import Callers, operator
from keyplane.catalog.v1 import catalog_pb2 as pb
from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.signature import Signer
from wire.grpcio import GrpcServer
from wire.http2 import frames as h2
from wire.http2 import seal
from wire.http2.client import Http2Transport
from wire.http2.frames import ErrorCode
from wire.http2.seal import Seal
from wire.http2.server import Http2Server
from wire.loop import LoopClock
from wire.metrics import Metrics
from wire.ports import Reply, ReplyFn, Request

KEY_ID = "KPOPERATOR0000000000"
SECRET = b"s" * 32
USER_KEY = "KPUSER00000000000000"
TIMEOUT_S = 30.0
NONCE = b"n" * seal.NONCE_BYTES


class Stage:
    """A server that says whose call it was and how it knew, and asks for nothing else.

    ran: payloads that a handler got, in order.
    """

    def __init__(self) -> None:
        self.clock = LoopClock(asyncio.get_running_loop())
        self.callers = Callers(self.clock, operator(SECRET, KEY_ID))
        self.server = Http2Server(self.clock, Metrics())
        self.server.take_seals(self.callers)
        self.server.register("/T/Echo", self.echo)
        self.ran: list[bytes] = []
        self.address = self.server.bind("127.0.0.1:0")
        self.transports: list[Http2Transport] = []

    def echo(self, request: Request, reply: ReplyFn) -> None:
        caller = self.callers.authenticate(request)
        self.ran.append(request.payload)
        how = "sealed" if request.sealed_by is caller else "signed"
        reply(Reply(f"{caller.key_id} {how} {len(request.payload)}".encode()))

    def client(self, key_id: str = KEY_ID, secret: bytes = SECRET) -> Client:
        transport = Http2Transport(self.clock, signer=Signer(key_id, secret, time.time))
        self.transports.append(transport)
        return Client(transport, self.clock, self.address)

    def install(self, version: int, *keys: tuple[str, bytes], suspended: bool = False) -> None:
        """One tenant whose user has these keys."""
        state = pb.TENANT_STATE_SUSPENDED if suspended else pb.TENANT_STATE_ACTIVE
        access = pb.TenantAccess(tenant=pb.Tenant(tenant_id="acme", state=state))
        user = access.users.add(name="ada", role=pb.ROLE_WRITE)
        for key_id, secret in keys:
            user.keys.add(key_id=key_id, secret=secret)
        self.callers.install(0, pb.TenantShard(version=version, tenants=[access]))


class Client:
    def __init__(self, transport: Http2Transport, clock: LoopClock, address: str) -> None:
        self.transport = transport
        self._clock = clock
        self._address = address

    async def call(self, payload: bytes = b"x") -> str:
        """Raises KeyplaneError as answered."""
        ended: asyncio.Future[Reply] = self._clock.loop.create_future()
        deadline = self._clock.now() + TIMEOUT_S
        self.transport.call(self._address, "/T/Echo", payload, deadline, ended.set_result)
        reply = await ended
        if reply.error is not None:
            raise reply.error
        return reply.payload.decode()

    async def sealed(self) -> None:
        """Returns once a call came sealed: the first goes out before the challenge has come."""
        for _ in range(100):
            if "sealed" in await self.call():
                return
        raise AssertionError("the connection was not sealed")


def play(story: Callable[[Stage], Awaitable[None]]) -> None:
    async def run() -> None:
        stage = Stage()
        await stage.server.start()
        try:
            await story(stage)
        finally:
            for transport in stage.transports:
                await transport.close()
            await stage.server.stop(0)

    asyncio.run(run())


def refused(reason: Reason) -> pytest.RaisesExc[KeyplaneError]:
    return pytest.RaisesExc(KeyplaneError, check=lambda error: error.reason is reason)


async def open_raw(stage: Stage) -> tuple[RawClient, Seal]:
    """A connection on which records may come."""
    client = await RawClient.connect(stage.address)
    client.say(h2.SETTINGS_ACK, seal.hello_frame(SECRET, KEY_ID.encode(), NONCE))
    challenge = await client.hear(seal.CHALLENGE)
    nonce = seal.read_challenge(challenge.payload)
    assert nonce is not None
    return client, Seal(SECRET, KEY_ID.encode(), NONCE, nonce)


# --- What works ----------------------------------------------------------------------------------


def test_calls_are_signed_until_the_challenge_has_come_and_sealed_from_then_on() -> None:
    async def story(stage: Stage) -> None:
        client = stage.client()
        answers = [await client.call() for _ in range(20)]
        signed = sum("signed" in each for each in answers)
        assert answers == [f"{KEY_ID} signed 1"] * signed + [f"{KEY_ID} sealed 1"] * (20 - signed)
        assert signed < 20
        assert [each.sealed_by is not None for each in stage.server.connections] == [True]
        answers = await asyncio.gather(*(client.call(bytes(size)) for size in range(300)))
        assert answers == [f"{KEY_ID} sealed {size}" for size in range(300)]

    play(story)


def test_messages_longer_than_a_record_and_than_a_window_arrive_whole() -> None:
    async def story(stage: Stage) -> None:
        client = stage.client()
        await client.sealed()
        for size in (h2.FRAME_BYTES_DEFAULT, seal.RECORD_BYTES_MAX, 1_000_000):
            assert await client.call(bytes(size)) == f"{KEY_ID} sealed {size}"

    play(story)


def test_records_that_come_in_pieces_and_frames_over_several_records_are_put_together() -> None:
    async def story(stage: Stage) -> None:
        client, records = await open_raw(stage)
        call = request(1, b"cut")
        wire = b"".join(records.records(call[at : at + 7]) for at in range(0, len(call), 7))
        for at in range(0, len(wire), 11):
            client.say(wire[at : at + 11])
            await asyncio.sleep(0)
        assert await client.answer(1) == f"{KEY_ID} sealed 3".encode()
        client.close()

    play(story)


def test_a_signature_counts_more_than_the_seal() -> None:
    async def story(stage: Stage) -> None:
        stage.install(1, (USER_KEY, b"u" * 32))
        client, records = await open_raw(stage)
        value = Signer(USER_KEY, b"u" * 32, time.time).value("/T/Echo", b"mine")
        block = request(1, b"mine")
        signed = (
            h2.frame(h2.HEADERS, h2.END_HEADERS, 1, request_block(keyplane_authorization=value))
            + block[block.index(b"mine") - 5 - h2.FRAME_HEAD_BYTES :]
        )
        client.say(records.records(signed))
        assert await client.answer(1) == f"{USER_KEY} signed 4".encode()
        client.close()

    play(story)


def test_a_server_of_grpcio_is_called_with_signatures() -> None:
    async def story(stage: Stage) -> None:
        server = GrpcServer(stage.clock, Metrics())
        server.take_seals(stage.callers)
        server.register("/T/Echo", stage.echo)
        address = server.bind("127.0.0.1:0")
        await server.start()
        transport = Http2Transport(stage.clock, signer=Signer(KEY_ID, SECRET, time.time))
        try:
            client = Client(transport, stage.clock, address)
            assert [await client.call() for _ in range(20)] == [f"{KEY_ID} signed 1"] * 20
        finally:
            await transport.close()
            await server.stop(0)

    play(story)


# --- Keys that are none, or none any more --------------------------------------------------------


def test_without_the_right_key_nothing_is_sealed_and_the_answer_says_what_is_wrong() -> None:
    async def story(stage: Stage) -> None:
        stranger, impostor = stage.client(USER_KEY), stage.client(secret=b"z" * 32)
        for _ in range(20):
            with refused(Reason.UNKNOWN_KEY):
                await stranger.call()
            with refused(Reason.BAD_SIGNATURE):
                await impostor.call()
        assert not stage.ran

    play(story)


def test_a_key_that_is_rotated_or_a_tenant_that_is_suspended_ends_sealed_calls_at_once() -> None:
    async def story(stage: Stage) -> None:
        stage.install(1, (USER_KEY, b"u" * 32))
        client = stage.client(USER_KEY, b"u" * 32)
        await client.sealed()
        stage.install(2, (USER_KEY, b"u" * 32), suspended=True)
        with refused(Reason.TENANT_SUSPENDED):
            await client.call()
        stage.install(3, (USER_KEY, b"u" * 32))
        assert await client.call() == f"{USER_KEY} sealed 1"
        stage.install(4, (USER_KEY, b"another secret" * 2))
        with refused(Reason.UNKNOWN_KEY):
            await client.call()
        stage.install(5)
        with refused(Reason.UNKNOWN_KEY):
            await client.call()

    play(story)


# --- What is refused -----------------------------------------------------------------------------


def _swapped(first: bytes, second: bytes) -> bytes:
    return second + first


def _repeated(first: bytes, second: bytes) -> bytes:
    return first + first


def _left_out(first: bytes, second: bytes) -> bytes:
    return second


def _unsealed(first: bytes, second: bytes) -> bytes:
    return first + second[seal.RECORD_HEAD_BYTES :]


@pytest.mark.parametrize(
    ("twist", "ran"), [(_swapped, 0), (_repeated, 1), (_left_out, 0), (_unsealed, 1)]
)
def test_records_out_of_their_order_end_the_connection(
    twist: Callable[[bytes, bytes], bytes], ran: int
) -> None:
    async def story(stage: Stage) -> None:
        client, records = await open_raw(stage)
        first, second = (records.records(request(stream, b"pay")) for stream in (1, 3))
        client.say(twist(first, second))
        end = await client.end()
        assert end is not None and end[0] is ErrorCode.PROTOCOL_ERROR
        assert stage.ran == [b"pay"] * ran

    play(story)


def test_what_was_said_on_one_connection_means_nothing_on_another() -> None:
    async def story(stage: Stage) -> None:
        _, records = await open_raw(stage)
        overheard = records.records(request(1, b"pay"))
        client, _ = await open_raw(stage)
        client.say(overheard)
        end = await client.end()
        assert end is not None and "seal" in end[1]
        assert not stage.ran

    play(story)


@pytest.mark.parametrize("length", [0, seal.RECORD_BYTES_MAX + 1, 2**32 - 1])
def test_a_record_of_an_absurd_length_is_refused_before_it_is_held(length: int) -> None:
    async def story(stage: Stage) -> None:
        client, _ = await open_raw(stage)
        client.say(h2.frame(seal.RECORD, payload=length.to_bytes(4, "big") + bytes(16)))
        end = await client.end()
        assert end is not None and end[0] is ErrorCode.FRAME_SIZE_ERROR

    play(story)


def test_a_second_hello_ends_the_connection() -> None:
    async def story(stage: Stage) -> None:
        client, _ = await open_raw(stage)
        client.say(seal.hello_frame(SECRET, KEY_ID.encode(), NONCE))
        end = await client.end()
        assert end is not None and end[0] is ErrorCode.PROTOCOL_ERROR

    play(story)


def test_frames_of_these_types_that_mean_something_else_are_ignored() -> None:
    async def story(stage: Stage) -> None:
        client = await RawClient.connect(stage.address)
        for kind in (seal.HELLO, seal.CHALLENGE, seal.RECORD):
            client.say(h2.frame(kind, payload=b"of somebody else"), h2.frame(kind))
        client.say(request(1))
        # As without them: a call that nobody has signed.
        answer = await client.hear(h2.HEADERS, 1)
        assert client.fields(answer)[b"grpc-status"] == b"16"
        client.close()

    play(story)


@given(
    place=st.integers(0, 300),
    flip=st.integers(1, 255),
    sizes=st.lists(st.integers(0, 60), min_size=1, max_size=5),
)
def test_no_changed_byte_of_a_record_is_run(place: float, flip: int, sizes: list[int]) -> None:
    async def story(stage: Stage) -> None:
        client, records = await open_raw(stage)
        payloads = [bytes([65 + number]) * size for number, size in enumerate(sizes)]
        pieces = [
            records.records(request(2 * number + 1, payload))
            for number, payload in enumerate(payloads)
        ]
        wire = bytearray(b"".join(pieces))
        at = place % len(wire)
        wire[at] ^= flip
        client.say(bytes(wire))
        client.writer.write_eof()
        await client.end()
        whole = 0
        while at >= len(pieces[whole]):
            at -= len(pieces[whole])
            whole += 1
        assert stage.ran == payloads[:whole]

    play(story)
