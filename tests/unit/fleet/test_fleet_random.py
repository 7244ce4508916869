"""Random numbers of the kernels: of the right distribution, and the same for the same seed."""

from __future__ import annotations

import numpy as np
import pytest
from numba import njit

from fleet.exact.random import below, exponential, gamma, lognormal, normal, seeded, uniform
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
        elif kind == 3:
            out[index] = lognormal(state, 2.0, 0.5)
        elif kind == 4:
            out[index] = below(state, 6)
        elif kind == 5:
            out[index] = gamma(state, 2.5)
        else:
            out[index] = gamma(state, 0.4)
    return out


@pytest.mark.parametrize(
    ("kind", "mean", "deviation"),
    [
        (0, 0.5, 12**-0.5),
        (1, 3.0, 3.0),
        (2, 0.0, 1.0),
        (3, 2.0, 2.0 * (np.exp(0.25) - 1) ** 0.5),
        (4, 2.5, (35 / 12) ** 0.5),
        (5, 2.5, 2.5**0.5),
        (6, 0.4, 0.4**0.5),
    ],
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


def test_whole_numbers_are_all_there_and_none_beyond() -> None:
    assert set(_draws(4, np.uint64(3), DRAWS)) == set(range(6))


@pytest.mark.parametrize(("kind", "shape"), [(5, 2.5), (6, 0.4)])
def test_gamma_is_skewed_as_it_should_be(kind: int, shape: float) -> None:
    """Mean and deviation alone would let other distributions pass."""
    drawn = _draws(kind, np.uint64(11), DRAWS)
    third = ((drawn - shape) ** 3).mean() / shape**1.5
    assert third == pytest.approx(2 / shape**0.5, rel=0.1)
