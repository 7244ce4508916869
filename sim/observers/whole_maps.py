"""I5, in MemDS itself: whatever a memcached node names, it has.

A map or report whose pages are not there is one that readers cannot use. Publishers store pages
before what names them, and take none away, so only a node that was emptied may lack any, and only
until publishers have filled it again.
"""

from __future__ import annotations

from cache.envelope import Kind, open_sealed
from cache.memds_keys import page
from keyplane.catalog.v1 import catalog_pb2 as catalog
from keyplane.model.errors import KeyplaneError
from sim.observers.base import Observer
from sim.topology import CLUSTER
from sim.world import World


class WholeMaps(Observer):
    def __init__(self, world: World) -> None:
        super().__init__(world)
        # Of each memcached node: how often it had been emptied when it was last whole, and the keys
        # of what named pages then. An empty one lacks nothing that it names, and is not whole.
        self._whole: dict[str, int] = {}
        self._held: dict[str, set[str]] = {}
        # Keys of the pages that a value names.
        self._names: dict[bytes, list[str]] = {}

    def beat(self) -> None:
        for name, memcached in self.world.memcached.items():
            values = memcached.values
            torn = next(
                (
                    (key, each)
                    for key, value in values.items()
                    for each in self._pages_of(value)
                    if not _is_page(values.get(each))
                ),
                None,
            )
            still = self._whole.get(name, 0) == memcached.flushes
            if torn is None:
                naming = {key for key, value in values.items() if self._pages_of(value)}
                if still or naming >= self._held.get(name, set()):
                    self._whole[name], self._held[name] = memcached.flushes, naming
            elif still:
                self.world.violate("I5", f"{name} holds {torn[0]} without its page {torn[1]}", name)

    def _pages_of(self, value: bytes) -> list[str]:
        names = self._names.get(value)
        if names is None:
            names = self._names[value] = [page(CLUSTER, each) for each in _digests(value)]
        return names


def _digests(value: bytes) -> list[bytes]:
    """Of the pages that a map's root or a storage node's report names."""
    try:
        return list(catalog.MapRoot.FromString(open_sealed(Kind.ROOT, value)).page_digests)
    except KeyplaneError:
        pass
    try:
        report = catalog.NodeReport.FromString(open_sealed(Kind.REPORT, value))
    except KeyplaneError:
        return []
    return [digest for table in report.tables for digest in table.page_digests]


def _is_page(value: bytes | None) -> bool:
    return value is not None and value[4:5] == bytes((Kind.PAGE,))
