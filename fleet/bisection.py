"""Where something that is not yet so on one side of an interval begins to be."""

from __future__ import annotations

from collections.abc import Callable

# As many as tell any two floats apart that are not very small.
HALVINGS = 200


def bisect(
    reached: Callable[[float], bool], low: float, high: float, halvings: int = HALVINGS
) -> tuple[float, float]:
    """The interval around the place at which `reached` turns true, after so many halvings, or as
    soon as there is no float inside.

    It is taken to be false at `low` and true at `high`, and is not asked there.
    """
    for _ in range(halvings):
        middle = (low + high) / 2
        if not low < middle < high:
            break
        if reached(middle):
            high = middle
        else:
            low = middle
    return low, high
