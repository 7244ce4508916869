"""What pooling buys: a shared channel against a fresh one for every request.

A closed loop of single reads against a real router and storage node on this machine. The two ways
take turns, round by round, so that whatever else the machine does meets both; figures are medians
of rounds. Only the ratio says much: the load comes from the same cores that serve it.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Annotated, Any

import grpc.aio
import typer

from bench._cluster import TEXT, small_cluster
from keyplane import AsyncClient
from keyplane.client.channels import channel_options, serialize
from keyplane.client.config import ClientConfig
from keyplane.client.core import GET
from keyplane.cluster import Kind
from keyplane.data.v1 import data_pb2 as data
from keyplane.model.items import to_item

TABLE = "pool-bench"
KEY = {"id": "item"}
ITEM = KEY | {"text": TEXT}

Read = Callable[[], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Round:
    """Requests per second, and latencies in milliseconds, of one window."""

    per_second: float
    p50_ms: float
    p99_ms: float


def run(
    outstanding: Annotated[
        str, typer.Option(help="Requests in flight, comma-separated: one comparison each.")
    ] = "1,8,32",
    rounds: Annotated[int, typer.Option(min=1, help="Windows of each way.")] = 5,
    window_s: Annotated[float, typer.Option(min=0.1, help="Seconds of one window.")] = 1.0,
    as_json: Annotated[
        bool, typer.Option("--json", help="End with one JSON object on stdout.")
    ] = False,
) -> None:
    """What pooled channels buy the client, against a fresh channel for every request."""
    levels = [int(each) for each in outstanding.split(",")]
    with small_cluster(TABLE) as cluster:
        router = cluster.addresses(Kind.ROUTER)[0]
        results = asyncio.run(_compare(router, levels, rounds, window_s))
    _show(results)
    if as_json:
        sys.stdout.write(json.dumps({"rounds": rounds, "window_s": window_s, "results": results}))
        sys.stdout.write("\n")


async def _compare(
    router: str, levels: Sequence[int], rounds: int, window_s: float
) -> list[dict[str, Any]]:
    results = []
    async with AsyncClient([router]) as client:
        await client.put_item(TABLE, ITEM)

        async def pooled() -> object:
            return await client.get_item(TABLE, KEY)

        for level in levels:
            await _window(pooled, level, window_s / 2)
            pairs = [
                (
                    await _window(pooled, level, window_s),
                    await _window(_fresh(router), level, window_s),
                )
                for _ in range(rounds)
            ]
            results.append(_summary(level, pairs))
    return results


def _fresh(router: str) -> Read:
    """Reads on a channel of its own that shares no connection with any other."""
    options = [*channel_options(ClientConfig()), ("grpc.use_local_subchannel_pool", 1)]
    request = data.GetItemRequest(table=TABLE, key=to_item(KEY))

    async def read() -> object:
        async with grpc.aio.insecure_channel(router, options=options) as channel:
            method: Any = channel.unary_unary(GET.path, serialize, GET.response_type.FromString)
            return await method(request, timeout=5.0)

    return read


async def _window(read: Read, outstanding: int, window_s: float) -> Round:
    """A closed loop: each of `outstanding` workers reads again once it has its answer."""
    latencies: list[float] = []
    begun_at = time.perf_counter()
    end_at = begun_at + window_s

    async def work() -> None:
        while (sent_at := time.perf_counter()) < end_at:
            await read()
            latencies.append(time.perf_counter() - sent_at)

    await asyncio.gather(*(work() for _ in range(outstanding)))
    elapsed_s = time.perf_counter() - begun_at
    latencies.sort()
    return Round(
        len(latencies) / elapsed_s,
        1000 * latencies[len(latencies) // 2],
        1000 * latencies[len(latencies) * 99 // 100],
    )


def _summary(outstanding: int, pairs: Sequence[tuple[Round, Round]]) -> dict[str, Any]:
    pooled, fresh = zip(*pairs, strict=True)
    return {
        "outstanding": outstanding,
        "pooled": _median(pooled),
        "fresh_channel": _median(fresh),
        "throughput_ratio": round(median(p.per_second / f.per_second for p, f in pairs), 1),
        "p50_ratio": round(median(f.p50_ms / p.p50_ms for p, f in pairs), 1),
    }


def _median(rounds: Sequence[Round]) -> dict[str, float]:
    return {
        "per_second": round(median(each.per_second for each in rounds)),
        "p50_ms": round(median(each.p50_ms for each in rounds), 2),
        "p99_ms": round(median(each.p99_ms for each in rounds), 2),
    }


def _show(results: Sequence[dict[str, Any]]) -> None:
    row = "{:>11}  {:>12} {:>8} {:>8}  {:>12} {:>8} {:>8}  {:>6}\n"
    write = sys.stderr.write
    write(row.format("outstanding", "pooled req/s", "p50 ms", "p99 ms", "fresh req/s", "p50 ms",
                     "p99 ms", "ratio"))  # fmt: skip
    for each in results:
        pooled, fresh = each["pooled"].values(), each["fresh_channel"].values()
        write(row.format(each["outstanding"], *pooled, *fresh, each["throughput_ratio"]))


if __name__ == "__main__":
    typer.run(run)
