"""How many pages a map has and how large they are, by making some with the code of the map."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache

from cache.pages import paginate
from keyplane.model.partition import KEYSPACE_END, Partition

# Enough partitions for an average, few enough for a fraction of a second.
_SAMPLE = 4_000
_NODES = 300


@dataclass(frozen=True, slots=True)
class PageSizes:
    """Averages. pages: of a table. partitions, value_bytes: of a page."""

    pages: float
    partitions: float
    value_bytes: float


@cache
def page_sizes(partitions: int) -> PageSizes:
    """Of tables of so many partitions, cut at random, with three replicas each over 300 storage
    nodes. Of larger tables than 4,000 partitions, from one of these."""
    drawn = random.Random(partitions)
    size = min(partitions, _SAMPLE)
    tables = max(1, _SAMPLE // size)
    pages = [page for table in range(tables) for page in paginate(1, _table(drawn, table, size))]
    each = size * tables / len(pages)
    value_bytes = sum(len(page.value) for page in pages) / len(pages)
    return PageSizes(partitions / each, each, value_bytes)


def _table(drawn: random.Random, table: int, size: int) -> list[Partition]:
    cuts = sorted(drawn.randrange(1, KEYSPACE_END) for _ in range(size - 1))
    names = [f"storage-{n % _NODES}" for n in range(table, table + size + 2)]
    return [
        Partition(n + 1, 1, start, end, 1, names[n], tuple(names[n : n + 3]))
        for n, (start, end) in enumerate(zip([0, *cuts], [*cuts, KEYSPACE_END], strict=True))
    ]
