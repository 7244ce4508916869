"""The partition map of one table: which partition covers a key hash.

Two binary searches, one among pages and one inside a page. A map is never changed; `replace` makes
a new one that shares every page it can, so a reader sees the old map or the new one, whole.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence

from cache.pages import Page, Paginator, paginate
from keyplane.catalog.v1 import catalog_pb2 as pb
from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.partition import KEYSPACE_END, Partition

# Most Partition objects a map keeps for its next lookups, about 250 bytes each. Past it all are
# dropped and made again as they are asked for, about a microsecond each.
MATERIALISED_MAX = 65_536


class PartitionMap:
    """Immutable. Covers the whole keyspace with no gap and no overlap, or it would not exist.

    table: settings and schema at this version; not to be changed.
    version: raised whenever the map changes. 0: put together from what storage nodes say, with no
        root to go by.
    pages: in key-hash order.
    """

    __slots__ = ("_id_max", "_made", "_starts", "count", "pages", "table", "version")

    def __init__(
        self,
        table: pb.Table,
        version: int,
        pages: Iterable[Page],
        before: PartitionMap | None = None,
    ) -> None:
        """Raises KeyplaneError(MAP_INVALID) if the pages are not a whole map of this table.

        before: the map that this one follows; then nothing is checked, which is the caller's to do.
        """
        self.table = table
        self.version = version
        self.pages = tuple(pages)
        self.count = sum(map(len, self.pages))
        self._starts = [page.start for page in self.pages]
        self._made = 0
        self._id_max: int
        if before is not None:
            self._made = before._made
            self._id_max = before._id_max
            return
        _check_tiling(table, self.pages, 0, KEYSPACE_END)
        ids: set[int] = set()
        for page in self.pages:
            ids.update(page.partition_ids)
        if len(ids) != self.count:
            raise _invalid(table, "a partition id occurs twice")
        self._id_max = max(ids)

    @classmethod
    def build(cls, table: pb.Table, version: int, partitions: Iterable[Partition]) -> PartitionMap:
        """A map from partitions by rising start. Raises KeyplaneError(MAP_INVALID)."""
        return cls(table, version, paginate(table.table_id, partitions))

    @classmethod
    def from_root(
        cls, root: pb.MapRoot, pages: Mapping[bytes, Page], base: PartitionMap | None = None
    ) -> PartitionMap:
        """The map a root describes.

        pages: by digest, at least those that the root names and `base` does not hold.
        base: an earlier map of the table, whose ids need no second check.
        Raises KeyplaneError(MAP_INVALID), also when the root's partition count is not the pages'.
        """
        held = {page.digest: page for page in base.pages} if base is not None else {}
        chosen = [held.get(digest) or pages.get(digest) for digest in root.page_digests]
        found = [page for page in chosen if page is not None]
        if len(found) < len(chosen):
            raise _invalid(root.table, "a page is missing")
        if base is not None and base.table.table_id == root.table.table_id:
            _check_tiling(root.table, found, 0, KEYSPACE_END)
            made = cls(root.table, root.version, found, base)
            fresh = [page for page in found if page.digest not in held]
            dropped = held.keys() - root.page_digests
            made._check_ids(base, fresh, [held[digest] for digest in dropped])
        else:
            made = cls(root.table, root.version, found)
        if made.count != root.partition_count:
            raise _invalid(root.table, f"{made.count} partitions, {root.partition_count} promised")
        return made

    def floor(self, key_hash: int) -> Partition:
        """The partition that covers a key hash, 0 <= key_hash < 2**64."""
        page = self.pages[bisect_right(self._starts, key_hash) - 1]
        row = bisect_right(page.starts, key_hash) - 1
        return page.made[row] or self._make(page, row)

    def overlapping(self, start: int, end: int) -> Iterator[Partition]:
        """The partitions that cover any hash of [start, end), by rising start."""
        while start < end:
            partition = self.floor(start)
            yield partition
            start = partition.end

    def partitions(self) -> Iterator[Partition]:
        """All of them, by rising start."""
        for page in self.pages:
            yield from page.partitions()

    def replace(
        self,
        version: int,
        removed: Iterable[Partition],
        added: Iterable[Partition],
        table: pb.Table | None = None,
    ) -> PartitionMap:
        """The next map: `added` in the place of `removed`, all other pages shared with this one.

        table: new settings; unset keeps the old ones.
        Raises KeyplaneError(MAP_INVALID) if the version does not rise, if `removed` is not all in
        the map, or if the result is not a whole map. This map stays as it is.
        """
        table = table if table is not None else self.table
        if version <= self.version:
            raise _invalid(table, f"version {version} does not follow {self.version}")
        gone = {partition.partition_id: partition for partition in removed}
        new = list(added)
        changed = [*gone.values(), *new]
        if not changed:
            return PartitionMap(table, version, self.pages, self)
        for partition in gone.values():
            if self.floor(partition.start).partition_id != partition.partition_id:
                raise _invalid(table, f"partition {partition.partition_id} is not in the map")
        first = self._page_index(min(partition.start for partition in changed))
        last = self._page_index(max(partition.end for partition in changed) - 1)
        while first and self.pages[first - 1].looked_ahead:
            first -= 1
        fresh, following = self._repaginate(first, last, gone, new)
        dropped = self.pages[first:following]
        same = {page.digest: page for page in dropped}
        fresh = [same.get(page.digest, page) for page in fresh]
        _check_tiling(table, fresh, dropped[0].start, dropped[-1].end)
        pages = (*self.pages[:first], *fresh, *self.pages[following:])
        made = PartitionMap(table, version, pages, self)
        made._check_ids(self, fresh, dropped)
        return made

    def root(self) -> pb.MapRoot:
        """The value that describes this map in MemDS."""
        return pb.MapRoot(
            table=self.table,
            version=self.version,
            page_digests=[page.digest for page in self.pages],
            partition_count=self.count,
        )

    def __len__(self) -> int:
        return self.count

    def __repr__(self) -> str:
        return f"PartitionMap({self.table.name}, version {self.version}, {self.count} partitions)"

    def _check_ids(
        self, base: PartitionMap, fresh: Sequence[Page], dropped: Iterable[Page]
    ) -> None:
        """Checks that ids are still unique after `fresh` pages took the place of `dropped` ones.

        Ids come from a counter, so new ones are nearly always above all that are here, and only
        otherwise is every kept page looked at.
        """
        ids = [partition_id for page in fresh for partition_id in page.partition_ids]
        distinct = set(ids)
        new = distinct.difference(*(page.partition_ids for page in dropped))
        if new and min(new) <= base._id_max:
            kept = set(self.pages).difference(fresh)
            unique = all(new.isdisjoint(page.partition_ids) for page in kept)
        else:
            unique = True
        if not unique or len(distinct) != len(ids):
            raise _invalid(self.table, "a partition id occurs twice")
        self._id_max = max(base._id_max, max(new, default=0))

    def _repaginate(
        self, first: int, last: int, gone: Mapping[int, Partition], new: Iterable[Partition]
    ) -> tuple[list[Page], int]:
        """New pages for [first, last], going on until a page ends where an old one did.

        Returns them with the index of the first old page after them.
        """
        kept = (
            partition
            for page in self.pages[first : last + 1]
            for partition in page.partitions()
            if partition.partition_id not in gone
        )
        paginator = Paginator(self.table.table_id)
        for partition in sorted((*kept, *new), key=lambda partition: partition.start):
            paginator.add(partition)
        following = last + 1
        unchanged: dict[int | None, int] = {}
        while paginator.open_at is not None and following < len(self.pages):
            page = self.pages[following]
            unchanged[page.start] = following
            following += 1
            for partition in page.partitions():
                paginator.add(partition)
                if paginator.open_at in unchanged:
                    # From here on the pages would come out as they are.
                    return paginator.pages, unchanged[paginator.open_at]
        paginator.close()
        return paginator.pages, following

    def _page_index(self, key_hash: int) -> int:
        return bisect_right(self._starts, key_hash) - 1

    def _make(self, page: Page, row: int) -> Partition:
        if self._made >= MATERIALISED_MAX:
            for each in self.pages:
                each.forget()
            self._made = 0
        self._made += 1
        partition = page.partition(row)
        assert partition is not None  # maps hold no page with a gap
        return partition


def _check_tiling(table: pb.Table, pages: Sequence[Page], start: int, end: int) -> None:
    """Raises KeyplaneError(MAP_INVALID) unless the pages cover [start, end) and nothing twice."""
    if not table.table_id or any(page.table_id != table.table_id for page in pages):
        raise _invalid(table, "a page belongs to another table")
    starts, ends = [page.start for page in pages], [page.end for page in pages]
    if [*starts, end] != [start, *ends] or any(page.has_gaps for page in pages):
        raise _invalid(table, "its ranges leave a gap or overlap")


def _invalid(table: pb.Table, message: str) -> KeyplaneError:
    return KeyplaneError(Reason.MAP_INVALID, f"map of table {table.name!r} refused: {message}")
