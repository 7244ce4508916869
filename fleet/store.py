"""What is kept of one answer, and how it is read back.

    outcome.json      all but the numbers of plots
    figures.parquet   scenario, name, value, unit, layer
    checks.parquet    scenario, what, value, reference, error, tolerance, held, source
    series.parquet    the numbers of plots, a row for each point, bar or cell: scenario, plot, mark
                      (its number in the plot), kind ("line", "bars", "heatmap"), label, category
                      (of bars), x, y, and for cells x_stop, y_stop (their far edges) and z

Numbers that are none (NaN) are null in JSON; Parquet has them as they are.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fleet.answer import Answer, Setting
from fleet.outcome import (
    Axis,
    Band,
    Bars,
    Check,
    Figure,
    HeatMap,
    Layer,
    Line,
    Mark,
    Outcome,
    Plot,
    Rule,
    Table,
)
from fleet.series import SERIES, columns_of, mark_of
from keyplane.model.errors import KeyplaneError, Reason
from wire.files import replace_file

FORMAT = 1

OUTCOME = "outcome.json"

_FIGURES = pa.schema(
    [
        ("scenario", pa.string()),
        ("name", pa.string()),
        ("value", pa.float64()),
        ("unit", pa.string()),
        ("layer", pa.string()),
    ]
)
_CHECKS = pa.schema(
    [
        ("scenario", pa.string()),
        ("what", pa.string()),
        ("value", pa.float64()),
        ("reference", pa.float64()),
        ("error", pa.float64()),
        ("tolerance", pa.float64()),
        ("held", pa.bool_()),
        ("source", pa.string()),
    ]
)


def write_answer(directory: Path, answer: Answer) -> None:
    """Into a directory, made if it is missing. outcome.json comes last: where it is, all is."""
    directory.mkdir(parents=True, exist_ok=True)
    outcome = answer.outcome
    named = {"scenario": answer.scenario}
    figures = [named | figure_facts(figure) for figure in outcome.figures]
    checks = [named | check_facts(check) for check in outcome.checks]
    pq.write_table(pa.Table.from_pylist(figures, _FIGURES), directory / "figures.parquet")
    pq.write_table(pa.Table.from_pylist(checks, _CHECKS), directory / "checks.parquet")
    series = pa.Table.from_pydict(columns_of(answer.scenario, outcome.plots), SERIES)
    pq.write_table(series, directory / "series.parquet")
    text = json.dumps(finite(_facts(answer)), indent=1, allow_nan=False) + "\n"
    replace_file(directory / OUTCOME, text.encode())


def read_answer(directory: Path) -> Answer:
    """Raises INVALID_ARGUMENT on a directory that has none, or one that is damaged."""
    path = directory / OUTCOME
    try:
        facts = json.loads(path.read_bytes())
        if facts["format"] != FORMAT:
            raise KeyplaneError(
                Reason.INVALID_ARGUMENT,
                f"{path} has format {facts['format']!r}, and {FORMAT} is understood; run it again",
            )
        series = pq.read_table(directory / "series.parquet")
        return _answer(facts, series)
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise KeyplaneError(
            Reason.INVALID_ARGUMENT,
            f"cannot read the outcome in {directory}: {error}; run it again",
        ) from error


def figure_facts(figure: Figure) -> dict[str, Any]:
    """As JSON and Parquet have it."""
    return {**asdict(figure), "layer": figure.layer.value}


def check_facts(check: Check) -> dict[str, Any]:
    """As JSON and Parquet have it."""
    return {**asdict(check), "held": check.holds}


def finite(value: Any) -> Any:
    """The same with None for what JSON has no number for."""
    if isinstance(value, Mapping):
        return {name: finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


# --- to JSON --------------------------------------------------------------------------------------


def _facts(answer: Answer) -> dict[str, Any]:
    outcome = answer.outcome
    return {
        "format": FORMAT,
        "asked_as": answer.asked_as,
        "scenario": answer.scenario,
        "title": answer.title,
        "question": answer.question,
        "explanation": answer.explanation,
        "preset": answer.preset,
        "seed": answer.seed,
        "seconds": answer.seconds,
        "conclusion": outcome.conclusion,
        "figures": [figure_facts(figure) for figure in outcome.figures],
        "checks": [check_facts(check) for check in outcome.checks],
        "parameters": [asdict(setting) for setting in answer.settings],
        "requests_simulated": outcome.requests_simulated,
        "requests_represented": outcome.requests_represented,
        "notes": list(outcome.notes),
        "tables": [asdict(table) for table in outcome.tables],
        "plots": [_plot_facts(plot) for plot in outcome.plots],
    }


def _plot_facts(plot: Plot) -> dict[str, Any]:
    return {
        "name": plot.name,
        "title": plot.title,
        "caption": plot.caption,
        "x": asdict(plot.x),
        "y": asdict(plot.y),
        "marks": [_mark_facts(mark) for mark in plot.marks],
    }


def _mark_facts(mark: Mark) -> dict[str, Any]:
    """Without the numbers that series.parquet has."""
    if isinstance(mark, Line):
        return {"kind": "line", "label": mark.label, "style": mark.style, "dashed": mark.dashed}
    if isinstance(mark, Bars):
        return {"kind": "bars", "label": mark.label}
    if isinstance(mark, HeatMap):
        return {"kind": "heatmap", "label": mark.label, "unit": mark.unit}
    return {"kind": "band" if isinstance(mark, Band) else "rule", **asdict(mark)}


# --- and back -------------------------------------------------------------------------------------


def _answer(facts: Mapping[str, Any], series: pa.Table) -> Answer:
    outcome = Outcome(
        figures=[
            Figure(each["name"], _number(each["value"]), each["unit"], Layer(each["layer"]))
            for each in facts["figures"]
        ],
        checks=[_check(each) for each in facts["checks"]],
        tables=[
            Table(
                each["title"],
                tuple(each["columns"]),
                tuple(tuple(_cell(cell) for cell in row) for row in each["rows"]),
            )
            for each in facts["tables"]
        ],
        plots=[_plot(each, series) for each in facts["plots"]],
        conclusion=facts["conclusion"],
        requests_simulated=facts["requests_simulated"],
        requests_represented=facts["requests_represented"],
        notes=facts["notes"],
    )
    return Answer(
        facts["asked_as"],
        facts["scenario"],
        facts["title"],
        facts["question"],
        facts["explanation"],
        facts["preset"],
        facts["seed"],
        tuple(Setting(**each) for each in facts["parameters"]),
        outcome,
        facts["seconds"],
    )


def _check(facts: Mapping[str, Any]) -> Check:
    return Check(
        facts["what"],
        _number(facts["value"]),
        _number(facts["reference"]),
        _number(facts["error"]),
        _number(facts["tolerance"]),
        facts["source"],
    )


def _plot(facts: Mapping[str, Any], series: pa.Table) -> Plot:
    x, y = (Axis(**{**facts[name], "ticks": tuple(facts[name]["ticks"])}) for name in ("x", "y"))
    marks: Sequence[Mark] = [
        _mark(number, each, facts["name"], series) for number, each in enumerate(facts["marks"])
    ]
    return Plot(facts["name"], facts["title"], facts["caption"], x, y, tuple(marks))


def _mark(number: int, facts: Mapping[str, Any], plot: str, series: pa.Table) -> Mark:
    if facts["kind"] == "band":
        return Band(facts["label"], facts["start"], facts["stop"])
    if facts["kind"] == "rule":
        return Rule(facts["label"], facts["at"], facts["axis"])
    return mark_of(facts, plot, number, series)


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _cell(value: float | str | None) -> float | str:
    return value if isinstance(value, str) else _number(value)
