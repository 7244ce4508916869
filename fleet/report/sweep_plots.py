"""Plots of a sweep: a line of one varied parameter, a map of two, of more what each alone does."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from fleet.outcome import Array, Axis, HeatMap, Line, Mark, Plot, Rule
from fleet.parameters import Parameter
from fleet.sweep.grid import Vary
from fleet.sweep.point import Point


def plots_of(
    figure: str,
    varied: Sequence[Vary],
    parameters: Mapping[str, Parameter],
    points: Sequence[Point],
) -> list[Plot]:
    """points: of a grid; those that ended in an error leave gaps."""
    unit = next((each.units[figure] for each in points if figure in each.units), "")
    if len(varied) == 2:
        return [_map(figure, unit, varied, parameters, points)]
    return [_by_one(figure, unit, each, parameters, points, len(varied) > 1) for each in varied]


def search_plot(figure: str, points: Sequence[Point], best: Point) -> Plot:
    """What was found by which point."""
    unit = best.units[figure]
    values = np.array([each.figure(figure) for each in points])
    at = np.arange(1, len(values) + 1, dtype=np.float64)
    return Plot(
        "search",
        f"The search for {figure}",
        "Each point that was asked, in the order of asking: spread over the whole at first, then "
        "around the best.",
        Axis("point"),
        Axis(figure, unit),
        (Line("asked", at, values, "points"), Rule("best", best.figure(figure))),
    )


def _by_one(
    figure: str,
    unit: str,
    vary: Vary,
    parameters: Mapping[str, Parameter],
    points: Sequence[Point],
    others: bool,
) -> Plot:
    by_value: dict[float, list[float]] = {}
    for point in points:
        by_value.setdefault(point.values[vary.name], []).append(point.figure(figure))
    x = np.array(sorted(by_value))
    marks: tuple[Mark, ...] = (Line(figure, x, np.array([by_value[each][0] for each in x])),)
    caption = f"{parameters[vary.name].help}"
    if others:
        caption += " Lowest, middle and highest over all values of the others."
        marks = tuple(
            Line(label, x, np.array([_over(by_value[each], share) for each in x]))
            for label, share in (("highest", 1.0), ("middle", 0.5), ("lowest", 0.0))
        )
    return Plot(
        slug(f"{figure}-by-{vary.name}"),
        f"{_capital(figure)} by {_words(vary.name)}",
        caption,
        _axis(vary, parameters),
        Axis(figure, unit),
        marks,
    )


def _over(values: Sequence[float], share: float) -> float:
    """This quantile, of what is a number; NaN of none."""
    known = [each for each in values if np.isfinite(each)]
    return float(np.quantile(known, share)) if known else float("nan")


def _map(
    figure: str,
    unit: str,
    varied: Sequence[Vary],
    parameters: Mapping[str, Parameter],
    points: Sequence[Point],
) -> Plot:
    across, up = varied
    found = {(each.values[across.name], each.values[up.name]): each for each in points}
    x = sorted({each for each, _ in found})
    y = sorted({each for _, each in found})
    z = np.array(
        [[found[a, b].figure(figure) if (a, b) in found else np.nan for a in x] for b in y]
    )
    return Plot(
        slug(f"{figure}-map"),
        f"{_capital(figure)} by {_words(across.name)} and {_words(up.name)}",
        f"Each cell is one point. Across: {parameters[across.name].help} "
        f"Up: {parameters[up.name].help}",
        _axis(across, parameters),
        _axis(up, parameters),
        (HeatMap(figure, unit, edges(x, across.log), edges(y, up.log), z),),
    )


def edges(middles: Sequence[float], log: bool) -> Array:
    """Of cells around these, which rise: half-way between, and as far beyond the ends."""
    at = np.log(middles) if log else np.array(middles, dtype=np.float64)
    if len(at) == 1:
        at = np.array([at[0] - 0.5, at[0] + 0.5])
    else:
        between = (at[1:] + at[:-1]) / 2
        at = np.concatenate(([2 * at[0] - between[0]], between, [2 * at[-1] - between[-1]]))
    return np.exp(at) if log else at


def slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "plot"


def _axis(vary: Vary, parameters: Mapping[str, Parameter]) -> Axis:
    return Axis(_words(vary.name), parameters[vary.name].unit, log=vary.log)


def _words(name: str) -> str:
    return name.replace("_", " ")


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
