"""From a history that no order explains to the few operations of it that show why.

What is left out is only ever *weakened*: an operation that changes nothing is dropped, a write is
taken as one of unknown outcome. So what remains fails by itself, and for the same cause.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from keyplane.history.operation import Kind, Operation, Outcome

# Whether no order explains some operations, looking at so many configurations at most.
Fails = Callable[[Sequence[Operation], int], bool]

# Attempts at leaving operations out, and configurations for each: a window is for reading, and an
# attempt given up only leaves it longer.
_ATTEMPTS_MAX = 150
_ATTEMPT_STEPS_MAX = 2_000


def shortest_window(
    operations: Sequence[Operation], fails: Fails, steps_max: int
) -> tuple[Operation, ...]:
    """In the order in which they began."""
    failing = _shortest_prefix(operations, fails, steps_max)

    def still_fails(hard: Sequence[Operation]) -> bool:
        return fails(_with_only(failing, hard), min(steps_max, _ATTEMPT_STEPS_MAX))

    hard = _fewest(_suspects(failing, still_fails), still_fails)
    found = {operation.value for operation in hard if operation.kind is not Kind.PUT}
    shown = [
        operation
        for operation in failing
        if operation in hard or (operation.kind is Kind.PUT and operation.value in found)
    ]
    # As they ended in the end: it is known by then, and only makes them harder to explain.
    ended = {_name(operation): operation for operation in operations}
    window = [ended[_name(operation)] for operation in shown]
    return tuple(sorted(window, key=lambda operation: operation.invoked_at))


def _name(operation: Operation) -> tuple[object, ...]:
    # Reads are never weakened, only dropped; a write with this name is one and no other.
    answer = None if operation.is_write else (operation.ended_at, operation.version)
    return (operation.lane, operation.invoked_at, operation.kind, operation.value, answer)


def _shortest_prefix(
    operations: Sequence[Operation], fails: Fails, steps_max: int
) -> list[Operation]:
    """As much of the history, in order of completion, as is needed to fail.

    A longer prefix of one that fails fails too: an order that explained it would, cut off after the
    last operation of the shorter one, explain that.
    """
    ends = sorted({o.ended_at for o in operations if o.outcome is not Outcome.UNKNOWN})
    low, high = 0, len(ends) - 1
    while low < high:
        middle = (low + high) // 2
        if fails(_until(operations, ends[middle]), steps_max):
            high = middle
        else:
            low = middle + 1
    return _until(operations, ends[low]) if ends else list(operations)


def _until(operations: Iterable[Operation], end: float) -> list[Operation]:
    """What is known at an instant. Of a write under way that is only that it was asked for."""
    known = []
    for operation in operations:
        if operation.ended_at <= end:
            known.append(operation)
        elif operation.invoked_at <= end:
            known += _weakened(operation)
    return known


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
    attempts = 0
    size = max(1, len(hard) // 2)
    while True:
        start = 0
        while start < len(hard) and attempts < _ATTEMPTS_MAX:
            attempts += 1
            less = hard[:start] + hard[start + size :]
            if still_fails(less):
                hard = less
            else:
                start += size
        if size == 1 or attempts >= _ATTEMPTS_MAX:
            return hard
        size = max(1, size // 2)


def _with_only(operations: Sequence[Operation], hard: Sequence[Operation]) -> list[Operation]:
    kept = {id(operation) for operation in hard}
    some: list[Operation] = []
    for operation in operations:
        some += (operation,) if id(operation) in kept else _weakened(operation)
    return some


def explain(window: Sequence[Operation]) -> str:
    """What cannot be explained, as a clause."""
    ended = [operation for operation in window if operation.outcome is not Outcome.UNKNOWN]
    last = max(ended, key=lambda operation: operation.ended_at)
    return (
        f"{_claim(last)}, which no order of these {len(window)} operations explains"
        if len(window) > 1
        else f"{_claim(last)}, which nothing explains"
    )


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
