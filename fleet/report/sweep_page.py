"""Pages of sweeps and searches."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from fleet.format import number
from fleet.outcome import Plot
from fleet.parameters import Parameter
from fleet.report.page import concluded, page, plots
from fleet.report.svg import colours_of
from fleet.report.tables import Cell, table
from fleet.scenario import Scenario
from fleet.sweep.point import Point, Task

# Rows of the table of points; Parquet has all.
_ROWS_MAX = 400


def sweep_page(
    title: str,
    conclusion: str,
    scenario: Scenario,
    task: Task,
    shown: Sequence[Plot],
    figures: Sequence[str],
    parameters: Mapping[str, Parameter],
    points: Sequence[Point],
    command: str,
) -> str:
    """figures: those that the table is to have. parameters: what is varied. points: in the order
    they are to be shown in."""
    failed = [each for each in points if each.error]
    seconds = sum(each.seconds for each in points)
    preset = "paper" if task.calibration is None else "measured"
    about = (
        f"{len(points):,} points, {len(failed):,} of them ended in an error; "
        f"{seconds:.2g} s of computing. Preset {preset}, seed {task.seed}."
    )
    fixed = ", ".join(f"{name} = {number(value)}" for name, value in task.chosen.items())
    rows = [_row(each, list(parameters), figures) for each in points[:_ROWS_MAX]]
    columns = [
        *(_named(each.name, each.unit) for each in parameters.values()),
        *(_named(name, _unit(name, points)) for name in figures),
        "checks",
    ]
    more = len(points) - len(rows)
    errors = dict.fromkeys(each.error for each in failed)
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="question">{escape(scenario.question)}</p>',
        concluded(conclusion),
        f'<p class="about">{escape(about)}</p>',
        plots(shown, colours_of(shown), "sweep"),
        f"<h3>Points</h3>{table(columns, rows)}",
        f'<p class="about">And {more:,} more, in points.parquet.</p>' if more > 0 else "",
        _errors(list(errors)),
        f"<h3>How it was reckoned</h3><p>{escape(scenario.explanation)}</p>",
        f"<p>Chosen, and the same at every point: {escape(fixed)}.</p>" if fixed else "",
        f"<h3>The same again</h3><pre><code>{escape(command)}</code></pre>",
    ]
    inside = "\n".join(each for each in body if each)
    return page(title, "", f'<section class="scenario">\n{inside}\n</section>')


def _row(point: Point, names: Sequence[str], figures: Sequence[str]) -> list[Cell]:
    return [
        *(Cell(number(point.values[name]), "number") for name in names),
        *(
            Cell(number(point.figure(name), point.units.get(name, "")), "number")
            for name in figures
        ),
        _verdict(point),
    ]


def _verdict(point: Point) -> Cell:
    if point.error:
        return Cell("error", "broken")
    return Cell("hold", "held") if point.held else Cell("do not hold", "broken")


def _errors(errors: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(each)}</li>" for each in errors[:20])
    return f'<h3>Errors</h3><ul class="notes">{items}</ul>' if items else ""


def _named(name: str, unit: str) -> str:
    return f"{name}, {unit}" if unit else name


def _unit(name: str, points: Sequence[Point]) -> str:
    return next((each.units[name] for each in points if name in each.units), "")


def extremes(figure: str, points: Sequence[Point]) -> str:
    """One sentence: where the figure is lowest and where it is highest."""
    known = [each for each in points if not math.isnan(each.figure(figure))]
    if not known:
        return f"No point has a {figure}."
    low = min(known, key=lambda each: each.figure(figure))
    high = max(known, key=lambda each: each.figure(figure))
    return (
        f"{figure[:1].upper()}{figure[1:]} is lowest, {told(low, figure)}, at {where(low)}, "
        f"and highest, {told(high, figure)}, at {where(high)}."
    )


def told(point: Point, figure: str) -> str:
    unit = point.units.get(figure, "")
    return f"{number(point.figure(figure), unit)} {unit}".rstrip()


def where(point: Point) -> str:
    return " and ".join(
        f"{name.replace('_', ' ')} {number(value)}" for name, value in point.values.items()
    )
