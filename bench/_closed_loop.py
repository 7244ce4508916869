"""A closed loop of the SDK's reads, and reads on channels of their own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import grpc.aio

from keyplane.client.channels import channel_options, serialize
from keyplane.client.config import ClientConfig
from keyplane.client.core import GET
from keyplane.data.v1 import data_pb2 as data
from keyplane.model.items import to_item

Read = Callable[[], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Round:
    """Requests per second, and latencies in milliseconds, of one window."""

    per_second: float
    p50_ms: float
    p99_ms: float


def fresh_read(router: str, table: str, key: Mapping[str, Any]) -> Read:
    """Reads on a channel of its own that shares no connection with any other."""
    options = [*channel_options(ClientConfig()), ("grpc.use_local_subchannel_pool", 1)]
    request = data.GetItemRequest(table=table, key=to_item(key))

    async def read() -> object:
        async with grpc.aio.insecure_channel(router, options=options) as channel:
            method: Any = channel.unary_unary(GET.path, serialize, GET.response_type.FromString)
            return await method(request, timeout=5.0)

    return read


async def closed_window(read: Read, outstanding: int, window_s: float) -> Round:
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


def medians(rounds: Sequence[Round]) -> dict[str, float]:
    return {
        "per_second": round(median(each.per_second for each in rounds)),
        "p50_ms": round(median(each.p50_ms for each in rounds), 2),
        "p99_ms": round(median(each.p99_ms for each in rounds), 2),
    }
