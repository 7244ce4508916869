"""The history of a run: every operation of every client, as it went."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from keyplane.history.operation import Kind, Operation, Outcome
from keyplane.history.recorder import outcome_of
from keyplane.model.errors import KeyplaneError


@dataclass(slots=True)
class History:
    """Operations in the order of their invocation. Times are virtual seconds."""

    operations: list[Operation] = field(default_factory=list)

    def begin(self, operation: Operation) -> int:
        """Notes an operation that is under way. Returns its place, for `end`."""
        self.operations.append(operation)
        return len(self.operations) - 1

    def end(self, place: int, at: float, outcome: Outcome, **answer: object) -> None:
        """Notes how it ended. answer: further fields of `Operation`."""
        operation = self.operations[place]
        self.operations[place] = replace(
            operation,
            ended_at=at,
            outcome=outcome,
            **answer,  # type: ignore[arg-type]
        )

    def fail(self, place: int, at: float, error: KeyplaneError) -> None:
        self.end(place, at, outcome_of(error), reason=error.reason.name)


def under_way(lane: str, key: str, kind: Kind, at: float, **asked: object) -> Operation:
    """An operation that has begun and, as far as anybody knows, never ends."""
    return Operation(
        lane=lane,
        key=key,
        kind=kind,
        invoked_at=at,
        ended_at=math.inf,
        outcome=Outcome.UNKNOWN,
        **asked,  # type: ignore[arg-type]
    )
