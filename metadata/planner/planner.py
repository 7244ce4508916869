"""Does what the rules say, at a bounded rate, and remembers what would not help."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice, takewhile
from typing import TypeAlias

from keyplane.metadata.v1 import metadata_pb2 as pb
from keyplane.model.bucket import Bucket
from keyplane.model.errors import KeyplaneError, Reason
from metadata.catalog import Catalog
from metadata.config import PLAN_SHOWN_MAX
from metadata.driver import Driver
from metadata.kinds import merge, move, split
from metadata.kinds.script import World
from metadata.operations import Operation, State
from metadata.planner.rules import Proposal, Rules
from metadata.planner.watch import Watch
from metadata.plans import Kind, SplitPlan, SplitPurpose
from metadata.records import PlannerMode
from metadata.writer import Decision, Writer
from wire.metrics import Metrics
from wire.ports import Timer

# Of an operation that says that it would not help, rather than that it did not work out.
_DECLINED = (Reason.SPLIT_WOULD_NOT_HELP.name, Reason.SPLIT_KEY_OUTSIDE_RANGE.name)

_Key: TypeAlias = tuple[Kind, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class _Rest:
    """A proposal that is not made again for a while."""

    proposal: Proposal
    until: float
    why: str
    declined: bool


class Planner:
    """On a beat of its own, for as long as the Metadata Store has its database."""

    def __init__(self, world: World, writer: Writer, driver: Driver, metrics: Metrics) -> None:
        config = world.config.planner
        self._world = world
        self._config = config
        self._writer = writer
        self._driver = driver
        self._watch = Watch(config)
        self._rules = Rules(config, world.registry, self._watch)
        self._timer: Timer | None = None
        self._rate = Bucket(config.operations_per_s, config.operations_burst, world.clock.now())
        # What is wanted now, the most urgent first.
        self._wanted: list[Proposal] = []
        self._merges: dict[_Key, Proposal] = {}
        # Partitions still to be looked at for merges, in this round.
        self._round: list[int] = []
        self._asked: set[_Key] = set()
        # By operation id, until it has ended.
        self._started: dict[str, Proposal] = {}
        self._rests: dict[_Key, _Rest] = {}
        self._unbalanced_since: float | None = None
        self._moved_at = float("-inf")
        self._planned = metrics.counter(
            "metadata_planned", "Operations the planner started, by kind.", label="kind"
        )
        self._declined = metrics.counter(
            "metadata_plans_declined", "Splits that would not have helped."
        )
        metrics.gauge(
            "metadata_partitions_watched",
            "Partitions whose load the planner remembers.",
            lambda: len(self._watch.by_id),
        )
        metrics.gauge(
            "metadata_loads_ignored",
            "Loads that nodes reported of partitions they do not lead.",
            lambda: self._watch.ignored,
        )

    def start(self) -> None:
        if self._timer is None:
            self._timer = self._world.clock.call_later(self._config.beat_s, self._beat)

    def stop(self) -> None:
        """Starts nothing any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def observe(self, node_id: str, loads: Iterable[pb.PartitionLoad]) -> None:
        """What a storage node has reported."""
        led = self._world.catalog.led_by(node_id)
        self._watch.observe(node_id, led, loads, self._world.clock.now())

    def describe(self) -> pb.GetPlanResponse:
        changes = [*self._show_started()]
        if self._world.catalog.planner is not PlannerMode.OFF:
            changes += [*self._show_wanted(), *self._show_declined()]
        return pb.GetPlanResponse(
            mode=pb.PlannerMode.Value(f"PLANNER_MODE_{self._world.catalog.planner.name}"),
            changes=changes[:PLAN_SHOWN_MAX],
            change_count=len(changes),
            partitions_watched=len(self._watch.by_id),
        )

    # --- The beat --------------------------------------------------------------------------------

    def _beat(self) -> None:
        self._timer = self._world.clock.call_later(self._config.beat_s, self._beat)
        catalog, now = self._world.catalog, self._world.clock.now()
        self._follow(catalog, now)
        self._wanted = []
        if catalog.planner is PlannerMode.OFF:
            self._merges.clear()
            return
        self._forget_gone(catalog)
        self._wanted = [
            each
            for each in self._propose(catalog, now)
            if _key(each) not in self._rests and _key(each) not in self._asked
        ]
        if catalog.planner is PlannerMode.ON:
            self._start(catalog, now)

    def _propose(self, catalog: Catalog, now: float) -> list[Proposal]:
        splits = self._rules.splits(catalog, now)
        self._look_for_merges(catalog, now)
        wanted = [*splits, *self._merges.values()]
        moved = self._move(catalog, now)
        if moved is not None:
            wanted.insert(len(splits), moved)
        return wanted

    def _look_for_merges(self, catalog: Catalog, now: float) -> None:
        """At some more partitions, and again at those that were to be merged a beat ago."""
        if not self._round:
            self._round = list(self._watch.by_id)
        looked_at = self._round[-self._config.merge_scan_max :]
        del self._round[-self._config.merge_scan_max :]
        again = [ids[0] for _, ids in self._merges]
        self._merges = {}
        taken: set[int] = set()
        spare: dict[str, int] = {}
        for each in self._rules.merges(catalog, dict.fromkeys([*again, *looked_at]), now):
            if len(self._merges) >= PLAN_SHOWN_MAX:
                break
            if each.table not in spare:
                spare[each.table] = self._spare(catalog, each.table)
            if spare[each.table] > 0 and taken.isdisjoint(each.partition_ids):
                taken.update(each.partition_ids)
                spare[each.table] -= 1
                self._merges[_key(each)] = each

    def _spare(self, catalog: Catalog, name: str) -> int:
        """Partitions of a table beyond those that were asked for, less what is being merged."""
        table = catalog.by_name[name]
        merging = sum(each.kind is Kind.MERGE for each in catalog.operations_on(table.table_id))
        return len(catalog.maps[table.table_id]) - table.partitions_min - merging

    def _move(self, catalog: Catalog, now: float) -> Proposal | None:
        """Once the load has been unbalanced for a while, and the last move has shown its effect."""
        if self._rules.gap(catalog) is None:
            self._unbalanced_since = None
            return None
        if self._unbalanced_since is None:
            self._unbalanced_since = now
        config = self._config
        is_moving = any(each.kind is Kind.MOVE for each in self._started.values())
        if (
            is_moving
            or now - self._unbalanced_since < config.unbalanced_for_s
            or now - self._moved_at < config.unbalanced_for_s
        ):
            return None
        return self._rules.move(catalog, now)

    def _forget_gone(self, catalog: Catalog) -> None:
        """Partitions that are no more, and rests that are over."""
        watch, now = self._watch, self._world.clock.now()
        # They are in the order in which they were heard.
        stale = takewhile(
            lambda each: now - each.heard_at > self._config.stale_s, watch.by_id.values()
        )
        gone = [each for each in stale if each.partition_id not in catalog.led_by(each.node_id)]
        for watched in gone:
            watch.forget(watched.partition_id)
        over = [key for key, rest in self._rests.items() if rest.until <= now]
        for key in over:
            del self._rests[key]

    # --- Operations ------------------------------------------------------------------------------

    def _start(self, catalog: Catalog, now: float) -> None:
        under_way = sum(bool(each.why) for each in catalog.active.values()) + len(self._asked)
        room = self._config.operations_max - under_way
        waiting = (each for each in self._wanted if self._holder(catalog, each) is None)
        for proposal in list(islice(waiting, max(0, room))):
            self._rate.fill(now)
            if self._rate.level < 1.0:
                break
            self._rate.take(1.0)
            self._begin(proposal)

    def _begin(self, proposal: Proposal) -> None:
        key = _key(proposal)
        self._asked.add(key)

        def begun(outcome: Operation | KeyplaneError) -> None:
            self._asked.discard(key)
            if isinstance(outcome, KeyplaneError):
                self._rest(proposal, self._config.settle_s, str(outcome), declined=False)
                return
            self._planned.inc(outcome.kind.value)
            # It may have ended by the next beat.
            self._started[outcome.operation_id] = proposal
            self._driver.kick()

        def decide(catalog: Catalog) -> Decision[Operation]:
            return _BEGIN[proposal.kind](self._world, catalog, proposal)

        self._writer.submit(decide, begun)

    def _follow(self, catalog: Catalog, now: float) -> None:
        """Operations of the planner, also those of its life before: what they end in."""
        for operation in catalog.active.values():
            if operation.why and operation.operation_id not in self._started:
                self._started[operation.operation_id] = _proposal_of(operation)
        for operation_id, proposal in list(self._started.items()):
            ended = catalog.operations.get(operation_id)
            if ended is None or ended.state.ended:
                del self._started[operation_id]
                if ended is not None:
                    self._take_end(proposal, ended, now)

    def _take_end(self, proposal: Proposal, operation: Operation, now: float) -> None:
        if proposal.kind is Kind.MOVE:
            self._moved_at = now
        if operation.state is not State.FAILED:
            for partition_id in proposal.partition_ids:
                self._watch.forget(partition_id)
            return
        declined = operation.reason in _DECLINED
        if declined:
            self._declined.inc()
        wait_s = self._config.declined_s if declined else self._config.settle_s
        self._rest(proposal, wait_s, operation.message, declined)

    def _rest(self, proposal: Proposal, wait_s: float, why: str, declined: bool) -> None:
        until = self._world.clock.now() + wait_s
        self._rests[_key(proposal)] = _Rest(proposal, until, why, declined)

    def _holder(self, catalog: Catalog, proposal: Proposal) -> str | None:
        """The operation that is in a proposal's way."""
        holders = (catalog.holder(each) for each in proposal.partition_ids)
        return next((each for each in holders if each is not None), None)

    # --- Showing ---------------------------------------------------------------------------------

    def _show_started(self) -> Iterable[pb.PlannedChange]:
        for operation in self._world.catalog.active.values():
            if operation.why:
                detail = self._driver.progress(operation) or operation.progress
                change = _shown(_proposal_of(operation), pb.PLANNED_STATE_STARTED, detail)
                change.operation_id = operation.operation_id
                yield change

    def _show_wanted(self) -> Iterable[pb.PlannedChange]:
        catalog = self._world.catalog
        for proposal in self._wanted:
            holder = self._holder(catalog, proposal)
            if holder is not None and holder in self._started:
                continue
            if catalog.planner is PlannerMode.DRY_RUN:
                detail = "dry run"
            elif holder is not None:
                detail = f"waits for operation {holder}"
            else:
                detail = "waits for its turn"
            yield _shown(proposal, pb.PLANNED_STATE_WAITING, detail)

    def _show_declined(self) -> Iterable[pb.PlannedChange]:
        now = self._world.clock.now()
        for rest in self._rests.values():
            again = f"looked at again in {max(0.0, rest.until - now):.0f} s"
            state = pb.PLANNED_STATE_DECLINED if rest.declined else pb.PLANNED_STATE_WAITING
            yield _shown(rest.proposal, state, f"{rest.why}; {again}")


def _key(proposal: Proposal) -> _Key:
    return proposal.kind, proposal.partition_ids


def _proposal_of(operation: Operation) -> Proposal:
    """What an operation of the planner was proposed as."""
    node_id = operation.node_id if operation.kind is Kind.MOVE else ""
    plan = operation.plan
    purpose = plan.purpose if isinstance(plan, SplitPlan) else SplitPurpose.ASKED
    return Proposal(
        operation.kind, operation.table, operation.partition_ids, operation.why, node_id, purpose
    )


def _shown(proposal: Proposal, state: pb.PlannedState.ValueType, detail: str) -> pb.PlannedChange:
    return pb.PlannedChange(
        kind=pb.OperationKind.Value(f"OPERATION_KIND_{proposal.kind.name}"),
        table=proposal.table,
        partition_ids=proposal.partition_ids,
        node_id=proposal.node_id,
        reason=proposal.why,
        state=state,
        detail=detail,
    )


def _begin_split(world: World, catalog: Catalog, proposal: Proposal) -> Decision[Operation]:
    request = pb.SplitPartitionRequest(table=proposal.table, partition_id=proposal.partition_ids[0])
    return split.begin(world, catalog, request, proposal.purpose, proposal.why)


def _begin_merge(world: World, catalog: Catalog, proposal: Proposal) -> Decision[Operation]:
    left_id, right_id = proposal.partition_ids
    request = pb.MergePartitionsRequest(table=proposal.table, left_id=left_id, right_id=right_id)
    return merge.begin(world, catalog, request, proposal.why)


def _begin_move(world: World, catalog: Catalog, proposal: Proposal) -> Decision[Operation]:
    request = pb.MovePartitionRequest(
        table=proposal.table,
        partition_id=proposal.partition_ids[0],
        target_node_id=proposal.node_id,
    )
    return move.begin(world, catalog, request, proposal.why)


_BEGIN: Mapping[Kind, Callable[[World, Catalog, Proposal], Decision[Operation]]] = {
    Kind.SPLIT: _begin_split,
    Kind.MERGE: _begin_merge,
    Kind.MOVE: _begin_move,
}
