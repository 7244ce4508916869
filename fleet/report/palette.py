"""Colours of pages and plots, by name, in light and dark.

Plots are drawn once, in marker colours that nothing else uses; each is then replaced by the
variable of its name, and the page says what the variable is in light, in dark and on paper.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

FONT = 'ui-sans-serif, system-ui, "Segoe UI", Roboto, Helvetica, Arial, sans-serif'


@dataclass(frozen=True, slots=True)
class Colour:
    name: str
    light: str
    dark: str

    def used(self) -> str:
        """In CSS; with what to take where variables are not understood."""
        return f"var(--{self.name}, {self.light})"


# Told apart by the colour-blind, too: after M. Okabe and K. Ito, "Color Universal Design", 2008,
# darker on paper and lighter on black than there, so that thin lines stand out from either.
SERIES = (
    Colour("series-1", "#0072b2", "#4db1ec"),
    Colour("series-2", "#d55e00", "#ff8f4d"),
    Colour("series-3", "#008a64", "#3fd3a7"),
    Colour("series-4", "#b0528c", "#e8a0c9"),
    Colour("series-5", "#a87400", "#f1bd4b"),
    Colour("series-6", "#3b93c7", "#9bd6f9"),
    Colour("series-7", "#5c636b", "#b4bbc3"),
)

INK = Colour("ink", "#1d2126", "#e6e8eb")
MUTED = Colour("muted", "#5f6872", "#9aa4af")
GRID = Colour("grid", "#e3e6ea", "#2f353c")
PAPER = Colour("paper", "#ffffff", "#14171a")
PANEL = Colour("panel", "#f6f7f9", "#1c2025")
GOOD = Colour("good", "#00724f", "#4fd6a8")
BAD = Colour("bad", "#b3261e", "#ff8a80")
# Pale, behind everything: of stretches of time that are told apart.
BANDS = (
    Colour("band-1", "#d55e00", "#ff8f4d"),
    Colour("band-2", "#5b6b7d", "#aab8c8"),
    Colour("band-3", "#8a5cb8", "#c6a2ee"),
)

ALL = (*SERIES, INK, MUTED, GRID, PAPER, PANEL, GOOD, BAD, *BANDS)

_FIRST_MARKER = 0xFEDC00


def marker(colour: Colour) -> str:
    """What it is drawn in, before it is replaced."""
    return f"#{_FIRST_MARKER + ALL.index(colour):06x}"


def replace_markers(svg: str) -> str:
    for colour in ALL:
        svg = svg.replace(marker(colour), colour.used())
    return svg


def variables() -> str:
    """CSS: light, dark where the reader's screen is, and light on paper whatever the screen is."""
    dark = _rule((colour.name, colour.dark) for colour in ALL)
    light = _rule((colour.name, colour.light) for colour in ALL)
    return (
        f":root{{color-scheme:light dark;{light}}}\n"
        f"@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}\n"
    )


def _rule(values: Iterable[tuple[str, str]]) -> str:
    return "".join(f"--{name}:{value};" for name, value in values)
