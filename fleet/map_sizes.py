"""How large the pages of a map are, by making some with the code that routers read."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from cache.pages import paginate
from keyplane.model.partition import Partition, even_ranges

# Enough pages for an average, few enough for a fraction of a second.
_PARTITIONS = 5_000
_NODES = 300


@dataclass(frozen=True, slots=True)
class PageSizes:
    """Averages of a page."""

    partitions: float
    value_bytes: float


@cache
def page_sizes() -> PageSizes:
    """Of one table of 5,000 partitions with three replicas each, over 300 storage nodes."""
    names = [f"storage-{n % _NODES}" for n in range(_PARTITIONS + 2)]
    partitions = [
        Partition(n + 1, 1, start, end, 1, names[n], tuple(names[n : n + 3]))
        for n, (start, end) in enumerate(even_ranges(_PARTITIONS))
    ]
    pages = paginate(1, partitions)
    size = sum(len(page.value) for page in pages) / len(pages)
    return PageSizes(_PARTITIONS / len(pages), size)
