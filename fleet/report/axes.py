"""What stands around the marks of a plot: scales, ticks, labels with units, a quiet grid."""

from __future__ import annotations

import math
import textwrap
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.axis import Axis as DrawnAxis
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from fleet.format import number
from fleet.outcome import Axis, Bars, HeatMap, Plot
from fleet.report import palette

WIDTH_IN = 7.2

# Characters of a tick's name on one line, where there are few of them.
_TICK_CHARACTERS = 84

_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def dress(axes: Axes, plot: Plot) -> None:
    """Before anything is drawn, so that what is drawn is in the scale it is shown in."""
    ink, muted, grid = (
        palette.marker(colour) for colour in (palette.INK, palette.MUTED, palette.GRID)
    )
    axes.set_facecolor("none")
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(muted)
    axes.spines["bottom"].set_linewidth(0.8)
    axes.tick_params(which="both", colors=muted, labelcolor=ink, length=3, width=0.6)
    axes.tick_params(axis="y", which="both", length=0)
    has_bars = any(isinstance(mark, Bars) for mark in plot.marks)
    if not any(isinstance(mark, HeatMap) for mark in plot.marks):
        axes.grid(axis="y", color=grid, linewidth=0.7)
        if not has_bars:
            axes.grid(axis="x", color=grid, linewidth=0.7)
    axes.set_axisbelow(True)
    # Bars stand on zero, which a logarithmic scale has not: there they are cut, not left out.
    _scale(axes, "x", plot.x, "mask")
    _scale(axes, "y", plot.y, "clip" if has_bars else "mask")
    axes.set_xlabel(_label(plot.x), color=muted, labelpad=6)
    # Read without turning one's head.
    axes.set_title(_label(plot.y), loc="left", color=muted, fontsize=9, pad=8)


def limit(axes: Axes, plot: Plot) -> None:
    """After everything is drawn: what was asked for, else what the marks need."""
    if not plot.x.log and not any(isinstance(mark, Bars) for mark in plot.marks):
        axes.margins(x=0.01)
    bottom, top = axes.get_ylim()
    # A scale that all but begins at zero begins there.
    if plot.y.low is None and not plot.y.log and 0 < bottom < 0.3 * top:
        axes.set_ylim(bottom=0)
    # Nothing is below zero: only as much room as a line at zero takes.
    if plot.y.low is None and not plot.y.log and bottom < 0 <= axes.dataLim.y0:
        axes.set_ylim(bottom=-0.012 * top)
    axes.set_xlim(plot.x.low, plot.x.high)
    axes.set_ylim(plot.y.low, plot.y.high)
    for axis, drawn in ((plot.x, axes.xaxis), (plot.y, axes.yaxis)):
        if axis.log and not axis.ticks:
            log_ticks(drawn)


def log_ticks(drawn: DrawnAxis) -> None:
    """Powers of ten, and steps between them where there are few."""
    low, high = sorted(drawn.get_view_interval())
    decades = math.log10(high / low) if low > 0 else 9.0
    between = (1.0, 2.0, 5.0) if decades < 2.2 else (1.0,)
    drawn.set_major_locator(LogLocator(10, subs=between, numticks=9))
    drawn.set_minor_locator(NullLocator())


def tick(value: float) -> str:
    """1,000 and 0.001 as they are, what is far from one as a power of ten."""
    if value == 0:
        return "0"
    size = math.floor(math.log10(abs(value)) + 1e-9)
    if -4 <= size < 6:
        return number(value).replace("-", "−")
    head = value / 10.0**size
    power = f"10{str(size).translate(_SUPERSCRIPT)}"
    return power if math.isclose(head, 1) else f"{number(head)}·{power}"


def _label(axis: Axis) -> str:
    return f"{axis.label}, {axis.unit}" if axis.unit else axis.label


def _scale(axes: Axes, which: Literal["x", "y"], axis: Axis, nonpositive: str) -> None:
    drawn: DrawnAxis = axes.xaxis if which == "x" else axes.yaxis
    if axis.ticks:
        _name_ticks(drawn, axis.ticks, which)
        return
    if axis.log:
        set_scale = axes.set_xscale if which == "x" else axes.set_yscale
        set_scale("log", nonpositive=nonpositive)
    drawn.set_major_formatter(FuncFormatter(lambda value, _: tick(value)))


def _name_ticks(drawn: DrawnAxis, names: tuple[str, ...], which: str) -> None:
    width = max(10, _TICK_CHARACTERS // len(names)) if which == "x" else 24
    drawn.set_major_locator(FixedLocator(range(len(names))))
    drawn.set_minor_locator(NullLocator())
    drawn.set_ticklabels([textwrap.fill(name, width) for name in names])
    if which == "x" and len(names) > 9:
        drawn.set_tick_params(labelrotation=35)
