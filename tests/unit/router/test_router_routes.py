"""How a router finds the node that serves a key, and heals when what it knows is old."""

from __future__ import annotations

import pytest
from router_world import ROUTE, World, artist_in
from storage_peer import Fault

from keyplane.catalog.v1 import catalog_pb2 as catalog
from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.items import to_item
from keyplane.model.partition import Partition
from keyplane.route.v1 import route_pb2 as route
from router.config import RouterConfig


def test_stale_route_is_healed_in_one_redirect() -> None:
    """After a split nobody announced, the first request is redirected once, the next not at all."""
    world = World()
    world.start_router()
    parent = world.partitions[0]
    artist = artist_in(world.table, parent)
    world.put(artist, plays=1)
    node = world.owner(parent.start)
    children = world.split(parent)

    node.asked.clear()
    assert world.get(artist) == {"artist": artist, "plays": 1}
    first, second = (each.partition_id for each in node.asked)
    assert first == parent.partition_id
    assert second in {child.partition_id for child in children}

    node.asked.clear()
    world.get(artist)
    assert len(node.asked) == 1


def test_one_redirect_heals_the_whole_retired_range() -> None:
    """The hint tiles the parent, so keys of the other child find their way without an error."""
    world = World()
    world.start_router()
    parent = world.partitions[0]
    left, right = world.split(parent)
    world.get(artist_in(world.table, left))
    node = world.owner(parent.start)
    node.asked.clear()
    world.get(artist_in(world.table, right))
    assert [each.partition_id for each in node.asked] == [right.partition_id]


def test_a_chain_of_redirects_is_followed_to_its_end() -> None:
    """A partition that moved twice unnoticed is found by asking each owner for the next."""
    world = World()
    world.start_router()
    partition = world.partitions[0]
    artist = artist_in(world.table, partition)
    world.put(artist, plays=3)
    second = world.move(partition, "storage-2")
    world.move(second, "storage-3")
    assert world.get(artist) == {"artist": artist, "plays": 3}
    assert world.explain(artist).node.node_id == "storage-3"


def test_nodes_that_name_each_other_are_not_asked_in_a_tight_loop() -> None:
    """Past a bound on redirects a request waits between attempts, and ends at its deadline."""
    world = World(config=RouterConfig(redirects_max=3))
    world.start_router()
    partition = world.partitions[0]
    artist = artist_in(world.table, partition)
    epoch = 1

    def blame_the_other(*_: object) -> KeyplaneError:
        nonlocal epoch
        epoch += 1
        other = "storage-1" if epoch % 2 else "storage-2"
        lie = Partition(1, 7, partition.start, partition.end, epoch, other)
        hint = route.RouteHint(partitions=[lie.to_proto()])
        return KeyplaneError(Reason.STALE_ROUTE, "ask the other one", details=(hint,))

    for name in ("storage-1", "storage-2"):
        world.nodes[name]._stale = blame_the_other  # type: ignore[method-assign]
        world.nodes[name].serving.clear()
    pending = world.start_get(artist, timeout_s=2.0)
    assert pending.error().reason is Reason.STALE_ROUTE
    assert len(world.nodes["storage-1"].asked) + len(world.nodes["storage-2"].asked) < 60


def test_a_fenced_partition_is_waited_for() -> None:
    """NOT_SERVING is retried with back-off at the same node until it serves again."""
    world = World()
    world.start_router()
    partition = world.partitions[0]
    node = world.owner(partition.start)
    fenced = Fault(KeyplaneError(Reason.NOT_SERVING, "fenced"))
    node.fail_next(fenced, fenced, fenced)
    artist = artist_in(world.table, partition)
    assert world.put(artist, plays=1) == 1
    assert [each.write.token.attempt for each in node.asked] == [0, 0, 0, 0]
    assert world.counter("router_actions").value("wait") == 3


def test_a_dead_node_whose_partition_moved_is_found_by_asking_the_others() -> None:
    """The old owner is gone and cannot redirect; the storage nodes know who serves now."""
    world = World()
    world.start_router()
    partition = world.partitions[0]
    artist = artist_in(world.table, partition)
    world.put(artist, plays=1)
    world.move(partition, "storage-3")
    world.nodes["storage-1"].stop()
    assert world.get(artist) == {"artist": artist, "plays": 1}
    assert world.explain(artist).source == route.ROUTE_SOURCE_STORAGE


def test_a_dead_node_that_comes_back_is_waited_for() -> None:
    """Nobody else serves the range: the request goes on trying, and succeeds after the restart."""
    world = World()
    world.start_router()
    partition = world.partitions[0]
    artist = artist_in(world.table, partition)
    world.nodes["storage-1"].stop()
    pending = world.start_put(artist, plays=1)
    world.clock.run_for(1.0)
    assert not pending.done
    world.nodes["storage-1"].start()
    assert pending.wait().version == 1


def test_searches_for_one_route_are_one_search() -> None:
    """Many requests to a dead node ask the other nodes together, not each on its own."""
    world = World()
    world.start_router()
    artist = artist_in(world.table, world.partitions[0])
    world.nodes["storage-1"].stop()
    pending = [world.start_get(artist, timeout_s=0.5) for _ in range(50)]
    for each in pending:
        assert each.error().reason is Reason.NODE_UNREACHABLE
    assert world.nodes["storage-2"].described <= 5


def test_hints_that_are_no_routes_change_nothing() -> None:
    """I10: an empty range or a partition of another table in a hint is refused and counted."""
    world = World()
    world.start_router()
    partition = world.partitions[0]
    node = world.owner(partition.start)
    foreign = Partition(99, 8, 0, 1 << 64, 50, "storage-2").to_proto()
    empty = catalog.Partition(partition_id=1, table_id=7, start=5, end=5, epoch=9, leader="x")
    for bad in (foreign, empty):
        hint = route.RouteHint(partitions=[bad])
        node.fail_next(Fault(KeyplaneError(Reason.STALE_ROUTE, "?", details=(hint,))))
    artist = artist_in(world.table, partition)
    assert world.put(artist, plays=1) == 1
    assert world.explain(artist).partition == partition.to_proto()
    assert world.counter("router_hints_ignored").total() == 2


def test_a_slow_refusal_cannot_undo_newer_knowledge() -> None:
    """I3: a hint with an older epoch than what is known by then is not taken over."""
    world = World()
    world.start_router()
    partition = world.partitions[0]
    artist = artist_in(world.table, partition)
    moved = world.move(partition, "storage-2")
    newest = world.move(moved, "storage-3")
    world.get(artist)
    old = route.RouteHint(partitions=[moved.to_proto()])
    world.nodes["storage-3"].fail_next(
        Fault(KeyplaneError(Reason.STALE_ROUTE, "late", details=(old,)))
    )
    assert world.get(artist) is None
    assert world.explain(artist).partition == newest.to_proto()


def test_a_new_map_is_used_from_the_beat_on_that_brings_it() -> None:
    """Published changes reach a router that has had no traffic."""
    world = World()
    world.start_router()
    parent = world.partitions[0]
    children = world.split(parent)
    old = world.source.by_name["music"]
    world.source.by_name["music"] = old.replace(2, [parent], children)
    world.clock.run_for(1.5)
    artist = artist_in(world.table, parent)
    node = world.owner(parent.start)
    node.asked.clear()
    world.get(artist)
    assert len(node.asked) == 1
    assert world.explain(artist).map_version == 2


def test_explain_says_where_a_route_came_from() -> None:
    """MEMDS from a map, HINT from a refusal, SNAPSHOT after a cold start, STORAGE from a search."""
    world = World()
    world.start_router()
    artist = artist_in(world.table, world.partitions[0])
    explained = world.explain(artist)
    assert explained.source == route.ROUTE_SOURCE_MEMDS
    assert explained.partition == world.partitions[0].to_proto()
    assert explained.node.address == "storage-1:7000"
    assert explained.map_version == 1
    assert explained.map_age_ms < 1000

    world.move(world.partitions[0], "storage-2")
    world.get(artist)
    assert world.explain(artist).source == route.ROUTE_SOURCE_HINT

    world.clock.run_for(5)
    world.lose_memds()
    world.start_router()
    assert world.explain(artist).source == route.ROUTE_SOURCE_SNAPSHOT

    world.disk.files.clear()
    world.start_router(seeds=world.seeds())
    assert world.explain(artist).source == route.ROUTE_SOURCE_STORAGE


def test_explain_sends_nothing_to_a_storage_node() -> None:
    world = World()
    world.start_router()
    world.explain("anybody")
    assert all(not node.asked and not node.described for node in world.nodes.values())


def test_describe_router_shows_tables_nodes_and_memds() -> None:
    world = World()
    world.start_router()
    world.get(artist_in(world.table, world.partitions[0]))
    world.memds[1].down = True
    world.clock.run_for(2)
    view = world.call(
        ROUTE + "DescribeRouter", route.DescribeRouterRequest(), route.DescribeRouterResponse
    ).wait()
    assert [table.table.name for table in view.tables] == ["music"]
    assert view.tables[0].partition_count == 6
    assert view.tables[0].map_version == 1
    assert [node.node_id for node in view.nodes] == ["storage-1", "storage-2", "storage-3"]
    assert [memds.last_result for memds in view.memds] == ["OK", "DOWN"]


def test_a_table_that_cannot_be_explained_is_an_error() -> None:
    world = World()
    world.start_router()
    request = route.ExplainRequest(table="nothing", key=to_item({"artist": "x"}))
    pending = world.call(ROUTE + "Explain", request, route.ExplainResponse)
    with pytest.raises(KeyplaneError, match="there is no table 'nothing'"):
        pending.wait()


def test_reads_go_on_while_a_table_is_unknown_to_memds_but_served() -> None:
    """A table created with the publisher dead is found at the storage nodes."""
    world = World()
    world.start_router()
    table = catalog.Table()
    table.CopyFrom(world.table)
    table.name, table.table_id = "films", 8
    partition = Partition(50, 8, 0, 1 << 64, 1, "storage-2")
    world.nodes["storage-2"].open(table, partition)
    assert world.get("nobody", table="films") is None


def test_explain_needs_no_sort_key() -> None:
    """Where an item lives follows from its partition key; the sort key may be told or not."""
    world = World(sort_key=True)
    world.start_router()
    whole = route.ExplainRequest(table="music", key=to_item({"artist": "a", "song": "s"}))
    answer = world.call(ROUTE + "Explain", whole, route.ExplainResponse).wait()
    assert answer.key_hash == world.explain("a").key_hash
    assert answer.partition == world.explain("a").partition
