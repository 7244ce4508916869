"""Violations that show without a search: two or three operations in plain contradiction.

They are what broken stores show most, and their operations are the best explanation there is.
After Gibbons and Korach, *Testing Shared Memories* (1997): where each value is put once, a value
was there from the first answer that shows it until the last read of it began.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from keyplane.history.operation import Kind, Operation, Outcome


@dataclass(frozen=True, slots=True)
class Contradiction:
    """Operations that cannot all be right, whatever their order.

    message: a clause about them.
    """

    message: str
    operations: tuple[Operation, ...]


@dataclass(slots=True)
class _Value:
    """What is known of one value that took effect.

    put: None of one that was there before the history. done: the operation that ended first of its
    put and those that read it, by whose end it had been put.
    """

    value: str
    version: int
    put: Operation | None
    done: Operation
    reads: list[Operation] = field(default_factory=list)

    @property
    def since(self) -> float:
        return -math.inf if self.put is None else self.put.invoked_at


def contradictions(
    operations: Sequence[Operation], versions: Mapping[str, int]
) -> list[Contradiction]:
    """operations: of one item that never fell back. versions: by value, where known."""
    values = _values(operations, versions)
    return [
        *_overwritten_and_read(values, operations),
        *_missing(values, operations),
        *_versions_back(values),
    ]


def _values(operations: Sequence[Operation], versions: Mapping[str, int]) -> list[_Value]:
    puts = {o.value: o for o in operations if o.kind is Kind.PUT and o.may_have_written}
    values: dict[str, _Value] = {}
    for operation in operations:
        value = operation.value
        if value is None or operation.outcome is not Outcome.OK:
            continue
        if operation.kind not in (Kind.PUT, Kind.READ):
            continue
        known = values.get(value)
        if known is None:
            known = _Value(value, versions.get(value, 0), puts.get(value), operation)
            values[value] = known
        elif operation.ended_at < known.done.ended_at:
            known.done = operation
        if operation.kind is Kind.READ:
            known.reads.append(operation)
    return list(values.values())


def _overwritten_and_read(
    values: Sequence[_Value], operations: Sequence[Operation]
) -> list[Contradiction]:
    """A write began when a value was there, had ended, and then the value was read."""
    writes = sorted(
        (o for o in operations if o.is_write and o.outcome is Outcome.OK),
        key=lambda o: o.invoked_at,
    )
    begins = [write.invoked_at for write in writes]
    first_to_end = writes[:]
    for n in range(len(writes) - 2, -1, -1):
        if first_to_end[n + 1].ended_at < first_to_end[n].ended_at:
            first_to_end[n] = first_to_end[n + 1]
    found = []
    for value in values:
        after = bisect_right(begins, value.done.ended_at)
        if after == len(writes):
            continue
        write = first_to_end[after]
        late = [read for read in value.reads if read.invoked_at > write.ended_at]
        if late:
            read = min(late, key=lambda o: o.ended_at)
            what = "the delete" if write.kind is Kind.DELETE else f"the put of {write.value!r}"
            message = (
                f"{read.lane} found {value.value!r}, which was there before {what} by "
                f"{write.lane} began, and that had ended"
            )
            found.append(Contradiction(message, _distinct(value.put, value.done, write, read)))
    return found


def _missing(values: Sequence[_Value], operations: Sequence[Operation]) -> list[Contradiction]:
    """A value was there, nothing that may have deleted it was under way since, and it was gone."""
    missed = sorted(
        (
            o
            for o in operations
            if o.kind is Kind.READ and o.outcome is Outcome.OK and o.value is None
        ),
        key=lambda o: o.invoked_at,
    )
    deletes = sorted(
        (o for o in operations if o.kind is Kind.DELETE and o.may_have_written),
        key=lambda o: o.invoked_at,
    )
    begins = [delete.invoked_at for delete in deletes]
    last_end = []
    latest = -math.inf
    for delete in deletes:
        unknown = delete.outcome is Outcome.UNKNOWN
        latest = max(latest, math.inf if unknown else delete.ended_at)
        last_end.append(latest)
    by_end = sorted(values, key=lambda value: value.done.ended_at)
    found, n, newest = [], 0, None
    for read in missed:
        while n < len(by_end) and by_end[n].done.ended_at < read.invoked_at:
            if newest is None or by_end[n].since > newest.since:
                newest = by_end[n]
            n += 1
        if newest is None:
            continue
        deletable = bisect_right(begins, read.ended_at)
        if not deletable or last_end[deletable - 1] < newest.since:
            message = (
                f"{read.lane} found no item, although {newest.value!r} had been put and nothing "
                "has deleted it"
            )
            found.append(Contradiction(message, _distinct(newest.put, newest.done, read)))
    return found


def _versions_back(values: Sequence[_Value]) -> list[Contradiction]:
    """A value of a higher version was there, and then one of a lower version was put or read."""
    found = []
    higher: _Value | None = None
    for value in sorted(values, key=lambda value: -value.version):
        if not value.version:
            break
        if higher is not None:
            since = higher.done.ended_at
            late = [read for read in value.reads if read.invoked_at > since]
            if value.put is not None and value.put.invoked_at > since:
                late.append(value.put)
            known = [o for o in late if o.outcome is Outcome.OK]
            if known:
                last = min(known, key=lambda o: o.ended_at)
                what = "was told that its put of" if last.is_write else "found"
                message = (
                    f"{last.lane} {what} {value.value!r} has version {value.version}, after "
                    f"{higher.value!r} had version {higher.version}"
                )
                shown = _distinct(higher.put, higher.done, value.put, value.done, last)
                found.append(Contradiction(message, shown))
        if higher is None or value.done.ended_at < higher.done.ended_at:
            higher = value
    return found


def _distinct(*operations: Operation | None) -> tuple[Operation, ...]:
    """Without repetitions, in the order in which they ended; the last given stays last."""
    *others, last = operations
    kept = {id(o): o for o in others if o is not None and o is not last}
    assert last is not None
    return (*sorted(kept.values(), key=lambda o: o.ended_at), last)
