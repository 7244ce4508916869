"""Values read from MemDS, put together to maps.

Fed with values as they come, from any node, in any order and any number of times; says which pages
are missing; tells the listener when a map is whole. Does no I/O and asks for none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from cache import ignored
from cache.envelope import Kind, open_sealed
from cache.ignored import Ignored
from cache.listener import MapListener
from cache.pages import DIGEST_BYTES, Page, decode_page
from cache.partition_map import PartitionMap
from keyplane.catalog.v1 import catalog_pb2 as pb
from keyplane.model.errors import KeyplaneError
from wire.metrics import Metrics
from wire.ports import Clock

_M = TypeVar("_M", bound=Message)

# Most tables followed: DynamoDB's initial quota per account and Region. A router reaches those past
# it through the storage nodes.
TABLES_MAX = 2_500

# Most storage nodes whose reports are followed.
REPORTS_MAX = 1_024

# (table id, version): of two roots under one name the higher is newer, also after the table was
# deleted and created again.
Rank = tuple[int, int]


@dataclass(slots=True, eq=False)
class Collection:
    """Pages that are needed together, and what to do once all are there."""

    digests: Sequence[bytes]
    on_complete: Callable[[dict[bytes, Page]], None]
    pages: dict[bytes, Page] = field(default_factory=dict)
    # Digests not here yet, those not asked for lately first.
    missing: dict[bytes, None] = field(default_factory=dict)

    def offer(self, page: Page) -> None:
        if page.digest in self.missing:
            del self.missing[page.digest]
            self.pages[page.digest] = page

    def take_missing(self, count: int) -> list[bytes]:
        """Up to `count` missing digests, which then go to the back of the line."""
        taken = [digest for digest, _ in zip(self.missing, range(count), strict=False)]
        for digest in taken:
            self.missing[digest] = self.missing.pop(digest)
        return taken


@dataclass(slots=True, eq=False)
class FollowedTable:
    """What is known of one table name.

    rank: of the newest root taken over: a map's or a tombstone's. (0, 0) before any.
    collecting: the newer root whose pages are on their way, with its rank.
    root_value: the value of the newest root seen, so that reading it again costs nothing.
    refused_value: the last root whose pages did not make a map; not tried again.
    """

    name: str
    map: PartitionMap | None = None
    deleted: bool = False
    rank: Rank = (0, 0)
    collecting: Collection | None = None
    collecting_rank: Rank = (0, 0)
    root_value: bytes = b""
    refused_value: bytes = b""
    confirmed_at: float | None = None


@dataclass(slots=True, eq=False)
class _FollowedNode:
    value: bytes = b""
    collections: dict[str, Collection] = field(default_factory=dict)


class Assembly:
    """All tables, storage nodes and the directory as MemDS tells of them."""

    def __init__(self, clock: Clock, metrics: Metrics, listener: MapListener) -> None:
        self.tables: dict[str, FollowedTable] = {}
        self.node_ids: dict[str, None] = {}
        self._clock = clock
        self._ignored = ignored.counter(metrics)
        self._listener = listener
        self._nodes: dict[str, _FollowedNode] = {}
        self._directory_version = 0
        self._collections: dict[Collection, None] = {}

    def follow(self, name: str) -> FollowedTable | None:
        """The table of this name, from now on read on every beat. None if there are too many."""
        followed = self.tables.get(name)
        if followed is None:
            if len(self.tables) >= TABLES_MAX:
                self.ignore(Ignored.TOO_MANY)
                return None
            followed = self.tables[name] = FollowedTable(name)
        return followed

    def follow_node(self, node_id: str) -> None:
        if node_id in self.node_ids:
            return
        if len(self.node_ids) >= REPORTS_MAX:
            self.ignore(Ignored.TOO_MANY)
            return
        self.node_ids[node_id] = None

    def adopt(self, map: PartitionMap) -> None:
        """Starts from a map known otherwise, such as from a snapshot."""
        followed = self.follow(map.table.name)
        rank = (map.table.table_id, map.version)
        if followed is not None and rank > followed.rank:
            followed.map, followed.rank, followed.deleted = map, rank, False

    def ignore(self, why: Ignored) -> None:
        self._ignored.inc(why.value)

    # --- values ---------------------------------------------------------------------------------

    def offer_root(self, name: str, value: bytes) -> None:
        followed = self.follow(name)
        if followed is None:
            return
        if value == followed.root_value:
            self._confirm(followed)
            return
        if value == followed.refused_value:
            self.ignore(Ignored.MAP_INVALID)
            return
        root = self._open(Kind.ROOT, pb.MapRoot, value)
        if root is None:
            return
        if root.table.name != name:
            self.ignore(Ignored.WRONG_KEY)
            return
        deleted = root.table.state == pb.TABLE_STATE_DELETED
        digests = list(root.page_digests)
        if any(len(digest) != DIGEST_BYTES for digest in digests) or bool(digests) == deleted:
            self.ignore(Ignored.MAP_INVALID)
            return
        rank = (root.table.table_id, root.version)
        if rank < max(followed.rank, followed.collecting_rank):
            self.ignore(Ignored.OLDER_ROOT)
            return
        followed.root_value = value
        if rank == followed.rank:
            self._confirm(followed)
        elif deleted:
            self._bury(followed, rank)
        elif rank > followed.collecting_rank:
            self._collect_map(followed, rank, root)

    def offer_nodes(self, value: bytes) -> None:
        directory = self._open(Kind.NODES, pb.NodeDirectory, value)
        if directory is None:
            return
        if not directory.nodes:
            self.ignore(Ignored.EMPTY_NODES)
        elif directory.version < self._directory_version:
            self.ignore(Ignored.OLDER_NODES)
        elif directory.version > self._directory_version:
            self._directory_version = directory.version
            for node in directory.nodes:
                self.follow_node(node.node_id)
            self._listener.on_nodes(directory)

    def offer_report(self, node_id: str, value: bytes) -> None:
        followed = self._nodes.setdefault(node_id, _FollowedNode())
        if value == followed.value:
            return
        report = self._open(Kind.REPORT, pb.NodeReport, value)
        if report is None:
            return
        if report.node.node_id != node_id:
            self.ignore(Ignored.WRONG_KEY)
            return
        followed.value = value
        for collection in followed.collections.values():
            self._collections.pop(collection, None)
        followed.collections.clear()
        self._listener.on_report(report.node, [each.table for each in report.tables])
        for each in report.tables:
            table = self.follow(each.table.name)
            if table is not None and table.map is None and each.table.table_id > table.rank[0]:
                self._collect_report(followed, report.node, each)

    def offer_page(self, digest: bytes, value: bytes) -> None:
        """A page that is needed, or one that is here already and was read again."""
        needed = [each for each in self._collections if digest in each.missing]
        try:
            if not needed:
                open_sealed(Kind.PAGE, value)
                return
            page = decode_page(value, digest)
        except KeyplaneError as error:
            self.ignore(ignored.of_error(error))
            return
        for collection in needed:
            collection.offer(page)
            self._complete(collection)

    # --- pages ----------------------------------------------------------------------------------

    def take_missing_pages(self, count: int) -> list[bytes]:
        """Up to `count` digests of pages to read next, shared out between those that wait."""
        taken: dict[bytes, None] = {}
        waiting = list(self._collections)
        share = max(1, count // max(1, len(waiting)))
        for collection in waiting:
            room = count - len(taken)
            if room <= 0:
                break
            # The last one may have what the others did not need.
            wanted = room if collection is waiting[-1] else min(share, room)
            taken.update(dict.fromkeys(collection.take_missing(wanted)))
            self._collections[collection] = self._collections.pop(collection)
        return list(taken)

    def held_pages(self) -> Iterator[bytes]:
        """Digests of the pages of all maps held."""
        for followed in list(self.tables.values()):
            if followed.map is not None:
                for page in followed.map.pages:
                    yield page.digest

    # --- steps ----------------------------------------------------------------------------------

    def _open(self, kind: Kind, message: type[_M], value: bytes) -> _M | None:
        try:
            return message.FromString(open_sealed(kind, value))
        except KeyplaneError as error:
            self.ignore(ignored.of_error(error))
        except DecodeError:
            self.ignore(Ignored.CORRUPT)
        return None

    def _confirm(self, followed: FollowedTable) -> None:
        if followed.collecting is None:
            followed.confirmed_at = self._clock.now()

    def _bury(self, followed: FollowedTable, rank: Rank) -> None:
        self._drop_collecting(followed)
        followed.map, followed.rank, followed.deleted = None, rank, True
        self._listener.on_deleted(followed.name, rank[0])

    def _collect_map(self, followed: FollowedTable, rank: Rank, root: pb.MapRoot) -> None:
        before = self._drop_collecting(followed)
        base = followed.map
        held = {page.digest for page in base.pages} if base is not None else set()

        def complete(pages: dict[bytes, Page]) -> None:
            followed.collecting = None
            try:
                made = PartitionMap.from_root(root, pages, base)
            except KeyplaneError as error:
                self.ignore(ignored.of_error(error))
                followed.refused_value, followed.root_value = followed.root_value, b""
                followed.collecting_rank = (0, 0)
                return
            followed.map, followed.rank, followed.deleted = made, rank, False
            followed.confirmed_at = self._clock.now()
            self._drop_reported(followed.name)
            self._listener.on_map(made)

        wanted = (digest for digest in root.page_digests if digest not in held)
        followed.collecting_rank = rank
        followed.collecting = self._collect(wanted, complete, before)

    def _drop_collecting(self, followed: FollowedTable) -> dict[bytes, Page]:
        """Gives the pages on their way up; those that are here already are handed on."""
        collecting, followed.collecting = followed.collecting, None
        if collecting is None:
            return {}
        self._collections.pop(collecting, None)
        return collecting.pages

    def _collect_report(
        self, followed: _FollowedNode, node: pb.Node, report: pb.TableReport
    ) -> None:
        name = report.table.name

        def complete(pages: dict[bytes, Page]) -> None:
            followed.collections.pop(name, None)
            partitions = [each for page in pages.values() for each in page.partitions()]
            if any(each.table_id != report.table.table_id for each in partitions):
                self.ignore(Ignored.MAP_INVALID)
            else:
                self._listener.on_reported(node, report.table, partitions)

        collection = self._collect(report.page_digests, complete, {})
        if collection is not None:
            followed.collections[name] = collection

    def _drop_reported(self, name: str) -> None:
        for followed in self._nodes.values():
            collection = followed.collections.pop(name, None)
            if collection is not None:
                self._collections.pop(collection, None)

    def _collect(
        self,
        digests: Iterable[bytes],
        on_complete: Callable[[dict[bytes, Page]], None],
        before: dict[bytes, Page],
    ) -> Collection | None:
        """Starts waiting for pages. None if all are here, after `on_complete`."""
        wanted = list(dict.fromkeys(digests))
        collection = Collection(wanted, on_complete)
        for digest in wanted:
            if digest in before:
                collection.pages[digest] = before[digest]
            else:
                collection.missing[digest] = None
        if not collection.missing:
            on_complete(collection.pages)
            return None
        self._collections[collection] = None
        return collection

    def _complete(self, collection: Collection) -> None:
        if not collection.missing:
            self._collections.pop(collection, None)
            collection.on_complete(collection.pages)
