"""What one request costs at each hop, in processor time.

A closed loop of single requests through a real router and storage node on this machine, eight in
flight. Processor time says what a hop costs whatever else the machine does meanwhile; what a caller
waits is that and the queues.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from statistics import median
from typing import Annotated, Any

import psutil
import typer

from bench._cluster import TEXT, small_cluster
from keyplane import AsyncClient
from keyplane.cluster import Cluster, Kind

TABLE = "hops-bench"
OUTSTANDING = 8

Request = Callable[[int], Awaitable[object]]


def run(
    requests: Annotated[int, typer.Option(min=100, help="Requests in one round.")] = 1500,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of each kind of request.")] = 5,
    as_json: Annotated[
        bool, typer.Option("--json", help="End with one JSON object on stdout.")
    ] = False,
) -> None:
    """What a read and a write cost the client, the router and the storage node."""
    with small_cluster(TABLE, partitions=8) as cluster:
        results = asyncio.run(_measure(cluster, requests, rounds))
    _show(results)
    if as_json:
        sys.stdout.write(json.dumps({"requests": requests, "rounds": rounds, "results": results}))
        sys.stdout.write("\n")


async def _measure(cluster: Cluster, requests: int, rounds: int) -> dict[str, dict[str, float]]:
    members = cluster.state().members
    hops = {
        "client": psutil.Process(),
        "router": psutil.Process(members["router-1"].pid),
        "storage": psutil.Process(members["storage-1"].pid),
    }
    async with AsyncClient(cluster.addresses(Kind.ROUTER)) as client:

        async def write(number: int) -> object:
            return await client.put_item(TABLE, {"id": f"item-{number}", "text": TEXT})

        async def read(number: int) -> object:
            return await client.get_item(TABLE, {"id": f"item-{number}"}, consistent=True)

        await _round(hops, write, requests)
        return {
            "write": _medians([await _round(hops, write, requests) for _ in range(rounds)]),
            "read": _medians([await _round(hops, read, requests) for _ in range(rounds)]),
        }


async def _round(hops: dict[str, psutil.Process], send: Request, requests: int) -> dict[str, float]:
    """Microseconds of processor time for each request, by hop."""
    numbers = iter(range(requests))

    async def work() -> None:
        for number in numbers:
            await send(number)

    before = {hop: _cpu_s(process) for hop, process in hops.items()}
    await asyncio.gather(*(work() for _ in range(OUTSTANDING)))
    return {hop: 1e6 * (_cpu_s(p) - before[hop]) / requests for hop, p in hops.items()}


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {hop: round(median(each[hop] for each in rounds)) for hop in rounds[0]}


def _show(results: dict[str, dict[str, Any]]) -> None:
    row = "{:<8}{:>10}{:>10}{:>10}{:>10}\n"
    sys.stderr.write("processor time of one request, in microseconds\n")
    sys.stderr.write(row.format("", *next(iter(results.values())), "all"))
    for name, hops in results.items():
        sys.stderr.write(row.format(name, *hops.values(), sum(hops.values())))


if __name__ == "__main__":
    typer.run(run)
