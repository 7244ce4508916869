"""What the partition map costs: to look up, to hold, to change, to publish and to load."""

from __future__ import annotations

import asyncio
import gc
import random
import statistics
import time
import tracemalloc
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from bench._memcached import running
from cache import memds_keys
from cache.config import PublisherConfig, ReaderConfig
from cache.listener import LookupResult
from cache.live import MemcachedConfig, MemcachedNode
from cache.pages import decode_page
from cache.partition_map import PartitionMap
from cache.publisher import Publisher
from cache.reader import MapReader
from keyplane.catalog.v1 import catalog_pb2 as pb
from keyplane.model.partition import Partition, even_ranges
from wire.loop import LoopClock
from wire.metrics import Metrics

_T = TypeVar("_T")

TABLE = pb.Table(table_id=1, name="bench", state=pb.TABLE_STATE_ACTIVE)
CLUSTER = "bench"
NODES = ("storage-1", "storage-2", "storage-3")

LOOKUPS_PER_ROUND = 20_000
ROUNDS = 9
SPLITS = 100

# Beats as short as they can be, to see what the work itself takes; a cluster's are longer.
BEAT_S = 0.001
SLOTS = 256

# Past this something is broken rather than slow.
TRANSFER_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class MapFigures:
    """One row: what a map of `partitions` partitions costs.

    lookup_ns: median over rounds of looking up random hashes, all of them looked up before.
    first_lookup_ns: looking up a partition whose object has to be made.
    bisect_list_ns: `bisect_right` on a plain list of the starts, in the same rounds: the least that
        any sorted lookup in Python takes, without finding out who serves the hash.
    memory_bytes: of a map read from MemDS, by tracemalloc, before any lookup.
    encode_s: from a list of partitions to pages ready to be stored.
    publish_s, load_s: to and from one real memcached, page by page, by the real publisher and
        reader with beats of a millisecond.
    replace_us: median time to make the next map after a split, new pages encoded.
    pages_per_split: pages that differ, on average.
    """

    partitions: int
    pages: int
    root_bytes: int
    lookup_ns: float
    first_lookup_ns: float
    bisect_list_ns: float
    memory_bytes: int
    encode_s: float
    publish_s: float
    load_s: float
    replace_us: float
    pages_per_split: float


def measure(count: int, seed: int = 1) -> MapFigures:
    """Measures a map of `count` even partitions. Starts and stops a memcached of its own."""
    rng = random.Random(seed)
    encode_s, made, starts = _encode(count)
    first_ns, lookup_ns, bisect_ns = _lookups(made, starts, rng)
    del starts
    publish_s, load_s = asyncio.run(_transfer(made))
    replace_us, pages_per_split = _splits(made, rng)
    return MapFigures(
        partitions=count,
        pages=len(made.pages),
        root_bytes=made.root().ByteSize(),
        lookup_ns=lookup_ns,
        first_lookup_ns=first_ns,
        bisect_list_ns=bisect_ns,
        memory_bytes=_memory(made),
        encode_s=encode_s,
        publish_s=publish_s,
        load_s=load_s,
        replace_us=replace_us,
        pages_per_split=pages_per_split,
    )


def _encode(count: int) -> tuple[float, PartitionMap, list[int]]:
    """Seconds it took to make the map, the map, and the plain list of its starts."""
    replicas = [tuple(NODES[(first + n) % 3] for n in range(3)) for first in range(3)]
    partitions = [
        Partition(n + 1, TABLE.table_id, start, end, 1, replicas[n % 3][0], replicas[n % 3])
        for n, (start, end) in enumerate(even_ranges(count))
    ]
    seconds, made = _timed(lambda: PartitionMap.build(TABLE, 1, partitions))
    return seconds, made, [partition.start for partition in partitions]


def _timed(act: Callable[[], _T]) -> tuple[float, _T]:
    gc.collect()
    started = time.perf_counter()
    result = act()
    return time.perf_counter() - started, result


def _lookups(
    made: PartitionMap, starts: Sequence[int], rng: random.Random
) -> tuple[float, float, float]:
    """Nanoseconds of the first lookup, of later ones, and of the baseline."""
    hashes = [rng.getrandbits(64) for _ in range(LOOKUPS_PER_ROUND)]
    sample = rng.sample(starts, min(len(starts), LOOKUPS_PER_ROUND))
    floor = made.floor

    def look_up(wanted: Sequence[int] = hashes) -> None:
        for key_hash in wanted:
            floor(key_hash)

    def bisect_list() -> None:
        for key_hash in hashes:
            bisect_right(starts, key_hash)

    first_ns = _timed(lambda: look_up(sample))[0] / len(sample) * 1e9
    look_up()
    # Alternating, so that both see the machine in the same moods.
    rounds = [(_timed(look_up)[0], _timed(bisect_list)[0]) for _ in range(ROUNDS)]
    ours, baseline = (
        statistics.median(seconds) / len(hashes) * 1e9 for seconds in zip(*rounds, strict=True)
    )
    return first_ns, ours, baseline


def _splits(made: PartitionMap, rng: random.Random) -> tuple[float, float]:
    """Microseconds per split, and pages that differ after one."""
    seconds, rewritten = [], []
    next_id = len(made) + 1
    for _ in range(SPLITS):
        parent = made.floor(rng.getrandbits(64))
        middle, epoch = (parent.start + parent.end) // 2, parent.epoch + 1
        children = [
            Partition(next_id, 1, parent.start, middle, epoch, parent.leader, parent.replicas),
            Partition(next_id + 1, 1, middle, parent.end, epoch, parent.leader, parent.replicas),
        ]
        next_id += 2
        started = time.perf_counter()
        after = made.replace(made.version + 1, [parent], children)
        seconds.append(time.perf_counter() - started)
        rewritten.append(len(set(after.pages).difference(made.pages)))
        made = after
    return statistics.median(seconds) * 1e6, statistics.fmean(rewritten)


def _memory(made: PartitionMap) -> int:
    """Bytes of the map as a router holds it after reading it."""
    root = made.root()
    values = {page.digest: page.value for page in made.pages}
    gc.collect()
    tracemalloc.start()
    pages = {digest: decode_page(value, digest) for digest, value in values.items()}
    held = PartitionMap.from_root(root, pages)
    del pages
    gc.collect()
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(held) == len(made)
    return used


# --- to and from memcached ------------------------------------------------------------------------


class _Source:
    """Publishes one map."""

    def __init__(self, made: PartitionMap) -> None:
        self._made = made

    def maps(self) -> Iterable[PartitionMap]:
        return (self._made,)

    def tombstones(self) -> Iterable[pb.MapRoot]:
        return ()

    def directory(self) -> pb.NodeDirectory:
        return pb.NodeDirectory(version=1, nodes=[pb.Node(node_id=node_id) for node_id in NODES])


class _Loaded:
    """Waits for one map."""

    def __init__(self) -> None:
        self.map: asyncio.Future[PartitionMap] = asyncio.get_running_loop().create_future()

    def on_map(self, map: PartitionMap) -> None:
        self.map.set_result(map)

    def on_deleted(self, table: str, table_id: int) -> None: ...
    def on_nodes(self, directory: pb.NodeDirectory) -> None: ...
    def on_report(self, node: pb.Node, tables: Sequence[pb.Table]) -> None: ...
    def on_reported(
        self, node: pb.Node, table: pb.Table, partitions: Sequence[Partition]
    ) -> None: ...
    def on_lookup(self, table: str, result: LookupResult) -> None: ...


async def _transfer(made: PartitionMap) -> tuple[float, float]:
    """Seconds to publish a map to a fresh memcached, and to load it from there."""
    loop = asyncio.get_running_loop()
    with running(memory_mb=256) as server:
        marker = memds_keys.marker(CLUSTER)
        node = MemcachedNode(server.address, marker, loop, MemcachedConfig(timeout_s=10.0))
        try:
            async with asyncio.timeout(TRANSFER_TIMEOUT_S):
                return await _publish(made, node), await _load(made, node)
        finally:
            node.close()


async def _publish(made: PartitionMap, node: MemcachedNode) -> float:
    config = PublisherConfig(CLUSTER, beat_s=BEAT_S, page_slots=SLOTS)
    clock = LoopClock(asyncio.get_running_loop())
    publisher = Publisher(config, clock, [node], Metrics(), _Source(made))
    started = time.perf_counter()
    publisher.start()
    while not publisher.holders(TABLE.name):
        await asyncio.sleep(BEAT_S)
    publisher.stop()
    return time.perf_counter() - started


async def _load(made: PartitionMap, node: MemcachedNode) -> float:
    config = ReaderConfig(CLUSTER, beat_s=BEAT_S, page_slots=SLOTS)
    clock = LoopClock(asyncio.get_running_loop())
    loaded = _Loaded()
    reader = MapReader(config, clock, [node], random.Random(1), Metrics(), loaded)
    started = time.perf_counter()
    reader.lookup(TABLE.name)
    reader.start()
    found = await loaded.map
    reader.stop()
    seconds = time.perf_counter() - started
    assert [page.digest for page in found.pages] == [page.digest for page in made.pages]
    return seconds
