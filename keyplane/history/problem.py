"""From the operations of one item to the problem that a search solves."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from keyplane.history.contradictions import Contradiction, contradictions
from keyplane.history.operation import Kind, Operation, Outcome
from keyplane.history.search import ABSENT, UNREAD, Action, Problem, State, Step
from keyplane.model.errors import KeyplaneError, Reason


class Initial(enum.Enum):
    """What the item was before the first operation."""

    ABSENT = "absent"
    # Nothing is known: there may have been an item, with one value that the history did not put.
    ANYTHING = "anything"


def build_problem(
    operations: Sequence[Operation], losses: Iterable[float], initial: Initial
) -> Problem | Contradiction:
    """A contradiction, the one that showed first, where no search is needed.

    operations: of one item. losses: instants at which it may have fallen back.

    Raises KeyplaneError(INVALID_ARGUMENT) when two puts may have written the same value.
    """
    kept = sorted(
        (operation for operation in operations if _matters(operation)),
        key=lambda operation: (operation.invoked_at, operation.ended_at),
    )
    required = [o for o in kept if o.outcome is not Outcome.UNKNOWN]
    optional = [o for o in kept if o.outcome is Outcome.UNKNOWN]
    at_loss = _losses_within(losses, kept, required)
    seen = _Seen(operations, initial, ordered=not at_loss)
    plain = seen.contradictions
    if not plain and not at_loss:
        plain = contradictions(kept, seen.versions)
    if plain:
        return min(plain, key=lambda each: each.operations[-1].ended_at)
    numbers: dict[str, int] = {}
    for operation in required:
        if operation.kind is Kind.READ and operation.value is not None:
            numbers.setdefault(operation.value, len(numbers) + UNREAD + 1)

    def step(operation: Operation) -> Step:
        return _step(operation, numbers, seen.versions)

    steps = [step(operation) for operation in required]
    open_steps = [step(operation) for operation in optional]
    if not at_loss:
        open_steps = _useful(open_steps, steps)
        _order_by_version(steps, open_steps)
    _order_by_lane(steps, required)
    for n, one in enumerate(open_steps):
        distinct = n if one.value > UNREAD else None
        one.alike = (one.action, one.exists, one.version_equals, one.version, distinct)
    if at_loss:
        steps = _with_losses(steps, at_loss)
    return Problem(steps, open_steps, _readers(steps), seen.initial_states(numbers))


def _matters(operation: Operation) -> bool:
    """Not what failed for certain, nor reads that found nothing out or may be late."""
    if operation.is_write:
        return operation.outcome is not Outcome.FAILED
    return operation.kind is Kind.READ and operation.outcome is Outcome.OK


class _Seen:
    """What the history says about values and versions, whatever its order."""

    def __init__(self, operations: Sequence[Operation], initial: Initial, ordered: bool) -> None:
        """ordered: nothing was lost, so that no version can be given out again."""
        self.versions: dict[str, int] = {}
        self.contradictions: list[Contradiction] = []
        self._initial = initial
        self._unput: Operation | None = None
        self._puts = _puts_by_value(operations)
        self._witnesses: dict[str, Operation] = {}
        self._values: dict[int, Operation] = {}
        for operation in operations:
            if operation.outcome is Outcome.OK and operation.value is not None:
                if not operation.is_write:
                    self._check_source(operation, self._puts.get(operation.value))
                if operation.version:
                    self._note_version(operation, operation.value, operation.version, ordered)

    def _contradict(self, message: str, *operations: Operation) -> None:
        """The last of the operations is the one that shows it."""
        last = operations[-1]
        puts = [self._puts.get(o.value or "") for o in operations if o.value is not None]
        others = {id(o): o for o in (*puts, *operations) if o is not None and o is not last}
        self.contradictions.append(Contradiction(message, (*others.values(), last)))

    def _note_version(self, operation: Operation, value: str, version: int, ordered: bool) -> None:
        witness = self._witnesses.setdefault(value, operation)
        if witness.version != version:
            self._contradict(
                f"{value!r} was seen with version {witness.version} and with version {version}, "
                "as if it had been put twice",
                *sorted((witness, operation), key=lambda o: o.ended_at),
            )
        other = self._values.setdefault(version, operation)
        if ordered and other.value != value:
            self._contradict(
                f"version {version} was given to {other.value!r} and to {value!r}",
                *sorted((other, operation), key=lambda o: o.ended_at),
            )
        self.versions[value] = version

    def initial_states(self, numbers: Mapping[str, int]) -> list[State]:
        if self._initial is Initial.ABSENT:
            return [State(ABSENT, 0, 0)]
        if self._unput is not None and self._unput.value is not None:
            version = self.versions.get(self._unput.value, 0)
            return [State(numbers.get(self._unput.value, UNREAD), version, version)]
        return [State(ABSENT, 0, 0), State(UNREAD, 0, 0)]

    def _check_source(self, read: Operation, put: Operation | None) -> None:
        if put is None:
            if self._initial is Initial.ABSENT:
                self._contradict(f"{read.value!r} was read, which nobody tried to put", read)
                return
            unput = self._unput = self._unput or read
            if unput.value != read.value:
                self._contradict(
                    f"{unput.value!r} and {read.value!r} were read, which nobody tried to put; "
                    "only one of them can have been there at first",
                    *sorted((unput, read), key=lambda o: o.ended_at),
                )
        elif not put.may_have_written:
            self._contradict(
                f"{read.value!r} was read, whose put was refused for certain", put, read
            )
        elif put.invoked_at > read.ended_at:
            self._contradict(f"{read.value!r} was read before anybody put it", put, read)


def _puts_by_value(operations: Iterable[Operation]) -> dict[str, Operation]:
    """Of each value the put that may have written it, or else one that has not."""
    puts: dict[str, Operation] = {}
    for operation in operations:
        if operation.kind is not Kind.PUT or operation.value is None:
            continue
        other = puts.get(operation.value)
        if other is not None and other.may_have_written:
            if operation.may_have_written:
                raise KeyplaneError(
                    Reason.INVALID_ARGUMENT,
                    f"two puts to {operation.key!r} wrote {operation.value!r}, so nobody can say "
                    "which one a read found; give each put a value of its own",
                )
            continue
        puts[operation.value] = operation
    return puts


def _step(operation: Operation, numbers: Mapping[str, int], versions: Mapping[str, int]) -> Step:
    refused = operation.outcome is Outcome.CONDITION_FAILED
    action = Action.REFUSED if refused else Action(operation.kind.value)
    value, version = ABSENT, 0
    if operation.value is not None and not refused:
        value = numbers.get(operation.value, UNREAD)
        version = versions.get(operation.value, 0)
    elif operation.kind is Kind.DELETE and operation.version is not None and not refused:
        version = operation.version
    return Step(
        action,
        operation.invoked_at,
        operation.ended_at,
        value,
        version,
        operation.exists,
        operation.version_equals,
        operation.existed,
    )


def _useful(open_steps: Sequence[Step], steps: Sequence[Step]) -> list[Step]:
    """Without the writes of unknown outcome that can explain nothing.

    A put whose value was never read explains answers and conditions that ask whether there is an
    item, or which version; so does a delete, and reads that found none.
    """
    asked = any(one.conditional or one.existed is not None for one in steps)
    missed = any(one.action is Action.READ and one.value == ABSENT for one in steps)
    asked = asked or any(
        one.conditional and (one.value > UNREAD or (one.action is Action.DELETE and missed))
        for one in open_steps
    )
    return [
        one
        for one in open_steps
        if one.value > UNREAD or asked or (one.action is Action.DELETE and missed)
    ]


def _order_by_version(steps: Sequence[Step], open_steps: Sequence[Step]) -> None:
    """Each write of known version waits for the one before it and for the reads of that."""
    readers = _readers(steps)
    writes = [(one.version, n, one, False) for n, one in enumerate(steps) if one.changes]
    writes += [(one.version, n, one, True) for n, one in enumerate(open_steps)]
    before: tuple[int, ...] = ()
    before_open = 0
    for version, n, one, is_open in sorted(writes, key=lambda write: write[0]):
        if not version:
            continue
        one.after, one.after_open = before, before_open
        reads = readers.get(one.value, ())
        if not is_open:
            before, before_open = (n, *reads), 0
        elif reads:
            # Somebody read it, so it was done.
            before, before_open = reads, 1 << n


def _order_by_lane(steps: Sequence[Step], required: Sequence[Operation]) -> None:
    """A lane does one thing at a time, also where its next begins at the instant its last ended."""
    last: dict[str, int] = {}
    for n, operation in enumerate(required):
        before = last.get(operation.lane)
        if before is not None and required[before].ended_at == operation.invoked_at:
            steps[n].after = (*steps[n].after, before)
        last[operation.lane] = n


def _losses_within(
    losses: Iterable[float], kept: Sequence[Operation], required: Sequence[Operation]
) -> list[float]:
    """Those that something may have been lost by, and that somebody may have seen."""
    if not required:
        return []
    first, last = kept[0].invoked_at, max(operation.ended_at for operation in required)
    return sorted({at for at in losses if first <= at <= last})


def _with_losses(steps: Sequence[Step], losses: Sequence[float]) -> list[Step]:
    """The steps with the losses among them, by the time they begin."""
    order: list[tuple[float, int, Step]] = [(at, -1, Step(Action.LOSS, at, at)) for at in losses]
    order += [(one.invoked_at, n, one) for n, one in enumerate(steps)]
    order.sort(key=lambda entry: entry[:2])
    place = {n: new for new, (_, n, _) in enumerate(order) if n >= 0}
    return [replace(one, after=tuple(place[before] for before in one.after)) for _, _, one in order]


def _readers(steps: Sequence[Step]) -> dict[int, tuple[int, ...]]:
    readers: dict[int, list[int]] = {}
    for n, one in enumerate(steps):
        if one.action is Action.READ and one.value != ABSENT:
            readers.setdefault(one.value, []).append(n)
    return {value: tuple(places) for value, places in readers.items()}
