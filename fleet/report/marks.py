"""Draws the marks of a plot, each under an id by which it can be found in the SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter

from fleet.format import number
from fleet.outcome import Band, Bars, HeatMap, Line, Plot, Rule
from fleet.report import palette
from fleet.report.axes import limit, log_ticks, tick

# Points of one line that are drawn one by one; of more, every nth.
_POINTS_MAX = 1500
# Cells of a heat map that are drawn one by one; more are one image.
_CELLS_MAX = 10_000
# Highest over lowest of a heat map whose shades go by ratio.
_WIDE = 50.0
_SHARES = ("fraction", "%")
# More levels than eyes can tell apart, few enough to be drawn as vectors.
_LEVELS = 40
# Bars of a plot that have room for their values.
_VALUES_MAX = 16
# Characters in a row of the legend, of which each name takes some for its sign.
_LEGEND_CHARACTERS = 100
_SIGN_CHARACTERS = 8

# The end of the id of a heat map's cells.
CELLS = "cells"

Colours = Mapping[str, palette.Colour]


def gid_of(number: int | str) -> str:
    return f"mark-{number}-"


def images_of(plot: Plot) -> list[int]:
    """The numbers of the marks that are drawn as images."""
    return [
        number
        for number, mark in enumerate(plot.marks)
        if isinstance(mark, HeatMap) and _is_image(mark)
    ]


def _is_image(mark: HeatMap) -> bool:
    return mark.z.size > _CELLS_MAX


def draw_marks(figure: Figure, axes: Axes, plot: Plot, colours: Colours) -> list[Artist]:
    """Returns what the legend is to show."""
    handles: list[Artist] = []
    all_bars = [mark for mark in plot.marks if isinstance(mark, Bars)]
    over_heat = any(isinstance(mark, HeatMap) for mark in plot.marks)
    drawn: dict[palette.Colour, str] = {}
    later = []
    for index, mark in enumerate(plot.marks):
        if isinstance(mark, Line):
            # More labels than colours: those that begin again are dotted.
            again = drawn.setdefault(colours[mark.label], mark.label) != mark.label
            handles.append(_line(axes, index, mark, colours, again, over_heat))
        elif isinstance(mark, Bars):
            handles.append(_bars(axes, index, mark, all_bars, colours))
        elif isinstance(mark, HeatMap):
            _heat(figure, axes, index, mark)
        else:
            # They take part of an axis that the others make.
            later.append((index, mark))
    limit(axes, plot)
    kinds = list(dict.fromkeys(each.label for _, each in later if isinstance(each, Band)))
    for index, each in later:
        if isinstance(each, Band):
            colour = palette.BANDS[kinds.index(each.label) % len(palette.BANDS)]
            handles.append(_band(axes, index, each, colour))
        else:
            handles.append(_rule(axes, index, each))
    axes.set_xlim(plot.x.low, plot.x.high)
    axes.set_ylim(plot.y.low, plot.y.high)
    return handles


def legend(figure: Figure, handles: Sequence[Artist]) -> None:
    """Above the plot, where it hides nothing; none where there is only one thing to name."""
    named = {str(handle.get_label()): handle for handle in handles}
    if len(named) < 2:
        return
    longest = max(len(name) for name in named) + _SIGN_CHARACTERS
    figure.legend(
        list(named.values()),
        list(named),
        loc="outside upper left",
        ncols=max(1, min(len(named), _LEGEND_CHARACTERS // longest)),
        frameon=False,
        labelcolor=palette.marker(palette.INK),
        borderpad=0.55,
        columnspacing=1.6,
        handlelength=1.8,
    )


def _line(
    axes: Axes, index: int, mark: Line, colours: Colours, again: bool, over_heat: bool
) -> Artist:
    colour = palette.marker(colours[mark.label])
    dash = "--" if mark.dashed else (":" if again else "-")
    if mark.style == "points" or np.count_nonzero(np.isfinite(mark.y)) == 1:
        step = -(-len(mark.x) // _POINTS_MAX) or 1
        look: dict[str, Any] = {
            "linestyle": "none",
            "marker": "o",
            "markersize": 4.5,
            "markeredgewidth": 0,
        }
        (drawn,) = axes.plot(mark.x[::step], mark.y[::step], color=colour, **look)
    else:
        steps = "steps-post" if mark.style == "step" else "default"
        if over_heat:
            ground = palette.marker(palette.PAPER)
            axes.plot(mark.x, mark.y, color=ground, lw=4, drawstyle=steps)
        (drawn,) = axes.plot(
            mark.x,
            mark.y,
            color=colour,
            linestyle=dash,
            drawstyle=steps,
            linewidth=1.3 if mark.dashed else 1.9,
            solid_capstyle="round",
            solid_joinstyle="round",
        )
    drawn.set_label(mark.label)
    drawn.set_gid(gid_of(index))
    return drawn


def _bars(axes: Axes, index: int, mark: Bars, beside: Sequence[Bars], colours: Colours) -> Artist:
    width = 0.8 / len(beside)
    place = [each is mark for each in beside].index(True)
    middles = np.arange(len(mark.y)) + (place - (len(beside) - 1) / 2) * width
    colour = palette.marker(colours[mark.label])
    drawn = axes.bar(middles, mark.y, width * 0.94, color=colour)
    for number_, patch in enumerate(drawn.patches):
        patch.set_gid(f"{gid_of(index)}{number_}")
    if sum(len(each.y) for each in beside) <= _VALUES_MAX:
        for x, y in zip(middles, mark.y, strict=True):
            if np.isfinite(y):
                axes.annotate(
                    number(float(y)),
                    (x, y),
                    (0, 2),
                    textcoords="offset points",
                    ha="center",
                    va="bottom",
                    fontsize=8,
                    color=palette.marker(palette.MUTED),
                )
    return Patch(color=colour, label=mark.label)


def _heat(figure: Figure, axes: Axes, index: int, mark: HeatMap) -> None:
    shown = mark.z[np.isfinite(mark.z)]
    low, high = (float(shown.min()), float(shown.max())) if shown.size else (0.0, 1.0)
    # Of shares, what is far below the others is as good as none.
    wide = mark.unit not in _SHARES and low > 0 and high / low > _WIDE
    norm = LogNorm(low, high) if wide else Normalize(low, high)
    mesh = axes.pcolormesh(
        mark.x,
        mark.y,
        np.ma.masked_invalid(mark.z),
        cmap=colormaps["cividis"].resampled(_LEVELS),
        norm=norm,
        rasterized=_is_image(mark),
        snap=True,
    )
    mesh.set_gid(gid_of(index) + CELLS)
    bar = figure.colorbar(mesh, ax=axes, pad=0.02, fraction=0.06)
    bar.outline.set_visible(False)
    ink, muted = palette.marker(palette.INK), palette.marker(palette.MUTED)
    bar.ax.tick_params(which="both", colors=muted, labelcolor=ink, length=2, width=0.6)
    if isinstance(norm, LogNorm):
        log_ticks(bar.ax.yaxis)
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: tick(value)))
    unit = f", {mark.unit}" if mark.unit else ""
    axes.set_title(f"shade: {mark.label}{unit}", loc="right", color=muted, fontsize=9, pad=8)


def _band(axes: Axes, index: int, mark: Band, shade: palette.Colour) -> Artist:
    colour = palette.marker(shade)
    start = mark.start
    if axes.get_xscale() == "log":
        start = max(start, axes.get_xlim()[0])
    drawn = axes.axvspan(start, mark.stop, color=colour, alpha=0.13, lw=0, zorder=0.5)
    drawn.set_gid(gid_of(index))
    return Patch(color=colour, alpha=0.25, lw=0, label=mark.label)


def _rule(axes: Axes, index: int, mark: Rule) -> Artist:
    look: dict[str, Any] = {
        "color": palette.marker(palette.INK),
        "linewidth": 0.9,
        "linestyle": (0, (1.5, 2.5)),
    }
    draw = axes.axhline if mark.axis == "y" else axes.axvline
    drawn: Line2D = draw(mark.at, **look)
    drawn.set_label(mark.label)
    drawn.set_gid(gid_of(index))
    return drawn
