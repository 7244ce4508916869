"""What a scenario cost those who sent requests meanwhile."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Sequence

from keyplane.history.operation import Operation, Outcome

# Service is back once all requests of windows of this length have succeeded, for so long.
WINDOW_S = 0.25
CALM_S = 1.0

_ANSWERED = (Outcome.OK, Outcome.CONDITION_FAILED)


def succeeded(operation: Operation) -> bool:
    """A condition that does not hold is an answer, not a failure."""
    return operation.outcome in _ANSWERED


def availability(operations: Collection[Operation]) -> float:
    """Share of the requests that succeeded; 1 if there were none."""
    return sum(map(succeeded, operations)) / len(operations) if operations else 1.0


def p99_ms(operations: Iterable[Operation]) -> float:
    """Of all requests, however they ended. 0 if there were none."""
    taken = sorted(each.ended_at - each.invoked_at for each in operations)
    return 1000 * taken[min(len(taken) - 1, math.ceil(0.99 * len(taken)) - 1)] if taken else 0.0


def recovery_s(
    operations: Sequence[Operation], in_flight: Collection[float], healed_at: float, now: float
) -> float | None:
    """Seconds from `healed_at` to the first of the windows, CALM_S of them in a row, in which
    every request that was sent has succeeded, and at least one was; None if there are none yet.

    in_flight: when the requests were sent that have not ended.
    """
    good: Counter[int] = Counter()
    bad = {_window(at, healed_at) for at in in_flight}
    for operation in operations:
        window = _window(operation.invoked_at, healed_at)
        if succeeded(operation):
            good[window] += 1
        else:
            bad.add(window)
    in_a_row = 0
    for window in range(_window(now, healed_at)):
        in_a_row = in_a_row + 1 if good[window] and window not in bad else 0
        if in_a_row * WINDOW_S >= CALM_S:
            return (window + 1 - in_a_row) * WINDOW_S
    return None


def _window(at: float, healed_at: float) -> int:
    return math.floor((at - healed_at) / WINDOW_S)
