"""Reading MemDS: maps are found, followed, and only ever go forward."""

from __future__ import annotations

import pytest
from cache_world import CLUSTER, NODES, Reports, Router, World, make_map, make_table, split

from cache import memds_keys, reader
from cache.listener import LookupResult
from cache.publisher import ServedTable
from wire.ports import MemdsOutcome


@pytest.fixture
def world() -> World:
    """A published table of 8 partitions and a reader that has just started."""
    world = World()
    world.source.put(make_map())
    world.publisher.start()
    world.run(1)
    world.reader.start()
    return world


# --- lookups ------------------------------------------------------------------------------------


def test_a_lookup_finds_the_map_of_a_table(world: World) -> None:
    """A table that was published is FOUND, and its map has been told before that."""
    assert world.look_up() is LookupResult.FOUND
    assert world.router.known() == list(world.source.by_name["orders"].partitions())


def test_a_lookup_waits_for_no_slow_node(world: World) -> None:
    """With one node hanging the other is asked after the hedge delay at most."""
    for slow in world.memds:
        slow.delay_s = 100.0
        started = world.clock.now()
        assert world.look_up() is LookupResult.FOUND
        beat, hedge = world.reader_config.beat_s, world.reader_config.hedge_delay_s_max
        assert world.clock.now() - started < beat + hedge + 0.01
        slow.delay_s = 0.0
        world.reader = world.new_reader(world.router)
        world.reader.start()


def test_two_complete_nodes_without_a_root_mean_absent(world: World) -> None:
    assert world.look_up("users") is LookupResult.ABSENT


@pytest.mark.parametrize("fault", ["down", "broken"])
def test_one_node_alone_cannot_say_absent(world: World, fault: str) -> None:
    """A new table may be on one node and not yet, or no longer, on the other."""
    setattr(world.memds[0], fault, True)
    assert world.look_up("users") is LookupResult.UNKNOWN


def test_an_emptied_node_cannot_say_absent(world: World) -> None:
    world.publisher.stop()
    world.run(1)
    world.memds[1].flush()
    assert world.look_up("users") is LookupResult.UNKNOWN
    assert world.look_up("orders") is LookupResult.FOUND


def test_a_corrupt_root_is_not_absent(world: World) -> None:
    world.publisher.stop()
    world.run(1)
    for node in world.memds:
        node.values[memds_keys.root(CLUSTER, "orders")] = b"garbage"
    assert world.look_up() is LookupResult.UNKNOWN


def test_with_no_memcached_at_all_lookups_are_unknown() -> None:
    """A cluster may run without MemDS: everything is then learned from storage nodes."""
    world = World(nodes=0)
    world.reader.start()
    assert world.look_up() is LookupResult.UNKNOWN


def test_one_memcached_is_enough() -> None:
    world = World(nodes=1)
    world.source.put(make_map())
    world.publisher.start()
    world.run(1)
    world.reader.start()
    assert world.look_up("users") is LookupResult.ABSENT
    assert world.look_up("orders") is LookupResult.FOUND


def test_lookups_of_one_table_are_one(world: World) -> None:
    """Single flight: asked a thousand times before the beat, answered once."""
    for _ in range(1_000):
        assert world.reader.lookup("orders")
    world.run(1)
    assert world.router.lookups == [("orders", LookupResult.FOUND)]


def test_lookups_are_bounded(world: World) -> None:
    """Past the bound a lookup is refused at once (I9); those that wait are all answered."""
    for number in range(reader.LOOKUPS_MAX):
        assert world.reader.lookup(f"users-{number}")
    assert not world.reader.lookup("orders")
    world.run(5)
    assert len(world.router.lookups) == reader.LOOKUPS_MAX
    assert world.reader.lookup("orders")


def test_a_lookup_whose_pages_never_come_ends(world: World) -> None:
    """A root was seen, its pages are gone: UNKNOWN after a bounded number of beats."""
    world.publisher.stop()
    world.run(1)
    for node in world.memds:
        for key in [key for key in node.values if ":p:" in key]:
            del node.values[key]
    assert world.look_up() is LookupResult.UNKNOWN


# --- following ------------------------------------------------------------------------------------


def test_a_change_arrives_within_a_beat_of_each_side(world: World) -> None:
    """A split is routed after at most one beat of the publisher and one of the reader."""
    world.look_up()
    after = world.source.put(split(world.source.by_name["orders"], 0))
    world.run(0.5 + 0.25 + 0.1)
    assert world.router.known() == list(after.partitions())
    assert world.router.versions == [1, 2]


def test_only_pages_that_are_missing_are_decoded_again(world: World) -> None:
    """After a split all pages but the changed ones are the same objects as before."""
    before = world.source.put(make_map(2_000, version=2))
    world.run(1)
    world.look_up()
    world.run(2)
    held = world.router.routes["orders"].map
    assert held is not None
    after = world.source.put(split(before, 0))
    world.run(2)
    now_held = world.router.routes["orders"].map
    assert now_held is not None and now_held.version == after.version
    assert len(set(now_held.pages) - set(held.pages)) == len(set(after.pages) - set(before.pages))


def test_a_large_map_loads_over_several_beats_while_it_changes() -> None:
    """Ten times more pages than slots, and a split every half second: it still converges."""
    world = World(page_slots=2)
    world.source.put(make_map(4_000))
    world.publisher.start()
    world.run(1)
    world.reader.start()
    world.reader.lookup("orders")
    for number in range(10):
        world.source.put(split(world.source.by_name["orders"], number << 58))
        world.run(0.5)
    world.run(3)
    assert world.router.known() == list(world.source.by_name["orders"].partitions())
    assert world.router.lookups == [("orders", LookupResult.FOUND)]


def test_many_tables_share_the_page_slots() -> None:
    """One large map does not keep small ones waiting for its pages."""
    world = World(page_slots=8)
    world.source.put(make_map(20_000))
    for number in range(20):
        world.source.put(make_map(8, name=f"small-{number}", table_id=100 + number))
    world.publisher.start()
    world.run(3)
    world.reader.start()
    world.reader.lookup("orders")
    for number in range(20):
        world.reader.lookup(f"small-{number}")
    world.run(2)
    found = [table for table, _ in world.router.lookups]
    assert len(found) == 20 and "orders" not in found


def test_more_tables_than_slots_are_read_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """With more tables than root slots each is refreshed after a bounded number of beats."""
    world = World()
    for number in range(600):
        world.source.put(make_map(1, name=f"table-{number}", table_id=100 + number))
    world.publisher.start()
    world.run(60)
    world.reader.start()
    for number in range(600):
        world.reader.lookup(f"table-{number}")
    world.run(5)
    assert len(world.router.routes) == 600
    now = world.clock.now()
    ages = [now - (world.reader.confirmed_at(f"table-{n}") or 0) for n in range(600)]
    assert max(ages) <= 4 * world.reader_config.beat_s


def test_confirmations_tell_the_age_of_a_map(world: World) -> None:
    """While MemDS holds the map its age is below a beat; in an outage it grows."""
    assert world.reader.confirmed_at("orders") is None
    world.look_up()
    world.run(10)
    confirmed = world.reader.confirmed_at("orders")
    assert confirmed is not None and world.clock.now() - confirmed < 0.3
    for node in world.memds:
        node.down = True
    world.run(10)
    confirmed = world.reader.confirmed_at("orders")
    assert confirmed is not None and world.clock.now() - confirmed > 9


def test_an_adopted_map_is_confirmed_without_reading_its_pages(world: World) -> None:
    """A router that booted from a snapshot starts with what it has."""
    world.reader.adopt([make_map()], NODES)
    pages = world.metrics.counter("memds_requests_total", "", "what")
    world.run(1)
    assert world.reader.confirmed_at("orders") is not None
    assert world.router.versions == []
    assert pages.value("pages") > 0
    world.source.put(split(make_map(), 0))
    world.run(1)
    assert world.router.versions == [2]


def test_stopping_ends_the_beats(world: World) -> None:
    world.run(1)
    world.reader.stop()
    world.run(1)
    before = world.requests()
    world.run(10)
    assert world.requests() == before


def test_the_state_of_each_node_can_be_seen(world: World) -> None:
    world.memds[1].down = True
    world.run(5)
    views = world.reader.node_views()
    assert [view.name for view in views] == ["memds-1", "memds-2"]
    assert [view.last for view in views] == [MemdsOutcome.OK, MemdsOutcome.DOWN]
    assert all(view.requests > 0 for view in views)


# --- directory and reports ------------------------------------------------------------------------


def test_the_directory_is_followed(world: World) -> None:
    """Nodes are told when the directory changes, and never forgotten by the reader."""
    world.run(1)
    assert set(world.router.nodes) == set(NODES)
    world.source.nodes.nodes.add(node_id="storage-4", address="storage-4:1")
    world.source.nodes.version += 1
    world.run(2)
    assert world.router.nodes["storage-4"] == "storage-4:1"


def reporting(world: World) -> list[Reports]:
    """Three storage nodes report every third partition of a map each."""
    partitions = list(make_map(900).partitions())
    reports = [
        Reports(node_id, [ServedTable(make_table(), partitions[number::3])])
        for number, node_id in enumerate(NODES)
    ]
    for each in reports:
        world.new_report_publisher(each).start()
    return reports


def test_a_booting_router_warms_every_table_that_is_reported(world: World) -> None:
    """The directory names the nodes, their reports the tables, and those are read unasked."""
    reporting(world)
    world.run(3)
    assert world.router.versions == [1]
    assert world.router.lookups == []


def test_a_map_is_put_together_from_reports_when_all_else_is_gone(world: World) -> None:
    """Control plane dead, MemDS flushed: storage nodes fill it, a new router gets a whole map."""
    reporting(world)
    world.publisher.stop()
    world.run(1)
    for node in world.memds:
        node.flush()
    world.run(2)
    router = Router(world.clock)
    fresh = world.new_reader(router)
    fresh.follow_nodes(NODES)
    fresh.start()
    world.run(2)
    assert router.known() == list(make_map(900).partitions())
    assert router.routes["orders"].map is not None and router.routes["orders"].version == 0
    assert set(router.nodes) == set(NODES)


def test_a_changed_report_is_told_again(world: World) -> None:
    """While there is no map, what a node says later replaces what it said before."""
    reports = reporting(world)
    world.publisher.stop()
    world.run(1)
    for node in world.memds:
        node.flush()
    fresh_router = Router(world.clock)
    fresh = world.new_reader(fresh_router)
    fresh.follow_nodes(NODES[:1])
    fresh.start()
    world.run(3)
    assert len(fresh_router.known()) == 300
    after = split(make_map(900), 0)
    mine = [each for each in after.partitions() if each.leader == NODES[0]]
    reports[0].served = [ServedTable(make_table(), mine)]
    reports[0].changes += 1
    world.run(2)
    assert len(fresh_router.known()) == 301
