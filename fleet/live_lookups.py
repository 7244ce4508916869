"""What a lookup costs on the live cluster: at a router, at the Metadata Store, at a storage node
that is searched for a route, at MemDS as routers ask it; and what a durable write takes.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from statistics import median

import psutil
from google.protobuf.message import Message

from bench._closed_loop import closed_window
from bench._items import key_of
from cache.config import ReaderConfig
from fleet.fleetwide import FleetParameters
from fleet.live_load import TABLE, LiveCluster, cpu_s, memds_client
from keyplane.cluster import Kind
from keyplane.metadata.v1 import metadata_pb2 as metadata
from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.items import to_item
from keyplane.route.v1 import route_pb2 as route
from keyplane.storage.v1 import storage_pb2 as storage
from router.survey import DESCRIBE
from wire.loop import LoopClock
from wire.polling import BUSY_POLL_US, new_loop
from wire.ports import Reply
from wire.transports import TransportKind, make_transport

_EXPLAIN = "/keyplane.route.v1.RouteService/Explain"
_LIST_PARTITIONS = "/keyplane.metadata.v1.MetadataService/ListPartitions"

# Enough under way that a server does not sleep between two.
_CROWD = 32
_TIMEOUT_S = 5.0
# Bytes made durable at a time: a page of SQLite.
_SYNC_BYTES = 4_096
# The kernel counts in hundredths: less cannot be told from nothing.
_CPU_S_MIN = 0.01

Read = Callable[[], Awaitable[object]]


@dataclass(slots=True)
class Lookups:
    """One number for each round.

    route_ms, search_ms: of lone requests. *_cpu_ms: processor time of the server for each of many.
    durable_ms: of 4 kB, written and synced.
    """

    route_ms: list[float] = field(default_factory=list)
    route_cpu_ms: list[float] = field(default_factory=list)
    search_ms: list[float] = field(default_factory=list)
    metadata_cpu_ms: list[float] = field(default_factory=list)
    memds_cpu_ms: list[float] = field(default_factory=list)
    durable_ms: list[float] = field(default_factory=list)

    def values(self) -> dict[str, float]:
        """By the names of `fleet.measured`."""
        middle = {each.name: median(getattr(self, each.name)) for each in fields(self)}
        return {
            "route_lookup_ms": middle["route_ms"],
            "route_lookups_per_s": 1000 / middle["route_cpu_ms"],
            "search_ms": middle["search_ms"],
            "metadata_lookups_per_s": 1000 / middle["metadata_cpu_ms"],
            "memds_requests_per_s": 1000 / middle["memds_cpu_ms"],
            "durable_ms": middle["durable_ms"],
        }


def measure_lookups(live: LiveCluster, seconds: float, into: Lookups) -> None:
    """One round: some windows of so many seconds. Raises KeyplaneError."""
    with asyncio.Runner(loop_factory=partial(new_loop, BUSY_POLL_US)) as runner:
        runner.run(_of_servers(live, seconds, into))
    # As a router asks for the pages of a fleet's map: as many of them at once.
    pages = [f"fleet-calibration-{n}" for n in range(ReaderConfig("").page_slots)]
    page_bytes = round(FleetParameters().page_sizes.value_bytes)
    into.memds_cpu_ms.append(memds_cpu_ms(live, pages, page_bytes, seconds))
    into.durable_ms.append(_durable_ms(live.cluster.paths.root, seconds / 2))


async def _of_servers(live: LiveCluster, seconds: float, into: Lookups) -> None:
    state = live.cluster.state()
    store, router, node = (
        state.of_kind(kind)[0] for kind in (Kind.METADATA, Kind.ROUTER, Kind.STORAGE)
    )
    caller = _Caller()
    explain = route.ExplainRequest(table=TABLE, key=to_item({"id": key_of(0)}))
    route_of_key = caller.read(router.address, _EXPLAIN, explain)
    map_of_table = caller.read(
        store.address, _LIST_PARTITIONS, metadata.ListPartitionsRequest(table=TABLE)
    )
    search = caller.read(node.address, DESCRIBE, storage.DescribePartitionsRequest(table=TABLE))
    try:
        for read in (route_of_key, map_of_table, search):
            await read()
        into.route_ms.append((await closed_window(route_of_key, 1, seconds / 2)).p50_ms)
        into.search_ms.append((await closed_window(search, 1, seconds / 2)).p50_ms)
        into.route_cpu_ms.append(await _cpu_ms(route_of_key, router.pid, seconds))
        into.metadata_cpu_ms.append(await _cpu_ms(map_of_table, store.pid, seconds))
    finally:
        await caller.close()


class _Caller:
    """Calls servers as they call each other."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._clock = LoopClock(self._loop)
        self._transport = make_transport(TransportKind.HTTP2, self._clock)

    def read(self, address: str, method: str, request: Message) -> Read:
        payload = request.SerializeToString()

        async def read() -> object:
            answered: asyncio.Future[bytes] = self._loop.create_future()

            def on_reply(reply: Reply) -> None:
                if answered.cancelled():
                    return
                if reply.error is None:
                    answered.set_result(reply.payload)
                else:
                    answered.set_exception(reply.error)

            deadline = self._clock.now() + _TIMEOUT_S
            self._transport.call(address, method, payload, deadline, on_reply)
            return await answered

        return read

    async def close(self) -> None:
        await self._transport.close()


async def _cpu_ms(read: Read, pid: int, seconds: float) -> float:
    """Processor milliseconds that the server spends on each request, with many under way."""
    process = psutil.Process(pid)
    before = cpu_s(process)
    window = await closed_window(read, _CROWD, seconds)
    return _each_ms(cpu_s(process) - before, round(window.per_second * seconds))


def memds_cpu_ms(live: LiveCluster, keys: Sequence[str], value_bytes: int, seconds: float) -> float:
    """Processor milliseconds of a MemDS node for a request of these keys, of so many bytes each."""
    process = psutil.Process(live.cluster.state().of_kind(Kind.MEMDS)[0].pid)
    value = b"." * value_bytes
    with memds_client(live.memds[0]) as client:
        if client.set_many(dict.fromkeys(keys, value), noreply=False):
            raise KeyplaneError(Reason.MEMDS_UNAVAILABLE, f"{live.memds[0]} stores nothing")
        before, requests = cpu_s(process), 0
        end_at = time.perf_counter() + seconds
        while time.perf_counter() < end_at:
            client.get_many(keys)
            requests += 1
        spent_s = cpu_s(process) - before
        client.delete_many(keys)
    return _each_ms(spent_s, requests)


def _each_ms(spent_s: float, requests: int) -> float:
    return 1000 * max(spent_s, _CPU_S_MIN) / max(1, requests)


def _durable_ms(directory: Path, seconds: float) -> float:
    """Mean of writes to a file where the cluster has its own, each synced as SQLite does."""
    block = b"." * _SYNC_BYTES
    with tempfile.TemporaryFile(buffering=0, dir=directory) as file:
        writes = 0
        began_at = time.perf_counter()
        while (elapsed_s := time.perf_counter() - began_at) < seconds or not writes:
            file.write(block)
            os.fdatasync(file.fileno())
            writes += 1
        return 1000 * elapsed_s / writes
