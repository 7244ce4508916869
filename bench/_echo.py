"""A server that sends back what it gets: one hop and nothing else, as the bound of the others."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection

from bench._items import ECHO_METHOD
from bench._spawn import spawn
from wire.loop import LoopClock
from wire.metrics import Metrics
from wire.polling import BUSY_POLL_US, new_loop
from wire.ports import Reply, ReplyFn, Request
from wire.transports import TransportKind, make_server

_START_S_MAX = 30.0


@contextmanager
def echo_server(transport: TransportKind) -> Iterator[tuple[str, int]]:
    """Its address on loopback and its process id. Raises RuntimeError if it does not start."""
    child = spawn(__name__, transport)
    try:
        try:
            if not child.connection.poll(_START_S_MAX):
                raise RuntimeError(f"the echo server does not listen after {_START_S_MAX:.0f} s")
            address = child.connection.recv()
        except EOFError as error:
            raise RuntimeError("the echo server did not start; its error is above") from error
        yield address, child.pid
    finally:
        child.close()


def main(connection: Connection, transport: TransportKind) -> None:
    with asyncio.Runner(loop_factory=partial(new_loop, BUSY_POLL_US)) as runner:
        runner.run(_serve(connection, transport))


async def _serve(connection: Connection, transport: TransportKind) -> None:
    loop = asyncio.get_running_loop()
    server = make_server(transport, LoopClock(loop), Metrics(), ())
    server.register(ECHO_METHOD, _echo)
    address = server.bind("127.0.0.1:0")
    await server.start()
    connection.send(address)
    gone = asyncio.Event()
    # Readable once the other end is closed: nothing is ever sent this way.
    loop.add_reader(connection.fileno(), gone.set)
    await gone.wait()
    loop.remove_reader(connection.fileno())
    await server.stop(0.0)


def _echo(request: Request, reply: ReplyFn) -> None:
    reply(Reply(request.payload))
