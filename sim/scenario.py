"""A scenario: a world with load on it, faults and operations at given times, and all invariants
watched. The seeds of `keyplane sim` are scenarios drawn by chance; write your own in a few lines:

    scenario = Scenario(seed=1, topology=Topology(routers=2, storage=3))
    scenario.fault("partition", "router-1", "storage-2", at=2.0, seconds=3.0)
    scenario.at(4.0, lambda: scenario.operator.split("orders"))
    result = scenario.run(seconds=10.0)
    assert result.held, result
"""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from cache import memds_keys
from keyplane.history.linearizability import Verdict, check_history
from keyplane.history.operation import Operation
from keyplane.history.render import render_operations
from keyplane.model.errors import KeyplaneError, Reason
from sim import observers
from sim.fault_checks import kind_of
from sim.faults import FaultDriver
from sim.history import History
from sim.intruder import Intruder
from sim.load import Load
from sim.observers.base import BEAT_S, Observer
from sim.observers.operations import in_the_map, served_by_nodes
from sim.operator import Action, Operator
from sim.scribe import Scribe
from sim.topology import CLUSTER, METADATA, Topology
from sim.trace import Trace
from sim.violation import Violation, ViolationError
from sim.workload import WorkloadSpec
from sim.world import World
from wire.faults import Direction, Fault, FaultKind

# Virtual seconds within which a world without faults must be up, and one whose faults have ended
# must have recovered: several times the longest back-off, silence and give-up time of the parts.
BOOT_S_MAX = 30.0
SETTLE_S_MAX = 40.0

# After that every request must succeed, for so long.
CALM_S = 4.0

# How often it is looked whether what is awaited has happened.
_LOOK_S = 0.05

# What ends requests of which there are too many, whatever is wrong with anything else.
_OF_TOO_MUCH = (
    Reason.THROTTLED,
    Reason.OVERLOADED,
    Reason.RETRY_BUDGET_SPENT,
    Reason.DEADLINE_EXCEEDED,
)

# For the requests under way at the end.
_DRAIN_S_MAX = 12.0


@dataclass(frozen=True, slots=True)
class Result:
    """How a scenario went.

    undecided: why it could not be told whether the history is linearizable; empty if it could.
    requests: made by clients. failed: of these, without counting failed conditions.
    latency_s_p99: of those that succeeded. trace_hash: equal for runs that went the same way.
    """

    seed: int | str
    violation: Violation | None
    undecided: str
    virtual_seconds: float
    requests: int
    failed: int
    failures: dict[str, int]
    latency_s_p99: float
    trace_hash: str
    events: int
    details: str = ""
    trace: Trace | None = field(default=None, compare=False, repr=False)

    @property
    def held(self) -> bool:
        """Whether every invariant held, as far as could be told."""
        return self.violation is None and not self.undecided

    @property
    def success_ratio(self) -> float:
        return 1.0 - self.failed / self.requests if self.requests else 1.0

    def __str__(self) -> str:
        if self.violation is not None:
            return f"seed {self.seed}: VIOLATED {self.violation}"
        if self.undecided:
            return f"seed {self.seed}: could not tell: {self.undecided}"
        return (
            f"seed {self.seed}: held, {self.requests} requests"
            f" ({self.success_ratio:.2%} succeeded) in {self.virtual_seconds:.0f} virtual seconds"
        )


class Scenario:
    """world: the processes. faults: what is wrong with them. load: what clients do.

    operator: asks for splits, merges and moves. history: what clients saw.
    """

    def __init__(
        self,
        seed: int | str = 0,
        topology: Topology | None = None,
        workload: WorkloadSpec | None = None,
        *,
        left_out: frozenset[str] = frozenset(),
        full_trace: bool = False,
        watchers: Sequence[Callable[[World], Observer]] = observers.ALL,
    ) -> None:
        """left_out: see `Load`. watchers: observers of the invariants."""
        self.seed = seed
        self.world = World(seed, topology or Topology(), full_trace)
        self.faults = FaultDriver(self.world)
        self.operator = Operator(self.world)
        self.history = History()
        self.load = Load(self.world, self.history, workload or WorkloadSpec(), left_out)
        self.operator.tenancy.on_key.append(self.load.use_key)
        # Somebody who wishes tenants ill.
        self.intruder = Intruder(self.world, self.operator.tenancy)
        self._observers = [make(self.world) for make in watchers]
        for observer in self._observers:
            self.world.network.tap(observer)
        if full_trace:
            self.world.network.tap(Scribe(self.world, self.load.keys))
        self._planned: list[tuple[float, Callable[[], object]]] = []
        # When the last of the planned faults begins, and which it is.
        self._last_fault: tuple[float, str] = (0.0, "")
        self._fault_number = 0
        # Of a history that is not linearizable: operations that no order explains.
        self._unexplained: Sequence[Operation] = ()

    # --- what is to happen ----------------------------------------------------------------------

    def at(self, when: float, act: Callable[[], object]) -> None:
        """Does something `when` virtual seconds after the load has begun."""
        self._planned.append((when, act))

    def fault(
        self,
        kind: FaultKind | str,
        target: str,
        peer: str = "",
        *,
        at: float,
        seconds: float | None = None,
        direction: Direction | str = Direction.BOTH,
        probability: float = 1.0,
        point: str = "",
        **parameters: float,
    ) -> None:
        """Plans a fault, for so many seconds or until the end of the faults.

        Raises ValueError on an unknown direction, and KeyplaneError(INVALID_ARGUMENT) on a fault
        that cannot be done to this world.
        """
        self._fault_number += 1
        fault = Fault(
            id=f"fault-{self._fault_number}",
            kind=kind if isinstance(kind, FaultKind) else kind_of(kind),
            target=target,
            peer=peer,
            direction=Direction(direction),
            probability=probability,
            parameters=parameters,
            point=point,
        )
        self.plan_fault(at, seconds, fault)

    def plan_fault(self, at: float, seconds: float | None, fault: Fault) -> None:
        """Raises KeyplaneError(INVALID_ARGUMENT) on a fault that cannot be done to this world."""
        self.faults.check(fault)
        self._last_fault = max(self._last_fault, (at, str(fault)))

        def begin() -> None:
            until = None if seconds is None else self.world.now + seconds
            self.faults.inject(replace(fault, until=until))

        self.at(at, begin)

    def plan_action(self, action: Action) -> None:
        """Plans something for the operator to ask for.

        Raises KeyplaneError(INVALID_ARGUMENT) on what it does not know.
        """
        self.operator.check(action)
        self.at(action.at, lambda: self.operator.act(action))

    # --- the run --------------------------------------------------------------------------------

    def run(self, seconds: float = 20.0, least_s: float = 0.0) -> Result:
        """Faults for `seconds` (safety), then none, until all is well again (liveness).

        least_s: virtual seconds that the whole run takes at least. Ends the world: a scenario runs
        once. Raises KeyplaneError(INVALID_ARGUMENT) if a fault is planned to begin after `seconds`.
        """
        last_at, last = self._last_fault
        if last_at > seconds:
            raise KeyplaneError(
                Reason.INVALID_ARGUMENT,
                f"{last} is planned to begin at {last_at:g} s, and faults go on for {seconds:g} s:"
                " let it begin earlier, or faults go on for longer",
            )
        violation: Violation | None = None
        undecided = details = ""
        try:
            self._boot()
            self._safety(seconds)
            self._liveness(least_s)
            undecided = self._check_history()
        except ViolationError as error:
            violation = error.violation
            details = render_operations(self._unexplained)
        except Exception as error:  # noqa: BLE001 - whatever escapes from the code is a finding
            violation = Violation(
                "no-crash", f"{type(error).__name__}: {error}", self.world.now, self._who_ran()
            )
            details = traceback.format_exc()
        result = self._result(violation, undecided, details)
        self.world.close()
        return result

    def _boot(self) -> None:
        world = self.world
        world.start_all()
        self._beat()
        metadata, nodes = world.metadata, world.topology.storage
        self._await(
            "the Metadata Store is up and all storage nodes have registered",
            lambda: (
                world.has_booted(METADATA)
                and metadata.core.ready
                and len(metadata.core.catalog.nodes) == nodes
            ),
            BOOT_S_MAX,
        )
        tenancy = self.operator.tenancy
        tenancy.begin()
        self._await(
            "there are the tenants, and routers know them",
            lambda: tenancy.idle and tenancy.known_to_routers(),
            BOOT_S_MAX,
        )
        for spec in world.topology.tables:
            self.operator.create(spec)
        tables = world.topology.tables
        self._await(
            "the tables are created",
            lambda: (
                len(metadata.core.catalog.maps) == len(tables) and not metadata.core.catalog.active
            ),
            BOOT_S_MAX,
        )
        roots = [memds_keys.root(CLUSTER, spec.name) for spec in tables]
        self._await(
            "the maps are published",
            lambda: all(
                root in memcached.values for memcached in world.memcached.values() for root in roots
            ),
            BOOT_S_MAX,
        )

    def _safety(self, seconds: float) -> None:
        for when, act in sorted(self._planned, key=lambda each: each[0]):
            self.world.scheduler.after(when, _ignoring_answer(act))
        self.load.start()
        self.intruder.start()
        self.world.run_for(seconds)

    def _liveness(self, least_s: float) -> None:
        world = self.world
        self.faults.heal_all()
        world.note("all faults end")
        for name in world.member_names():
            world.start(name)
        self.operator.tenancy.settle()
        self._await(
            "all operations end, all routers hold the newest map and storage nodes serve it",
            self._settled,
            SETTLE_S_MAX,
        )
        world.note("the world has settled")
        for observer in self._observers:
            observer.calm()
        calm_since = world.now
        split = self.operator.split_widest()
        self.operator.tenancy.rotate_all()
        world.run_for(max(CALM_S, least_s - world.now))
        self._await(
            "an operation that is asked for when nothing is wrong any more succeeds",
            lambda: self.operator.has_succeeded(split),
            SETTLE_S_MAX,
        )
        self.load.stop()
        self._await("requests under way end", lambda: not self.load.busy, _DRAIN_S_MAX)
        # A table or tenant with limits may be asked for more than it may do at any time.
        topology = world.topology
        limited = any(spec.is_limited for spec in topology.tables) or any(
            spec.requests for spec in topology.tenants
        )
        excused = _OF_TOO_MUCH if limited else ()
        for at, began_at, error in self.load.failures:
            if began_at >= calm_since and error.reason not in excused:
                world.violate(
                    "liveness",
                    f"a request failed at {at:.3f} s, when nothing was wrong any more: {error}",
                )
        self._read_all()

    def _settled(self) -> bool:
        """Whether routers, storage nodes and the Metadata Store agree, nothing is under way, and
        disks that were full are in use again.
        """
        world = self.world
        if not all(world.has_booted(name) for name in world.member_names()):
            return False
        catalog = world.metadata.core.catalog
        if not world.metadata.core.ready or catalog.active:
            return False
        for router in world.routers.values():
            for table in router.core.tables.all():
                map = catalog.maps.get(table.table_id)
                if map is None or table.routes.version != map.version:
                    return False
        members = world.storage_members().values()
        tenancy = self.operator.tenancy
        if not (tenancy.idle and tenancy.known_to_routers()):
            return False
        if any(member.node.state.queue.failure is not None for member in members):
            return False
        return served_by_nodes(world) == in_the_map(world)

    def _read_all(self) -> None:
        """Every item, by every client, through whatever router: all must be there as written."""
        reads = [
            (client, key)
            for client in self.load.clients
            for key in self.load.of_tenant.get(client.tenant, ())
        ]
        done: list[bool] = []
        for client, key in reads:
            self.load.read_once(client, key, lambda: done.append(True))
        self._await("the final reads end", lambda: len(done) == len(reads), _DRAIN_S_MAX)

    def _check_history(self) -> str:
        """Raises ViolationError if the history is not linearizable. Else says what is undecided."""
        lossy = [key.name for key in self.load.keys if not key.table.power]
        losses = dict.fromkeys(lossy, self.world.power_losses)
        finding = check_history(self.history.operations, losses)
        if finding.verdict is Verdict.VIOLATED:
            self._unexplained = finding.operations
            raise ViolationError(
                Violation("I2", finding.message, self.world.now, frozenset({finding.key}))
            )
        return finding.message if finding.verdict is Verdict.UNDECIDED else ""

    # --- helpers --------------------------------------------------------------------------------

    def _beat(self) -> None:
        self.world.scheduler.after(BEAT_S, self._beat)
        for observer in self._observers:
            observer.beat()

    def _await(self, what: str, done: Callable[[], bool], seconds: float) -> None:
        """Runs until `done()`. What takes longer than `seconds` violates liveness."""
        end = self.world.now + seconds
        while not done():
            if self.world.now >= end:
                self.world.violate("liveness", f"not within {seconds:g} s: {what}")
            self.world.run_for(_LOOK_S)

    def _who_ran(self) -> frozenset[str]:
        running = self.world.running
        return frozenset({running.name}) if running is not None else frozenset()

    def _result(self, violation: Violation | None, undecided: str, details: str) -> Result:
        failures: dict[str, int] = {}
        for _, _, error in self.load.failures:
            failures[error.reason.name] = failures.get(error.reason.name, 0) + 1
        window = self.load.window(0.0, math.inf)
        return Result(
            seed=self.seed,
            violation=violation,
            undecided=undecided,
            virtual_seconds=self.world.now,
            requests=self.load.requests,
            failed=len(self.load.failures),
            failures=failures,
            latency_s_p99=window.latency_s_p99,
            trace_hash=self.world.trace.fingerprint(),
            events=self.world.scheduler.steps,
            details=details,
            trace=self.world.trace,
        )


def _ignoring_answer(act: Callable[[], object]) -> Callable[[], None]:
    def run() -> None:
        act()

    return run
