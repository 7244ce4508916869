"""Draws plots as SVG that follows the page's colours and is the same bytes for the same numbers."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from matplotlib import style
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from fleet.outcome import Bars, Line, Plot
from fleet.report import palette
from fleet.report.axes import WIDTH_IN, dress
from fleet.report.marks import CELLS, draw_marks, gid_of, images_of, legend

_HEIGHT_IN = 3.5

_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 9.0,
    "axes.unicode_minus": True,
    "path.simplify": True,
    "path.simplify_threshold": 0.25,
    "patch.linewidth": 0.0,
}

# Above the drawing, where it stands by itself.
_TITLE_PT = 20.0
_FAMILY = escape(palette.FONT)

_BOX = re.compile(r'viewBox="0 0 (?P<width>[\d.]+) (?P<height>[\d.]+)"')
# What matplotlib says about fonts and sizes that the page says better.
_FONT_FAMILY = re.compile(r"(?:font-family:[^;\"]*;? ?)|(?<=px) 'DejaVu[^;\"]*")
# It would hold for the whole page.
_SHEET = re.compile(r"<defs>\s*<style.*?</style>\s*</defs>", re.DOTALL)
_HEAD = re.compile(r"^.*?<svg[^>]*viewBox=\"(?P<box>[^\"]*)\"[^>]*>", re.DOTALL)
_METADATA = re.compile(r"\s*<metadata>.*?</metadata>", re.DOTALL)
_REFERENCE = re.compile(r"(?P<before>\bid=\"|href=\"#|url\(#)(?P<id>[^\")]+)")
_MARK = re.compile(r"<g id=\"(?P<id>[^\"]*" + gid_of(r"(?P<number>\d+)") + r"[^\"]*)\"")
# No seams between cells, those of the colour bar too.
_CELLS = re.compile(rf'<g (?=[^>]*id="[^"]*(?:{CELLS}|QuadMesh_\d+)")')
_IMAGE = re.compile(r"(?<!\">)<image [^>]*/>")
_PATH = re.compile(r" d=\"(?P<path>[^\"]*)\"")
_DECIMALS = re.compile(r"(\.\d\d)\d+")


@dataclass(frozen=True, slots=True)
class Drawing:
    """svg: one element, to be set into a page that has `palette.variables()`."""

    name: str
    svg: str
    marks: int


def colours_of(plots: Sequence[Plot]) -> dict[str, palette.Colour]:
    """One for each label, the same in all of the plots, in the order in which labels come.

    Of more labels than colours the later ones take what nothing has beside them, if there is such.
    """
    together = [
        list(dict.fromkeys(mark.label for mark in plot.marks if isinstance(mark, Line | Bars)))
        for plot in plots
    ]
    found: dict[str, palette.Colour] = {}
    for label in dict.fromkeys(label for labels in together for label in labels):
        beside = {found.get(each) for labels in together if label in labels for each in labels}
        taken = set(found.values())
        free = [each for each in palette.SERIES if each not in taken]
        free += [each for each in palette.SERIES if each not in beside]
        found[label] = free[0] if free else palette.SERIES[len(found) % len(palette.SERIES)]
    return found


def draw(plot: Plot, colours: Mapping[str, palette.Colour], prefix: str) -> Drawing:
    """prefix: of all ids, unique in the page."""
    # Not as the user has set matplotlib up, but the same everywhere.
    with style.context(["default", {**_STYLE, "svg.hashsalt": prefix}]):
        figure = Figure(figsize=(WIDTH_IN, _HEIGHT_IN), layout="constrained")
        FigureCanvasSVG(figure)
        figure.patch.set_visible(False)
        axes = figure.subplots()
        dress(axes, plot)
        handles = draw_marks(figure, axes, plot, colours)
        legend(figure, handles)
        written = io.StringIO()
        figure.savefig(written, format="svg", metadata={"Date": None, "Creator": None})
    return Drawing(plot.name, _finished(written.getvalue(), plot, prefix), len(plot.marks))


def stand_alone(plot: Plot, colours: Mapping[str, palette.Colour], prefix: str) -> str:
    """A file of its own: with its title above, on a ground of its own, in the reader's scheme."""
    svg = draw(plot, colours, prefix).svg
    box = _BOX.search(svg)
    if box is None:
        raise ValueError("the drawing has no size")
    width, height = box["width"], float(box["height"]) + _TITLE_PT
    head, rest = svg.replace(
        box[0], f'viewBox="0 {-_TITLE_PT:g} {width} {height:g}" font-family="{_FAMILY}"', 1
    ).split(">", 1)
    sheet = f"<style>{palette.variables()}</style>"
    ground = (
        f'<rect y="{-_TITLE_PT:g}" width="{width}" height="{height:g}" '
        f'fill="{palette.PAPER.used()}"/>'
    )
    title = (
        f'<text x="6" y="-6" font-size="11" font-weight="600" fill="{palette.INK.used()}">'
        f"{escape(plot.title)}</text>"
    )
    return f"{head}>{sheet}{ground}{title}{rest}"


def _finished(text: str, plot: Plot, prefix: str) -> str:
    head = _HEAD.match(text)
    if head is None:
        raise ValueError("matplotlib wrote no SVG")
    body = _METADATA.sub("", text[head.end() :])
    body = _FONT_FAMILY.sub("", _SHEET.sub("", body))
    body = _REFERENCE.sub(rf"\g<before>{prefix}-\g<id>", body)
    body = _MARK.sub(r'<g data-mark="\g<number>" id="\g<id>"', body)
    for number in images_of(plot):
        # Drawn apart, and so without the group that other marks are drawn in.
        body = _IMAGE.sub(rf'<g data-mark="{number}">\g<0></g>', body, count=1)
    body = _CELLS.sub('<g shape-rendering="crispEdges" ', body)
    body = _PATH.sub(lambda found: f' d="{_compact(found["path"])}"', body)
    body = palette.replace_markers(body)
    title, description = f"{prefix}-title", f"{prefix}-desc"
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
        f' viewBox="{head["box"]}" stroke-linejoin="round" role="img"'
        f' aria-labelledby="{title} {description}"'
        f' data-plot="{plot.name}" data-marks="{len(plot.marks)}">'
        f'<title id="{title}">{escape(plot.title)}</title>'
        f'<desc id="{description}">{escape(plot.caption)}</desc>{body.strip()}\n'
    )


def _compact(path: str) -> str:
    """Hundredths of a point are enough, and lines of their own are not needed."""
    return _DECIMALS.sub(r"\1", path).replace(" \n", "").strip()
