"""How many pages a map has and how large they are, by making some with the code of the map."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache

from cache.pages import paginate
from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.partition import KEYSPACE_END, Partition

# Enough partitions for an average, few enough for a fraction of a second.
_SAMPLE = 10_000
_TABLE_MAX = 20_000
_NODES = 300

# Partition ids of children begin here.
_CHILDREN = 1 << 40


@dataclass(frozen=True, slots=True)
class PageSizes:
    """Averages. pages: of a table. partitions, value_bytes: of a page."""

    pages: float
    partitions: float
    value_bytes: float


@cache
def page_sizes(partitions: int) -> PageSizes:
    """Of tables of so many partitions, cut at random, with three replicas each over 300 storage
    nodes. Of larger tables than 10,000 partitions, from one of these."""
    drawn = random.Random(partitions)
    size = min(partitions, _SAMPLE)
    tables = max(1, _SAMPLE // size)
    pages = [page for table in range(tables) for page in paginate(1, _table(drawn, table, size))]
    each = size * tables / len(pages)
    value_bytes = sum(len(page.value) for page in pages) / len(pages)
    return PageSizes(partitions / each, each, value_bytes)


@cache
def rewritten_pages(partitions: int, splits: int) -> float:
    """Average of the pages of a table that are new after so many of its partitions have been
    halved, over some tables. Raises INVALID_ARGUMENT on more splits than partitions."""
    if splits > partitions:
        raise KeyplaneError(
            Reason.INVALID_ARGUMENT,
            f"{splits} splits of a table of {partitions} partitions; give no more splits than"
            " partitions, or more tables to spread them over",
        )
    if partitions > _TABLE_MAX:
        # Larger tables are so many of this size.
        parts = partitions / _TABLE_MAX
        return rewritten_pages(_TABLE_MAX, max(1, round(splits / parts))) * min(parts, splits)
    drawn = random.Random(partitions * splits)
    tables = max(1, _SAMPLE // partitions)
    new = 0
    for table in range(tables):
        before = _table(drawn, table, partitions)
        known = {page.digest for page in paginate(1, before)}
        parents = {each.partition_id for each in drawn.sample(before, splits)}
        after: list[Partition] = []
        for each in before:
            after += _halves(each) if each.partition_id in parents else [each]
        new += sum(page.digest not in known for page in paginate(1, after))
    return new / tables


def _halves(parent: Partition) -> list[Partition]:
    middle = (parent.start + parent.end) // 2
    if middle == parent.start:
        return [parent]
    id, epoch, where = 2 * parent.partition_id, parent.epoch + 1, (parent.leader, parent.replicas)
    return [
        Partition(_CHILDREN + id, 1, parent.start, middle, epoch, *where),
        Partition(_CHILDREN + id + 1, 1, middle, parent.end, epoch, *where),
    ]


def _table(drawn: random.Random, table: int, size: int) -> list[Partition]:
    cuts = sorted(drawn.randrange(1, KEYSPACE_END) for _ in range(size - 1))
    names = [f"storage-{n % _NODES}" for n in range(table, table + size + 2)]
    return [
        Partition(n + 1, 1, start, end, 1, names[n], tuple(names[n : n + 3]))
        for n, (start, end) in enumerate(zip([0, *cuts], [*cuts, KEYSPACE_END], strict=True))
    ]
