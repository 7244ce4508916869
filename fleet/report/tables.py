"""Tables of pages."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from fleet.answer import Setting
from fleet.format import number, quantity, share
from fleet.outcome import Check, Figure, Layer, Table

_LAYERS = {
    Layer.CLOSED: "closed form",
    Layer.EXACT: "each request simulated",
    Layer.COHORT: "requests represented",
}


@dataclass(frozen=True, slots=True)
class Cell:
    """text: not escaped yet. look: a class of the style sheet."""

    text: str
    look: str = ""

    def html(self, tag: str, scope: str = "") -> str:
        look = f' class="{self.look}"' if self.look else ""
        scope = f' scope="{scope}"' if scope else ""
        return f"<{tag}{scope}{look}>{escape(self.text)}</{tag}>"


def table(columns: Sequence[str], rows: Sequence[Sequence[Cell]], caption: str = "") -> str:
    """The first column names the rows. Heads stand as the first row's cells do."""
    looks = [cell.look if cell.look == "number" else "" for cell in rows[0]] if rows else []
    looks += [""] * (len(columns) - len(looks))
    head = "".join(
        Cell(column, look).html("th", "col") for column, look in zip(columns, looks, strict=True)
    )
    lines = "".join(
        "<tr>"
        + "".join(
            cell.html("td") if index else cell.html("th", "row") for index, cell in enumerate(row)
        )
        + "</tr>"
        for row in rows
    )
    above = f"<caption>{escape(caption)}</caption>" if caption else ""
    return (
        f'<div class="wide"><table>{above}<thead><tr>{head}</tr></thead>'
        f"<tbody>{lines}</tbody></table></div>"
    )


def figures(rows: Sequence[Figure]) -> str:
    return table(
        ("figure", "value", "unit", "found by"),
        [
            (
                Cell(each.name),
                Cell(number(each.value, each.unit), "number"),
                Cell(each.unit),
                Cell(_LAYERS[each.layer], "small"),
            )
            for each in rows
        ],
    )


def checks(rows: Sequence[Check]) -> str:
    return table(
        ("what", "value", "reference", "error", "may be", "holds", "reference from"),
        [
            (
                Cell(each.what),
                Cell(number(each.value), "number"),
                Cell(number(each.reference), "number"),
                Cell(share(each.error), "number"),
                Cell(share(each.tolerance), "number"),
                Cell("yes", "held") if each.holds else Cell("no", "broken"),
                Cell(each.source, "small"),
            )
            for each in rows
        ],
    )


def settings(rows: Sequence[Setting]) -> str:
    return table(
        ("parameter", "value", "from", "what it is", "source of the default"),
        [
            (
                Cell(each.name),
                Cell(quantity(each.value, each.unit), "number"),
                Cell(each.origin),
                Cell(each.help),
                Cell(each.source, "small"),
            )
            for each in rows
        ],
    )


def of_outcome(each: Table) -> str:
    return table(each.columns, [[_cell(value) for value in row] for row in each.rows], each.title)


def _cell(value: float | str) -> Cell:
    if isinstance(value, str):
        return Cell(value)
    return Cell("" if math.isnan(value) else number(float(value)), "number")
