"""Publisher and reader over real memcached: what the tests in memory claim also holds there."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine

import pytest
from cache_world import CLUSTER, NODES, Reports, Router, Source, make_map, make_table, split

from bench._memcached import MEMCACHED, Memcached, running
from cache.config import PublisherConfig, ReaderConfig
from cache.listener import LookupResult
from cache.live import MemcachedConfig, MemcachedNode, connect
from cache.publisher import Publisher, ReportPublisher, ServedTable
from cache.reader import MapReader
from wire.loop import LoopClock
from wire.metrics import Metrics

pytestmark = pytest.mark.skipif(MEMCACHED is None, reason="memcached is not installed")

BEAT_S = 0.02
WAIT_S = 30.0


class Live:
    """Two memcached, a publisher and a reader of their own connections, on the running loop."""

    def __init__(self, servers: list[Memcached]) -> None:
        self.loop = asyncio.get_running_loop()
        self.clock = LoopClock(self.loop)
        self.servers = servers
        self.metrics = Metrics()
        self.source = Source()
        self.router = Router(self.clock)
        self.opened: list[MemcachedNode] = []
        self.publisher = Publisher(
            PublisherConfig(CLUSTER, beat_s=BEAT_S),
            self.clock,
            self.nodes(),
            Metrics(),
            self.source,
        )
        self.reader = MapReader(
            ReaderConfig(CLUSTER, beat_s=BEAT_S),
            self.clock,
            self.nodes(),
            random.Random(1),
            self.metrics,
            self.router,
        )

    def nodes(self) -> list[MemcachedNode]:
        addresses = [server.address for server in self.servers]
        nodes = connect(addresses, CLUSTER, self.loop, MemcachedConfig(timeout_s=2.0))
        self.opened += nodes
        return nodes

    async def until(self, done: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not done():
                await asyncio.sleep(BEAT_S / 4)

    async def reached(self, version: int) -> None:
        await self.until(lambda: self.router.versions[-1] == version)

    async def look_up(self, table: str = "orders") -> LookupResult:
        before = len(self.router.lookups)
        assert self.reader.lookup(table)
        await self.until(lambda: len(self.router.lookups) > before)
        return self.router.lookups[-1][1]

    def ignored(self, why: str) -> float:
        return self.metrics.counter("memds_ignored_total", "", "reason").value(why)


def run(story: Callable[[Live], Coroutine[None, None, None]]) -> None:
    """Runs a story against two memcached servers that are gone at its end."""

    async def main() -> None:
        with running() as first, running() as second:
            live = Live([first, second])
            try:
                await story(live)
            finally:
                live.publisher.stop()
                live.reader.stop()
                for node in live.opened:
                    node.close()

    asyncio.run(main())


def test_a_map_travels_and_follows_splits() -> None:
    """10,000 partitions, published, found, and followed through splits to the last page."""

    async def story(live: Live) -> None:
        map = live.source.put(make_map(10_000))
        live.publisher.start()
        await live.until(lambda: live.publisher.holders("orders") == 2)
        live.reader.start()
        assert await live.look_up() is LookupResult.FOUND
        assert live.router.known() == list(map.partitions())
        for number in range(5):
            map = live.source.put(split(map, number << 60))
            await live.reached(map.version)
        assert live.router.known() == list(map.partitions())
        assert live.router.versions == sorted(live.router.versions)

    run(story)


def test_killed_and_restarted_memcached_takes_no_route_and_fills_again() -> None:
    """Both servers are killed under a running reader and come back empty."""

    async def story(live: Live) -> None:
        map = live.source.put(make_map(2_000))
        live.publisher.start()
        await live.until(lambda: live.publisher.holders("orders") == 2)
        live.reader.start()
        await live.look_up()
        live.publisher.stop()
        for server in live.servers:
            server.stop()
        await live.until(lambda: live.ignored("down") > 10)
        assert live.router.known() == list(map.partitions())
        for server in live.servers:
            server.start()
        await live.until(lambda: live.ignored("empty") > 10)
        assert live.router.known() == list(map.partitions())
        assert await live.look_up("unknown") is LookupResult.UNKNOWN
        live.publisher.start()
        after = live.source.put(split(map, 0))
        await live.reached(after.version)
        await live.until(lambda: live.publisher.holders("orders") == 2)
        assert await live.look_up("unknown") is LookupResult.ABSENT

    run(story)


def test_storage_nodes_fill_memcached_alone() -> None:
    """No control plane at all: three reports make a whole map for a reader that starts empty."""

    async def story(live: Live) -> None:
        partitions = list(make_map(900).partitions())
        publishers = [
            ReportPublisher(
                PublisherConfig(CLUSTER, beat_s=BEAT_S),
                live.clock,
                live.nodes(),
                Metrics(),
                Reports(node_id, [ServedTable(make_table(), partitions[number::3])]),
            )
            for number, node_id in enumerate(NODES)
        ]
        for publisher in publishers:
            publisher.start()
        live.reader.follow_nodes(NODES)
        live.reader.start()
        await live.until(lambda: len(live.router.known()) == len(partitions))
        assert live.router.known() == partitions
        for publisher in publishers:
            publisher.stop()

    run(story)
