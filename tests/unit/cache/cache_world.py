"""A small MemDS world in memory that the tests of the cache share: nodes, a publisher's source and
a listener that writes down what it is told."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from cache import memds_keys
from cache.config import PublisherConfig, ReaderConfig, Refresh
from cache.listener import LookupResult
from cache.memory import MemoryMemdsNode
from cache.partition_map import PartitionMap
from cache.publisher import Publisher, ReportPublisher, ServedTable
from cache.reader import MapReader
from cache.routes import RouteTable
from keyplane.catalog.v1 import catalog_pb2 as pb
from keyplane.model.partition import Partition, even_ranges
from keyplane.route.v1 import route_pb2
from wire.memory import VirtualClock
from wire.metrics import Metrics
from wire.ports import Clock

CLUSTER = "test"
NODES = ("storage-1", "storage-2", "storage-3")


def make_table(name: str = "orders", table_id: int = 7) -> pb.Table:
    return pb.Table(table_id=table_id, name=name, state=pb.TABLE_STATE_ACTIVE)


def make_partitions(count: int, table_id: int = 7, epoch: int = 1) -> list[Partition]:
    return [
        Partition(number + 1, table_id, start, end, epoch, NODES[number % 3], (NODES[number % 3],))
        for number, (start, end) in enumerate(even_ranges(count))
    ]


def make_map(
    count: int = 8, version: int = 1, name: str = "orders", table_id: int = 7
) -> PartitionMap:
    return PartitionMap.build(make_table(name, table_id), version, make_partitions(count, table_id))


def split(map: PartitionMap, key_hash: int) -> PartitionMap:
    """The next map, in which the partition of a hash is split in half."""
    parent = map.floor(key_hash)
    middle = (parent.start + parent.end) // 2
    new_id = 1_000_000 + 2 * map.version
    children = [
        Partition(new_id, parent.table_id, parent.start, middle, parent.epoch + 1, parent.leader),
        Partition(new_id + 1, parent.table_id, middle, parent.end, parent.epoch + 1, parent.leader),
    ]
    return map.replace(map.version + 1, [parent], children)


@dataclass
class Source:
    """What the publisher publishes: set the fields, and the next beat writes them."""

    by_name: dict[str, PartitionMap] = field(default_factory=dict)
    deleted: list[pb.MapRoot] = field(default_factory=list)
    nodes: pb.NodeDirectory = field(
        default_factory=lambda: pb.NodeDirectory(
            version=1,
            nodes=[pb.Node(node_id=node_id, address=f"{node_id}:1") for node_id in NODES],
        )
    )

    def maps(self) -> Iterable[PartitionMap]:
        return self.by_name.values()

    def tombstones(self) -> Iterable[pb.MapRoot]:
        return self.deleted

    def directory(self) -> pb.NodeDirectory:
        return self.nodes

    def put(self, map: PartitionMap) -> PartitionMap:
        self.by_name[map.table.name] = map
        return map


@dataclass
class Reports:
    """What one storage node reports."""

    node_id: str
    served: list[ServedTable] = field(default_factory=list)
    changes: int = 0

    def generation(self) -> int:
        return self.changes

    def node(self) -> pb.Node:
        return pb.Node(node_id=self.node_id, address=f"{self.node_id}:1")

    def tables(self) -> Iterable[ServedTable]:
        return self.served


@dataclass
class Router:
    """A listener that keeps routes as a router does, and a log of what it was told."""

    clock: Clock
    routes: dict[str, RouteTable] = field(default_factory=dict)
    nodes: dict[str, str] = field(default_factory=dict)
    lookups: list[tuple[str, LookupResult]] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)

    def on_map(self, map: PartitionMap) -> None:
        self.versions.append(map.version)
        routes = self.routes.setdefault(map.table.name, RouteTable(map.table))
        routes.install_map(map, route_pb2.ROUTE_SOURCE_MEMDS, self.clock.now())

    def on_deleted(self, table: str, table_id: int) -> None:
        self.deleted.append(table)
        self.routes.pop(table, None)

    def on_nodes(self, directory: pb.NodeDirectory) -> None:
        self.nodes.update({node.node_id: node.address for node in directory.nodes})

    def on_report(self, node: pb.Node, tables: Sequence[pb.Table]) -> None:
        self.nodes[node.node_id] = node.address

    def on_reported(self, node: pb.Node, table: pb.Table, partitions: Sequence[Partition]) -> None:
        routes = self.routes.setdefault(table.name, RouteTable(table))
        routes.install_hint(partitions, route_pb2.ROUTE_SOURCE_MEMDS)

    def on_lookup(self, table: str, result: LookupResult) -> None:
        self.lookups.append((table, result))

    def known(self, table: str = "orders") -> list[Partition]:
        """Every partition this router would route to, in order."""
        routes = self.routes.get(table)
        return [route.partition for _, _, route in routes.routes()] if routes is not None else []


class World:
    """`nodes` memcached nodes, a publisher, and one reader with its router; all on one clock."""

    def __init__(
        self,
        nodes: int = 2,
        refresh: Refresh = Refresh.FIXED,
        page_slots: int = 32,
        publish_slots: int = 256,
    ) -> None:
        self.clock = VirtualClock()
        self.metrics = Metrics()
        self.publisher_metrics = Metrics()
        marker = memds_keys.marker(CLUSTER)
        self.memds = [
            MemoryMemdsNode(self.clock, f"memds-{n}", marker) for n in range(1, nodes + 1)
        ]
        self.source = Source()
        self.publisher_config = PublisherConfig(CLUSTER, page_slots=publish_slots)
        self.publisher = self.new_publisher()
        self.router = Router(self.clock)
        self.reader_config = ReaderConfig(CLUSTER, refresh=refresh, page_slots=page_slots)
        self.reader = self.new_reader(self.router)

    def new_publisher(self) -> Publisher:
        return Publisher(
            self.publisher_config, self.clock, self.memds, self.publisher_metrics, self.source
        )

    def new_report_publisher(self, reports: Reports) -> ReportPublisher:
        return ReportPublisher(
            self.publisher_config, self.clock, self.memds, self.publisher_metrics, reports
        )

    def new_reader(self, router: Router) -> MapReader:
        return MapReader(
            self.reader_config, self.clock, self.memds, random.Random(1), self.metrics, router
        )

    def run(self, seconds: float) -> None:
        self.clock.run_for(seconds)

    def look_up(self, table: str = "orders") -> LookupResult:
        """Looks a table up and runs until the answer is there."""
        before = len(self.router.lookups)
        assert self.reader.lookup(table)
        self.clock.run_until(lambda: len(self.router.lookups) > before, timeout_s=30)
        assert self.router.lookups[-1][0] == table
        return self.router.lookups[-1][1]

    def ignored(self, why: str) -> float:
        counter = self.metrics.counter("memds_ignored_total", "", "reason")
        return counter.value(why)

    def requests(self) -> float:
        """Requests the reader has made, by its own count."""
        return self.metrics.counter("memds_requests_total", "", "what").total()
