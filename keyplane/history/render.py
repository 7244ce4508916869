"""Operations for people: a line each, with where it lies in time."""

from __future__ import annotations

import math
from collections.abc import Sequence

from keyplane.history.linearizability import Finding
from keyplane.history.operation import Kind, Operation, Outcome

# Beginnings and ends, each a column of the diagram; with more it is left out.
_COLUMNS_MAX = 60
_VALUE_CHARS_MAX = 40


def render(finding: Finding) -> str:
    """The sentence, and the operations it is about."""
    if not finding.operations:
        return finding.message
    return f"{finding.message}\n{render_operations(finding.operations)}"


def render_operations(operations: Sequence[Operation]) -> str:
    """A line each, in the order in which they began.

    Times are seconds since the first began. In the diagram each beginning and each end has a column
    of its own, so only their order can be read from it, not how long they took.
    """
    if not operations:
        return ""
    listed = sorted(operations, key=lambda operation: operation.invoked_at)
    start = listed[0].invoked_at
    bars = _bars(listed)
    rows = [
        (
            operation.lane,
            _seconds(operation.invoked_at - start),
            _seconds(operation.ended_at - start),
            bar,
            f"{asked(operation)} -> {answered(operation)}",
        )
        for operation, bar in zip(listed, bars, strict=True)
    ]
    lanes = max(len(row[0]) for row in rows)
    times = max(len(time) for row in rows for time in row[1:3])
    return "\n".join(
        f"{lane:<{lanes}}  {begin:>{times}} .. {end:>{times}}  {bar}{'  ' if bar else ''}{what}"
        for lane, begin, end, bar, what in rows
    )


def asked(operation: Operation) -> str:
    words = [operation.kind.value.replace("_", " ")]
    if operation.kind is Kind.PUT:
        words.append(_short(operation.value))
    if operation.exists is not None:
        words.append("if there is an item" if operation.exists else "if there is no item")
    if operation.version_equals is not None:
        words.append(f"if its version is {operation.version_equals}")
    return " ".join(words)


def answered(operation: Operation) -> str:
    reason = f" ({operation.reason})" if operation.reason else ""
    match operation.outcome:
        case Outcome.UNKNOWN:
            return f"unknown{reason}"
        case Outcome.FAILED:
            return f"not done{reason}"
        case Outcome.CONDITION_FAILED:
            return "condition failed"
        case Outcome.OK:
            return _result(operation)


def _result(operation: Operation) -> str:
    version = "" if operation.version is None else f", version {operation.version}"
    if not operation.is_write:
        return "no item" if operation.value is None else f"{_short(operation.value)}{version}"
    if operation.existed is None:
        return f"done{version}"
    return f"done, there was {'an item' if operation.existed else 'no item'}{version}"


def _bars(operations: Sequence[Operation]) -> list[str]:
    instants = sorted(
        {at for o in operations for at in (o.invoked_at, o.ended_at) if at < math.inf}
    )
    if len(instants) > _COLUMNS_MAX:
        return [""] * len(operations)
    column = {at: n for n, at in enumerate(instants)}
    width = len(instants)
    return [_bar(operation, column, width) for operation in operations]


def _bar(operation: Operation, column: dict[float, int], width: int) -> str:
    """A write nobody knows the outcome of may take effect ever after: `[--->`."""
    begin = column[operation.invoked_at]
    if operation.outcome is Outcome.UNKNOWN and operation.is_write:
        bar = "[" + "-" * (width - begin - 1) + ">"
    else:
        end = column.get(operation.ended_at, width)
        bar = "|" if end == begin else "[" + "=" * (end - begin - 1) + "]"
    return (" " * begin + bar).ljust(width + 1)


def _seconds(seconds: float) -> str:
    return "never" if seconds == math.inf else f"{seconds:.6f}"


def _short(value: str | None) -> str:
    text = repr(value)
    return text if len(text) <= _VALUE_CHARS_MAX else f"{text[: _VALUE_CHARS_MAX - 2]}…'"
