"""What a client sees of its routers' troubles: one slow, one dead, a fresh channel per request.

Single reads by the SDK in a closed loop against three routers and a storage node on this machine.
The ways take turns, round by round; figures are medians of rounds. The slow router sends every
request to its storage node 10 ms late; the dead one was killed. A hedged read goes to a second
router after 20 ms.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Annotated

import typer

from bench._closed_loop import Read, Round, closed_window, fresh_read, medians
from bench._cluster import TEXT, cluster_of, create_table
from keyplane import AsyncClient, ClientConfig
from keyplane.cluster import Cluster, ClusterConfig, Faults, Kind
from wire.faults import Direction, Fault, FaultKind

TABLE = "routers-bench"
KEY = {"id": "item"}
ITEM = KEY | {"text": TEXT}

ROUTERS = 3
SLOW_BY_S = 0.010
HEDGE_AFTER_S = 0.020

# The router that has the trouble.
VICTIM = f"router-{ROUTERS}"

# Seconds under load before a window counts: for the client to notice.
NOTICE_S = 0.5


def run(
    outstanding: Annotated[int, typer.Option(min=1, help="Requests in flight.")] = 32,
    rounds: Annotated[int, typer.Option(min=1, help="Windows of each way.")] = 5,
    window_s: Annotated[float, typer.Option(min=0.1, help="Seconds of one window.")] = 2.0,
    as_json: Annotated[
        bool, typer.Option("--json", help="End with one JSON object on stdout.")
    ] = False,
) -> None:
    """What one router in trouble costs a client that has others."""
    config = ClusterConfig(memds=1, routers=ROUTERS, storage=1, ephemeral=True, enable_faults=True)
    found: dict[str, list[Round]] = {}
    with cluster_of(config) as cluster:
        create_table(cluster, TABLE)
        routers = cluster.addresses(Kind.ROUTER)
        asyncio.run(_write(routers))
        for number in range(rounds):
            sys.stderr.write(f"round {number + 1} of {rounds}\n")
            for way, trouble in WAYS.items():
                with trouble(cluster):
                    measured = _window(routers, way, outstanding, window_s)
                    found.setdefault(way, []).append(asyncio.run(measured))
    results = {way: medians(windows) for way, windows in found.items()}
    _show(results)
    if as_json:
        facts = {"outstanding": outstanding, "rounds": rounds, "window_s": window_s}
        sys.stdout.write(json.dumps({**facts, "results": results}) + "\n")


@contextmanager
def _slow(cluster: Cluster) -> Iterator[None]:
    """Messages of one router to its storage node are late; their answers are not."""
    faults = Faults(cluster)
    fault = Fault(
        id="",
        kind=FaultKind.LATENCY,
        target=VICTIM,
        peer="storage-1",
        direction=Direction.TO_PEER,
        parameters={"delay_s": SLOW_BY_S},
    )
    fault_id = faults.inject(fault)
    try:
        yield
    finally:
        faults.heal(fault_id)


@contextmanager
def _dead(cluster: Cluster) -> Iterator[None]:
    cluster.kill(VICTIM)
    try:
        yield
    finally:
        cluster.restart(VICTIM)


@contextmanager
def _well(_cluster: Cluster) -> Iterator[None]:
    yield


FRESH = "fresh channel"
HEDGED = "one slow, hedged"
WAYS: Mapping[str, Callable[[Cluster], AbstractContextManager[None]]] = {
    "all well": _well,
    "one slow": _slow,
    HEDGED: _slow,
    "one dead": _dead,
    FRESH: _well,
}


async def _write(routers: Sequence[str]) -> None:
    async with AsyncClient(routers) as client:
        await client.put_item(TABLE, ITEM)


async def _window(routers: Sequence[str], way: str, outstanding: int, window_s: float) -> Round:
    """One window after NOTICE_S of load, by a client that has not met these routers before."""
    config = ClientConfig(hedge_after_s=HEDGE_AFTER_S if way == HEDGED else None)
    async with AsyncClient(routers, config) as client:

        async def pooled() -> object:
            return await client.get_item(TABLE, KEY)

        read: Read = fresh_read(routers[0], TABLE, KEY) if way == FRESH else pooled
        await closed_window(read, outstanding, NOTICE_S)
        return await closed_window(read, outstanding, window_s)


def _show(results: dict[str, dict[str, float]]) -> None:
    row = "{:<18}{:>12}{:>10}{:>10}\n"
    sys.stderr.write(row.format("", "requests/s", "p50 ms", "p99 ms"))
    for way, figures in results.items():
        sys.stderr.write(row.format(way, *figures.values()))


if __name__ == "__main__":
    typer.run(run)
