"""What every observer is."""

from __future__ import annotations

from sim.network import Tap
from sim.world import World

# How often observers look, in virtual seconds.
BEAT_S = 0.5


class Observer(Tap):
    """Watches one invariant. Says so by `World.violate`."""

    def __init__(self, world: World) -> None:
        self.world = world

    def beat(self) -> None:
        """Every BEAT_S."""

    def calm(self) -> None:
        """All faults are over, and the world has had its time to recover."""
