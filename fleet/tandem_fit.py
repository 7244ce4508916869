"""Fits the closed-loop tandem to what was measured: least squares of logarithms, by damped
Gauss-Newton (Levenberg, "A method for the solution of certain non-linear problems in least
squares", 1944; Marquardt, 1963), with the simulation drawing the same numbers at every try.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from fleet.exact.tandem import ClosedRun, Process, Tandem, simulate
from fleet.outcome import Array
from keyplane.model.errors import KeyplaneError, Reason

# What is simulated for each level at each try; and for a prediction.
FIT_REQUESTS = 16_000
PREDICTION_REQUESTS = 100_000

# Of logarithms: to find slopes, and the longest at once.
_STEP = 0.06
_STEP_MAX = 1.2
_ROUNDS_MAX = 15
_ATTEMPTS_MAX = 6
_DAMPING_MIN = 1e-4
_FLOOR = 1e-9
# A round that gains less is the last.
_GAIN_MIN = 1e-3
# How much each residual counts: throughput, median, 99th percentile, processor time.
_WEIGHTS = (1.0, 1.0, 0.5, 0.5)
# Less cannot be told from nothing.
_CPU_MS_MIN = 1e-4
# Pulls each logarithm to where it began, where the measurements leave it open.
_PRIOR = 0.05


@dataclass(frozen=True, slots=True)
class Level:
    """One size of closed loop, as measured. cpu_ms: processor time per request of generator,
    routers and storage nodes."""

    outstanding: int
    per_second: float
    p50_ms: float
    p99_ms: float
    cpu_ms: tuple[float, float, float]
    routers: int = 1


@dataclass(frozen=True, slots=True)
class Fit:
    """error: root mean square of the relative errors of throughput and median."""

    tandem: Tandem
    error: float


def fit_tandem(levels: Sequence[Level], cores: int, push: int, look_ms: float, seed: int) -> Fit:
    """Of at least two levels; with one number of routers alone, `looking` shows little.

    cores, push, look_ms: as of the tandem. Processor time counts at the largest level alone: with
    fewer requests under way it holds what processes spend on looking, too. Raises INVALID_ARGUMENT.
    """
    if len({level.outstanding for level in levels}) < 2:
        raise KeyplaneError(Reason.INVALID_ARGUMENT, "a fit needs two sizes of load at least")
    ordered = sorted(levels, key=lambda level: level.outstanding)
    smallest, largest = ordered[0], ordered[-1]

    def tandem_of(logs: Array) -> Tandem:
        wake_g, each_g, wake_r, each_r, wake_s, each_s, hop, spread, looking = (
            float(x) for x in np.exp(logs)
        )
        return Tandem(
            Process(wake_g, each_g),
            Process(wake_r, each_r),
            Process(wake_s, each_s),
            hop,
            min(spread, 3.0),
            cores,
            push,
            looking=looking,
            look_ms=look_ms,
        )

    def residuals(logs: Array) -> Array:
        tandem = tandem_of(logs)
        found = []
        for level in ordered:
            run = simulate(tandem, level.outstanding, FIT_REQUESTS, seed, level.routers)
            found += [
                _WEIGHTS[0] * math.log(run.per_second / level.per_second),
                _WEIGHTS[1] * math.log(run.p50_ms / level.p50_ms),
                _WEIGHTS[2] * math.log(run.p99_ms / level.p99_ms),
            ]
            if level is largest:
                pairs = zip(run.cpu_ms, level.cpu_ms, strict=True)
                found += [
                    _WEIGHTS[3] * math.log(ours / max(theirs, _CPU_MS_MIN))
                    for ours, theirs in pairs
                ]
        return np.array([*found, *(_PRIOR * (logs - start))])

    # Of the processor time of a lone request a part is looking; of a crowd's, little is waking.
    guesses = [0.3 * cpu_ms for cpu_ms in smallest.cpu_ms]
    guesses += [0.8 * cpu_ms for cpu_ms in largest.cpu_ms]
    # In the order of `tandem_of`: of each process both, then the hop, the spread, the looking.
    ordered_guesses = [guesses[n + 3 * k] for n in range(3) for k in range(2)]
    ordered_guesses += [0.02 * smallest.p50_ms, 0.4, 0.3]
    start = np.log(np.maximum(ordered_guesses, _CPU_MS_MIN))
    logs = _least_squares(residuals, start)
    fitted = tandem_of(logs)
    rows = residuals(logs)
    several = [rows[3 * n + k] for n in range(len(ordered)) for k in range(2)]
    return Fit(fitted, float(np.sqrt(np.mean(np.square(several)))))


def predict(tandem: Tandem, outstanding: int, routers: int, seed: int) -> ClosedRun:
    return simulate(tandem, outstanding, PREDICTION_REQUESTS, seed, routers)


def _least_squares(residuals: Callable[[Array], Array], start: Array) -> Array:
    """Where the squares of the residuals are least, as far as a few rounds find it."""
    at, now = start, residuals(start)
    damping = 0.1
    for _ in range(_ROUNDS_MAX):
        slopes = np.empty((len(now), len(at)))
        for n in range(len(at)):
            ahead = at.copy()
            ahead[n] += _STEP
            slopes[:, n] = (residuals(ahead) - now) / _STEP
        square = slopes.T @ slopes
        scale = np.diag(np.diag(square)) + _FLOOR * np.eye(len(at))
        for _attempt in range(_ATTEMPTS_MAX):
            step = np.linalg.solve(square + damping * scale, -slopes.T @ now)
            # Far out the slopes say nothing.
            candidate = at + np.clip(step, -_STEP_MAX, _STEP_MAX)
            then = residuals(candidate)
            if then @ then < now @ now:
                break
            damping *= 4
        else:
            return at
        gained = 1 - (then @ then) / (now @ now)
        at, now = candidate, then
        damping = max(damping / 3, _DAMPING_MIN)
        if gained < _GAIN_MIN:
            break
    return at
