"""The Metadata Store and real storage nodes agree, whoever dies in the middle of an operation."""

from __future__ import annotations

from pathlib import Path

import pytest
from storage_cluster import StorageCluster

from keyplane.catalog.v1 import catalog_pb2 as catalog
from keyplane.metadata.v1 import metadata_pb2 as pb
from keyplane.model.errors import KeyplaneError, Reason
from metadata.operations import State
from metadata.plans import Kind

ITEMS = {f"item-{number}": f"value-{number}" for number in range(60)}

# Partitions 1 and 4 are on a, 2 on b, 3 on c. Merging 1 and 2 moves 2 from b to a.
BEGIN = {
    Kind.SPLIT: lambda world: world.split(1),
    Kind.MERGE: lambda world: world.merge(1, 2),
    Kind.MOVE: lambda world: world.move(1, "c"),
    Kind.DRAIN: lambda world: world.drain("a"),
    Kind.UPDATE_TABLE: lambda world: world.update(catalog.DURABILITY_POWER),
}
METADATA_POINTS = [
    *(
        (kind, f"metadata.{kind}.{state}")
        for kind in BEGIN
        for state in (State.PENDING, State.RUNNING, State.COMMITTED, State.SUCCEEDED)
    ),
    (Kind.MERGE, "metadata.merge.moved"),
]
SOURCE = ("started", "snapshot_sent", "fenced", "handover", "answered", "retired", "released")
TARGET = ("prepared", "confirmed", "activated")
STORAGE_POINTS = [
    (Kind.SPLIT, "storage.split.persisted", "a"),
    (Kind.MERGE, "storage.merge.persisted", "a"),
    *((Kind.MOVE, f"storage.move.{step}", "a") for step in SOURCE),
    *((Kind.MOVE, f"storage.move.{step}", "c") for step in TARGET),
    *((Kind.MERGE, f"storage.move.{step}", "b") for step in SOURCE),
    *((Kind.MERGE, f"storage.move.{step}", "a") for step in TARGET),
]


@pytest.fixture
def world(tmp_path: Path) -> StorageCluster:
    world = StorageCluster(tmp_path)
    world.put_all(ITEMS)
    return world


def check(world: StorageCluster) -> None:
    """Every item is there, and the map is what the storage nodes say."""
    world.settle()
    world.run(2)
    assert world.get_all(ITEMS) == ITEMS
    assert world.serving() == world.partitions()


def begin(world: StorageCluster, kind: Kind) -> None:
    try:
        BEGIN[kind](world)
    except KeyplaneError as error:
        assert error.reason is Reason.CONNECTION_LOST, error


@pytest.mark.parametrize("kind", list(BEGIN))
def test_every_operation_works_on_real_nodes(world: StorageCluster, kind: Kind) -> None:
    world.done(BEGIN[kind](world))
    check(world)


def test_a_table_is_deleted_everywhere(world: StorageCluster) -> None:
    world.done(world.delete())
    assert world.serving() == []
    world.done(world.create())
    assert world.get_all(ITEMS) == {}


@pytest.mark.parametrize(("kind", "point"), METADATA_POINTS, ids=[p for _, p in METADATA_POINTS])
def test_the_store_dies(world: StorageCluster, kind: Kind, point: str) -> None:
    """At any of its own persisted steps: the operation is taken up again and succeeds."""
    world.crash_at(point)
    begin(world, kind)
    check(world)
    assert world.starts == 2
    assert all(each.state is State.SUCCEEDED for each in world.core.catalog.operations.values())


@pytest.mark.parametrize(
    ("kind", "point", "node_id"), STORAGE_POINTS, ids=[f"{k}-{p}-{n}" for k, p, n in STORAGE_POINTS]
)
def test_a_storage_node_dies(world: StorageCluster, kind: Kind, point: str, node_id: str) -> None:
    """Source or target, at any persisted step of its own: the operation finishes or aborts, and
    nothing is lost either way."""
    before = world.partitions()
    process = world.members[node_id].process
    world.kill_storage_at(point, node_id)
    operation = BEGIN[kind](world)
    ended = world.finish(operation)
    check(world)
    assert not process.alive
    if ended.state == pb.OPERATION_STATE_FAILED:
        assert world.partitions() == before
    else:
        assert ended.state == pb.OPERATION_STATE_SUCCEEDED


@pytest.mark.parametrize("point", ["storage.move.handover", "storage.move.activated"])
def test_source_and_store_die_together(world: StorageCluster, point: str) -> None:
    """Past the point of no return the move is finished, however many have died."""
    world.kill_storage_at(point, "a" if point.endswith("handover") else "c")
    operation = world.move(1, "c")
    world.run(0.2)
    world.process.kill()
    world.run(0.1)
    world.done(operation)
    check(world)


def test_a_node_that_stays_away_holds_its_operation_up_and_no_other(world: StorageCluster) -> None:
    """The leader of one partition is gone; the split of another goes on, and its own ends when the
    node is back."""
    world.kill_storage_at("storage.split.persisted", "b")
    world.restart_s = 60.0
    held_up = world.split(2)
    world.run(1)
    world.done(world.split(1))
    assert world.operation(held_up.operation_id).state == pb.OPERATION_STATE_RUNNING
    world.done(held_up)
    check(world)
