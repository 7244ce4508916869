"""A binary heap of events by time, for compiled event loops: two arrays side by side."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from fleet.outcome import Array


@njit(cache=True)
def push(times: Array, about: NDArray[np.int64], size: int, time: float, what: int) -> None:
    """size: before it. The arrays must have room."""
    child = size
    while child > 0:
        parent = (child - 1) >> 1
        if times[parent] <= time:
            break
        times[child] = times[parent]
        about[child] = about[parent]
        child = parent
    times[child] = time
    about[child] = what


@njit(cache=True)
def drop_first(times: Array, about: NDArray[np.int64], size: int) -> None:
    """Takes the earliest away, which the caller has read. size: with it."""
    last, time, what = size - 1, times[size - 1], about[size - 1]
    parent = 0
    while True:
        child = 2 * parent + 1
        if child >= last:
            break
        if child + 1 < last and times[child + 1] < times[child]:
            child += 1
        if times[child] >= time:
            break
        times[parent] = times[child]
        about[parent] = about[child]
        parent = child
    times[parent] = time
    about[parent] = what
