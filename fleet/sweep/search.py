"""Search for the values at which a figure is lowest, within a number of points.

First points spread over the whole (J. H. Halton, "On the efficiency of certain quasi-random
sequences of points", 1960), then a compass search from the best of them: both ways along each
axis, on to the best, and half the step where none is better (T. G. Kolda, R. M. Lewis, V. Torczon,
"Optimization by direct search", SIAM Review, 2003). It needs no derivatives, which figures of a
simulation do not have; it finds a local minimum, which the spread makes likely to be the global.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

from fleet.parameters import Parameter
from fleet.sweep.grid import Values, Vary, fitting
from fleet.sweep.point import Point

# Of the points, those that are spread.
_SPREAD = 0.5
_STEP_MAX = 0.125
# Of the whole from low to high: nearer than this nobody asks.
_STEP_MIN = 2.0**-12

_PRIMES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29)

VARIED_MAX = len(_PRIMES)

Cube = tuple[float, ...]


class Search:
    """One that is under way. evaluate: gives points at values, in any order.

    cost: what is to be low; NaN counts as worst. budget: points in all, at least 1.
    """

    def __init__(
        self,
        varied: Sequence[Vary],
        parameters: Mapping[str, Parameter],
        cost: Callable[[Point], float],
        budget: int,
        evaluate: Callable[[Sequence[Values]], Iterator[Point]],
    ) -> None:
        self._varied = varied
        self._parameters = parameters
        self._cost = cost
        self._left = budget
        self._evaluate = evaluate
        self._seen: dict[tuple[float, ...], float] = {}
        self.best: Point | None = None

    def run(self) -> Point | None:
        """The best point; None if none had a number."""
        count = max(1, math.ceil(self._left * _SPREAD))
        spread = [halton(number, len(self._varied)) for number in range(1, count + 1)]
        here = self._best_of(spread)
        if here is None:
            return None
        step = _STEP_MAX
        while self._left > 0 and step >= _STEP_MIN:
            better = self._best_of(_around(here, step), than=here)
            if better is None:
                step /= 2
            else:
                here = better
        return self.best

    def _best_of(self, cubes: Sequence[Cube], than: Cube | None = None) -> Cube | None:
        """The one with the lowest cost, if that is lower than there."""
        fresh: dict[tuple[float, ...], Values] = {}
        for cube in cubes:
            values = self._values(cube)
            key = tuple(values.values())
            if key not in self._seen and key not in fresh and len(fresh) < self._left:
                fresh[key] = values
        self._left -= len(fresh)
        came = {
            tuple(point.values[each.name] for each in self._varied): point
            for point in self._evaluate(list(fresh.values()))
        }
        # In the order of asking, not of coming, so that the same search ends at the same point.
        for key in fresh:
            point = came[key]
            cost = self._cost(point)
            self._seen[key] = math.inf if math.isnan(cost) else cost
            if self._seen[key] < self._best_cost():
                self.best = point
        bar = math.inf if than is None else self._at(than)
        known = [(self._at(cube), cube) for cube in cubes]
        cost, cube = min(known, default=(math.inf, ()))
        return cube if cost < bar else None

    def _best_cost(self) -> float:
        return math.inf if self.best is None else self._cost(self.best)

    def _at(self, cube: Cube) -> float:
        """What was not evaluated is no better than anything."""
        return self._seen.get(tuple(self._values(cube).values()), math.inf)

    def _values(self, cube: Cube) -> Values:
        return {
            each.name: fitting(self._parameters[each.name], each.at(share))
            for each, share in zip(self._varied, cube, strict=True)
        }


def halton(number: int, dimensions: int) -> Cube:
    """The number-th point, from 1 on, of the sequence in the unit cube."""
    return tuple(_inverse(number, base) for base in _PRIMES[:dimensions])


def _inverse(number: int, base: int) -> float:
    """Its digits in this base, mirrored at the point."""
    value, part = 0.0, 1.0
    while number:
        part /= base
        number, digit = divmod(number, base)
        value += digit * part
    return value


def _around(cube: Cube, step: float) -> list[Cube]:
    found = []
    for axis, share in enumerate(cube):
        for moved in (max(0.0, share - step), min(1.0, share + step)):
            if moved != share:
                found.append((*cube[:axis], moved, *cube[axis + 1 :]))
    return found
