"""Time series of cohort runs, made shorter for plots and summed up in a figure."""

from __future__ import annotations

import numpy as np

from fleet.outcome import Array


def binned(values: Array, steps: int) -> Array:
    """Averages of each `steps` values that follow each other; a rest at the end is left out."""
    whole = len(values) // steps * steps
    means: Array = values[:whole].reshape(-1, steps).mean(axis=1)
    return means


def share_of(part: Array, whole: Array, steps: int) -> Array:
    """Sum of `part` over that of `whole` in each bin of `steps`; 1 where there is nothing."""
    top, bottom = binned(part, steps), binned(whole, steps)
    return np.where(bottom > 0, top / np.where(bottom > 0, bottom, 1.0), 1.0)


def recovered_at(availability: Array, enough: float, interval_s: float, since_s: float) -> float:
    """Seconds from `since_s` until availability stays at `enough` or above; infinite if it does not
    within the series."""
    after = availability[round(since_s / interval_s) :]
    bad = np.flatnonzero(after < enough)
    if len(bad) == 0:
        return 0.0
    if bad[-1] == len(after) - 1:
        return float("inf")
    return float(bad[-1] + 1) * interval_s
