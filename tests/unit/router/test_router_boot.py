"""Cold starts: with everything there, with parts of it gone, and with nobody left to ask."""

from __future__ import annotations

import pytest
from router_world import World, artist_in

from keyplane.catalog.v1 import catalog_pb2 as catalog
from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.partition import Partition
from router.config import RouterConfig
from router.snapshots import FILE
from router.tables import Tables


def test_a_router_is_ready_after_one_answer_of_memds() -> None:
    world = World()
    world.clock.run_for(1)
    router = world.start_router(boot_s=0.1)
    assert router.ready
    assert world.get("nobody") is None


def test_cold_start_with_memds_gone_uses_the_snapshot() -> None:
    """I6: what an earlier router wrote to disk is enough to route every request."""
    world = World()
    world.start_router()
    artist = artist_in(world.table, world.partitions[4])
    world.put(artist, plays=1)
    moved = world.move(world.partitions[4], "storage-3")
    world.get(artist)
    world.clock.run_for(5)

    world.lose_memds()
    router = world.start_router(boot_s=0.0)
    assert router.ready
    world.nodes["storage-3"].asked.clear()
    assert world.get(artist) == {"artist": artist, "plays": 1}
    # What storage nodes had said beyond the map was kept too: no redirect.
    assert [each.epoch for each in world.nodes["storage-3"].asked] == [moved.epoch]
    assert all(not node.described for node in world.nodes.values())


def test_cold_start_with_memds_and_snapshot_gone_asks_the_storage_nodes() -> None:
    """One seed that is alive is enough to become ready, and tables are found on demand."""
    world = World()
    world.lose_memds()
    world.nodes["storage-2"].known_nodes = [node.node for node in world.nodes.values()]
    router = world.start_router(seeds=["storage-2:7000"], boot_s=2.0)
    assert router.ready
    artist = artist_in(world.table, world.partitions[1])
    assert world.put(artist, plays=1) == 1


def test_a_table_that_only_storage_nodes_have_told_of_is_read_in_memds_too() -> None:
    """Else nobody would ever tell that it has been deleted."""
    world = World()
    world.lose_memds()
    router = world.start_router(seeds=world.seeds(), boot_s=2.0)
    assert world.get(artist_in(world.table, world.partitions[1])) is None
    tombstone = catalog.Table()
    tombstone.CopyFrom(world.table)
    tombstone.state = catalog.TABLE_STATE_DELETED
    world.source.by_name.clear()
    world.source.deleted.append(catalog.MapRoot(table=tombstone, version=2))
    for node in world.memds:
        node.down = False
    for peer in world.nodes.values():
        peer.stop()
    world.clock.run_for(20.0)
    assert router.tables.all() == []


def test_with_nobody_to_ask_a_request_gets_a_clear_unavailable() -> None:
    """No MemDS, no snapshot, no storage node: NO_ROUTE, which says what was tried."""
    world = World()
    world.lose_memds()
    for node in world.nodes.values():
        node.stop()
    router = world.start_router(seeds=world.seeds(), boot_s=2.0)
    assert not router.ready
    error = world.start_get("anybody").error()
    assert error.reason is Reason.NO_ROUTE
    assert "MemDS gave no usable answer" in error.message
    assert "0 do not serve it and 3 do not answer" in error.message


def test_a_router_that_booted_from_nothing_recovers_with_the_first_node() -> None:
    world = World()
    world.lose_memds()
    for node in world.nodes.values():
        node.stop()
    router = world.start_router(seeds=world.seeds(), boot_s=3.0)
    assert not router.ready
    world.nodes["storage-1"].start()
    world.clock.run_for(2.0)
    assert router.ready
    assert world.get(artist_in(world.table, world.partitions[0])) is None


def test_flushing_memds_takes_no_route_away() -> None:
    """I5: empty and dead memcached nodes are no news."""
    world = World()
    world.start_router()
    artist = artist_in(world.table, world.partitions[0])
    world.put(artist, plays=1)
    for node in world.memds:
        node.flush()
        node.freeze()
    world.clock.run_for(10)
    assert world.get(artist) == {"artist": artist, "plays": 1}
    world.lose_memds()
    world.clock.run_for(10)
    assert world.get(artist) == {"artist": artist, "plays": 1}
    assert all(not node.described for node in world.nodes.values())


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"KPV\x09" + bytes(40), "FOREIGN_FORMAT"), (b"nonsense", "CORRUPT"), (b"", "CORRUPT")],
)
def test_a_damaged_snapshot_is_refused_and_counted(content: bytes, reason: str) -> None:
    """I10: the router boots as if there were none."""
    world = World()
    world.start_router()
    world.get("nobody")
    world.clock.run_for(5)
    whole = world.disk.files[FILE]
    world.disk.files[FILE] = content or whole[:-1] + bytes([whole[-1] ^ 1])
    world.lose_memds()
    world.start_router(seeds=world.seeds())
    assert world.counter("router_snapshot_reads").values == {reason: 1}
    assert world.get("nobody") is None


def test_a_full_disk_costs_the_snapshot_and_nothing_else() -> None:
    world = World()
    world.disk.fail_with = OSError(28, "No space left on device")
    world.start_router(boot_s=5.0)
    assert world.get("nobody") is None
    world.clock.run_for(5)
    assert world.counter("router_snapshots").value("WRITE_ERROR") >= 1
    world.disk.fail_with = None
    world.clock.run_for(5)
    assert world.counter("router_snapshots").value("OK") == 1
    assert FILE in world.disk.files


def test_snapshots_are_written_once_for_many_changes() -> None:
    world = World()
    world.start_router()
    world.get("nobody")
    world.clock.run_for(5)
    before = world.counter("router_snapshots").total()
    for partition in world.partitions:
        world.split(partition)
        world.get(artist_in(world.table, partition))
    world.clock.run_for(5)
    assert world.counter("router_snapshots").total() == before + 1


def test_an_unknown_table_is_not_found() -> None:
    """Two complete memcached nodes and every storage node know no such table."""
    world = World()
    world.start_router()
    error = world.start_get("anybody", table="nothing").error()
    assert error.reason is Reason.TABLE_NOT_FOUND
    assert world.counter("router_errors").value("TABLE_NOT_FOUND") == 1


def test_asking_for_an_unknown_table_again_and_again_costs_one_search() -> None:
    world = World()
    world.start_router()
    pending = [world.start_get("anybody", table="nothing") for _ in range(100)]
    for each in pending:
        assert each.error().reason is Reason.TABLE_NOT_FOUND
    assert world.start_get("anybody", table="nothing").error().reason is Reason.TABLE_NOT_FOUND
    assert world.nodes["storage-1"].described == 1


def test_an_unknown_table_is_not_called_deleted_while_a_node_is_silent() -> None:
    """With MemDS gone and a storage node down, nobody can say that a table does not exist."""
    world = World()
    world.start_router(seeds=world.seeds())
    world.get("nobody")
    world.lose_memds()
    world.nodes["storage-3"].stop()
    assert world.start_get("x", table="nothing").error().reason is Reason.NO_ROUTE
    world.nodes["storage-3"].start()
    world.clock.run_for(1)
    assert world.start_get("x", table="nothing").error().reason is Reason.TABLE_NOT_FOUND


def test_an_unknown_table_is_not_called_absent_by_a_router_that_knows_some_nodes_only() -> None:
    """Told of one node and of no directory, it cannot know what others serve."""
    world = World()
    world.lose_memds()
    world.start_router(seeds=["storage-2:7000"], boot_s=2.0)
    assert world.start_get("x", table="nothing").error().reason is Reason.NO_ROUTE


def test_a_deleted_table_is_gone_by_its_tombstone_and_comes_back_when_created_again() -> None:
    world = World()
    world.start_router()
    assert world.get("nobody") is None
    old = world.source.by_name.pop("music")
    tombstone = catalog.MapRoot(table=old.table, version=2)
    tombstone.table.state = catalog.TABLE_STATE_DELETED
    world.source.deleted.append(tombstone)
    world.clock.run_for(2)
    error = world.start_get("nobody").error()
    assert (error.reason, error.message) == (
        Reason.TABLE_NOT_FOUND,
        "table 'music' has been deleted",
    )

    table = catalog.Table()
    table.CopyFrom(world.table)
    table.table_id = 9
    partition = Partition(90, 9, 0, 1 << 64, 1, "storage-1")
    world.nodes["storage-1"].open(table, partition)
    world.source.deleted.clear()
    world.source.by_name["music"] = type(old).build(table, 3, [partition])
    world.clock.run_for(2)
    assert world.get("nobody") is None
    assert world.explain("nobody").partition.partition_id == 90


def test_a_table_that_storage_nodes_know_to_be_deleted_is_gone() -> None:
    """With MemDS gone, the tombstone is found at a storage node."""
    world = World()
    world.lose_memds()
    for node in world.nodes.values():
        node.tables.clear()
        node.serving.clear()
        node.deleted.append("music")
    world.start_router(seeds=world.seeds())
    error = world.start_get("nobody").error()
    assert (error.reason, error.message) == (
        Reason.TABLE_NOT_FOUND,
        "table 'music' has been deleted",
    )


def test_searches_are_bounded() -> None:
    """I9: past the bound an unknown table is OVERLOADED at once."""
    world = World(config=RouterConfig(searches_max=4))
    world.start_router()
    pending = [world.start_get("x", table=f"nothing-{n}") for n in range(10)]
    reasons = [each.error().reason for each in pending]
    assert reasons.count(Reason.OVERLOADED) == 6
    assert reasons.count(Reason.TABLE_NOT_FOUND) == 4


def test_a_search_that_outlives_its_request_ends_with_the_deadline() -> None:
    world = World()
    world.start_router()
    for node in world.memds:
        node.delay_s = 10.0
    started_at = world.clock.now()
    error = world.start_get("x", table="nothing", timeout_s=0.1).error()
    assert error.reason in (Reason.NO_ROUTE, Reason.DEADLINE_EXCEEDED)
    assert world.clock.now() - started_at < 0.2
    with pytest.raises(KeyplaneError):
        world.get("x", table="nothing")


def test_a_table_deleted_before_it_was_known_does_not_come_back_by_old_news() -> None:
    """A late report names the deleted table; only a later one may take its name."""
    tables = Tables()
    tables.bury("music", 7)
    assert tables.know(catalog.Table(table_id=7, name="music")) is None
    key = catalog.KeyAttribute(name="artist", type=catalog.SCALAR_TYPE_STRING)
    assert tables.know(catalog.Table(table_id=8, name="music", partition_key=key)) is not None
