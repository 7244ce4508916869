"""What one unary call costs at each end of one hop, by engine and by what its metadata does.

A server in a process of its own answers with what it is sent; this process keeps a fixed number of
calls in flight on one connection. Processor time says what a call costs whatever else the machine
does meanwhile.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from statistics import median
from typing import Annotated

import psutil
import typer

from bench._echo import echo_server
from bench._items import ECHO_METHOD
from wire.loop import LoopClock
from wire.ports import Reply
from wire.transports import TransportKind, make_transport

# What the metadata of a call does.
PLAIN, DEADLINE, TRACE = "no deadline", "deadline", "deadline and trace"


@dataclass(frozen=True, slots=True)
class Result:
    """Medians over rounds. Times in microseconds."""

    engine: str
    outstanding: int
    metadata: str
    calls_per_s: float
    client_us: float
    server_us: float
    p50_us: float
    p99_us: float


def run(
    seconds: Annotated[float, typer.Option(min=0.1, help="Length of one round.")] = 2.0,
    rounds: Annotated[int, typer.Option(min=1)] = 3,
    outstanding: Annotated[str, typer.Option(help="Calls in flight, a list.")] = "1,32,128",
    engines: Annotated[str, typer.Option(help="Engines of both ends.")] = "http2,grpcio",
    size: Annotated[int, typer.Option(min=0, help="Bytes of a message.")] = 200,
    as_json: Annotated[
        bool, typer.Option("--json", help="End with one JSON object on stdout.")
    ] = False,
) -> None:
    """Calls a second and processor time of a call, at both ends of one hop."""
    counts = [int(each) for each in outstanding.split(",")]
    results = []
    for engine in map(TransportKind, engines.split(",")):
        for metadata in (PLAIN, DEADLINE, TRACE):
            for count in counts:
                found = [_round(engine, metadata, count, seconds, size) for _ in range(rounds)]
                result = _medians(found)
                results.append(result)
                sys.stderr.write(
                    f"{engine:7} {metadata:19} {count:4} in flight {result.calls_per_s:9,.0f}/s "
                    f" client {result.client_us:6.1f} µs  server {result.server_us:6.1f} µs "
                    f" p50 {result.p50_us:6.0f}  p99 {result.p99_us:6.0f}\n"
                )
    if as_json:
        sys.stdout.write(json.dumps({"size": size, "results": [asdict(each) for each in results]}))
        sys.stdout.write("\n")


def _medians(results: list[Result]) -> Result:
    first = results[0]
    middle = {
        name: median(getattr(each, name) for each in results)
        for name in ("calls_per_s", "client_us", "server_us", "p50_us", "p99_us")
    }
    return Result(first.engine, first.outstanding, first.metadata, **middle)


def _round(
    engine: TransportKind, metadata: str, outstanding: int, seconds: float, size: int
) -> Result:
    with echo_server(engine) as (address, pid):
        return asyncio.run(_load(engine, address, pid, metadata, outstanding, seconds, size))


def _traces() -> Iterator[tuple[tuple[str, str]]]:
    """W3C trace headers, each of them new."""
    number = 0
    while True:
        number += 1
        yield (("traceparent", f"00-{number * 0x9E3779B97F4A7C15 % 2**128:032x}-{number:016x}-01"),)


async def _load(
    engine: TransportKind,
    address: str,
    pid: int,
    metadata: str,
    outstanding: int,
    seconds: float,
    size: int,
) -> Result:
    loop = asyncio.get_running_loop()
    clock = LoopClock(loop)
    transport = make_transport(engine, clock)
    payload = b"x" * size
    traces = _traces()
    waits: list[float] = []
    done: asyncio.Future[None] = loop.create_future()
    now = clock.now
    end = float("inf")
    open_calls = 0

    def start() -> None:
        nonlocal open_calls
        open_calls += 1
        begin = now()
        deadline = float("inf") if metadata == PLAIN else begin + 2.0
        headers = next(traces) if metadata == TRACE else ()

        def ended(reply: Reply) -> None:
            nonlocal open_calls
            if reply.error is not None:
                raise reply.error
            at = now()
            waits.append(at - begin)
            open_calls -= 1
            if at < end:
                start()
            elif not open_calls and not done.done():
                done.set_result(None)

        transport.call(address, ECHO_METHOD, payload, deadline, ended, headers)

    for _ in range(outstanding):
        start()
    await asyncio.sleep(0.5)
    client, server = psutil.Process(), psutil.Process(pid)
    before = (sum(client.cpu_times()[:2]), sum(server.cpu_times()[:2]), now())
    waits.clear()
    await asyncio.sleep(seconds)
    count = len(waits)
    after = (sum(client.cpu_times()[:2]), sum(server.cpu_times()[:2]), now())
    end = 0.0
    await done
    await transport.close()
    taken = sorted(waits[:count])
    client_s, server_s, wall_s = (b - a for a, b in zip(before, after, strict=True))
    return Result(
        engine,
        outstanding,
        metadata,
        count / wall_s,
        client_s / count * 1e6,
        server_s / count * 1e6,
        taken[count // 2] * 1e6,
        taken[count * 99 // 100] * 1e6,
    )


if __name__ == "__main__":
    typer.run(run)
