"""I8: an operation interrupted between any two of its steps finishes or aborts, exactly once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from metadata_world import World

from keyplane.catalog.v1 import catalog_pb2 as catalog
from keyplane.metadata.v1 import metadata_pb2 as pb
from keyplane.model.errors import KeyplaneError, Reason
from metadata.operations import State
from metadata.plans import Kind

# How each kind is begun, and what must be true once it has succeeded.
BEGIN: dict[Kind, Callable[[World], pb.Operation]] = {
    Kind.CREATE_TABLE: lambda world: world.create("more", partitions=5),
    Kind.DELETE_TABLE: lambda world: world.delete(),
    Kind.UPDATE_TABLE: lambda world: world.update(catalog.DURABILITY_POWER),
    Kind.SPLIT: lambda world: world.split(1),
    Kind.MERGE: lambda world: world.merge(1, 2),
    Kind.MOVE: lambda world: world.move(1, "c"),
    Kind.DRAIN: lambda world: world.drain("a"),
}
DONE: dict[Kind, Callable[[World], bool]] = {
    Kind.CREATE_TABLE: lambda world: len(world.partitions("more")) == 5,
    Kind.DELETE_TABLE: lambda world: world.core.catalog.by_name["orders"].deleted,
    Kind.UPDATE_TABLE: lambda world: (
        world.core.catalog.by_name["orders"].durability == catalog.DURABILITY_POWER
    ),
    Kind.SPLIT: lambda world: len(world.partitions()) == 5,
    Kind.MERGE: lambda world: len(world.partitions()) == 3,
    Kind.MOVE: lambda world: world.partitions()[0].leader == "c",
    Kind.DRAIN: lambda world: not world.fleet.nodes["a"].serving,
}
MILESTONES = [
    *(
        (kind, f"metadata.{kind}.{state}")
        for kind in Kind
        for state in (State.PENDING, State.RUNNING, State.COMMITTED, State.SUCCEEDED)
    ),
    (Kind.MERGE, "metadata.merge.moved"),
]


def make_world(directory: Path) -> World:
    directory.mkdir(exist_ok=True)
    world = World(directory)
    world.done(world.create())
    return world


@pytest.mark.parametrize(("kind", "point"), MILESTONES, ids=[point for _, point in MILESTONES])
def test_a_crash_after_any_persisted_step(tmp_path: Path, kind: Kind, point: str) -> None:
    """The store is killed at a crash point and started again: the operation succeeds, once."""
    world = make_world(tmp_path)
    starts = world.starts
    world.crash_at(point)
    begin_despite_a_crash(world, kind)
    world.settle()
    assert world.starts == starts + 1
    assert DONE[kind](world)
    operation = [each for each in world.core.catalog.operations.values() if each.kind is kind][-1]
    assert operation.resumed_count == (0 if point.endswith(".succeeded") else 1)
    world.check()


@pytest.mark.parametrize("kind", list(Kind))
def test_a_crash_before_and_after_every_commit(tmp_path: Path, kind: Kind) -> None:
    """Before: the storage nodes may have acted and nobody wrote it down. After: it is written and
    nobody was told. Whichever commit it is, the operation ends as if nothing had happened."""
    for before in (True, False):
        number = 1
        while True:
            world = make_world(tmp_path / f"{before}-{number}")
            world.commits, world.die_at_commit, world.die_before = 0, number, before
            starts = world.starts
            begin_despite_a_crash(world, kind)
            world.settle()
            survived = world.starts == starts
            # Killed before the very first commit, nobody ever heard of the operation.
            assert (before and number == 1) or DONE[kind](world)
            world.check()
            if survived:
                break
            number += 1
        assert number > 4


def begin_despite_a_crash(world: World, kind: Kind) -> None:
    """Asks for the operation; the store may die before it has answered."""
    try:
        BEGIN[kind](world)
    except KeyplaneError as error:
        assert error.reason is Reason.CONNECTION_LOST, error
