"""The numbers of plots as columns, one row for each point, bar or cell, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fleet.outcome import Array, Bars, HeatMap, Line, Plot

SERIES = pa.schema(
    [
        ("scenario", pa.string()),
        ("plot", pa.string()),
        ("mark", pa.int32()),
        ("kind", pa.string()),
        ("label", pa.string()),
        ("category", pa.string()),
        ("x", pa.float64()),
        ("x_stop", pa.float64()),
        ("y", pa.float64()),
        ("y_stop", pa.float64()),
        ("z", pa.float64()),
    ]
)

_NUMBERS = ("x", "x_stop", "y", "y_stop", "z")


def columns_of(scenario: str, plots: Sequence[Plot]) -> dict[str, list[Any]]:
    """By the names of SERIES. Bands and rules have no rows: they are no series."""
    columns: dict[str, list[Any]] = {name: [] for name in SERIES.names}
    for plot in plots:
        for number, mark in enumerate(plot.marks):
            if isinstance(mark, Line | Bars | HeatMap):
                rows = _rows(mark)
                count = len(rows["y"])
                category = _categories(plot, count) if isinstance(mark, Bars) else [None] * count
                columns["scenario"] += [scenario] * count
                columns["plot"] += [plot.name] * count
                columns["mark"] += [number] * count
                columns["kind"] += [type(mark).__name__.lower()] * count
                columns["label"] += [mark.label] * count
                columns["category"] += category
                for name in _NUMBERS:
                    columns[name] += rows[name].tolist() if name in rows else [None] * count
    return columns


def mark_of(
    facts: Mapping[str, Any], plot: str, number: int, series: pa.Table
) -> Line | Bars | HeatMap:
    """facts: kind, label, and what else the mark has beside its numbers."""
    chosen = pc.and_(pc.equal(series["plot"], plot), pc.equal(series["mark"], number))
    rows = series.filter(chosen)
    x, x_stop, y, y_stop, z = (_array(rows, name) for name in _NUMBERS)
    if facts["kind"] == "line":
        return Line(facts["label"], x, y, facts["style"], facts["dashed"])
    if facts["kind"] == "bars":
        return Bars(facts["label"], y)
    # Row by row, from the first edge on.
    columns = int(np.count_nonzero(y == y[0]))
    x_edges = np.append(x[:columns], x_stop[columns - 1])
    y_edges = np.append(y[::columns], y_stop[-1])
    return HeatMap(facts["label"], facts["unit"], x_edges, y_edges, z.reshape(-1, columns))


def _rows(mark: Line | Bars | HeatMap) -> dict[str, Array]:
    if isinstance(mark, Line):
        if len(mark.x) != len(mark.y):
            raise ValueError(f"line {mark.label!r} has {len(mark.x)} x and {len(mark.y)} y")
        return {"x": _floats(mark.x), "y": _floats(mark.y)}
    if isinstance(mark, Bars):
        return {"x": np.arange(len(mark.y), dtype=np.float64), "y": _floats(mark.y)}
    rows, columns = mark.z.shape
    if (len(mark.x), len(mark.y)) != (columns + 1, rows + 1):
        raise ValueError(f"heat map {mark.label!r} of {rows} rows has {len(mark.y)} edges")
    return {
        "x": np.tile(mark.x[:-1], rows),
        "x_stop": np.tile(mark.x[1:], rows),
        "y": np.repeat(mark.y[:-1], columns),
        "y_stop": np.repeat(mark.y[1:], columns),
        "z": _floats(mark.z).ravel(),
    }


def _floats(values: Array) -> Array:
    return np.asarray(values, dtype=np.float64)


def _categories(plot: Plot, count: int) -> list[str | None]:
    ticks = plot.x.ticks or plot.y.ticks
    return [ticks[index] if index < len(ticks) else None for index in range(count)]


def _array(rows: pa.Table, name: str) -> Array:
    found: Array = rows[name].to_numpy()
    return np.asarray(found, dtype=np.float64)
