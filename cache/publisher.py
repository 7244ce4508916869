"""Keeps MemDS full: the Metadata Store its maps, each storage node its own report.

Both work on a fixed beat over every memcached node, each node by itself (`cache.writer`), and know
no other way: a first start, a change, and a node that comes back empty are all the same to them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

from google.protobuf.message import DecodeError, Message

from cache import memds_keys
from cache.config import PublisherConfig
from cache.envelope import Kind, open_sealed, seal
from cache.pages import Page, paginate
from cache.partition_map import PartitionMap
from cache.tenant_shards import open_shard, seal_shard
from cache.writer import Entry, NodeWriter
from keyplane.catalog.v1 import catalog_pb2 as pb
from keyplane.model.errors import KeyplaneError
from keyplane.model.partition import Partition
from keyplane.model.vault import Vault
from wire.metrics import Metrics
from wire.ports import Clock, MemdsNode, Timer

_M = TypeVar("_M", bound=Message)


class MapSource(Protocol):
    """What the Metadata Store wants MemDS to hold. Read on every beat, so answers come from memory.

    The same object means unchanged: return the map itself, not a copy.
    """

    def maps(self) -> Iterable[PartitionMap]: ...

    def tombstones(self) -> Iterable[pb.MapRoot]:
        """Roots of deleted tables, state DELETED, without pages."""

    def directory(self) -> pb.NodeDirectory:
        """All storage nodes, under a version that rises when they change."""


@dataclass(frozen=True, slots=True)
class ServedTable:
    """What one storage node serves of a table: partitions by rising start."""

    table: pb.Table
    partitions: Sequence[Partition]


class ReportSource(Protocol):
    """What a storage node says it serves."""

    def generation(self) -> int:
        """Changes whenever the answers below do."""

    def node(self) -> pb.Node: ...

    def tables(self) -> Iterable[ServedTable]: ...


@dataclass(frozen=True, slots=True)
class PublishedTenants:
    """shards: who may call, by number; read on every beat. vault: what they are sealed with."""

    vault: Vault
    shards: Callable[[], Sequence[pb.TenantShard]]


class _Beats:
    """A fixed beat over one writer per memcached node."""

    def __init__(self, beat_s: float, clock: Clock, writers: Sequence[NodeWriter]) -> None:
        self._beat_s = beat_s
        self._clock = clock
        self._writers = writers
        self._timer: Timer | None = None

    def start(self, act: Callable[[], dict[str, Entry]]) -> None:
        """act: says what is to be written, once per beat; the first is now."""

        def beat() -> None:
            self._timer = self._clock.call_later(self._beat_s, beat)
            entries = act()
            for writer in self._writers:
                writer.beat(entries)

        self._timer = self._clock.call_later(0.0, beat)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


# Key of an entry, what it is made of (equal: unchanged), and how to make it.
_Wanted = tuple[str, object, Callable[[], Entry]]


class _Entries:
    """Entries by key, encoded anew only when what they are made of has changed."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._made_of: dict[str, object] = {}

    def get(self, key: str) -> Entry | None:
        return self._entries.get(key)

    def update(self, wanted: Iterable[_Wanted]) -> dict[str, Entry]:
        """The entries wanted now. Of two for one key the later counts."""
        by_key = {key: (made_of, make) for key, made_of, make in wanted}
        for key, (made_of, make) in by_key.items():
            if key not in self._entries or self._made_of[key] != made_of:
                self._entries[key], self._made_of[key] = make(), made_of
        for key in [key for key in self._entries if key not in by_key]:
            del self._entries[key], self._made_of[key]
        return dict(self._entries)


class Publisher:
    """Publishes the maps, tombstones and the node directory. One per Metadata Store."""

    def __init__(
        self,
        config: PublisherConfig,
        clock: Clock,
        nodes: Sequence[MemdsNode],
        metrics: Metrics,
        source: MapSource,
        tenants: PublishedTenants | None = None,
    ) -> None:
        """tenants: None: MemDS hears of none."""
        self._cluster = config.cluster
        self._source = source
        self._tenants = tenants
        self._writers = [
            NodeWriter(config, node, metrics, self._on_outranked, keeps_marker=True)
            for node in nodes
        ]
        self._beats = _Beats(config.beat_s, clock, self._writers)
        self._entries = _Entries()
        # Added to the source's directory versions, so that they follow on from those in MemDS.
        self._directory_offset = 0
        # Likewise of the tenants' shards, by their keys.
        self._tenant_offsets: dict[str, int] = {}

    def start(self) -> None:
        """Begins with a beat at once."""
        self._beats.start(lambda: self._entries.update(self._wanted()))

    def stop(self) -> None:
        """No beat begins any more."""
        self._beats.stop()

    def holders(self, table: str) -> int:
        """How many memcached nodes are believed to hold the table's newest root and its pages."""
        entry = self._entries.get(memds_keys.root(self._cluster, table))
        return sum(writer.holds(entry) for writer in self._writers) if entry is not None else 0

    def _wanted(self) -> Iterator[_Wanted]:
        for root in self._source.tombstones():
            key = memds_keys.root(self._cluster, root.table.name)
            yield key, _root_rank(root), partial(_root_entry, key, root)
        for map in self._source.maps():
            key = memds_keys.root(self._cluster, map.table.name)
            yield key, map, partial(_map_entry, key, map)
        directory, key = self._source.directory(), memds_keys.nodes(self._cluster)
        version = directory.version + self._directory_offset
        yield key, version, partial(_directory_entry, key, directory, version)
        if self._tenants is not None:
            yield from self._wanted_tenants(self._tenants)

    def _wanted_tenants(self, tenants: PublishedTenants) -> Iterator[_Wanted]:
        for number, shard in enumerate(tenants.shards()):
            key = memds_keys.tenants(self._cluster, number)
            version = shard.version + self._tenant_offsets.get(key, 0)
            make = partial(self._tenants_entry, tenants.vault, key, number, shard, version)
            yield key, version, make

    def _tenants_entry(
        self, vault: Vault, key: str, number: int, shard: pb.TenantShard, version: int
    ) -> Entry:
        def rank_of(value: bytes) -> tuple[int, int] | None:
            try:
                return 0, open_shard(vault, self._cluster, number, value).version
            except KeyplaneError:
                return None

        written = pb.TenantShard(version=version, tenants=shard.tenants)
        return Entry(key, (0, version), seal_shard(vault, self._cluster, number, written), rank_of)

    def _on_outranked(self, key: str, rank: tuple[int, int]) -> None:
        """A newer root stays. Directories and tenants have one author, so ours go on from what was
        found.
        """
        if self._tenants is not None:
            for number, shard in enumerate(self._tenants.shards()):
                if key == memds_keys.tenants(self._cluster, number):
                    self._tenant_offsets[key] = rank[1] + 1 - shard.version
        if key == memds_keys.nodes(self._cluster):
            self._directory_offset = rank[1] + 1 - self._source.directory().version


class ReportPublisher:
    """Publishes what one storage node serves. One per storage node."""

    def __init__(
        self,
        config: PublisherConfig,
        clock: Clock,
        nodes: Sequence[MemdsNode],
        metrics: Metrics,
        source: ReportSource,
    ) -> None:
        self._cluster = config.cluster
        self._source = source
        writers = [
            NodeWriter(config, node, metrics, self._on_outranked, keeps_marker=False)
            for node in nodes
        ]
        self._beats = _Beats(config.beat_s, clock, writers)
        self._entries = _Entries()
        # Of the last report made, or of one found in MemDS from an earlier life of this node.
        self._sequence = 0
        self._outranked = 0

    def start(self) -> None:
        """Begins with a beat at once."""
        self._beats.start(lambda: self._entries.update(self._wanted()))

    def stop(self) -> None:
        """No beat begins any more."""
        self._beats.stop()

    def _wanted(self) -> Iterator[_Wanted]:
        key = memds_keys.report(self._cluster, self._source.node().node_id)
        yield key, (self._source.generation(), self._outranked), partial(self._make, key)

    def _make(self, key: str) -> Entry:
        self._sequence += 1
        report = pb.NodeReport(node=self._source.node(), sequence=self._sequence)
        pages: list[Page] = []
        for served in self._source.tables():
            of_table = paginate(served.table.table_id, served.partitions)
            report.tables.add(table=served.table, page_digests=[page.digest for page in of_table])
            pages += of_table
        value = seal(Kind.REPORT, report.SerializeToString())
        return Entry(key, (0, self._sequence), value, _report_rank_of, pages)

    def _on_outranked(self, _: str, rank: tuple[int, int]) -> None:
        """Only an earlier life of this node wrote under its key, so the next report goes on."""
        self._sequence = max(self._sequence, rank[1])
        self._outranked = self._sequence


def _map_entry(key: str, map: PartitionMap) -> Entry:
    return _root_entry(key, map.root(), map.pages)


def _root_entry(key: str, root: pb.MapRoot, pages: Sequence[Page] = ()) -> Entry:
    value = seal(Kind.ROOT, root.SerializeToString())
    return Entry(key, _root_rank(root), value, _root_rank_of, pages)


def _directory_entry(key: str, directory: pb.NodeDirectory, version: int) -> Entry:
    payload = pb.NodeDirectory(version=version, nodes=directory.nodes).SerializeToString()
    return Entry(key, (0, version), seal(Kind.NODES, payload), _directory_rank_of)


def _root_rank(root: pb.MapRoot) -> tuple[int, int]:
    return root.table.table_id, root.version


def _root_rank_of(value: bytes) -> tuple[int, int] | None:
    root = _parse(Kind.ROOT, pb.MapRoot, value)
    return _root_rank(root) if root is not None else None


def _directory_rank_of(value: bytes) -> tuple[int, int] | None:
    directory = _parse(Kind.NODES, pb.NodeDirectory, value)
    return (0, directory.version) if directory is not None else None


def _report_rank_of(value: bytes) -> tuple[int, int] | None:
    report = _parse(Kind.REPORT, pb.NodeReport, value)
    return (0, report.sequence) if report is not None else None


def _parse(kind: Kind, message: type[_M], value: bytes) -> _M | None:
    try:
        return message.FromString(open_sealed(kind, value))
    except (KeyplaneError, DecodeError):
        return None
