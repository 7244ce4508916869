"""I12: the planner does what load gives reason for, at a bounded rate, and takes nothing away that
somebody has asked for.

Load is counted by what storage nodes were asked, with an arithmetic of its own.
"""

from __future__ import annotations

import math
from collections import defaultdict, deque

from keyplane.model.errors import Reason
from keyplane.storage.v1 import storage_pb2 as storage
from metadata.operations import Operation, State
from metadata.plans import Kind, SplitPlan, SplitPurpose
from sim.network import SimCall
from sim.observers.admission import units_of
from sim.observers.base import Observer
from sim.observers.one_owner import EXECUTE
from sim.process import SimProcess
from sim.topology import METADATA
from sim.world import World
from wire.ports import Reply

# Seconds of load that are remembered, and that a split may come after it: averages and refusals
# take some beats to die away, and an operation may have waited for its turn.
_REMEMBERED_S = 60.0
_AFTER_S = 25.0

# Of what a partition does in a second: more than that must have been asked for, before it is split
# for heat. Averaged over the time in which they were to be cold: less, before two are merged.
_HOT_MIN = 0.6
_COLD_MAX = 0.6

_DONE = (State.COMMITTED, State.SUCCEEDED)


class Planning(Observer):
    def __init__(self, world: World) -> None:
        super().__init__(world)
        # By partition: when something was asked of it, with its read and write units.
        self._asked: defaultdict[int, deque[tuple[float, float, float]]] = defaultdict(deque)
        self._seen: set[str] = set()
        # By partition: when a split of it was declined, in this life of the store.
        self._declined: dict[int, float] = {}
        # Operations whose being declined has been heeded.
        self._settled: set[str] = set()
        # When operations of the planner began, in this life of the Metadata Store.
        self._begun: list[float] = []
        self._life: SimProcess | None = None

    def on_answer(self, call: SimCall, server: SimProcess, reply: Reply) -> None:
        if call.method != EXECUTE:
            return
        request = storage.ExecuteRequest.FromString(call.payload)
        if reply.error is None:
            reads, writes = units_of(request, storage.ExecuteResponse.FromString(reply.payload))
        elif reply.error.reason is Reason.THROTTLED:
            # What it would have cost is not known; that it was refused is load enough.
            topology = self.world.topology
            reads, writes = topology.read_units, topology.write_units
        else:
            return
        asked, now = self._asked[request.partition_id], self.world.now
        asked.append((now, reads, writes))
        while asked[0][0] < now - _REMEMBERED_S:
            asked.popleft()

    def beat(self) -> None:
        if not self.world.has_booted(METADATA) or not self.world.metadata.core.ready:
            return
        life = self.world.process(METADATA)
        if life is not self._life:
            self._life, self._begun = life, []
            self._declined = {}
            # It remembers nothing of what it declined in its life before.
            self._settled.update(self.world.metadata.core.catalog.operations)
        catalog = self.world.metadata.core.catalog
        config = self.world.topology.metadata.planner
        active = [each for each in catalog.active.values() if each.why]
        if len(active) > config.operations_max:
            self.world.violate(
                "I12",
                f"{len(active)} operations of the planner are under way, and"
                f" {config.operations_max} may be",
                METADATA,
            )
        for operation in catalog.operations.values():
            if operation.why and operation.operation_id not in self._seen:
                self._seen.add(operation.operation_id)
                self._check(operation)
            self._check_declined(operation)
        self._check_floors()

    def _check_declined(self, operation: Operation) -> None:
        """What would not have helped is not asked for again for a while."""
        was_declined = operation.why and operation.reason == Reason.SPLIT_WOULD_NOT_HELP.name
        if not was_declined or operation.operation_id in self._settled:
            return
        self._settled.add(operation.operation_id)
        (partition_id,) = operation.partition_ids
        at = self._declined.get(partition_id, -math.inf)
        self._declined[partition_id] = self.world.now
        # Two beats, the observer's and the planner's, may lie between.
        if self.world.now - at < self.world.topology.metadata.planner.declined_s - 2.0:
            self.world.violate(
                "I12",
                f"a split of partition {partition_id} was declined as of no help"
                f" {self.world.now - at:.1f} s ago, and asked for again",
                f"p{partition_id}",
            )

    def _check(self, operation: Operation) -> None:
        config, now = self.world.topology.metadata.planner, self.world.now
        self._begun.append(now)
        # One more: what is seen on a beat may have begun up to a beat before.
        saved_up = config.operations_burst + 1.0
        first = self._begun[0]
        if len(self._begun) > saved_up + config.operations_per_s * (now - first):
            self.world.violate(
                "I12",
                f"the planner has begun {len(self._begun)} operations in {now - first:.1f} s",
                METADATA,
            )
        plan = operation.plan
        if isinstance(plan, SplitPlan) and plan.purpose is SplitPurpose.HEAT:
            (partition_id,) = operation.partition_ids
            highest = self._highest(partition_id, now - _AFTER_S)
            if highest < _HOT_MIN:
                self.world.violate(
                    "I12",
                    f"{operation.operation_id} splits partition {partition_id} for heat"
                    f" ({operation.why}), which was asked for {highest:.0%} of what it does",
                    f"p{partition_id}",
                )
        elif operation.kind is Kind.MERGE:
            heat = self._average(operation.partition_ids, now - config.cold_s + 2.0, now)
            if heat > _COLD_MAX:
                self.world.violate(
                    "I12",
                    f"{operation.operation_id} merges {operation.partition_ids} ({operation.why}),"
                    f" which were asked for {heat:.0%} of what one does",
                    *(f"p{each}" for each in operation.partition_ids),
                )

    def _highest(self, partition_id: int, since: float) -> float:
        """Of what a partition does in a second, the most that was asked of it in one."""
        topology = self.world.topology
        seconds: defaultdict[int, list[float]] = defaultdict(lambda: [0.0, 0.0])
        for at, reads, writes in self._asked[partition_id]:
            if at >= since:
                second = seconds[int(at)]
                second[0] += reads
                second[1] += writes
        return max(
            (max(r / topology.read_units, w / topology.write_units) for r, w in seconds.values()),
            default=0.0,
        )

    def _average(self, partition_ids: tuple[int, ...], since: float, until: float) -> float:
        reads = writes = 0.0
        for partition_id in partition_ids:
            for at, read_units, write_units in self._asked[partition_id]:
                if at >= since:
                    reads += read_units
                    writes += write_units
        topology, seconds = self.world.topology, until - since
        return max(reads / topology.read_units, writes / topology.write_units) / seconds

    def _check_floors(self) -> None:
        """No table has fewer partitions than it was made with, and was split and merged into by
        those who asked.
        """
        catalog = self.world.metadata.core.catalog
        changed: defaultdict[str, int] = defaultdict(int)
        for operation in catalog.operations.values():
            if operation.why or operation.state not in _DONE:
                continue
            if operation.kind in (Kind.SPLIT, Kind.MERGE):
                changed[operation.table] += 1 if operation.kind is Kind.SPLIT else -1
        for spec in self.world.topology.tables:
            table = catalog.by_name.get(spec.name)
            if table is None or table.table_id not in catalog.maps:
                continue
            asked_for = max(1, spec.partitions + changed[spec.name])
            count = len(catalog.maps[table.table_id])
            if count < asked_for:
                self.world.violate(
                    "I12",
                    f"table {spec.name!r} has {count} partitions, and {asked_for} were asked for",
                )
