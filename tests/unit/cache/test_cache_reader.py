"""Reading MemDS: maps are found, followed, and only ever go forward."""

from __future__ import annotations

import pytest
from cache_world import World, make_map, split

from cache.listener import LookupResult


@pytest.fixture
def world() -> World:
    """A published table of 8 partitions and a reader that has just started."""
    world = World()
    world.source.put(make_map())
    world.publisher.start()
    world.run(1)
    world.reader.start()
    return world


def test_a_lookup_finds_the_map_of_a_table(world: World) -> None:
    """A table that was published is FOUND, and its map has been told before that."""
    assert world.look_up() is LookupResult.FOUND
    assert world.router.known() == list(world.source.by_name["orders"].partitions())


def test_a_change_arrives_within_a_beat_of_each_side(world: World) -> None:
    """A split is routed after at most one beat of the publisher and one of the reader."""
    world.look_up()
    after = world.source.put(split(world.source.by_name["orders"], 0))
    world.run(0.5 + 0.25 + 0.1)
    assert world.router.known() == list(after.partitions())
    assert world.router.versions == [1, 2]
