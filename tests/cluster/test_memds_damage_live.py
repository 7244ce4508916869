"""I5 on real memcached: whatever is lost or broken in it, routes stay, and routers count it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from live_tools import TABLE, Traffic, counter, memcached, routers
from pymemcache.client.base import Client as Memcached

from cache import memds_keys
from cache.envelope import Kind as ValueKind
from cache.envelope import open_sealed
from keyplane import Client, KeyplaneError
from keyplane.catalog.v1 import catalog_pb2 as catalog
from keyplane.cluster import Cluster, Kind

pytestmark = pytest.mark.cluster

# None: no value any more.
Damage = Callable[[bytes], bytes | None]


def flip_a_bit(value: bytes) -> bytes:
    return value[:-1] + bytes([value[-1] ^ 1])


def of_another_version(value: bytes) -> bytes:
    return value[:3] + bytes([value[3] + 1]) + value[4:]


# With the reasons under which routers count it.
DAMAGES: dict[str, tuple[Damage, set[str]]] = {
    "deleted": (
        lambda value: None,
        {"missing_root", "missing_page", "missing_nodes", "missing_report"},
    ),
    "cut short": (lambda value: value[: len(value) // 2], {"corrupt"}),
    "emptied": (lambda value: b"", {"corrupt"}),
    "a flipped bit": (flip_a_bit, {"corrupt"}),
    "of another format version": (of_another_version, {"foreign_format"}),
}


def sound_values(cluster: Cluster, node: Memcached) -> dict[str, bytes]:
    """The table's root, its pages, the directory and the reports of both storage nodes, by key.

    Empty while any of them is missing or damaged.
    """
    name = cluster.name
    root = memds_keys.root(name, TABLE)
    kinds = {
        root: ValueKind.ROOT,
        memds_keys.nodes(name): ValueKind.NODES,
        memds_keys.report(name, "storage-1"): ValueKind.REPORT,
        memds_keys.report(name, "storage-2"): ValueKind.REPORT,
    }
    try:
        value = node.get(root, b"")
        digests = catalog.MapRoot.FromString(open_sealed(ValueKind.ROOT, value)).page_digests
        kinds |= {memds_keys.page(name, digest): ValueKind.PAGE for digest in digests}
        values: dict[str, bytes] = node.get_many([*kinds, memds_keys.marker(name)])
        for key, kind in kinds.items():
            open_sealed(kind, values.get(key, b""))
    except KeyplaneError:
        return {}
    return {key: values[key] for key in kinds} if memds_keys.marker(name) in values else {}


def have_maps(cluster: Cluster) -> bool:
    """Whether every router has the map from memcached, and not only routes from elsewhere."""
    for address in cluster.addresses(Kind.ROUTER):
        with Client([address]) as client:
            versions = {v.table.name: v.map_version for v in client.describe_router().tables}
        if not versions.get(TABLE):
            return False
    return True


def ignored(cluster: Cluster, reasons: set[str]) -> dict[tuple[str, str], float]:
    """What routers did not believe so far, by router and reason."""
    return {
        (name, reason): counter(cluster, name, "keyplane_memds_ignored_total", reason=reason)
        for name in routers(cluster)
        for reason in reasons
    }


def all_rose(cluster: Cluster, before: dict[tuple[str, str], float]) -> bool:
    now = ignored(cluster, {reason for _, reason in before})
    return all(now[each] > value for each, value in before.items())


@pytest.mark.parametrize("name", DAMAGES)
def test_no_damage_to_values_in_memds_is_felt(
    letters: Cluster, traffic: Traffic, name: str
) -> None:
    """Root, pages, directory and reports in every memcached node at once, again and again."""
    damage, reasons = DAMAGES[name]
    with memcached(letters) as nodes:

        def whole() -> bool:
            return all(sound_values(letters, node) for node in nodes)

        # A router that has not read the map from memcached yet expects nothing in it.
        traffic.until(lambda: whole() and have_maps(letters), "the map is everywhere")
        damaged = {key: damage(value) for key, value in sound_values(letters, nodes[0]).items()}
        before = ignored(letters, reasons)

        def routers_have_noticed() -> bool:
            for node in nodes:
                for key, value in damaged.items():
                    if value is None:
                        node.delete(key, noreply=False)
                    else:
                        node.set(key, value, noreply=False)
            return all_rose(letters, before)

        traffic.until(routers_have_noticed, f"every router has counted {reasons}")
        traffic.until(whole, "the publishers have repaired it")


def test_a_flush_of_every_memcached_node_is_not_felt(letters: Cluster, traffic: Traffic) -> None:
    before = ignored(letters, {"empty"})
    with memcached(letters) as nodes:

        def routers_have_noticed() -> bool:
            for node in nodes:
                node.flush_all(noreply=False)
            return all_rose(letters, before)

        traffic.until(routers_have_noticed, "every router has found memcached empty")
        traffic.until(
            lambda: all(sound_values(letters, node) for node in nodes),
            "the publishers have filled memcached again",
        )
