"""Records the operations of clients while they make them."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from keyplane.history.files import HistoryLog
from keyplane.history.operation import Kind, Operation, Outcome
from keyplane.model.errors import KeyplaneError, Reason


def outcome_of(error: KeyplaneError) -> Outcome:
    if error.reason is Reason.CONDITION_FAILED:
        return Outcome.CONDITION_FAILED
    return Outcome.FAILED if error.definite else Outcome.UNKNOWN


@dataclass(slots=True)
class Answer:
    """What a caller fills in once a call is answered; see `Operation`."""

    value: str | None = None
    version: int | None = None
    existed: bool | None = None


@dataclass(frozen=True, slots=True)
class Begun:
    """An operation under way. number: of this recorder."""

    number: int
    operation: Operation


class Recorder:
    """Takes each operation when it begins and when it ends.

    now: seconds, of one clock for the whole history.
    log: takes the operations in place of `operations`, so that memory does not grow.
    """

    def __init__(self, now: Callable[[], float], log: HistoryLog | None = None) -> None:
        self._now = now
        self._log = log
        self._count = 0
        self._operations: dict[int, Operation] = {}

    @property
    def operations(self) -> list[Operation]:
        """In the order in which they began. Those under way are of unknown outcome."""
        return list(self._operations.values())

    def begin(
        self,
        lane: str,
        key: str,
        kind: Kind,
        *,
        value: str | None = None,
        exists: bool | None = None,
        version_equals: int | None = None,
    ) -> Begun:
        """Call it before the request is sent; see `Operation`. value: what is put."""
        operation = Operation(
            lane,
            key,
            kind,
            self._now(),
            math.inf,
            Outcome.UNKNOWN,
            value=value,
            exists=exists,
            version_equals=version_equals,
        )
        self._count += 1
        if self._log is None:
            self._operations[self._count] = operation
        elif operation.is_write:
            # Even if this process ends here, readers may find what it wrote.
            self._log.append(operation)
        return Begun(self._count, operation)

    def end(self, begun: Begun, answer: Answer) -> None:
        """Call it when the answer is there."""
        asked = begun.operation
        self._ended(
            begun,
            Outcome.OK,
            value=asked.value if asked.is_write else answer.value,
            version=answer.version,
            existed=answer.existed,
        )

    def fail(self, begun: Begun, error: KeyplaneError) -> None:
        self._ended(begun, outcome_of(error), reason=error.reason.name)

    def give_up(self, begun: Begun) -> None:
        """Of a call that was abandoned: nobody waits for its answer."""
        self._ended(begun, Outcome.UNKNOWN)

    @contextlib.contextmanager
    def call(
        self,
        lane: str,
        key: str,
        kind: Kind,
        *,
        value: str | None = None,
        exists: bool | None = None,
        version_equals: int | None = None,
    ) -> Iterator[Answer]:
        """Records a call made within, and how it ended; its errors pass through.

        with recorder.call("lane-1", "users/7", Kind.PUT, value="a") as answer:
            answer.version = await client.put_item("users", item)
        """
        begun = self.begin(
            lane, key, kind, value=value, exists=exists, version_equals=version_equals
        )
        answer = Answer()
        try:
            yield answer
        except KeyplaneError as error:
            self.fail(begun, error)
            raise
        except BaseException:
            self.give_up(begun)
            raise
        self.end(begun, answer)

    def _ended(
        self,
        begun: Begun,
        outcome: Outcome,
        *,
        value: str | None = None,
        version: int | None = None,
        existed: bool | None = None,
        reason: str = "",
    ) -> None:
        operation = replace(
            begun.operation,
            ended_at=self._now(),
            outcome=outcome,
            value=begun.operation.value if value is None else value,
            version=version,
            existed=existed,
            reason=reason,
        )
        if self._log is None:
            self._operations[begun.number] = operation
        else:
            self._log.append(operation)
