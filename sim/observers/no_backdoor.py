"""I4: no router ever calls the Metadata Store, and nobody gives it the address.

The first half is watched here. The second holds by how the world is built: a router's member is
given memcached nodes and seed storage nodes, as `python -m router` is.
"""

from __future__ import annotations

from sim.network import SimCall
from sim.observers.base import Observer
from sim.process import address_of
from sim.topology import METADATA


class NoBackdoor(Observer):
    def on_send(self, call: SimCall) -> None:
        if call.address == address_of(METADATA) and call.source.name in self.world.routers:
            self.world.violate(
                "I4",
                f"{call.source.name} calls the Metadata Store ({call.method})",
                call.source.name,
            )
