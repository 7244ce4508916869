"""Histories in files: a line that says what the file is, then a JSON line for each operation.

    {"keyplane_history": 1, "clock": "boot 5f3a…", "initial": "anything"}
    {"lane": "5f3a/0", "key": "t/k", "kind": "put", "invoked_at": 1.5, "ended_at": null, ...}

Fields that are None are left out; `ended_at` is null of an operation that has not ended. A write is
written down before it is asked for, and again when it has ended; the second line takes the place of
the first. So a writer that is killed leaves no write out, and at most its last line cut off.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TextIO

from keyplane.history.operation import Kind, Operation, Outcome
from keyplane.history.problem import Initial
from keyplane.model.errors import KeyplaneError, Reason

FORMAT = 1

_FORMAT_FIELD = "keyplane_history"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_TYPES: Mapping[str, type] = {
    "lane": str,
    "key": str,
    "value": str,
    "version": int,
    "exists": bool,
    "version_equals": int,
    "existed": bool,
    "reason": str,
}


@dataclass(frozen=True, slots=True)
class History:
    """clock: what the times are times of; equal for histories that can be in one file.

    initial: what each item was before its first operation.
    """

    operations: list[Operation]
    clock: str
    initial: Initial


def machine_clock() -> str:
    """Names the clock that `time.monotonic` reads on Linux: the machine's, since it was booted."""
    return f"boot {_BOOT_ID.read_text().strip()}"


class HistoryLog:
    """Appends, so several runs by one clock may share a file, one after another.

    A line is in the operating system's hands when `append` returns. Raises KeyplaneError: CORRUPT
    or FOREIGN_FORMAT for a file that is no history, INVALID_ARGUMENT for one by another clock or
    that begins otherwise; OSError.
    """

    def __init__(self, path: Path, clock: str, initial: Initial = Initial.ABSENT) -> None:
        header = {_FORMAT_FIELD: FORMAT, "clock": clock, "initial": initial.value}
        fresh = _cut_off(path) == 0
        if not fresh:
            with path.open(errors="replace") as file:
                found_clock, found_initial = _parse_header(path, file.readline())
            if (found_clock, found_initial) != (clock, initial):
                raise KeyplaneError(
                    Reason.INVALID_ARGUMENT,
                    f"{path} has a history of another clock or beginning, whose times cannot be "
                    "compared with those of this one; name a new file",
                )
        # Line buffered: one write to the operating system for each line.
        self._file: TextIO = path.open("a", buffering=1)
        if fresh:
            self._file.write(json.dumps(header) + "\n")

    def append(self, operation: Operation) -> None:
        self._file.write(json.dumps(to_row(operation)) + "\n")

    def close(self) -> None:
        self._file.close()


def read_history(path: Path, warn: Callable[[str], None] = lambda text: None) -> History:
    """warn: told when the last line is cut off, as a killed writer leaves it, and left out.

    Raises KeyplaneError: FOREIGN_FORMAT for another kind of file, CORRUPT for any other line that
    is no operation; OSError.
    """
    # In the order in which each was first written down.
    found: dict[tuple[object, ...], Operation] = {}
    with path.open(errors="replace") as file:
        clock, initial = _parse_header(path, file.readline())
        for number, line in enumerate(file, 2):
            if not line.endswith("\n"):
                warn(
                    f"{path}, line {number} is cut off, as a killed writer leaves it; it is left "
                    "out, and so is at most how one operation ended"
                )
                break
            operation = _parse(path, number, line)
            name = _name(operation)
            earlier = found.get(name)
            if earlier is not None and earlier.ended_at != math.inf:
                name = (*name, number)
            found[name] = operation
    return History(list(found.values()), clock, initial)


def to_row(operation: Operation) -> dict[str, Any]:
    """As JSON has it."""
    row: dict[str, Any] = {}
    for name in _FIELDS:
        value = getattr(operation, name)
        if value is not None and value != "":
            row[name] = value
    row["kind"] = operation.kind.value
    row["outcome"] = operation.outcome.value
    if operation.ended_at == math.inf:
        row["ended_at"] = None
    return row


def from_row(row: Any) -> Operation:
    """Raises ValueError, saying what is wrong."""
    if not isinstance(row, dict):
        raise ValueError("it is no JSON object")
    unknown = sorted(row.keys() - set(_FIELDS))
    if unknown:
        raise ValueError(f"there is no field {unknown[0]!r}")
    missing = [name for name in ("lane", "key", "kind", "invoked_at", "outcome") if name not in row]
    if missing:
        raise ValueError(f"the field {missing[0]!r} is missing")
    given = {name: row[name] for name, kind in _TYPES.items() if _has(row, name, kind)}
    ended = row.get("ended_at")
    return Operation(
        kind=_member(Kind, "kind", row["kind"]),
        outcome=_member(Outcome, "outcome", row["outcome"]),
        invoked_at=_seconds("invoked_at", row["invoked_at"]),
        ended_at=math.inf if ended is None else _seconds("ended_at", ended),
        **given,
    )


_FIELDS = tuple(field.name for field in fields(Operation))


def _name(operation: Operation) -> tuple[object, ...]:
    """The same for both lines of one operation."""
    return (operation.lane, operation.invoked_at, operation.key, operation.kind)


def _has(row: Mapping[str, Any], name: str, kind: type) -> bool:
    value = row.get(name)
    if value is None:
        return False
    # A truth value is an integer to Python, but not to a reader.
    if not isinstance(value, kind) or isinstance(value, bool) is not (kind is bool):
        raise ValueError(f"{name!r} cannot be {value!r}")
    return True


def _member(of: Any, name: str, value: Any) -> Any:
    try:
        return of(value)
    except ValueError:
        known = ", ".join(member.value for member in of)
        raise ValueError(f"{name!r} is one of {known}; {value!r} is none of them") from None


def _seconds(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name!r} is a number of seconds; {value!r} is none")
    return float(value)


def _parse(path: Path, number: int, line: str) -> Operation:
    try:
        return from_row(json.loads(line))
    except (ValueError, KeyplaneError) as error:
        problem = error.message if isinstance(error, KeyplaneError) else str(error)
        raise KeyplaneError(
            Reason.CORRUPT,
            f"{path}, line {number} is no operation: {problem}; record the history again, since "
            "without one of its operations others cannot be explained",
        ) from error


def _parse_header(path: Path, line: str) -> tuple[str, Initial]:
    try:
        header = json.loads(line)
        format_, clock = header[_FORMAT_FIELD], str(header["clock"])
        initial = Initial(header["initial"]) if format_ == FORMAT else Initial.ABSENT
    except (ValueError, KeyError, TypeError) as error:
        raise KeyplaneError(
            Reason.FOREIGN_FORMAT,
            f"{path}, line 1 does not say that this is a history; name a file that `keyplane "
            "workload run --history FILE` has written",
        ) from error
    if format_ != FORMAT:
        raise KeyplaneError(
            Reason.FOREIGN_FORMAT,
            f"{path}, line 1 says format {format_!r}, and this version reads {FORMAT}; check the "
            "history with the version that recorded it",
        )
    return clock, initial


def _cut_off(path: Path) -> int:
    """Drops what a killed writer has left of a line at the end. Returns the bytes that are left.

    Nothing is lost by it: a write is asked for once its line is whole.
    """
    if not path.exists():
        return 0
    with path.open("r+b") as file:
        size = keep = file.seek(0, 2)
        for start in _chunks_backward(size):
            file.seek(start)
            newline = file.read(keep - start).rfind(b"\n")
            keep = start + newline + 1
            if newline >= 0:
                break
        if keep < size:
            file.truncate(keep)
    return keep


def _chunks_backward(size: int, length: int = 1 << 16) -> Iterator[int]:
    """Where chunks begin, from the end of a file to its start."""
    while size > 0:
        size = max(0, size - length)
        yield size
