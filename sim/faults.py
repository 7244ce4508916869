"""Does faults to a world, and undoes them: one function for each kind of fault."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from keyplane.model.errors import KeyplaneError, Reason
from sim.network import Link
from sim.topology import METADATA
from sim.world import World
from wire import crashpoints
from wire.faults import Direction, Fault, FaultKind
from wire.ports import EngineError

_Heal = Callable[[], None]

# Kinds that act on messages, which the network asks about.
_NETWORK = frozenset({FaultKind.PARTITION, FaultKind.LATENCY, FaultKind.DROP, FaultKind.DUPLICATE})


@dataclass(frozen=True, slots=True)
class Active:
    """A fault in force, and how to undo it."""

    fault: Fault
    heal: _Heal


class FaultDriver:
    """What is wrong with a world at present. A fault is healed alone, or with all others."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._active: dict[str, Active] = {}
        self._kinds: dict[FaultKind, Callable[[Fault], _Heal]] = {
            FaultKind.KILL: self._kill,
            FaultKind.RESTART: self._restart,
            FaultKind.POWER_LOSS: self._power_loss,
            FaultKind.PAUSE: self._pause,
            FaultKind.SLOW_DISK: self._slow_disk,
            FaultKind.FULL_DISK: self._full_disk,
            FaultKind.SKEW: self._skew,
            FaultKind.CRASH_POINT: self._crash_point,
            FaultKind.MEMDS_FLUSH: self._memds_flush,
            FaultKind.MEMDS_DOWN: self._memds_down,
            FaultKind.MEMDS_STALE: self._memds_stale,
            FaultKind.MEMDS_CORRUPT: self._memds_corrupt,
            FaultKind.MEMDS_SLOW: self._memds_slow,
            FaultKind.METADATA_DOWN: self._kill,
            FaultKind.METADATA_LAG: self._metadata_lag,
            FaultKind.DATABASE_ERROR: self._database_error,
        }
        world.network.use_faults(self.link)

    @property
    def active(self) -> list[Fault]:
        return [each.fault for each in self._active.values()]

    def inject(self, fault: Fault) -> None:
        """Raises KeyplaneError(INVALID_ARGUMENT) on a target that is not there, or an id in use."""
        if fault.id in self._active:
            raise _invalid(f"fault {fault.id!r} is in force already; heal it first")
        for name in filter(None, (fault.target, fault.peer)):
            if not self._world.knows(name):
                raise _invalid(
                    f"no process {name!r} in this world; there are: "
                    + ", ".join(self._world.names())
                )
        self._world.note(f"fault begins: {fault}", fault.target, fault.peer)
        if fault.kind in _NETWORK:
            heal: _Heal = self._nothing
        else:
            heal = self._kinds[fault.kind](fault)
        self._active[fault.id] = Active(fault, heal)
        self._network_changed(fault)
        if fault.until is not None:
            self._world.scheduler.after(fault.until - self._world.now, lambda: self.heal(fault.id))

    def heal(self, fault_id: str) -> None:
        """Undoes a fault, unless it is healed already."""
        active = self._active.pop(fault_id, None)
        if active is not None:
            self._world.note(f"fault ends: {active.fault}", active.fault.target, active.fault.peer)
            active.heal()
            self._network_changed(active.fault)

    def heal_all(self) -> None:
        for fault_id in list(self._active):
            self.heal(fault_id)

    # --- the network ----------------------------------------------------------------------------

    def link(self, source: str, target: str) -> Link | None:
        """What the faults in force do to messages from one process to another."""
        link = Link()
        for active in self._active.values():
            fault = active.fault
            if fault.kind in _NETWORK and _touches(fault, source, target):
                _add(link, fault)
        return link

    def _network_changed(self, fault: Fault) -> None:
        if fault.kind in _NETWORK:
            self._world.network.use_faults(self.link)

    # --- processes ------------------------------------------------------------------------------

    def _kill(self, fault: Fault) -> _Heal:
        target = METADATA if fault.kind is FaultKind.METADATA_DOWN else fault.target
        self._world.kill(target)
        return lambda: self._world.start(target)

    def _power_loss(self, fault: Fault) -> _Heal:
        self._world.kill(fault.target, power=True)
        return lambda: self._world.start(fault.target)

    def _restart(self, fault: Fault) -> _Heal:
        self._world.kill(fault.target)
        self._world.start(fault.target)
        return self._nothing

    def _pause(self, fault: Fault) -> _Heal:
        """`unnoticed` = 1: even the process's clock stands still."""
        process = self._world.process(fault.target)
        if process is None:
            return self._nothing
        process.stop()
        return lambda: process.resume(bool(fault.parameters.get("unnoticed", 0)))

    def _skew(self, fault: Fault) -> _Heal:
        self._world.set_rate(fault.target, fault.parameters["rate"])
        return lambda: self._world.set_rate(fault.target, 1.0)

    def _crash_point(self, fault: Fault) -> _Heal:
        """Whoever gets to the named point first dies there, and comes back after `down_s`."""
        world, down_s = self._world, fault.parameters.get("down_s", 0.5)

        def die() -> None:
            process = world.running
            if process is not None:
                name = process.name
                world.note(f"dies at crash point {fault.point}", name)
                world.scheduler.after(down_s, lambda: world.start(name))
                world.kill(name)
                process.die()

        crashpoints.arm(fault.point, die)
        return lambda: crashpoints.disarm(fault.point)

    # --- disks ----------------------------------------------------------------------------------

    def _slow_disk(self, fault: Fault) -> _Heal:
        engine = self._world.storage(fault.target).engine
        delay_s = fault.parameters["delay_s"]
        engine.commit_s += delay_s

        def heal() -> None:
            engine.commit_s -= delay_s

        return heal

    def _full_disk(self, fault: Fault) -> _Heal:
        """`keeps` = 1: what failed may be on disk all the same."""
        engine = self._world.storage(fault.target).engine
        engine.fail_with = EngineError("no space left on device")
        engine.keeps_failed = bool(fault.parameters.get("keeps", 0))

        def heal() -> None:
            engine.fail_with = None

        return heal

    # --- MemDS ----------------------------------------------------------------------------------

    def _memds_flush(self, fault: Fault) -> _Heal:
        self._world.memcached[fault.target].flush()
        return self._nothing

    def _memds_down(self, fault: Fault) -> _Heal:
        """A memcached that comes back is empty."""
        memcached = self._world.memcached[fault.target]
        memcached.down = True
        memcached.flush()

        def heal() -> None:
            memcached.down = False

        return heal

    def _memds_stale(self, fault: Fault) -> _Heal:
        memcached = self._world.memcached[fault.target]
        memcached.freeze()
        return memcached.thaw

    def _memds_slow(self, fault: Fault) -> _Heal:
        memcached, delay_s = self._world.memcached[fault.target], fault.parameters["delay_s"]
        memcached.delay_s += delay_s

        def heal() -> None:
            memcached.delay_s -= delay_s

        return heal

    def _memds_corrupt(self, fault: Fault) -> _Heal:
        """Values lose their end, have a byte changed, are swapped for another's or for garbage."""
        memcached, rng = self._world.memcached[fault.target], self._world.rng_of(fault.id)

        def damage(_: str, value: bytes) -> bytes:
            if rng.random() >= fault.probability:
                return value
            match rng.randrange(4):
                case 0:
                    return value[: rng.randrange(len(value) + 1)]
                case 1 if value:
                    at = rng.randrange(len(value))
                    return (
                        value[:at] + bytes([value[at] ^ (1 << rng.randrange(8))]) + value[at + 1 :]
                    )
                case 2 if memcached.values:
                    others = list(memcached.values.values())
                    return others[rng.randrange(len(others))]
                case _:
                    return rng.randbytes(rng.randrange(64))

        memcached.damage = damage

        def heal() -> None:
            memcached.damage = None

        return heal

    # --- the Metadata Store ---------------------------------------------------------------------

    def _metadata_lag(self, fault: Fault) -> _Heal:
        self._world.set_metadata_lag(fault.parameters["delay_s"])
        return lambda: self._world.set_metadata_lag(0.0)

    def _database_error(self, fault: Fault) -> _Heal:
        self._world.set_database_failing(True)
        return lambda: self._world.set_database_failing(False)

    def _nothing(self) -> None:
        """There is nothing to undo."""


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


def _invalid(message: str) -> KeyplaneError:
    return KeyplaneError(Reason.INVALID_ARGUMENT, message)
