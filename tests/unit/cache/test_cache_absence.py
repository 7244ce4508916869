"""I5: absence is not deletion.

Whatever MemDS does or fails to do, a route that a router has stays, and the metric says what
happened. Each test breaks MemDS in one way under a router that has a map, and looks.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from cache_world import CLUSTER, World, make_map, make_table, split

from cache import memds_keys
from cache.config import ReaderConfig
from cache.envelope import Kind, seal
from cache.listener import LookupResult
from keyplane.catalog.v1 import catalog_pb2 as pb

ROOT = memds_keys.root(CLUSTER, "orders")
NODES = memds_keys.nodes(CLUSTER)


@pytest.fixture
def world() -> World:
    """Version 5 of a map of 2,000 partitions is published everywhere and known to the router.

    The publisher is stopped, as after the death of the control plane.
    """
    world = World(nodes=2)
    world.source.put(make_map(2_000, version=5))
    world.publisher.start()
    world.run(1)
    world.reader.start()
    assert world.look_up() is LookupResult.FOUND
    world.publisher.stop()
    world.run(2)
    return world


def in_every_node(world: World, key: str, value: bytes) -> None:
    for node in world.memds:
        node.values[key] = value


def assert_nothing_lost(world: World, why: str) -> None:
    """Over five minutes no route goes, and the reason is counted."""
    before = world.router.known(), dict(world.router.nodes)
    assert len(before[0]) == 2_000
    counted = world.ignored(why)
    world.run(300)
    assert (world.router.known(), world.router.nodes) == before
    assert world.router.versions == [5]
    assert not world.router.deleted
    assert world.ignored(why) > counted


def test_missing_roots(world: World) -> None:
    """Evicted roots on nodes that are otherwise complete."""
    for node in world.memds:
        del node.values[ROOT]
    assert_nothing_lost(world, "missing_root")


def test_missing_pages(world: World) -> None:
    """Evicted pages: those the router has, and those of a newer root, which it then waits for."""
    after = split(make_map(2_000, version=5), 0)
    in_every_node(world, ROOT, seal(Kind.ROOT, after.root().SerializeToString()))
    assert_nothing_lost(world, "missing_page")
    for page in after.pages:
        in_every_node(world, memds_keys.page(CLUSTER, page.digest), page.value)
    world.run(1)
    assert world.router.known() == list(after.partitions())


def test_a_missing_directory(world: World) -> None:
    for node in world.memds:
        del node.values[NODES]
    assert_nothing_lost(world, "missing_nodes")


def test_flushed_nodes(world: World) -> None:
    """Both nodes emptied, or restarted: their misses mean nothing."""
    for node in world.memds:
        node.flush()
    assert_nothing_lost(world, "empty")


@pytest.mark.parametrize(
    ("fault", "value", "why"),
    [("down", True, "down"), ("broken", True, "error"), ("delay_s", 5.0, "timeout")],
)
def test_an_outage(world: World, fault: str, value: object, why: str) -> None:
    """All nodes refuse, answer errors, or hang."""
    for node in world.memds:
        setattr(node, fault, value)
    assert_nothing_lost(world, why)


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda value: value[:-1], "corrupt"),
        (lambda value: value[:10], "corrupt"),
        (lambda value: b"", "corrupt"),
        (lambda value: value[:-1] + bytes([value[-1] ^ 1]), "corrupt"),
        (lambda value: value[:3] + b"\x09" + value[4:], "foreign_format"),
    ],
    ids=["cut", "cut in the frame", "empty value", "bit flipped", "other format"],
)
def test_damaged_values(world: World, damage: Callable[[bytes], bytes], why: str) -> None:
    """Roots, pages and directory alike: all that is read is damaged."""
    for node in world.memds:
        node.damage = lambda key, value: damage(value)
    assert_nothing_lost(world, why)


def test_a_truncated_page_of_a_new_map(world: World) -> None:
    """The root is fine and a page it names is cut short: the old map stays."""
    before = make_map(2_000, version=5)
    after = split(before, 0)
    for page in set(after.pages).difference(before.pages):
        in_every_node(world, memds_keys.page(CLUSTER, page.digest), page.value[:-5])
    in_every_node(world, ROOT, seal(Kind.ROOT, after.root().SerializeToString()))
    assert_nothing_lost(world, "corrupt")


def test_an_older_root(world: World) -> None:
    """A stale node, or a control plane restored from a backup, cannot turn a router back."""
    older = make_map(4, version=4)
    for page in older.pages:
        in_every_node(world, memds_keys.page(CLUSTER, page.digest), page.value)
    in_every_node(world, ROOT, seal(Kind.ROOT, older.root().SerializeToString()))
    assert_nothing_lost(world, "older_root")


def test_an_older_tombstone(world: World) -> None:
    """The tombstone of an earlier table of the same name deletes nothing."""
    table = make_table(table_id=6)
    table.state = pb.TABLE_STATE_DELETED
    in_every_node(
        world, ROOT, seal(Kind.ROOT, pb.MapRoot(table=table, version=99).SerializeToString())
    )
    assert_nothing_lost(world, "older_root")


def test_a_root_without_pages_is_no_tombstone(world: World) -> None:
    """An empty map is refused; only a root that says DELETED deletes."""
    root = pb.MapRoot(table=make_table(), version=6)
    in_every_node(world, ROOT, seal(Kind.ROOT, root.SerializeToString()))
    assert_nothing_lost(world, "map_invalid")


def test_a_root_whose_pages_leave_a_gap(world: World) -> None:
    """A newer map with a page left out is refused, and not tried again at every beat."""
    root = split(make_map(2_000, version=5), 0).root()
    after = split(make_map(2_000, version=5), 0)
    for page in after.pages:
        in_every_node(world, memds_keys.page(CLUSTER, page.digest), page.value)
    del root.page_digests[3]
    in_every_node(world, ROOT, seal(Kind.ROOT, root.SerializeToString()))
    assert_nothing_lost(world, "map_invalid")


def test_a_root_under_the_key_of_another_table(world: World) -> None:
    root = make_map(8, version=9, name="users", table_id=8).root()
    in_every_node(world, ROOT, seal(Kind.ROOT, root.SerializeToString()))
    assert_nothing_lost(world, "wrong_key")


def test_a_root_that_is_no_message(world: World) -> None:
    in_every_node(world, ROOT, seal(Kind.ROOT, b"\xff\xff\xff"))
    assert_nothing_lost(world, "corrupt")


def test_a_page_of_another_table(world: World) -> None:
    """A root that names somebody else's pages makes no map."""
    other = make_map(2_000, table_id=8)
    for page in other.pages:
        in_every_node(world, memds_keys.page(CLUSTER, page.digest), page.value)
    root = other.root()
    root.table.CopyFrom(make_table())
    root.version = 6
    in_every_node(world, ROOT, seal(Kind.ROOT, root.SerializeToString()))
    assert_nothing_lost(world, "map_invalid")


@pytest.mark.parametrize(
    ("directory", "why"),
    [
        (pb.NodeDirectory(version=99), "empty_nodes"),
        (pb.NodeDirectory(version=0, nodes=[pb.Node(node_id="x")]), "older_nodes"),
    ],
)
def test_a_directory_that_is_empty_or_old(
    world: World, directory: pb.NodeDirectory, why: str
) -> None:
    in_every_node(world, NODES, seal(Kind.NODES, directory.SerializeToString()))
    assert_nothing_lost(world, why)


def test_a_refused_root_does_not_hide_a_good_one(world: World) -> None:
    """One node holds a newer root that makes no map, the other a good one: the good one is used."""
    before = make_map(2_000, version=5)
    good = split(before, 0)
    for page in good.pages:
        in_every_node(world, memds_keys.page(CLUSTER, page.digest), page.value)
    bad = split(good, 0).root()
    del bad.page_digests[:]
    bad.page_digests.append(good.pages[0].digest)
    world.memds[0].values[ROOT] = seal(Kind.ROOT, bad.SerializeToString())
    world.memds[1].values[ROOT] = seal(Kind.ROOT, good.root().SerializeToString())
    world.run(2)
    assert world.router.versions == [5, 6]
    assert world.ignored("map_invalid") > 0


def test_a_stale_node_does_not_hold_a_router_back(world: World) -> None:
    """Two nodes are read every beat and the highest version wins: one node a day behind is fine."""
    world.memds[0].freeze()
    after = world.source.put(split(make_map(2_000, version=5), 0))
    world.publisher.start()
    world.run(2)
    assert world.router.known() == list(after.partitions())
    assert world.ignored("older_root") > 0


def test_only_a_newer_tombstone_deletes(world: World) -> None:
    """It is told once, and a table created again under the name is found again."""
    table = make_table()
    table.state = pb.TABLE_STATE_DELETED
    tombstone = pb.MapRoot(table=table, version=6)
    in_every_node(world, ROOT, seal(Kind.ROOT, tombstone.SerializeToString()))
    world.run(2)
    assert world.router.deleted == ["orders"]
    assert world.look_up() is LookupResult.ABSENT
    world.source.put(make_map(4, version=1, table_id=9))
    world.publisher.start()
    world.run(2)
    assert [partition.table_id for partition in world.router.known()] == [9] * 4
    assert world.router.deleted == ["orders"]


def test_tables_and_nodes_past_their_bounds_are_counted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is followed is bounded (I9); more is counted and disturbs nothing."""
    monkeypatch.setattr("cache.assembly.TABLES_MAX", 1)
    monkeypatch.setattr("cache.assembly.REPORTS_MAX", 3)
    users = make_map(4, name="users", table_id=8)
    world.source.put(users)
    world.publisher.start()
    world.reader.follow_nodes(["storage-4"])
    assert world.look_up("users") is LookupResult.UNKNOWN
    assert len(world.router.known()) == 2_000
    assert world.ignored("too_many") >= 2


def test_the_settings_of_these_tests_are_the_defaults() -> None:
    assert World().reader_config == ReaderConfig(CLUSTER)
