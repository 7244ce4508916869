"""What a scenario answers: figures, checks against references, plots as data, one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Layer(StrEnum):
    CLOSED = "closed"
    EXACT = "exact"
    COHORT = "cohort"


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of the answer. name: short words; unit as of parameters."""

    name: str
    value: float
    unit: str
    layer: Layer


@dataclass(frozen=True, slots=True)
class Check:
    """A value against what is published or computed apart from the model.

    error: |value - reference| / |reference|, or the distance itself where the reference is zero
    or a fraction's difference is meant; tolerance: what it may be. source: of the reference.
    """

    what: str
    value: float
    reference: float
    error: float
    tolerance: float
    source: str

    @property
    def holds(self) -> bool:
        # False for NaN, too.
        return self.error <= self.tolerance


def relative(what: str, value: float, reference: float, tolerance: float, source: str) -> Check:
    error = abs(value - reference) / abs(reference) if reference else abs(value)
    return Check(what, value, reference, error, tolerance, source)


def absolute(what: str, value: float, reference: float, tolerance: float, source: str) -> Check:
    return Check(what, value, reference, abs(value - reference), tolerance, source)


# --- plots ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Axis:
    """ticks: names at 0, 1, 2, … where the axis is of categories."""

    label: str
    unit: str = ""
    log: bool = False
    low: float | None = None
    high: float | None = None
    ticks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Line:
    """label: in the legend; the same in every plot for the same design, which gives it its colour.
    style: "step" holds each y until the next x. dashed: a reference, not a result."""

    label: str
    x: Array
    y: Array
    style: Literal["line", "step", "points"] = "line"
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class Bars:
    """y[i] of category i of the x axis; several Bars of a plot stand side by side."""

    label: str
    y: Array


@dataclass(frozen=True, slots=True)
class HeatMap:
    """z[row, column] over the cells between the edges: x has columns + 1, y has rows + 1."""

    label: str
    unit: str
    x: Array
    y: Array
    z: Array


@dataclass(frozen=True, slots=True)
class Band:
    """A stretch of the x axis in which something is so, as in "outage"."""

    label: str
    start: float
    stop: float


@dataclass(frozen=True, slots=True)
class Rule:
    """A straight line across, at y (or x), as a published figure."""

    label: str
    at: float
    axis: Literal["x", "y"] = "y"


Mark = Line | Bars | HeatMap | Band | Rule


@dataclass(frozen=True, slots=True)
class Plot:
    """name: of a file, a-z and dashes, unique in the scenario. caption: what to see in it."""

    name: str
    title: str
    caption: str
    x: Axis
    y: Axis
    marks: tuple[Mark, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """cells: numbers or words, row by row; a column's unit stands in its name."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[float | str, ...], ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """checks: the first is the one that `fleet run all` lists. conclusion: one sentence, computed
    from the figures. requests_simulated: one by one, in the exact layer; requests_represented: by
    the cohort layer, and never to be added to the other."""

    figures: Sequence[Figure]
    checks: Sequence[Check]
    tables: Sequence[Table]
    plots: Sequence[Plot]
    conclusion: str
    requests_simulated: int = 0
    requests_represented: float = 0.0
    notes: Sequence[str] = field(default=())
