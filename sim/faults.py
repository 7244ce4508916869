"""Does faults to a world, and undoes them.

What a target is like follows from all faults in force on it: when one ends, the others go on, and
when the last ends all is exactly as it was.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from cache.memory import MemoryMemcached
from keyplane.model.errors import KeyplaneError, Reason
from sim.fault_checks import NETWORK_KINDS, check_fault
from sim.network import Link
from sim.world import World
from wire import crashpoints
from wire.faults import Direction, Fault, FaultKind
from wire.ports import EngineError

# Kinds for whose time the target is not running.
_DOWN = frozenset({FaultKind.KILL, FaultKind.POWER_LOSS, FaultKind.METADATA_DOWN})


@dataclass(frozen=True, slots=True)
class Active:
    """A fault in force. rng: its own chance."""

    fault: Fault
    rng: random.Random


class FaultDriver:
    """What is wrong with a world at present. A fault is healed alone, or with all others."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._active: dict[str, Active] = {}
        # What happens once, when a fault begins.
        self._onsets: Mapping[FaultKind, Callable[[Fault], None]] = {
            FaultKind.KILL: self._kill,
            FaultKind.RESTART: self._kill,
            FaultKind.POWER_LOSS: self._kill,
            FaultKind.METADATA_DOWN: self._kill,
            FaultKind.MEMDS_FLUSH: self._flush,
            FaultKind.MEMDS_DOWN: self._flush,
            FaultKind.MEMDS_STALE: self._freeze,
        }
        # Makes the target what the faults in force have it be, after the one given began or ended.
        self._effects: Mapping[FaultKind, Callable[[Fault], None]] = {
            **dict.fromkeys(NETWORK_KINDS, self._links),
            FaultKind.KILL: self._life,
            FaultKind.RESTART: self._life,
            FaultKind.POWER_LOSS: self._life,
            FaultKind.METADATA_DOWN: self._life,
            FaultKind.PAUSE: self._pause,
            FaultKind.SKEW: self._skew,
            FaultKind.CRASH_POINT: self._crash_point,
            FaultKind.SLOW_DISK: self._slow_disk,
            FaultKind.FULL_DISK: self._full_disk,
            FaultKind.MEMDS_DOWN: self._memds_down,
            FaultKind.MEMDS_STALE: self._memds_stale,
            FaultKind.MEMDS_CORRUPT: self._memds_corrupt,
            FaultKind.MEMDS_SLOW: self._memds_slow,
            FaultKind.METADATA_LAG: self._metadata_lag,
            FaultKind.DATABASE_ERROR: self._database_error,
        }
        world.network.use_faults(self.link)

    @property
    def active(self) -> list[Fault]:
        return [each.fault for each in self._active.values()]

    def check(self, fault: Fault) -> None:
        """Raises KeyplaneError(INVALID_ARGUMENT) on a fault that cannot be done to this world."""
        check_fault(fault, self._world)

    def inject(self, fault: Fault) -> None:
        """Raises KeyplaneError(INVALID_ARGUMENT) as `check` does, or on an id in use."""
        if fault.id in self._active:
            raise KeyplaneError(
                Reason.INVALID_ARGUMENT, f"fault {fault.id!r} is in force already; heal it first"
            )
        self.check(fault)
        self._world.note(f"fault begins: {fault}", fault.target, fault.peer)
        active = self._active[fault.id] = Active(fault, self._world.rng_of(fault.id))
        if fault.kind in self._onsets:
            self._onsets[fault.kind](fault)
        self._update(fault)
        if fault.until is not None:

            def expire() -> None:
                # Not another that has its id by now.
                if self._active.get(fault.id) is active:
                    self.heal(fault.id)

            self._world.scheduler.after(fault.until - self._world.now, expire)

    def heal(self, fault_id: str) -> None:
        """Undoes a fault, unless it is healed already."""
        active = self._active.pop(fault_id, None)
        if active is not None:
            fault = active.fault
            self._world.note(f"fault ends: {fault}", fault.target, fault.peer)
            self._update(fault)

    def heal_all(self) -> None:
        for fault_id in list(self._active):
            self.heal(fault_id)

    def link(self, source: str, target: str) -> Link | None:
        """What the faults in force do to messages from one process to another."""
        link = Link()
        for active in self._active.values():
            fault = active.fault
            if fault.kind in NETWORK_KINDS and _touches(fault, source, target):
                _add(link, fault)
        return link

    def _update(self, fault: Fault) -> None:
        if fault.kind in self._effects:
            self._effects[fault.kind](fault)

    def _alike(self, fault: Fault) -> list[Active]:
        """Those in force of its kind, on its target, in the order in which they began."""
        return [
            each
            for each in self._active.values()
            if (each.fault.kind, each.fault.target) == (fault.kind, fault.target)
        ]

    def _sum(self, fault: Fault, parameter: str) -> float:
        return sum(each.fault.parameters[parameter] for each in self._alike(fault))

    def _links(self, _: Fault) -> None:
        self._world.network.use_faults(self.link)

    # --- processes ------------------------------------------------------------------------------

    def _kill(self, fault: Fault) -> None:
        """`anew` = 1: what starts again is on another machine, with nothing of what was kept."""
        self._world.kill(fault.target, power=fault.kind is FaultKind.POWER_LOSS)
        if fault.parameters.get("anew", 0):
            self._world.routers[fault.target].lose_disk()

    def _life(self, fault: Fault) -> None:
        self._start(fault.target)

    def _start(self, name: str) -> None:
        """Starts a member, unless a fault keeps it down."""
        if not any(
            each.fault.kind in _DOWN and each.fault.target == name for each in self._active.values()
        ):
            self._world.start(name)

    def _pause(self, fault: Fault) -> None:
        """`unnoticed` = 1, of the last of them to end: even the process's clock stood still."""
        process = self._world.process(fault.target)
        if process is None:
            return
        if self._alike(fault):
            process.stop()
        else:
            process.resume(bool(fault.parameters.get("unnoticed", 0)))

    def _skew(self, fault: Fault) -> None:
        """The latest counts."""
        skews = self._alike(fault)
        rate = skews[-1].fault.parameters["rate"] if skews else None
        self._world.set_rate(fault.target, rate)

    def _crash_point(self, fault: Fault) -> None:
        """Whoever gets to the named point first dies there, and comes back after `down_s`. With a
        target only that process does.
        """
        point = fault.point
        if any(each.point == point for each in self.active):
            crashpoints.arm(point, lambda: self._reached(point))
        else:
            crashpoints.disarm(point)

    def _reached(self, point: str) -> None:
        """A crash point acts once, so it must be armed again for whoever else waits there."""
        world, process = self._world, self._world.running
        fault = next(
            (
                each
                for each in self.active
                if each.point == point and process is not None and each.target in ("", process.name)
            ),
            None,
        )
        if process is None or fault is None:
            crashpoints.arm(point, lambda: self._reached(point))
            return
        del self._active[fault.id]
        self._crash_point(fault)
        name = process.name
        world.note(f"dies at crash point {point}", name)
        world.scheduler.after(fault.parameters.get("down_s", 0.5), lambda: self._start(name))
        world.kill(name)
        process.die()

    # --- disks ----------------------------------------------------------------------------------

    def _slow_disk(self, fault: Fault) -> None:
        engine = self._world.storage(fault.target).engine
        engine.commit_s = self._world.topology.commit_s + self._sum(fault, "delay_s")

    def _full_disk(self, fault: Fault) -> None:
        """`keeps`: so many of the batches that fail are on disk all the same."""
        engine, faults = self._world.storage(fault.target).engine, self._alike(fault)
        engine.fail_with = EngineError("no space left on device") if faults else None
        engine.keeps_failed = sum(int(each.fault.parameters.get("keeps", 0)) for each in faults)

    # --- MemDS ----------------------------------------------------------------------------------

    def _memcached(self, fault: Fault) -> MemoryMemcached:
        return self._world.memcached[fault.target]

    def _flush(self, fault: Fault) -> None:
        """Also of one that goes down: a memcached that comes back is empty."""
        self._memcached(fault).flush()

    def _memds_down(self, fault: Fault) -> None:
        self._memcached(fault).down = bool(self._alike(fault))

    def _freeze(self, fault: Fault) -> None:
        """A second one finds it frozen already."""
        if len(self._alike(fault)) == 1:
            self._memcached(fault).freeze()

    def _memds_stale(self, fault: Fault) -> None:
        if not self._alike(fault):
            self._memcached(fault).thaw()

    def _memds_slow(self, fault: Fault) -> None:
        self._memcached(fault).delay_s = self._sum(fault, "delay_s")

    def _memds_corrupt(self, fault: Fault) -> None:
        memcached, faults = self._memcached(fault), self._alike(fault)
        memcached.damage = partial(_damage, memcached, faults) if faults else None

    # --- the Metadata Store ---------------------------------------------------------------------

    def _metadata_lag(self, fault: Fault) -> None:
        self._world.metadata.trouble.lag_s = self._sum(fault, "delay_s")

    def _database_error(self, fault: Fault) -> None:
        self._world.metadata.trouble.failing = bool(self._alike(fault))


def _damage(memcached: MemoryMemcached, faults: list[Active], _: str, value: bytes) -> bytes:
    """Values lose their end, have a bit changed, are swapped for another's or for garbage."""
    for active in faults:
        rng = active.rng
        if rng.random() >= active.fault.probability:
            continue
        match rng.randrange(4):
            case 0:
                value = value[: rng.randrange(len(value) + 1)]
            case 1 if value:
                at = rng.randrange(len(value))
                changed = bytes([value[at] ^ (1 << rng.randrange(8))])
                value = value[:at] + changed + value[at + 1 :]
            case 2 if memcached.values:
                others = list(memcached.values.values())
                value = others[rng.randrange(len(others))]
            case _:
                value = rng.randbytes(rng.randrange(64))
    return value


def _touches(fault: Fault, source: str, target: str) -> bool:
    """Whether a network fault is about messages from `source` to `target`."""
    to_peer = source == fault.target and fault.peer in ("", target)
    from_peer = target == fault.target and fault.peer in ("", source)
    match fault.direction:
        case Direction.TO_PEER:
            return to_peer
        case Direction.FROM_PEER:
            return from_peer
        case Direction.BOTH:
            return to_peer or from_peer


def _add(link: Link, fault: Fault) -> None:
    match fault.kind:
        case FaultKind.PARTITION:
            link.cut = True
        case FaultKind.DROP:
            link.loss = 1.0 - (1.0 - link.loss) * (1.0 - fault.probability)
        case FaultKind.DUPLICATE:
            link.duplication = max(link.duplication, fault.probability)
        case FaultKind.LATENCY:
            link.delay_s += fault.parameters.get("delay_s", 0.0)
            link.jitter_s += fault.parameters.get("jitter_s", 0.0)
