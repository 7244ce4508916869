"""Whether a history is linearizable: one order of its operations, item by item, explains it all.

Linearizability is local (Herlihy and Wing, *Linearizability: A Correctness Condition for Concurrent
Objects*, 1990, theorem 1): a history is linearizable if and only if that of each item is.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from keyplane.history.contradictions import Contradiction
from keyplane.history.operation import Operation
from keyplane.history.problem import Initial, build_problem
from keyplane.history.search import Result, search
from keyplane.history.window import shortest_window

# Configurations that the search looks at for one item: some seconds, where a history with an
# ordinary mix takes one or two for each operation.
STEPS_MAX = 300_000


class Verdict(enum.Enum):
    HELD = "held"
    VIOLATED = "violated"
    # The search was given up.
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class Finding:
    """key: of the item concerned; empty when all held. message: a sentence.

    operations: of a violation a few that cannot be explained together, in the order in which they
    began; of an item that is undecided all of them.
    """

    verdict: Verdict
    key: str
    message: str
    operations: tuple[Operation, ...] = ()


def check_history(
    operations: Iterable[Operation],
    losses: Mapping[str, Sequence[float]] | Sequence[float] = (),
    steps_max: int = STEPS_MAX,
    *,
    initial: Initial = Initial.ABSENT,
) -> Finding:
    """The first item, by key, whose operations no order explains; else one that is undecided.

    losses: instants at which what was not synced may have been lost, of all items or by key. There
    an item may fall back to any earlier state of itself.
    steps_max: configurations to look at for one item before it is given up as undecided.
    initial: what each item was before its first operation.

    Raises KeyplaneError(INVALID_ARGUMENT) when two puts to an item wrote the same value.
    """
    by_key: dict[str, list[Operation]] = {}
    count = 0
    for operation in operations:
        by_key.setdefault(operation.key, []).append(operation)
        count += 1
    undecided: Finding | None = None
    for key in sorted(by_key):
        of_key = losses.get(key, ()) if isinstance(losses, Mapping) else losses
        finding = check_key(by_key[key], initial, of_key, steps_max)
        if finding.verdict is Verdict.VIOLATED:
            return finding
        if finding.verdict is Verdict.UNDECIDED:
            undecided = undecided or finding
    if undecided is not None:
        return undecided
    return Finding(
        Verdict.HELD, "", f"an order explains the {count:,} operations on {len(by_key):,} items"
    )


def check_key(
    operations: Iterable[Operation],
    initial: Initial = Initial.ABSENT,
    losses: Sequence[float] = (),
    steps_max: int = STEPS_MAX,
) -> Finding:
    """As `check_history`, for the operations of one item."""
    given = list(operations)
    key = given[0].key if given else ""
    problem = build_problem(given, losses, initial)
    if isinstance(problem, Contradiction):
        window = sorted(problem.operations, key=lambda operation: operation.invoked_at)
        return Finding(Verdict.VIOLATED, key, f"{key}: {problem.message}", tuple(window))
    explained = search(problem, steps_max).explained
    if explained is None:
        message = (
            f"{key}: gave up on {len(given):,} operations after {steps_max:,} steps; a higher "
            "bound may tell"
        )
        return Finding(Verdict.UNDECIDED, key, message, tuple(given))
    if explained:
        message = f"{key}: an order explains all {len(given):,} operations"
        return Finding(Verdict.HELD, key, message)

    def attempt(some: Sequence[Operation], steps: int) -> Result:
        part = build_problem(some, losses, initial)
        return Result(False, 0) if isinstance(part, Contradiction) else search(part, steps)

    shown = shortest_window(given, attempt)
    return Finding(Verdict.VIOLATED, key, f"{key}: {shown.explain()}", shown.operations)
