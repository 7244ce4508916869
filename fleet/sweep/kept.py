"""The points of one sweep or search, kept as they come.

points.jsonl     a line for each, in the order they came; numbers as Python's json has them
points.parquet   the same in the order asked, once all are there: point, a column for each
                 varied parameter and for each figure, held, seconds, error. The unit of a
                 column is the metadata "unit" of its field.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fleet.sweep.point import Evaluate, Numbered, Point
from keyplane.model.errors import KeyplaneError, Reason

POINTS = "points.jsonl"
TABLE = "points.parquet"


class KeptPoints:
    """What a directory has of them. What was evaluated once is not evaluated again."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._path = directory / POINTS
        self._by_values: dict[tuple[tuple[str, float], ...], Point] = {}
        for point in _read(self._path):
            self._by_values[_key(point.values)] = point

    def __len__(self) -> int:
        return len(self._by_values)

    def has(self, values: Mapping[str, float]) -> bool:
        return _key(values) in self._by_values

    def all(self) -> list[Point]:
        return sorted(self._by_values.values(), key=lambda point: point.number)

    def at(self, wanted: Iterable[Mapping[str, float]]) -> list[Point]:
        """In this order. Raises KeyError on what was not evaluated."""
        return [self._by_values[_key(values)] for values in wanted]

    def evaluated(
        self, wanted: Iterable[Mapping[str, float]], evaluate: Evaluate
    ) -> Iterator[Point]:
        """Points at these values: first those that are kept, then the others as they come, each
        kept before it is given out."""
        missing: list[Numbered] = []
        number = len(self)
        for values in {_key(each): each for each in wanted}.values():
            if self.has(values):
                yield self._by_values[_key(values)]
            else:
                missing.append((number + len(missing), values))
        if not missing:
            return
        points = evaluate(missing)
        with self._path.open("a") as file, closing(points):
            for point in points:
                file.write(json.dumps(asdict(point)) + "\n")
                file.flush()
                self._by_values[_key(point.values)] = point
                yield point

    def write_table(
        self, order: Sequence[Mapping[str, float]] | None, units: Mapping[str, str]
    ) -> Path:
        """order: of what was asked; None: as they were numbered. units: of what is varied."""
        points = self.all() if order is None else self.at(order)
        path = self.directory / TABLE
        pq.write_table(table_of(points, units), path)
        return path


def table_of(points: Sequence[Point], units: Mapping[str, str]) -> pa.Table:
    """A figure that is named as something else here has "figure" before its name."""
    columns: dict[str, tuple[list[Any], str]] = {"point": (list(range(len(points))), "")}
    for name in dict.fromkeys(name for point in points for name in point.values):
        columns[name] = ([point.values[name] for point in points], units.get(name, ""))
    taken = {*columns, "held", "seconds", "error"}
    of_figures = {name: unit for point in points for name, unit in point.units.items()}
    for name, unit in of_figures.items():
        column = f"figure {name}" if name in taken else name
        columns[column] = ([point.figure(name) for point in points], unit)
    columns["held"] = ([point.held for point in points], "")
    columns["seconds"] = ([point.seconds for point in points], "s")
    columns["error"] = ([point.error for point in points], "")
    arrays = [pa.array(values) for values, _ in columns.values()]
    fields = [
        pa.field(name, array.type, metadata={"unit": unit} if unit else None)
        for (name, (_, unit)), array in zip(columns.items(), arrays, strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))


def _key(values: Mapping[str, float]) -> tuple[tuple[str, float], ...]:
    return tuple(sorted((name, float(value)) for name, value in values.items()))


def _read(path: Path) -> list[Point]:
    """A last line that was not written to its end is cut off."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    whole, _, torn = content.rpartition(b"\n")
    if torn:
        with path.open("rb+") as file:
            file.truncate(len(content) - len(torn))
    try:
        return [Point(**json.loads(line)) for line in whole.splitlines()]
    except (TypeError, ValueError) as error:
        raise KeyplaneError(
            Reason.INVALID_ARGUMENT, f"{path} is damaged: {error}; remove its directory"
        ) from error
