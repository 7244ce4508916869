"""A world with things wrong with it: two faults of every kind, and the whole state they change."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sim_world import SMALL, booted

from sim.faults import FaultDriver
from sim.topology import METADATA
from wire import crashpoints
from wire.faults import Fault, FaultKind

POINT, OTHER_POINT = "storage.move.handover", "storage.move.activated"


def fault(kind: FaultKind, target: str, number: int = 1, /, **more: Any) -> Fault:
    fields = {name: more.pop(name) for name in ("peer", "direction", "point") if name in more}
    probability = more.pop("probability", 1.0)
    until = more.pop("until", None)
    name = f"fault-{number}"
    return Fault(
        name, kind, target, probability=probability, parameters=more, until=until, **fields
    )


# Two faults of every kind, of one target.
EXAMPLES: dict[FaultKind, tuple[Fault, Fault]] = {
    kind: (fault(kind, target, 1, **first), fault(kind, target, 2, **second))
    for kind, target, first, second in (
        (FaultKind.KILL, "storage-1", {}, {}),
        (FaultKind.PAUSE, "storage-1", {"unnoticed": 1.0}, {}),
        (FaultKind.RESTART, "router-1", {}, {}),
        (FaultKind.POWER_LOSS, "storage-1", {}, {}),
        (FaultKind.PARTITION, "router-1", {"peer": "storage-1"}, {"peer": "memds-1"}),
        (FaultKind.LATENCY, "router-1", {"delay_s": 0.1}, {"delay_s": 0.2, "jitter_s": 0.7}),
        (FaultKind.DROP, "router-1", {"probability": 0.1}, {"probability": 0.7}),
        (FaultKind.DUPLICATE, "router-1", {"probability": 0.1}, {"probability": 0.7}),
        (FaultKind.SLOW_DISK, "storage-1", {"delay_s": 0.1}, {"delay_s": 0.7}),
        (FaultKind.FULL_DISK, "storage-1", {"keeps": 1.0}, {}),
        (FaultKind.SKEW, "storage-1", {"rate": 1.25}, {"rate": 0.8}),
        (FaultKind.CRASH_POINT, "", {"point": POINT}, {"point": OTHER_POINT}),
        (FaultKind.MEMDS_FLUSH, "memds-1", {}, {}),
        (FaultKind.MEMDS_DOWN, "memds-1", {}, {}),
        (FaultKind.MEMDS_STALE, "memds-1", {}, {}),
        (FaultKind.MEMDS_CORRUPT, "memds-1", {}, {"probability": 0.5}),
        (FaultKind.MEMDS_SLOW, "memds-1", {"delay_s": 0.1}, {"delay_s": 0.7}),
        (FaultKind.METADATA_DOWN, METADATA, {}, {}),
        (FaultKind.METADATA_LAG, METADATA, {"delay_s": 0.1}, {"delay_s": 0.7}),
        (FaultKind.DATABASE_ERROR, METADATA, {}, {}),
    )
}


class Stage:
    """A world with clocks that disagree, and what is wrong with it."""

    def __init__(self) -> None:
        self.world = booted(topology=replace(SMALL, skew=0.05))
        self.driver = FaultDriver(self.world)
        for name in self.world.topology.client_names():
            self.world.new_process(name)
        self._probes = 0

    def state(self) -> dict[str, object]:
        """Everything that faults change, as it is."""
        world = self.world
        state: dict[str, object] = {}
        for name in (*world.member_names(), *world.topology.client_names()):
            process = world.process(name)
            state[name] = process and (process.stopped, process.clock.rate)
        for name, member in world.storage_members().items():
            engine = member.engine
            state[f"disk of {name}"] = (engine.commit_s, str(engine.fail_with), engine.keeps_failed)
        for name, memcached in world.memcached.items():
            self._probes += 1
            probe = b"%d" % self._probes * 20
            memcached.store({"probe": probe})
            shown = {memcached.read(["probe"]).values.get("probe") for _ in range(60)}
            state[name] = (memcached.down, memcached.delay_s, shown == {probe}, probe in shown)
        for source in world.names():
            for target in world.names():
                state[f"{source}>{target}"] = self.driver.link(source, target)
        state["database"] = (world.metadata.trouble.lag_s, world.metadata.trouble.failing)
        state["crash points"] = {each.point for each in self.driver.active if each.point}
        return state

    def reach(self, name: str, point: str = POINT) -> bool:
        """A process comes to a crash point. Whether it survives."""
        process = self.world.process(name)
        assert process is not None
        process.clock.call_soon(lambda: crashpoints.crashpoint(point))
        self.world.run_for(0.001)
        return process.alive

    def lives(self, name: str) -> bool:
        return self.world.process(name) is not None
