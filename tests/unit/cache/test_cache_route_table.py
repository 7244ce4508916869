"""What a router knows of one table: maps, hints, and their bounds."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from cache_world import make_map, make_partitions, make_table, split

from cache import routes as routes_module
from cache.envelope import Kind, open_sealed, seal
from cache.partition_map import PartitionMap
from cache.routes import RouteTable
from cache.snapshot import decode_snapshot, encode_snapshot
from keyplane.catalog.v1 import catalog_pb2 as pb
from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.partition import KEYSPACE_END, Partition
from keyplane.route.v1 import route_pb2

MEMDS = route_pb2.ROUTE_SOURCE_MEMDS
HINT = route_pb2.ROUTE_SOURCE_HINT
STORAGE = route_pb2.ROUTE_SOURCE_STORAGE
SNAPSHOT = route_pb2.ROUTE_SOURCE_SNAPSHOT


def with_map(count: int = 8, version: int = 5) -> RouteTable:
    routes = RouteTable(make_table())
    assert routes.install_map(make_map(count, version), MEMDS, now=1.0)
    return routes


def halves(parent: Partition, first_id: int) -> list[Partition]:
    middle = (parent.start + parent.end) // 2
    return [
        Partition(first_id, 7, parent.start, middle, parent.epoch + 1, parent.leader),
        Partition(first_id + 1, 7, middle, parent.end, parent.epoch + 1, parent.leader),
    ]


def found(routes: RouteTable, key_hash: int) -> tuple[int, int]:
    route = routes.lookup(key_hash)
    assert route is not None
    return route.partition.partition_id, route.source


def test_nothing_is_known_of_a_new_table() -> None:
    routes = RouteTable(make_table())
    assert routes.lookup(0) is None
    assert (routes.version, routes.partition_count, list(routes.routes())) == (0, 0, [])


def test_a_hint_outranks_the_map_until_the_map_knows() -> None:
    """After a split the error's children are used; once the map holds them the overlay is empty."""
    routes = with_map()
    parent = make_map(version=5).floor(0)
    children = halves(parent, 100)
    assert routes.install_hint(children, HINT)
    assert found(routes, 0) == (100, HINT)
    assert found(routes, parent.end - 1) == (101, HINT)
    assert found(routes, parent.end) == (2, MEMDS)
    assert routes.overlay_count == 2
    assert routes.install_map(make_map(version=5).replace(6, [parent], children), MEMDS, now=2.0)
    assert found(routes, 0) == (100, MEMDS)
    assert routes.overlay_count == 0


def test_a_map_that_is_behind_a_hint_does_not_take_it_back() -> None:
    """A newer version that was made before the split leaves the children in place."""
    routes = with_map()
    children = halves(make_map().floor(0), 100)
    routes.install_hint(children, HINT)
    elsewhere = split(make_map(version=5), KEYSPACE_END - 1)
    assert routes.install_map(elsewhere, MEMDS, now=2.0)
    assert routes.version == 6
    assert found(routes, 0) == (100, HINT)


def test_an_older_hint_changes_nothing() -> None:
    """What a slow node says of an epoch long past is ignored."""
    routes = with_map()
    routes.install_hint(halves(make_map().floor(0), 100), HINT)
    before = list(routes.routes())
    stale = Partition(1, 7, 0, make_map().floor(0).end, 1, "storage-9")
    assert not routes.install_hint([stale], HINT)
    assert list(routes.routes()) == before


def test_an_older_or_equal_map_changes_nothing() -> None:
    """Versions go forward only (I3). The same version again confirms the map."""
    routes = with_map(version=5)
    assert not routes.install_map(make_map(4, version=4), MEMDS, now=2.0)
    assert routes.confirmed_at == 1.0
    assert not routes.install_map(make_map(4, version=5), MEMDS, now=3.0)
    assert routes.confirmed_at == 3.0
    assert (routes.version, routes.partition_count) == (5, 8)


def test_a_newer_map_with_a_lower_epoch_does_not_win() -> None:
    """A Metadata Store restored from a backup cannot send writes to a former owner."""
    routes = with_map()
    moved = make_map().floor(0)
    moved = Partition(moved.partition_id, 7, moved.start, moved.end, 9, "storage-3")
    newer = make_map(version=5).replace(6, [make_map().floor(0)], [moved])
    assert routes.install_map(newer, MEMDS, now=2.0)
    assert routes.install_map(make_map(version=7), MEMDS, now=3.0)
    route = routes.lookup(0)
    assert route is not None and route.partition.leader == "storage-3"
    assert routes.version == 7


def test_a_recreated_table_replaces_all_that_was_known() -> None:
    """Table ids are never reused, so a higher one under the same name is another table."""
    routes = with_map(version=50)
    routes.install_hint(halves(make_map().floor(0), 100), HINT)
    assert routes.install_map(make_map(4, version=1, table_id=8), MEMDS, now=2.0)
    assert (routes.version, routes.partition_count, routes.overlay_count) == (1, 4, 0)
    assert routes.table.table_id == 8
    assert not routes.install_map(make_map(8, version=99), MEMDS, now=3.0)


def test_a_hint_for_another_table_is_refused_whole() -> None:
    routes = with_map()
    mine, other = Partition(100, 7, 0, 1, 9, "a"), Partition(101, 8, 1, 2, 9, "a")
    with pytest.raises(KeyplaneError) as caught:
        routes.install_hint([mine, other], HINT)
    assert caught.value.reason is Reason.MAP_INVALID
    assert routes.overlay_count == 0


def test_a_table_can_be_put_together_from_what_storage_nodes_say() -> None:
    """With MemDS and the control plane gone, three nodes' answers make a whole map."""
    routes = RouteTable(make_table())
    partitions = make_partitions(3_000)
    for node in range(3):
        assert routes.install_hint(partitions[node::3], STORAGE)
    assert [route.partition for _, _, route in routes.routes()] == partitions
    assert routes.map is not None, "a whole table is kept as a map, in columns"
    assert (routes.version, routes.overlay_count, routes.source) == (0, 0, STORAGE)
    assert routes.install_map(make_map(8, version=1), MEMDS, now=1.0)


def test_what_is_missing_of_a_table_stays_unknown() -> None:
    routes = RouteTable(make_table())
    partitions = make_partitions(9)
    routes.install_hint(partitions[0::3], STORAGE)
    assert routes.lookup(partitions[3].start) is not None
    assert routes.lookup(partitions[1].start) is None
    assert routes.lookup(partitions[2].end - 1) is None
    assert (routes.map, routes.partition_count) == (None, 3)


def test_the_overlay_is_bounded_and_lets_the_oldest_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """Past the bound the oldest hints fall back to the map; no hash is left without a route."""
    monkeypatch.setattr(routes_module, "OVERLAY_MAX", 80)
    partitions = make_partitions(200)
    routes = RouteTable(make_table())
    routes.install_map(PartitionMap.build(make_table(), 1, partitions), MEMDS, now=1.0)
    for number, parent in enumerate(partitions):
        routes.install_hint(halves(parent, 1_000 + 2 * number), HINT)
        assert routes.overlay_count <= 80
    assert found(routes, partitions[-1].start)[1] == HINT
    assert found(routes, partitions[0].start) == (1, MEMDS)
    assert sum(end - start for start, end, _ in routes.routes()) == KEYSPACE_END


# --- snapshots ------------------------------------------------------------------------------------


def test_a_snapshot_brings_everything_back() -> None:
    """Maps, hints, tables known from hints alone, and the directory; all from SNAPSHOT."""
    mapped = with_map(2_000, version=5)
    mapped.install_hint(halves(make_map(2_000).floor(0), 10_000), HINT)
    hinted = RouteTable(make_table("users", 8))
    hinted.install_hint(make_partitions(9, table_id=8)[::3], STORAGE)
    directory = pb.NodeDirectory(version=3, nodes=[pb.Node(node_id="storage-1", address="a:1")])
    again = decode_snapshot(encode_snapshot([mapped, hinted], directory), now=9.0)
    assert again.directory == directory
    for before, after in zip([mapped, hinted], again.tables, strict=True):
        assert (after.table, after.version) == (before.table, before.version)
        known = [(start, end, route.partition) for start, end, route in before.routes()]
        assert [(start, end, route.partition) for start, end, route in after.routes()] == known
        assert {route.source for _, _, route in after.routes()} == {SNAPSHOT}
    assert again.tables[0].confirmed_at == 9.0


def test_memds_takes_over_from_a_snapshot() -> None:
    """A newer map installs over the restored one; the same version is no step back either."""
    (restored,) = decode_snapshot(encode_snapshot([with_map(8, 5)], pb.NodeDirectory())).tables
    assert not restored.install_map(make_map(8, version=5), MEMDS, now=1.0)
    assert restored.install_map(split(make_map(8, version=5), 0), MEMDS, now=2.0)
    assert restored.source == MEMDS


@pytest.mark.parametrize(
    "spoil",
    [
        lambda table: table.pages.pop(),
        lambda table: table.pages.__setitem__(0, table.pages[1]),
        lambda table: table.pages.__setitem__(0, b"garbage"),
        lambda table: table.root.page_digests.reverse(),
        lambda table: setattr(table.root.table, "name", ""),
        lambda table: table.overlay.add(),
        lambda table: table.overlay.add(
            partition_id=1, table_id=8, start=0, end=9, epoch=1, leader="a"
        ),
    ],
)
def test_a_snapshot_that_contradicts_itself_is_refused(
    spoil: Callable[[pb.SnapshotTable], object],
) -> None:
    """Its checksum may be right; it is refused whole all the same."""
    content = encode_snapshot([with_map(2_000)], pb.NodeDirectory())
    message = pb.MapSnapshot.FromString(open_sealed(Kind.SNAPSHOT, content))
    spoil(message.tables[0])
    with pytest.raises(KeyplaneError) as caught:
        decode_snapshot(seal(Kind.SNAPSHOT, message.SerializeToString()))
    assert caught.value.reason in {Reason.CORRUPT, Reason.MAP_INVALID}
