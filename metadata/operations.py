"""Operations: rows with a state machine.

    PENDING ──► RUNNING ──► COMMITTED ──► SUCCEEDED
       └───────────┴──► FAILED

PENDING: persisted, and nothing has been asked of a storage node that would change anything.
RUNNING: storage nodes have been asked, and may or may not have done it. A crash here is answered by
    asking again under the same operation id.
COMMITTED: the storage nodes have done it and the new map is in the database. Only cleaning up is
    left, so there is no way to FAILED from here.
SUCCEEDED, FAILED: ended; nothing changes an ended operation. FAILED means that the partition map is
    as if the operation had never been asked for.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, replace

from keyplane.metadata.v1 import metadata_pb2 as pb
from keyplane.model.errors import KeyplaneError, Reason
from metadata.plans import Kind, MergePlan, MergeStage, MovePlan, Plan, SplitPlan
from metadata.records import timestamp
from wire.crashpoints import declare

# Partition ids shown of an operation that made many.
RESULT_IDS_SHOWN_MAX = 1_000


class State(enum.StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    COMMITTED = "committed"
    SUCCEEDED = "succeeded"
    FAILED = "failed"

    @property
    def ended(self) -> bool:
        return self in (State.SUCCEEDED, State.FAILED)


# RUNNING to RUNNING is a step of an operation that has several.
_ALLOWED = {
    State.PENDING: {State.RUNNING, State.FAILED},
    State.RUNNING: {State.RUNNING, State.COMMITTED, State.FAILED},
    State.COMMITTED: {State.SUCCEEDED},
    State.SUCCEEDED: set[State](),
    State.FAILED: set[State](),
}


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation as persisted. Only the `become_*` methods give it another state.

    sequence: order of creation, from 1, never reused.
    arguments: what was asked for, as text: equal for two requests that ask for the same.
    partition_ids: what it is about, and holds until it ends: the parent, the pair, the one moving.
    created_at, updated_at: seconds since 1970.
    fence_ms: of a finished move, milliseconds for which requests waited.
    """

    operation_id: str
    sequence: int
    kind: Kind
    state: State
    arguments: str
    request_id: str
    table: str
    table_id: int
    partition_ids: tuple[int, ...]
    node_id: str
    plan: Plan
    created_at: float
    updated_at: float
    result_ids: tuple[int, ...] = ()
    reason: str = ""
    message: str = ""
    progress: str = ""
    fence_ms: float = 0.0
    resumed_count: int = 0

    def become_running(self, now: float, plan: Plan | None = None, progress: str = "") -> Operation:
        """To RUNNING, or on to the next step inside it. `now`: seconds since 1970."""
        self._check(State.RUNNING)
        return replace(
            self, state=State.RUNNING, plan=plan or self.plan, progress=progress, updated_at=now
        )

    def become_committed(
        self, now: float, result_ids: Sequence[int] = (), fence_ms: float = 0.0, progress: str = ""
    ) -> Operation:
        self._check(State.COMMITTED)
        return replace(
            self,
            state=State.COMMITTED,
            result_ids=tuple(result_ids),
            fence_ms=fence_ms or self.fence_ms,
            progress=progress,
            updated_at=now,
        )

    def become_succeeded(self, now: float, message: str = "") -> Operation:
        self._check(State.SUCCEEDED)
        return replace(
            self, state=State.SUCCEEDED, message=message, progress="done", updated_at=now
        )

    def become_failed(self, now: float, reason: str, message: str) -> Operation:
        self._check(State.FAILED)
        return replace(
            self, state=State.FAILED, reason=reason, message=message, progress="", updated_at=now
        )

    def _check(self, state: State) -> None:
        if state not in _ALLOWED[self.state]:
            raise KeyplaneError(
                Reason.ILLEGAL_TRANSITION,
                f"operation {self.operation_id} is {self.state} and cannot become {state}",
            )

    @property
    def parent(self) -> str:
        """Operation id of the drain it is part of; empty for an operation of its own."""
        return self.plan.parent if isinstance(self.plan, MovePlan) else ""

    @property
    def why(self) -> str:
        """The planner's reason; empty for what somebody asked for."""
        plan = self.plan
        return plan.why if isinstance(plan, SplitPlan | MergePlan | MovePlan) else ""

    @property
    def milestone(self) -> str:
        """Name of the crash point just after this was persisted."""
        plan = self.plan
        if (
            isinstance(plan, MergePlan)
            and self.state is State.RUNNING
            and plan.stage is MergeStage.MERGE
            and plan.right_from != self.node_id
        ):
            return "metadata.merge.moved"
        return f"metadata.{self.kind}.{self.state}"

    def to_proto(self, progress: str = "") -> pb.Operation:
        """As callers see it. `progress`: fresher than the persisted one, if there is any."""
        return pb.Operation(
            operation_id=self.operation_id,
            kind=pb.OperationKind.Value(f"OPERATION_KIND_{self.kind.name}"),
            state=pb.OperationState.Value(f"OPERATION_STATE_{self.state.name}"),
            table=self.table,
            partition_ids=self.partition_ids,
            result_partition_ids=self.result_ids[:RESULT_IDS_SHOWN_MAX],
            node_id=self.node_id,
            reason=self.reason,
            message=self.message,
            created_at=timestamp(self.created_at),
            updated_at=timestamp(self.updated_at),
            resumed_count=self.resumed_count,
            progress=progress or self.progress,
            fence_ms=self.fence_ms,
            planned_because=self.why,
        )


declare(*(f"metadata.{kind}.{state}" for kind in Kind for state in State))
declare("metadata.merge.moved")
