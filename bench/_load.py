"""The load generator: a process of its own, so that its processor time can be told apart."""

from __future__ import annotations

import asyncio
import gc
import os
import selectors
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from multiprocessing.connection import Connection

import psutil

from bench._fill import fill
from bench._http_lane import HttpLane
from bench._items import DynamoRequests, EchoRequests, KeyplaneRequests
from bench._lanes import DEADLINE_S, GrpcLane, Lane
from bench._orders import Closed, Fill, Order, Paced
from bench._samples import Sample
from bench._spawn import spawn
from bench._windows import PACED_OUTSTANDING_MAX, ClosedWindow, PacedWindow
from keyplane.model.credentials import Credentials
from keyplane.model.signature import Signer
from wire import polling
from wire.addresses import parse_address
from wire.loop import LoopClock
from wire.transports import LiveTransport, TransportKind, make_transport

GENERATOR = "generator"

# Seconds that filling a table may go without a word of progress.
_SILENCE_S_MAX = 60.0

_DIED = "the load generator has died; its error is above"


@dataclass(frozen=True, slots=True)
class Target:
    """What is put under load.

    protocol: `keyplane` or `echo`, over the gRPC engine `transport`; or `dynamodb`, over HTTP.
    table: its partition key is the string `id`; it holds items below `items` once filled.
    processes: the ids of the processes whose processor time is measured, by name.
    credentials: what calls are signed with, over gRPC.
    seals: signs no calls, but seals its connection (`wire.http2.seal`).
    precise: wake up on time for paced windows, at the price of a slower wait.
    more: further addresses of the same; requests in flight take turns over all.
    """

    protocol: str
    address: str
    table: str
    items: int
    transport: TransportKind = TransportKind.HTTP2
    processes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    precise: bool = False
    credentials: Credentials | None = None
    seals: bool = False
    more: Sequence[str] = ()


class GeneratorFailed(Exception):  # noqa: N818 - it is what happened
    """The generator could not do what it was told; the message says why."""


class Generator:
    """One load generator for one target. Connections are kept from window to window."""

    def __init__(self, target: Target) -> None:
        self._child = spawn(__name__, target)
        self._connection = self._child.connection

    def __enter__(self) -> Generator:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if error is not None:
            # It may be in the middle of a window.
            self.kill()
        self.close()

    @property
    def pid(self) -> int:
        return self._child.pid

    def fill(self, progress: Callable[[int], None]) -> None:
        """Raises GeneratorFailed."""
        self._send(Fill())
        while (answer := self._answer(_SILENCE_S_MAX)) is not None:
            assert isinstance(answer, int)
            progress(answer)

    def run(self, order: Closed | Paced) -> Sample:
        """Raises GeneratorFailed."""
        self._send(order)
        # Beside the window: connecting, waiting for the last answers, sorting latencies.
        answer = self._answer(order.warm_up_s + order.seconds + 2 * DEADLINE_S + 60)
        assert isinstance(answer, Sample)
        return answer

    def close(self) -> None:
        self._child.close()

    def kill(self) -> None:
        """Ends it at once."""
        self._child.kill()

    def _send(self, order: Order) -> None:
        try:
            self._connection.send(order)
        except OSError as error:
            raise GeneratorFailed(_DIED) from error

    def _answer(self, timeout_s: float) -> Sample | int | None:
        try:
            if not self._connection.poll(timeout_s):
                raise GeneratorFailed(f"the load generator has said nothing for {timeout_s:.0f} s")
            answer = self._connection.recv()
        except (EOFError, OSError) as error:
            raise GeneratorFailed(_DIED) from error
        if isinstance(answer, str):
            raise GeneratorFailed(answer)
        assert answer is None or isinstance(answer, Sample | int)
        return answer


def main(connection: Connection, target: Target) -> None:
    def new_loop() -> asyncio.AbstractEventLoop:
        if target.precise:
            # select(2) waits microseconds where asyncio's epoll waits whole milliseconds.
            return asyncio.SelectorEventLoop(selectors.SelectSelector())
        return polling.new_loop(polling.BUSY_POLL_US)

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(_serve(connection, target))


async def _serve(connection: Connection, target: Target) -> None:
    """Carries out orders until the other end of the pipe is gone."""
    loop = asyncio.get_running_loop()
    lanes = _Lanes(target, loop)
    processes = {
        name: [psutil.Process(pid) for pid in pids] for name, pids in target.processes.items()
    }
    processes[GENERATOR] = [psutil.Process(os.getpid())]
    # What was made up to here stays: no collection needs to look at it again.
    gc.collect()
    gc.freeze()
    try:
        while True:
            # On a thread: between windows the connections are looked after all the same.
            order = await loop.run_in_executor(None, connection.recv)
            answer: Sample | str | None
            try:
                answer = await _carry_out(order, lanes, target, loop, processes, connection)
            except (Exception, ExceptionGroup) as error:  # noqa: BLE001 - told to who gave the order
                answer = _reason(error)
            connection.send(answer)
    except (EOFError, OSError):
        pass
    finally:
        await lanes.close()


async def _carry_out(
    order: Order,
    lanes: _Lanes,
    target: Target,
    loop: asyncio.AbstractEventLoop,
    processes: Mapping[str, Sequence[psutil.Process]],
    connection: Connection,
) -> Sample | None:
    match order:
        case Fill():
            used = await lanes.take(order.outstanding)
            await fill(order, used, target.items, loop, connection.send)
            return None
        case Closed():
            used = await lanes.take(order.outstanding)
            return await ClosedWindow(order, used, target.items, loop, processes).run()
        case Paced():
            used = await lanes.take(PACED_OUTSTANDING_MAX)
            return await PacedWindow(order, used, target.items, loop, processes).run()


def _reason(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, RuntimeError | OSError | ValueError | psutil.Error):
        return str(error)
    return "".join(traceback.format_exception(error))


class _Lanes:
    """The lanes to one target. Those over gRPC share one connection; HTTP has one for each."""

    def __init__(self, target: Target, loop: asyncio.AbstractEventLoop) -> None:
        self._target = target
        self._loop = loop
        self._transport: LiveTransport | None = None
        self._http: list[HttpLane] = []
        self._requests: KeyplaneRequests | EchoRequests | DynamoRequests
        match target.protocol:
            case "keyplane":
                self._requests = KeyplaneRequests(target.table, target.items)
            case "echo":
                self._requests = EchoRequests(target.items)
            case _:
                self._requests = DynamoRequests(target.table, target.items, target.address)
        # Of each call, unless the connection is sealed.
        self._signer: Signer | None = None
        sealing = None
        credentials = target.credentials
        if credentials is not None:
            signer = Signer(credentials.key_id, credentials.secret_bytes, time.time)
            sealing, self._signer = (signer, None) if target.seals else (None, signer)
        if target.protocol != "dynamodb":
            self._transport = make_transport(target.transport, LoopClock(loop), sealing)

    async def take(self, count: int) -> Sequence[Lane]:
        if self._transport is None:
            return await self._connected(count)
        requests = self._requests
        assert not isinstance(requests, DynamoRequests)
        addresses, now = (self._target.address, *self._target.more), self._loop.time
        return [
            GrpcLane(self._transport, address, requests, requests.methods, now, self._signer)
            for address in islice(cycle(addresses), count)
        ]

    async def _connected(self, count: int) -> Sequence[Lane]:
        """New connections each time: a window may have left some with an answer to come."""
        for lane in self._http:
            lane.close()
        host, port = parse_address(self._target.address)
        self._http = [HttpLane(self._requests, self._loop) for _ in range(count)]
        for lane in self._http:
            await lane.connect(host, port)
        return self._http

    async def close(self) -> None:
        for lane in self._http:
            lane.close()
        if self._transport is not None:
            await self._transport.close()
