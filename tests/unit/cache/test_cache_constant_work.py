"""I7: what MemDS is asked does not depend on what happens.

Every beat of a router is the same number of requests, and no node is asked more because another one
fails; so there is no state, however bad, in which the load on MemDS rises.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from cache_world import World, make_map, split

from cache.config import Refresh

BEATS = 20


def settle(world: World) -> None:
    world.source.put(make_map(2_000))
    world.publisher.start()
    world.run(1)
    world.publisher.stop()
    world.run(1)
    world.reader.start()
    world.look_up()
    world.run(2)


def requests_per_beat(world: World, each_beat: Callable[[int], object] | None = None) -> float:
    """Requests of the reader over the next beats, doing something in each."""
    beat_s = world.reader_config.beat_s
    # Once what was before has ended, and in the middle between two beats.
    world.run(2)
    world.run(beat_s * 1.5 - world.clock.now() % beat_s)
    before = world.requests()
    for number in range(BEATS):
        if each_beat is not None:
            each_beat(number)
        world.run(beat_s)
    return (world.requests() - before) / BEATS


@pytest.fixture
def world() -> World:
    world = World(nodes=3)
    settle(world)
    return world


def test_the_request_rate_is_the_same_whatever_happens(world: World) -> None:
    """All hit, all miss, idle, changes, cold and outage: four requests per beat, each time."""
    arrived = sum(node.requests for node in world.memds) - world.requests()
    rates = {"idle": requests_per_beat(world)}
    assert sum(node.requests for node in world.memds) - world.requests() == arrived

    def hits(_: int) -> None:
        for _ in range(1_000):
            world.router.routes["orders"].lookup(0)
            world.reader.touch("orders")

    def misses(number: int) -> None:
        for name in range(200):
            world.reader.lookup(f"unknown-{number}-{name}")

    def changes(number: int) -> None:
        world.source.put(split(world.source.by_name["orders"], number << 50))

    rates["all hit"] = requests_per_beat(world, hits)
    rates["all miss"] = requests_per_beat(world, misses)

    def every_node(**fault: object) -> None:
        for node in world.memds:
            for name, value in fault.items():
                setattr(node, name, value)

    world.memds[0].down = True
    rates["one node down"] = requests_per_beat(world)
    every_node(down=True)
    rates["outage"] = requests_per_beat(world)
    rates["outage and all miss"] = requests_per_beat(world, misses)
    every_node(down=False, broken=True)
    rates["errors"] = requests_per_beat(world)
    every_node(broken=False, delay_s=10.0)
    rates["timeouts"] = requests_per_beat(world)
    every_node(delay_s=0.0)
    for node in world.memds:
        node.flush()
    rates["flushed"] = requests_per_beat(world)
    world.publisher.start()
    rates["changes"] = requests_per_beat(world, changes)
    assert world.router.versions[-1] > 10
    assert rates == dict.fromkeys(rates, 4.0)


def test_a_cold_reader_asks_no_more_than_a_warm_one() -> None:
    """From the first beat of an empty router until its map is whole: the same four requests."""
    world = World(nodes=2, page_slots=2)
    world.source.put(make_map(2_000))
    world.publisher.start()
    world.run(1)
    world.publisher.stop()
    world.run(1)
    world.reader.start()
    world.reader.lookup("orders")
    assert requests_per_beat(world) == 4.0
    assert world.router.known()
    assert requests_per_beat(world) == 4.0


def test_survivors_are_not_asked_more_when_a_node_fails(world: World) -> None:
    """The share of the node that is down is not shifted to the others."""
    healthy = world.memds[1:]

    def share() -> float:
        before = sum(node.requests for node in healthy)
        world.run(400 * world.reader_config.beat_s)
        return (sum(node.requests for node in healthy) - before) / 400

    before = share()
    world.memds[0].down = True
    assert share() == pytest.approx(before, rel=0.1)


def test_pages_are_read_in_constant_numbers_too(world: World) -> None:
    """Missing or not, each page request asks for as many pages: missing first, then re-checks."""
    asked: list[int] = []
    for node in world.memds:
        get_many = node.get_many

        def counting(keys, on_done, get_many=get_many):  # type: ignore[no-untyped-def]
            asked.append(sum(":p:" in key for key in keys))
            get_many(keys, on_done)

        node.get_many = counting  # type: ignore[method-assign]
    world.run(5)
    assert len(world.source.by_name["orders"].pages) < 2 * world.reader_config.page_slots
    counts = {count for count in asked if count}
    assert len(counts) == 1


def test_per_request_refresh_follows_the_traffic() -> None:
    """DynamoDB's own variant, for comparison: quiet when idle, one refresh per beat when used."""
    world = World(nodes=2, refresh=Refresh.PER_REQUEST)
    settle(world)
    assert requests_per_beat(world) == 0
    assert requests_per_beat(world, lambda _: world.reader.touch("orders")) == 4.0
    after = world.source.put(split(world.source.by_name["orders"], 0))
    world.publisher.start()
    world.run(2)
    assert world.router.versions[-1] < after.version
    world.reader.touch("orders")
    world.run(1)
    assert world.router.known() == list(after.partitions())


def test_a_reader_that_cannot_keep_up_skips_beats() -> None:
    """Unfinished beats are bounded (I9): answers slower than beats do not pile up requests."""
    world = World(nodes=2)
    for node in world.memds:
        node._timeout_s = 1_000.0
        node.delay_s = 900.0
    world.reader.start()
    world.run(60)
    assert world.metrics.counter("memds_beats_skipped_total", "").total() > 200
    assert world.requests() <= 4 * 4
