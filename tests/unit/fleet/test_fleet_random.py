"""Random numbers of the kernels: of the right distribution, and the same for the same seed."""

from __future__ import annotations

import numpy as np
import pytest
from numba import njit

from fleet.exact.random import exponential, lognormal, normal, seeded, uniform
from fleet.outcome import Array

DRAWS = 200_000


@njit(cache=True)
def _draws(kind: int, seed: np.uint64, count: int) -> Array:
    state = seeded(seed)
    out = np.empty(count)
    for index in range(count):
        if kind == 0:
            out[index] = uniform(state)
        elif kind == 1:
            out[index] = exponential(state, 3.0)
        elif kind == 2:
            out[index] = normal(state)
        else:
            out[index] = lognormal(state, 2.0, 0.5)
    return out


@pytest.mark.parametrize(
    ("kind", "mean", "deviation"),
    [(0, 0.5, 12**-0.5), (1, 3.0, 3.0), (2, 0.0, 1.0), (3, 2.0, 2.0 * (np.exp(0.25) - 1) ** 0.5)],
)
def test_mean_deviation_and_dependence(kind: int, mean: float, deviation: float) -> None:
    """Within five standard errors, for two seeds."""
    for seed in (np.uint64(7), np.uint64(2**63 + 1)):
        drawn = _draws(kind, seed, DRAWS)
        assert abs(drawn.mean() - mean) < 5 * deviation / DRAWS**0.5
        assert drawn.std() == pytest.approx(deviation, rel=0.02)
        assert abs(np.corrcoef(drawn[1:], drawn[:-1])[0, 1]) < 5 / DRAWS**0.5


def test_uniform_fills_the_interval_evenly() -> None:
    drawn = _draws(0, np.uint64(1), DRAWS)
    assert drawn.min() >= 0 and drawn.max() < 1
    counts, _ = np.histogram(drawn, 100, (0, 1))
    expected = DRAWS / 100
    # Chi square with 99 degrees of freedom: above 160 once in ten thousand seeds.
    assert ((counts - expected) ** 2 / expected).sum() < 160


def test_a_seed_fixes_every_number_and_another_changes_them() -> None:
    assert np.array_equal(_draws(0, np.uint64(5), 100), _draws(0, np.uint64(5), 100))
    assert not np.intersect1d(_draws(0, np.uint64(5), 100), _draws(0, np.uint64(6), 100)).size
