"""The routes of one table as a router knows them: a map, and what storage nodes said since.

For every key hash the descriptor with the higher (epoch, partition id) wins, whatever it came from
and whenever it arrived. That is a pointwise maximum, so the order of arrival does not matter and a
repetition changes nothing; together with map versions that only rise it is I3. Nothing here takes a
route away but a newer one, which is I5.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, TypeAlias

from cache.partition_map import PartitionMap
from keyplane.catalog.v1 import catalog_pb2 as pb
from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.partition import COARSE_BITS, KEYSPACE_BITS, KEYSPACE_END, Partition
from keyplane.route.v1 import route_pb2

Source: TypeAlias = route_pb2.RouteSource.ValueType

# Most segments learned from storage nodes that are kept above a map. Past it the oldest eighth is
# let go: those hashes fall back to the map and heal again from the error they meet.
OVERLAY_MAX = 4096

# The same bound while there is no map yet and segments are all there is: a whole large table.
OVERLAY_WITHOUT_MAP_MAX = 1 << 20

# Places of the partitions that were looked up last, by the first bits of the hash: as many for each
# partition of the map, in all no more than so many.
_NEAR_PER_PARTITION: Final = 4
_NEAR_MAX: Final = 1 << 16


class Route:
    """Where a key hash lives, and what said so."""

    __slots__ = ("partition", "source")

    def __init__(self, partition: Partition, source: Source) -> None:
        self.partition = partition
        self.source = source

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Route)
            and self.partition == other.partition
            and self.source == other.source
        )

    def __hash__(self) -> int:
        return hash((self.partition, self.source))

    def __repr__(self) -> str:
        return f"Route({self.partition!r}, {self.source!r})"


@dataclass(frozen=True, slots=True)
class _Segment:
    """Hashes [start, end) for which `route` is the newest claim known.

    learned: rises with each installation, so that the oldest can be found.
    is_base: only while merging: the claim is the map's own.
    """

    start: int
    end: int
    route: Route
    learned: int
    is_base: bool = False

    @property
    def is_whole(self) -> bool:
        partition = self.route.partition
        return self.start == partition.start and self.end == partition.end


class RouteTable:
    """Routes of one table. Looking one up is the hot path; they change when something is learned.

    table: schema and settings, as last learned.
    map: the newest map, None until there is one.
    source: what the map came from.
    confirmed_at: when the map was last installed or found unchanged, on the clock's axis.
    """

    __slots__ = (
        *("_covered", "_learned", "_map", "_near", "_near_shift", "_overlay", "_starts"),
        *("confirmed_at", "source", "table"),
    )

    def __init__(self, table: pb.Table) -> None:
        self.table = table
        self._map: PartitionMap | None = None
        # Partitions of the map; each covers some hash that begins with the bits of its place.
        # The shift is that of a coarse hash.
        self._near: list[Partition | None] = [None]
        self._near_shift = KEYSPACE_BITS - COARSE_BITS
        self.source: Source = route_pb2.ROUTE_SOURCE_UNSPECIFIED
        self.confirmed_at: float | None = None
        # Disjoint, by rising start; every part of it outranks the map.
        self._overlay: list[_Segment] = []
        self._starts: list[int] = []
        self._covered = 0
        self._learned = 0

    @property
    def map(self) -> PartitionMap | None:
        return self._map

    def _set_map(self, new: PartitionMap | None) -> None:
        self._map = new
        count = min(_NEAR_PER_PARTITION * new.count, _NEAR_MAX) if new is not None else 1
        bits = (count - 1).bit_length()
        self._near = [None] * (1 << bits)
        self._near_shift = KEYSPACE_BITS - COARSE_BITS - bits

    @property
    def version(self) -> int:
        """Of the map; 0 while there is none that came from a root."""
        return self.map.version if self.map is not None else 0

    @property
    def partition_count(self) -> int:
        """Of the map, or while there is none of what was learned."""
        return self.map.count if self.map is not None else len(self._overlay)

    @property
    def hints(self) -> int:
        """How often storage nodes have said anything. Rises whenever the overlay changes."""
        return self._learned

    @property
    def overlay_count(self) -> int:
        return len(self._overlay)

    def lookup(self, key_hash: int) -> Route | None:
        """The newest claim on a hash of [0, 2**64). None if nobody has claimed it yet."""
        learned = self._learned_of(key_hash)
        if learned is not None:
            return learned
        return None if self.map is None else Route(self.map.floor(key_hash), self.source)

    def partition_of(self, key_hash: int) -> Partition | None:
        """As `lookup`, without what said so: the hot path."""
        learned = self._learned_of(key_hash)
        if learned is not None:
            return learned.partition
        coarse = key_hash >> COARSE_BITS
        place = coarse >> self._near_shift
        near = self._near[place]
        if near is not None and (
            near.inner_start <= coarse < near.inner_end or near.covers(key_hash)
        ):
            return near
        if self._map is None:
            return None
        near = self._near[place] = self._map.floor(key_hash)
        return near

    def _learned_of(self, key_hash: int) -> Route | None:
        if not self._starts:
            return None
        index = bisect_right(self._starts, key_hash) - 1
        if index >= 0 and key_hash < self._overlay[index].end:
            return self._overlay[index].route
        return None

    def install_map(self, new: PartitionMap, source: Source, now: float) -> bool:
        """Takes a map over unless it is older than the one here. True if it changed anything.

        What storage nodes said stays where it outranks the new map, and so does the old map. A map
        of a later table of the same name (a higher table id) replaces all that was known.
        """
        if new.table.table_id < self.table.table_id:
            return False
        if new.table.table_id > self.table.table_id:
            self._set_map(None)
            self._set_overlay(0, len(self._overlay), [])
        if self.map is not None and new.version <= self.version:
            if new.version == self.version:
                self.confirmed_at = now
            return False
        old = self.map
        self._set_map(new)
        held = [segment for segment in self._overlay if not _agrees(new, segment.route.partition)]
        if old is not None:
            held += self._outranking(old, new)
        self._set_overlay(0, len(self._overlay), _above(new, held))
        self._trim()
        self.table, self.source, self.confirmed_at = new.table, source, now
        return True

    def install_hint(self, partitions: Iterable[Partition], source: Source) -> bool:
        """Takes over what storage nodes say, where it is newer. True if it changed anything.

        Raises KeyplaneError(MAP_INVALID), changing nothing, on a partition of another table.
        """
        claims = list(partitions)
        for partition in claims:
            if partition.table_id != self.table.table_id:
                raise KeyplaneError(
                    Reason.MAP_INVALID,
                    f"partition {partition.partition_id} does not belong to {self.table.name!r}",
                )
        self._learned += 1
        new = [
            _Segment(partition.start, partition.end, Route(partition, source), self._learned)
            for partition in claims
            if self.map is None or not _agrees(self.map, partition)
        ]
        if not new:
            return False
        first = bisect_right(self._starts, min(segment.start for segment in new)) - 1
        first = max(first, 0)
        last = bisect_left(self._starts, max(segment.end for segment in new))
        before = self._overlay[first:last]
        after = _above(self.map, [*before, *new])
        if after == before:
            return False
        self._set_overlay(first, last, after)
        self._fold()
        self._trim()
        return True

    def overlay(self) -> Iterator[Route]:
        """What was learned beyond the map, each partition once."""
        seen: set[tuple[int, int]] = set()
        for segment in self._overlay:
            rank = _rank(segment.route.partition)
            if rank not in seen:
                seen.add(rank)
                yield segment.route

    def routes(self) -> Iterator[tuple[int, int, Route]]:
        """(start, end, route) of all that is known, by rising start, gaps left out."""
        start = 0
        while start < KEYSPACE_END:
            index = bisect_right(self._starts, start) - 1
            if index >= 0 and start < self._overlay[index].end:
                end, route = self._overlay[index].end, self._overlay[index].route
                yield start, end, route
            else:
                end = self._starts[index + 1] if index + 1 < len(self._starts) else KEYSPACE_END
                if self.map is not None:
                    partition = self.map.floor(start)
                    end = min(end, partition.end)
                    yield start, end, Route(partition, self.source)
            start = end

    def __repr__(self) -> str:
        return (
            f"RouteTable({self.table.name}, version {self.version}, "
            f"{self.partition_count} partitions, {self.overlay_count} learned)"
        )

    def _outranking(self, old: PartitionMap, new: PartitionMap) -> list[_Segment]:
        """The old map's claims that the new one does not simply repeat or replace."""
        kept = {page.digest for page in new.pages}
        return [
            _Segment(partition.start, partition.end, Route(partition, self.source), 0)
            for page in old.pages
            if page.digest not in kept
            for partition in page.partitions()
            if any(
                _rank(other) < _rank(partition)
                for other in new.overlapping(partition.start, partition.end)
            )
        ]

    def _set_overlay(self, first: int, last: int, segments: Sequence[_Segment]) -> None:
        self._covered -= sum(segment.end - segment.start for segment in self._overlay[first:last])
        self._covered += sum(segment.end - segment.start for segment in segments)
        self._overlay[first:last] = segments
        self._starts[first:last] = [segment.start for segment in segments]

    def _fold(self) -> None:
        """Makes a map of what was learned once that covers everything with whole partitions."""
        if self.map is not None or self._covered != KEYSPACE_END:
            return
        if all(segment.is_whole for segment in self._overlay):
            routes = [segment.route for segment in self._overlay]
            partitions = [route.partition for route in routes]
            self._set_map(PartitionMap.build(self.table, 0, partitions))
            self.source = routes[-1].source
            self._set_overlay(0, len(self._overlay), [])

    def _trim(self) -> None:
        bound = OVERLAY_MAX if self.map is not None else OVERLAY_WITHOUT_MAP_MAX
        if len(self._overlay) > bound:
            newest = sorted(self._overlay, key=lambda segment: -segment.learned)
            kept = sorted(newest[: bound - bound // 8], key=lambda segment: segment.start)
            self._set_overlay(0, len(self._overlay), kept)


def _rank(partition: Partition) -> tuple[int, int]:
    """Decides between two claims on one hash. Equal ranks are the same claim."""
    return partition.epoch, partition.partition_id


def _agrees(map: PartitionMap, partition: Partition) -> bool:
    return _rank(map.floor(partition.start)) == _rank(partition)


def _above(map: PartitionMap | None, segments: Sequence[_Segment]) -> list[_Segment]:
    """What of the segments outranks the map, and of each other where they overlap."""
    contenders = list(segments)
    if map is not None:
        last = None
        for segment in sorted(segments, key=lambda segment: segment.start):
            for partition in map.overlapping(segment.start, segment.end):
                if partition is not last:
                    route = Route(partition, route_pb2.ROUTE_SOURCE_UNSPECIFIED)
                    contenders.append(
                        _Segment(partition.start, partition.end, route, 0, is_base=True)
                    )
                last = partition
    return [segment for segment in _upper_envelope(contenders) if not segment.is_base]


def _upper_envelope(segments: Sequence[_Segment]) -> list[_Segment]:
    """Disjoint segments that give each hash the highest rank that claims it.

    A sweep over the bounds with a heap of the segments that are open: O(n log n).
    """
    waiting = sorted(segments, key=lambda segment: segment.start)
    bounds = sorted({bound for segment in segments for bound in (segment.start, segment.end)})
    # At equal ranks the claim learned first stays, and the map's own (0) is first of all.
    open_: list[tuple[int, int, int, int, _Segment]] = []
    result: list[_Segment] = []
    arrived = 0
    for start, end in pairwise(bounds):
        while arrived < len(waiting) and waiting[arrived].start <= start:
            segment = waiting[arrived]
            epoch, partition_id = _rank(segment.route.partition)
            heapq.heappush(open_, (-epoch, -partition_id, segment.learned, arrived, segment))
            arrived += 1
        while open_ and open_[0][-1].end <= start:
            heapq.heappop(open_)
        if not open_:
            continue
        best = open_[0][-1]
        previous = result[-1] if result else None
        if previous is not None and previous.end == start and _continues(previous, best):
            start = result.pop().start
        result.append(_Segment(start, end, best.route, best.learned, best.is_base))
    return result


def _continues(previous: _Segment, segment: _Segment) -> bool:
    same = _rank(previous.route.partition) == _rank(segment.route.partition)
    return same and previous.is_base == segment.is_base
