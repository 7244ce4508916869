"""Small worlds that are up, for tests of what is done to them."""

from __future__ import annotations

from sim.topology import METADATA, TableSpec, Topology
from sim.world import World

SMALL = Topology(
    routers=2,
    storage=2,
    memds=2,
    clients=1,
    tables=(TableSpec("orders", partitions=2, keys=4),),
)


def booted(seed: int = 1, topology: Topology = SMALL) -> World:
    """Every process lives and knows the others. There are no tables yet."""
    world = World(seed, topology)
    world.start_all()
    ready = world.run_until(
        lambda: (
            all(world.has_booted(name) for name in world.member_names())
            and world.metadata.core.ready
            and len(world.metadata.core.catalog.nodes) == topology.storage
        ),
        30.0,
    )
    assert ready
    assert world.process(METADATA) is not None
    return world
