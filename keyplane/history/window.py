"""From a history that no order explains to the few operations of it that show why.

What is left out is only ever *weakened*: an operation that changes nothing is dropped, a write is
taken as one of unknown outcome. So what remains fails by itself, and for the same cause.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from keyplane.history.operation import Kind, Operation, Outcome
from keyplane.history.search import Result

# Looks for an order of some operations, at so many configurations at most.
Attempt = Callable[[Sequence[Operation], int], Result]

# Configurations for finding the prefix, for leaving operations out of it, and for each try at that.
# A window is for reading: what is given up here only leaves it longer.
_STEPS_MAX = 200_000
_ATTEMPT_STEPS_MAX = 2_000

# An attempt costs time before it has looked at anything.
_STEPS_OF_ATTEMPT = 200


class _Budget:
    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        self._steps = _STEPS_MAX

    @property
    def spent(self) -> bool:
        return self._steps <= 0

    def fails(self, operations: Sequence[Operation], steps_max: int = _STEPS_MAX) -> bool:
        """Whether no order explains them; False also where that is too much to find out."""
        if self.spent:
            return False
        result = self._attempt(operations, min(steps_max, self._steps))
        self._steps -= result.steps + _STEPS_OF_ATTEMPT
        return result.explained is False


@dataclass(frozen=True, slots=True)
class Window:
    """operations: in the order in which they began. last: the one whose end made them fail."""

    operations: tuple[Operation, ...]
    last: Operation

    def explain(self) -> str:
        """What cannot be explained, as a clause."""
        count = len(self.operations)
        by = f"no order of these {count} operations" if count > 1 else "nothing"
        return f"{_claim(self.last)}, which {by} explains"


def shortest_window(operations: Sequence[Operation], attempt: Attempt) -> Window:
    """operations: such as no order explains."""
    budget = _Budget(attempt)
    pairs = _shortest_prefix(operations, budget)
    failing = [known for known, _ in pairs]

    def still_fails(hard: Sequence[Operation]) -> bool:
        return budget.fails(_with_only(failing, hard), _ATTEMPT_STEPS_MAX)

    budget = _Budget(attempt)
    hard = _fewest(_suspects(failing, still_fails), still_fails)
    kept = {id(operation) for operation in hard}
    found = {operation.value for operation in hard if operation.kind is not Kind.PUT}
    window = [
        # As it ended in the end: it is known by now, and only makes it harder to explain.
        original
        for known, original in pairs
        if id(known) in kept or (known.kind is Kind.PUT and known.value in found)
    ]
    window.sort(key=lambda operation: operation.invoked_at)
    return Window(tuple(window), max(hard, key=lambda operation: operation.ended_at))


# An operation as it was known at some instant, and as it was in the end.
_Pair = tuple[Operation, Operation]


def _shortest_prefix(operations: Sequence[Operation], budget: _Budget) -> list[_Pair]:
    """As much of the history, in order of completion, as is needed to fail.

    A longer prefix of one that fails fails too: an order that explained it would, cut off after the
    last operation of the shorter one, explain that.
    """
    ends = sorted({o.ended_at for o in operations if o.outcome is not Outcome.UNKNOWN})
    low, high = 0, len(ends) - 1
    while low < high:
        middle = (low + high) // 2
        known = [known for known, _ in _until(operations, ends[middle])]
        if budget.fails(known):
            high = middle
        elif budget.spent:
            break
        else:
            low = middle + 1
    return _until(operations, ends[high])


def _until(operations: Iterable[Operation], end: float) -> list[_Pair]:
    """What is known at an instant. Of a write under way that is only that it was asked for."""
    pairs = []
    for operation in operations:
        if operation.ended_at <= end:
            pairs.append((operation, operation))
        elif operation.invoked_at <= end:
            pairs += [(known, operation) for known in _weakened(operation)]
    return pairs


def _weakened(operation: Operation) -> tuple[Operation, ...]:
    if not operation.may_have_written:
        return ()
    unknown = replace(
        operation, outcome=Outcome.UNKNOWN, ended_at=math.inf, version=None, existed=None
    )
    return (unknown,)


def _suspects(
    operations: Sequence[Operation], still_fails: Callable[[Sequence[Operation]], bool]
) -> list[Operation]:
    """The last operation that ended, what has its value, and as many before it as are needed."""
    ended = sorted(
        (o for o in operations if o.outcome is not Outcome.UNKNOWN), key=lambda o: o.ended_at
    )
    value = ended[-1].value if ended else None
    count = 4
    while count < len(ended):
        start = len(ended) - count
        some = [o for o in ended[:start] if value is not None and o.value == value]
        some += ended[start:]
        if still_fails(some):
            return some
        count *= 2
    return ended


def _fewest(
    hard: list[Operation], still_fails: Callable[[Sequence[Operation]], bool]
) -> list[Operation]:
    """Those that cannot all be weakened, found by leaving out ever smaller runs of them."""
    size = max(1, len(hard) // 2)
    while True:
        start = 0
        while start < len(hard):
            less = hard[:start] + hard[start + size :]
            if still_fails(less):
                hard = less
            else:
                start += size
        if size == 1:
            return hard
        size = max(1, size // 2)


def _with_only(operations: Sequence[Operation], hard: Sequence[Operation]) -> list[Operation]:
    kept = {id(operation) for operation in hard}
    some: list[Operation] = []
    for operation in operations:
        some += (operation,) if id(operation) in kept else _weakened(operation)
    return some


def _claim(operation: Operation) -> str:
    who = operation.lane
    condition = _condition(operation)
    version = "" if operation.version is None else f" (version {operation.version})"
    if operation.kind in (Kind.READ, Kind.STALE_READ):
        found = "no item" if operation.value is None else f"{operation.value!r}{version}"
        return f"{who} found {found}"
    what = f"put {operation.value!r}" if operation.kind is Kind.PUT else "delete"
    if operation.outcome is Outcome.CONDITION_FAILED:
        if not condition:
            return f"{who} was told that the condition of its {what} failed, which had none"
        return f"{who} was told that its {what} failed because it is not true that {condition}"
    told = f"{who} was told that its {what}{version} was done"
    if operation.existed is not None:
        told += " and that there was " + ("an item" if operation.existed else "no item")
    return f"{told} under the condition that {condition}" if condition else told


def _condition(operation: Operation) -> str:
    parts = []
    if operation.exists is not None:
        parts.append("there is an item" if operation.exists else "there is no item")
    if operation.version_equals is not None:
        parts.append(f"the item has version {operation.version_equals}")
    return " and ".join(parts)
