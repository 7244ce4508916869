"""The world: all processes of a cluster, their network, memcached and disks, from one seed."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NoReturn

from cache import memds_keys
from cache.memory import MemoryMemcached
from keyplane.model.vault import CLUSTER_SECRET_BYTES, Vault
from metadata.memory import MemoryDatabase
from sim.members import (
    GranterMember,
    Member,
    MetadataMember,
    Parts,
    RouterMember,
    StorageMember,
)
from sim.memcached import SimMemdsNode
from sim.network import SimNetwork, SimTransport
from sim.process import SimProcess
from sim.scheduler import Scheduler
from sim.topology import CLUSTER, GRANTER, METADATA, OPERATOR, Topology
from sim.trace import Trace
from sim.violation import Violation, ViolationError
from wire import crashpoints
from wire.ports import MemdsNode


class World:
    """Builds the members, and starts and kills them. Everything in it happens on one thread.

    seed: decides all that the topology leaves open. full_trace: whether to write every event down.
    memcached: the fleet, by name. memds_requests: sent so far, by the name of who sent them.
    on_birth: told of every process that starts, after it has; observers look at it through that.

    A world belongs to one process of the operating system at a time: crash points are global. Call
    `close` when done, or use it as a context manager.
    """

    def __init__(self, seed: int | str, topology: Topology, full_trace: bool = False) -> None:
        self.seed = seed
        self.topology = topology
        self.scheduler = Scheduler()
        self.trace = Trace(full_trace)
        self.network = SimNetwork(
            self.scheduler, self.rng_of("network"), self.trace, topology.delay
        )
        marker = memds_keys.marker(CLUSTER)
        self.memcached = {name: MemoryMemcached(name, marker) for name in topology.memds_names()}
        self.memds_requests: Counter[str] = Counter()
        self.on_birth: list[Callable[[SimProcess], None]] = []
        self._clocks = self.rng_of("clocks")
        self._processes: dict[str, SimProcess] = {}
        self._power_losses: list[float] = []
        self._booted: set[SimProcess] = set()
        self._lives: Counter[str] = Counter()
        # How fast clocks run, and those that a fault has run otherwise.
        self._rates: dict[str, float] = {}
        self._skewed: dict[str, float] = {}
        self._clock_starts: dict[str, float] = {}
        # The cluster's secret, where calls are signed.
        secret = self.rng_of("secret").randbytes(CLUSTER_SECRET_BYTES) if topology.tenants else None
        self._parts = parts = Parts(self.scheduler, self.network, topology, self._fleet_of, secret)
        self.routers = {name: RouterMember(parts) for name in topology.router_names()}
        self._storage = {name: StorageMember(parts, name) for name in topology.storage_names()}
        self.metadata = MetadataMember(parts)
        self.granter = GranterMember(parts)
        self._members: dict[str, Member] = {
            METADATA: self.metadata,
            GRANTER: self.granter,
            **self._storage,
            **self.routers,
        }
        crashpoints.disarm()

    def __enter__(self) -> World:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the world. Its members must not be used any more."""
        crashpoints.disarm()
        database: MemoryDatabase = self.metadata.database
        database.discard()

    @property
    def now(self) -> float:
        """Virtual seconds since the start."""
        return self.scheduler.now

    @property
    def running(self) -> SimProcess | None:
        """The process whose code is running."""
        running = self.scheduler.running
        return running if isinstance(running, SimProcess) else None

    def rng_of(self, what: str) -> random.Random:
        """A stream of random numbers of its own, so that one use of chance does not shift another.

        It depends on the seed and the name only.
        """
        return random.Random(f"{self.seed}/{what}")

    # --- members --------------------------------------------------------------------------------

    def names(self) -> list[str]:
        """Of everything that can be the target of a fault."""
        return [*self._members, *self.memcached, *self.topology.client_names(), OPERATOR]

    def member_names(self) -> list[str]:
        """Of everything that lives, dies and starts again."""
        return list(self._members)

    @property
    def power_losses(self) -> Sequence[float]:
        """When storage nodes' machines lost power."""
        return self._power_losses

    def knows(self, name: str) -> bool:
        return name in self.names()

    def storage(self, name: str) -> StorageMember:
        return self._storage[name]

    def storage_members(self) -> dict[str, StorageMember]:
        return self._storage

    def process(self, name: str) -> SimProcess | None:
        """The living process of this name."""
        process = self._processes.get(name)
        return process if process is not None and process.alive else None

    def has_booted(self, name: str) -> bool:
        """Whether the member lives and has been built, so that it can be looked at."""
        process = self.process(name)
        return process is not None and process in self._booted

    def start_all(self) -> None:
        for name in self._members:
            self.start(name)

    def start(self, name: str) -> None:
        """Starts a member on what its last life left. Does nothing while it lives."""
        if self.process(name) is not None:
            return
        process = self.new_process(name)
        self.network.listen(process)
        self._note_life(process, f"starts, life {process.life}")
        rng = self.rng_of(f"{name}/{process.life}")
        boot = self._members[name].boot

        def begin() -> None:
            boot(process, rng)
            self._booted.add(process)
            for tell in self.on_birth:
                tell(process)

        self.scheduler.after(0.0, begin, process)

    def new_process(self, name: str) -> SimProcess:
        """A process without anything in it, which lives from now on."""
        self._lives[name] += 1
        if name not in self._clock_starts:
            self._clock_starts[name] = self._clocks.random() * self.topology.clocks_apart_s
            skew = self.topology.skew
            self._rates[name] = 1.0 + skew * (2 * self._clocks.random() - 1)
        started_at = self._clock_starts[name] + self.now
        process = SimProcess(self.scheduler, name, self._lives[name], self._rate(name), started_at)
        self._processes[name] = process
        return process

    def vault(self, what: str) -> Vault | None:
        """The cluster's, as somebody holds it; None where calls are not signed."""
        return self._parts.vault(self.rng_of(f"{what}/vault"))

    def transport(self, process: SimProcess) -> SimTransport:
        return SimTransport(self.network, process)

    def kill(self, name: str, power: bool = False) -> None:
        """Ends a member's process, or with `power` its machine, whose process may be dead."""
        process = self.process(name)
        if process is not None:
            self._note_life(process, "loses power" if power else "is killed")
            process.kill()
        elif not power:
            return
        if power and name in self._storage:
            self._power_losses.append(self.now)
        self._members[name].died(power)

    def set_rate(self, name: str, rate: float | None) -> None:
        """How fast a process's clock runs, this life and the next. None: as it did at first."""
        if rate is None:
            self._skewed.pop(name, None)
        else:
            self._skewed[name] = rate
        process = self.process(name)
        if process is not None:
            process.clock.run_at(self._rate(name))

    def _rate(self, name: str) -> float:
        return self._skewed.get(name, self._rates[name])

    # --- time -----------------------------------------------------------------------------------

    def run_for(self, seconds: float) -> None:
        self.scheduler.run_until(self.now + seconds)

    def run_until(self, done: Callable[[], bool], timeout_s: float) -> bool:
        """Runs until `done()`, which is asked after every event. False if it never was."""
        return self.scheduler.run_while(lambda: not done(), self.now + timeout_s)

    # --- what is told ---------------------------------------------------------------------------

    def note(self, what: str, *processes: str) -> None:
        """Something that happened to the world itself."""
        self.trace.mark(self.now, what)
        about = frozenset(filter(None, processes))
        self.trace.note(self.now, "world", what, about)

    def violate(self, invariant: str, message: str, *about: str) -> NoReturn:
        """Ends the run: an invariant does not hold. Raises ViolationError."""
        raise ViolationError(Violation(invariant, message, self.now, frozenset(about)))

    def _note_life(self, process: SimProcess, what: str) -> None:
        self.trace.mark(self.now, f"{process.name} {what}")
        self.trace.note(self.now, process.name, what, frozenset({process.name}))

    def _fleet_of(self, process: SimProcess) -> Sequence[MemdsNode]:
        return [
            SimMemdsNode(self.scheduler, self.network, process, memcached, self.memds_requests)
            for memcached in self.memcached.values()
        ]
