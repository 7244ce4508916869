"""Publishing: pages before roots, versions forward only, and every node for itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
from cache_world import CLUSTER, NODES, Reports, World, make_map, make_partitions, make_table, split

from cache import memds_keys
from cache.envelope import Kind, open_sealed, seal
from cache.memory import MemoryMemdsNode
from cache.partition_map import PartitionMap
from cache.publisher import ServedTable
from keyplane.catalog.v1 import catalog_pb2 as pb
from wire.ports import MemdsOutcome, MemdsStore

ROOT = memds_keys.root(CLUSTER, "orders")
MARKER = memds_keys.marker(CLUSTER)
REPORT = memds_keys.report(CLUSTER, "storage-1")
BEAT_S = 0.5


@pytest.fixture
def world() -> World:
    return World()


def root_in(node: MemoryMemdsNode, table: str = "orders") -> pb.MapRoot | None:
    value = node.values.get(memds_keys.root(CLUSTER, table))
    return pb.MapRoot.FromString(open_sealed(Kind.ROOT, value)) if value is not None else None


def assert_whole(node: MemoryMemdsNode, map: PartitionMap) -> None:
    """The node holds this map's root and every page it names."""
    assert root_in(node, map.table.name) == map.root()
    for page in map.pages:
        assert node.values[memds_keys.page(CLUSTER, page.digest)] == page.value


def assert_never_torn(node: MemoryMemdsNode) -> None:
    """Whatever root the node holds, its pages are there."""
    root = root_in(node)
    if root is not None:
        for digest in root.page_digests:
            assert memds_keys.page(CLUSTER, digest) in node.values


def watch(node: MemoryMemdsNode, look: Callable[[], None]) -> None:
    """Looks after every single store that reaches the node."""
    store = node._store

    def watched(key: str, value: bytes) -> bool:
        stored = store(key, value)
        look()
        return stored

    node._store = watched  # type: ignore[method-assign]


# --- maps -----------------------------------------------------------------------------------------


def test_one_beat_fills_every_node(world: World) -> None:
    """Maps, directory and, last of all, the marker that says the node is complete."""
    map = world.source.put(make_map(2_000))
    world.publisher.start()
    world.run(BEAT_S)
    for node in world.memds:
        assert_whole(node, map)
        assert MARKER in node.values
        directory = node.values[memds_keys.nodes(CLUSTER)]
        found = pb.NodeDirectory.FromString(open_sealed(Kind.NODES, directory))
        assert found == world.source.nodes
    assert world.publisher.holders("orders") == 2
    assert world.publisher.holders("users") == 0


def test_a_root_is_never_there_before_its_pages() -> None:
    """Watched at every store, with few pages per beat and the map changing all the time."""
    world = World(publish_slots=3)
    map = world.source.put(make_map(2_000))
    for node in world.memds:
        watch(node, lambda node=node: assert_never_torn(node))
    world.publisher.start()
    for number in range(20):
        map = world.source.put(split(map, number << 59))
        world.run(BEAT_S)
    world.run(20 * BEAT_S)
    for node in world.memds:
        assert_whole(node, map)


def test_the_marker_comes_after_everything_else() -> None:
    """A node that is still being filled must not look complete: absence would be believed."""
    world = World(publish_slots=3)
    world.source.put(make_map(2_000))
    world.source.put(make_map(8, name="users", table_id=8))
    world.publisher.start()
    node = world.memds[0]
    watch(node, lambda: None if MARKER not in node.values else assert_whole(node, make_map(2_000)))
    world.run(BEAT_S)
    assert MARKER not in node.values
    assert root_in(node, "users") is not None, "a small table does not wait for a large one"
    world.run(20 * BEAT_S)
    assert MARKER in node.values


def test_a_version_only_goes_forward(world: World) -> None:
    """A Metadata Store that knows less than MemDS does not turn MemDS back (I3)."""
    newest = world.source.put(make_map(8, version=9))
    world.publisher.start()
    world.run(2 * BEAT_S)
    world.source.put(make_map(4, version=3))
    world.run(10 * BEAT_S)
    for node in world.memds:
        assert_whole(node, newest)
    stores = world.publisher_metrics.counter("memds_stores_total", "", "result")
    assert stores.value("outranked") > 0


def test_a_recreated_table_follows_its_tombstone(world: World) -> None:
    """The higher table id is newer, though its versions begin again."""
    world.source.put(make_map(8, version=9))
    world.publisher.start()
    world.run(2 * BEAT_S)
    del world.source.by_name["orders"]
    table = make_table()
    table.state = pb.TABLE_STATE_DELETED
    world.source.deleted.append(pb.MapRoot(table=table, version=10))
    world.run(2 * BEAT_S)
    for node in world.memds:
        root = root_in(node)
        assert root is not None and root.table.state == pb.TABLE_STATE_DELETED
    again = world.source.put(make_map(4, version=1, table_id=8))
    world.run(2 * BEAT_S)
    for node in world.memds:
        assert_whole(node, again)


def test_two_publishers_agree_on_the_newer(world: World) -> None:
    """One that was paused and wakes up with an old map loses every exchange."""
    other = World()
    other.clock, other.memds = world.clock, world.memds
    other.publisher = other.new_publisher()
    world.source.put(make_map(8, version=2))
    newer = other.source.put(make_map(8, version=3))
    world.publisher.start()
    other.publisher.start()
    world.run(20 * BEAT_S)
    for node in world.memds:
        assert_whole(node, newer)


def test_an_exchange_that_is_lost_is_made_again(world: World) -> None:
    """Somebody stores between our read and our cas: CONFLICT, and the next beat tries again."""
    world.source.put(make_map(8, version=2))
    world.publisher.start()
    world.run(2 * BEAT_S)
    node = world.memds[0]
    cas, lost = node.cas, []

    def interfered(key, value, token, on_done):  # type: ignore[no-untyped-def]
        if key == ROOT and not lost:
            lost.append(key)
            node._store(key, node.values[key])
        cas(key, value, token, on_done)

    node.cas = interfered  # type: ignore[method-assign]
    newer = world.source.put(make_map(8, version=3))
    world.run(3 * BEAT_S)
    stores = world.publisher_metrics.counter("memds_stores_total", "", "result")
    assert stores.value(MemdsStore.CONFLICT.value) == 1
    assert_whole(node, newer)


@pytest.mark.parametrize(
    "garbage", [b"", b"garbage", seal(Kind.ROOT, b"\xff"), seal(Kind.PAGE, b"")]
)
def test_an_unreadable_root_is_replaced(world: World, garbage: bytes) -> None:
    map = world.source.put(make_map())
    for node in world.memds:
        node.values[ROOT] = garbage
    world.publisher.start()
    world.run(2 * BEAT_S)
    for node in world.memds:
        assert_whole(node, map)


def test_damaged_pages_are_rewritten_in_time(world: World) -> None:
    """The rotation repairs what nobody has reported."""
    map = world.source.put(make_map(2_000))
    world.publisher.start()
    world.run(2 * BEAT_S)
    for page in map.pages:
        world.memds[0].values[memds_keys.page(CLUSTER, page.digest)] = b"damaged"
    world.run(2 * BEAT_S)
    assert_whole(world.memds[0], map)


# --- nodes that fail ------------------------------------------------------------------------------


def test_a_node_that_fails_does_not_hold_the_others_up(world: World) -> None:
    """Down, slow or full: the other node gets every version within its beat."""
    map = world.source.put(make_map())
    world.publisher.start()
    for fault, value in (("down", True), ("broken", True), ("delay_s", 3.0)):
        setattr(world.memds[0], fault, value)
        map = world.source.put(split(map, 0))
        world.run(2 * BEAT_S)
        assert_whole(world.memds[1], map)
        assert world.publisher.holders("orders") == 1
        setattr(world.memds[0], fault, type(value)())
    world.run(10 * BEAT_S)
    assert_whole(world.memds[0], map)
    assert world.publisher.holders("orders") == 2


def test_an_emptied_node_is_whole_again_in_bounded_time() -> None:
    """20 pages, 4 per beat: after 5 beats and one to notice, with the marker last."""
    world = World(publish_slots=4)
    map = world.source.put(make_map(2_000))
    world.publisher.start()
    world.run(30 * BEAT_S)
    for node in world.memds:
        node.flush()
    world.run(BEAT_S)
    assert all(MARKER not in node.values for node in world.memds)
    world.run((len(map.pages) // 4 + 2) * BEAT_S)
    for node in world.memds:
        assert_whole(node, map)
        assert MARKER in node.values


def test_a_node_that_is_flushed_while_it_is_filled_is_filled_again() -> None:
    """What was there before the second flush is not taken for granted."""
    world = World(publish_slots=4)
    map = world.source.put(make_map(2_000))
    world.source.put(make_map(8, name="users", table_id=8))
    world.publisher.start()
    world.run(3 * BEAT_S)
    world.memds[0].flush()
    world.run((2 * len(map.pages) // 4 + 4) * BEAT_S)
    assert_whole(world.memds[0], map)
    assert MARKER in world.memds[0].values


def test_a_beat_is_the_same_whether_anything_changed_or_not(world: World) -> None:
    """Constant work on the publishing side too: requests and pages per beat do not change."""
    map = world.source.put(make_map(2_000))
    world.publisher.start()
    world.run(5.25 * BEAT_S)
    stored: list[int] = []
    node = world.memds[0]
    set_many = node.set_many

    def counting(values: Mapping[str, bytes], on_done: Callable[[MemdsOutcome], None]) -> None:
        stored.append(len(values))
        set_many(values, on_done)

    node.set_many = counting  # type: ignore[method-assign]

    def beat() -> tuple[int, list[int]]:
        before = node.requests
        stored.clear()
        world.run(BEAT_S)
        return node.requests - before, list(stored)

    quiet = beat()
    assert quiet == beat()
    for number in range(5):
        map = world.source.put(split(map, number << 60))
        requests, pages = beat()
        assert requests == quiet[0]
        assert len(pages) == len(quiet[1]) and abs(pages[0] - quiet[1][0]) <= 6


def test_more_tables_than_slots_are_repaired_in_turn(world: World) -> None:
    """A hundred tables, sixteen roots per beat: all are looked after within seven beats."""
    for number in range(100):
        world.source.put(make_map(2, name=f"table-{number}", table_id=100 + number))
    world.publisher.start()
    world.run(8 * BEAT_S)
    assert all(world.publisher.holders(f"table-{number}") == 2 for number in range(100))
    node = world.memds[0]
    for number in range(100):
        node.values[memds_keys.root(CLUSTER, f"table-{number}")] = b"damaged"
    world.run(7 * BEAT_S)
    for map in world.source.maps():
        assert_whole(node, map)


def test_stopping_ends_the_beats(world: World) -> None:
    world.source.put(make_map())
    world.publisher.start()
    world.run(BEAT_S)
    world.publisher.stop()
    world.run(BEAT_S)
    before = [node.requests for node in world.memds]
    world.run(20 * BEAT_S)
    assert [node.requests for node in world.memds] == before


# --- directory and reports ------------------------------------------------------------------------


def test_a_directory_goes_on_from_what_memds_holds(world: World) -> None:
    """After a restart that forgot its version, routers still see a change as newer."""
    world.source.nodes.version = 40
    world.publisher.start()
    world.run(2 * BEAT_S)
    world.publisher.stop()
    world.run(BEAT_S)
    world.source.nodes = pb.NodeDirectory(version=1, nodes=[pb.Node(node_id="storage-9")])
    world.publisher = world.new_publisher()
    world.publisher.start()
    world.run(4 * BEAT_S)
    for node in world.memds:
        value = node.values[memds_keys.nodes(CLUSTER)]
        found = pb.NodeDirectory.FromString(open_sealed(Kind.NODES, value))
        assert found.version > 40
        assert [each.node_id for each in found.nodes] == ["storage-9"]


def report_in(node: MemoryMemdsNode) -> pb.NodeReport:
    return pb.NodeReport.FromString(open_sealed(Kind.REPORT, node.values[REPORT]))


def test_a_storage_node_publishes_what_it_serves(world: World) -> None:
    """Without a marker: that the node holds one report does not make it complete."""
    mine = make_partitions(900)[::3]
    reports = Reports(NODES[0], [ServedTable(make_table(), mine)])
    world.new_report_publisher(reports).start()
    world.run(BEAT_S)
    for node in world.memds:
        report = report_in(node)
        assert report.node == reports.node()
        assert [table.table for table in report.tables] == [make_table()]
        for digest in report.tables[0].page_digests:
            assert memds_keys.page(CLUSTER, digest) in node.values
        assert MARKER not in node.values


def test_a_report_changes_with_its_generation(world: World) -> None:
    """The sequence rises with each change and not with each beat."""
    reports = Reports(NODES[0], [ServedTable(make_table(), make_partitions(9)[::3])])
    world.new_report_publisher(reports).start()
    world.run(10 * BEAT_S)
    assert report_in(world.memds[0]).sequence == 1
    reports.served = []
    reports.changes += 1
    world.run(2 * BEAT_S)
    assert report_in(world.memds[0]).sequence == 2
    assert not report_in(world.memds[0]).tables


def test_a_report_goes_on_over_a_restart(world: World) -> None:
    """The new life finds the old one's report and outranks it, with no state of its own."""
    reports = Reports(NODES[0])
    before = world.new_report_publisher(reports)
    before.start()
    for _ in range(20):
        reports.changes += 1
        world.run(BEAT_S)
    before.stop()
    world.run(BEAT_S)
    reached = report_in(world.memds[0]).sequence
    reports.served = [ServedTable(make_table(), make_partitions(2))]
    world.new_report_publisher(reports).start()
    world.run(3 * BEAT_S)
    for node in world.memds:
        assert report_in(node).sequence > reached
        assert report_in(node).tables


def test_reports_fill_an_emptied_memds_without_the_control_plane() -> None:
    """A report of more pages than slots comes back too, though no marker ever does."""
    world = World(publish_slots=2)
    reports = Reports(NODES[0], [ServedTable(make_table(), make_partitions(6_000)[::3])])
    world.new_report_publisher(reports).start()
    world.run(60 * BEAT_S)
    for node in world.memds:
        node.flush()
    world.run(60 * BEAT_S)
    for node in world.memds:
        digests = report_in(node).tables[0].page_digests
        assert len(digests) > 4
        assert all(memds_keys.page(CLUSTER, digest) in node.values for digest in digests)
