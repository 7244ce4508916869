"""What pooling buys: a shared channel against a fresh one for every request.

A closed loop of single reads against a real router and storage node on this machine. The two ways
take turns, round by round, so that whatever else the machine does meets both; figures are medians
of rounds. Only the ratio says much: the load comes from the same cores that serve it.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from statistics import median
from typing import Annotated, Any

import typer

from bench._closed_loop import Round, closed_window, fresh_read, medians
from bench._cluster import TEXT, small_cluster
from keyplane import AsyncClient
from keyplane.cluster import Kind

TABLE = "pool-bench"
KEY = {"id": "item"}
ITEM = KEY | {"text": TEXT}


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
            await closed_window(pooled, level, window_s / 2)
            pairs = [
                (
                    await closed_window(pooled, level, window_s),
                    await closed_window(fresh_read(router, TABLE, KEY), level, window_s),
                )
                for _ in range(rounds)
            ]
            results.append(_summary(level, pairs))
    return results


def _summary(outstanding: int, pairs: Sequence[tuple[Round, Round]]) -> dict[str, Any]:
    pooled, fresh = zip(*pairs, strict=True)
    return {
        "outstanding": outstanding,
        "pooled": medians(pooled),
        "fresh_channel": medians(fresh),
        "throughput_ratio": round(median(p.per_second / f.per_second for p, f in pairs), 1),
        "p50_ratio": round(median(f.p50_ms / p.p50_ms for p, f in pairs), 1),
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
