"""One operation of a history: what was asked of one item when, and what was answered."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

from keyplane.model.errors import KeyplaneError, Reason


class Kind(enum.Enum):
    # A consistent read: it sees every write that was answered before.
    READ = "read"
    # A read that may see any earlier state of the item.
    STALE_READ = "stale_read"
    PUT = "put"
    DELETE = "delete"


class Outcome(enum.Enum):
    OK = "ok"
    # Definite: nothing was done.
    FAILED = "failed"
    # The item was not as the condition of the write demands; nothing was done.
    CONDITION_FAILED = "condition_failed"
    # Indefinite: it may have been done, at any time since it was asked for, or may yet be.
    UNKNOWN = "unknown"


_WRITES = (Kind.PUT, Kind.DELETE)


@dataclass(frozen=True, slots=True)
class Operation:
    """One call on one item.

    lane: who called; one lane does one thing at a time.
    key: names the item: any string, the same for the same item, such as `music/artist 7`.
    invoked_at, ended_at: seconds, on one clock for the whole history. `math.inf`: it never ended.
    value: of a PUT what was put, which no other PUT of the history puts; of a read that is OK what
        was found, None for no item.
    version: as answered by the write, or read with the item.
    exists, version_equals: conditions of a write: that there be an item or none, that the item have
        this version.
    existed: of a DELETE that is OK: whether there was an item.
    reason: of a call that is not OK, from the error table.

    Raises KeyplaneError(INVALID_ARGUMENT) for one that cannot be.
    """

    lane: str
    key: str
    kind: Kind
    invoked_at: float
    ended_at: float
    outcome: Outcome
    value: str | None = None
    version: int | None = None
    exists: bool | None = None
    version_equals: int | None = None
    existed: bool | None = None
    reason: str = ""

    def __post_init__(self) -> None:
        problem = ""
        if not self.invoked_at <= self.ended_at or not math.isfinite(self.invoked_at):
            problem = f"it begins at {self.invoked_at} and ends at {self.ended_at}"
        elif self.ended_at == math.inf and self.outcome is not Outcome.UNKNOWN:
            problem = f"it has not ended, so its outcome is unknown, not {self.outcome.value}"
        elif self.kind is Kind.PUT and self.value is None:
            problem = "a put needs a value; give each put one of its own"
        elif self.outcome is Outcome.CONDITION_FAILED and not self.is_write:
            problem = "a read has no condition that could fail"
        if problem:
            raise KeyplaneError(
                Reason.INVALID_ARGUMENT,
                f"no operation of lane {self.lane!r} on {self.key!r} can be like this: {problem}",
            )

    @property
    def is_write(self) -> bool:
        return self.kind in _WRITES

    @property
    def may_have_written(self) -> bool:
        return self.kind in _WRITES and self.outcome in (Outcome.OK, Outcome.UNKNOWN)
