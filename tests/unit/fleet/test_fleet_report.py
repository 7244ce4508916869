"""Reports: the same bytes for the same answer, nothing from elsewhere, and all text as text."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from fleet.answer import Answer, ask
from fleet.catalogue import find
from fleet.outcome import Axis, Band, Bars, HeatMap, Line, Mark, Plot, Rule
from fleet.report import palette
from fleet.report.axes import tick
from fleet.report.page import answer_page, command, run_page, section
from fleet.report.svg import colours_of, draw, stand_alone

MM1 = str(Path(__file__).with_name("mm1.py"))


@pytest.fixture(scope="module")
def answer() -> Answer:
    return ask(MM1, find(MM1), None, {"load": 0.9}, 1, lambda done, what: None)


@pytest.fixture(scope="module")
def document(answer: Answer) -> str:
    return answer_page(section(answer))


class Elements(HTMLParser):
    """Every start tag with its attributes, and that what is opened is closed."""

    _VOID = frozenset({"meta", "link", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in self._VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag


def plot_of(*marks: Mark, x: Axis | None = None, y: Axis | None = None) -> Plot:
    return Plot("p", "Title", "Caption", x or Axis("x", "s"), y or Axis("y", "ms"), marks)


def drawn(plot: Plot) -> ElementTree.Element:
    return ElementTree.fromstring(draw(plot, colours_of([plot]), "t").svg)


def parts(svg: ElementTree.Element, number: int) -> list[ElementTree.Element]:
    """The groups of a mark that have something in them."""
    return [each for each in svg.iter() if each.get("data-mark") == str(number) and len(each)]


# --- the page -------------------------------------------------------------------------------------


def test_the_same_answer_gives_the_same_bytes(answer: Answer, document: str) -> None:
    assert answer_page(section(answer)) == document


def test_nothing_is_loaded_from_anywhere_and_no_script_runs(document: str) -> None:
    elements = Elements(document)
    assert not {"script", "iframe", "object", "embed", "img"} & {tag for tag, _ in elements.found}
    for tag, attributes in elements.found:
        for name in ("src", "href", "xlink:href"):
            target = attributes.get(name)
            assert target is None or target.startswith(("#", "data:")), (tag, target)
    assert "@import" not in document
    assert not re.findall(r"url\((?!#)", document)


def test_ids_are_there_once_and_what_is_referred_to_is_there(answer: Answer) -> None:
    """Also where several scenarios share a page."""
    short = replace(answer, outcome=replace(answer.outcome, plots=answer.outcome.plots[:2]))
    text = run_page([section(short), section(replace(short, scenario="other"))])
    ids = [attributes["id"] for _, attributes in Elements(text).found if attributes.get("id")]
    assert len(set(ids)) == len(ids)
    referred = set(re.findall(r"(?:url\(#|href=\"#)([^)\"]+)", text))
    assert {"mm1", "other"} < referred <= set(ids)
    labels = re.findall(r"aria-labelledby=\"([^\"]+)\"", text)
    assert {each for label in labels for each in label.split()} <= set(ids)


def test_text_is_escaped_wherever_it_stands(document: str) -> None:
    assert "&lt;on average&gt;" in document
    assert "drawn &lt;&amp; counted&gt;" in document
    assert "A note &amp; more." in document
    assert "<on average>" not in document
    assert "<& counted" not in document


def test_it_has_conclusion_figures_checks_parameters_and_the_command_that_makes_it(
    answer: Answer, document: str
) -> None:
    assert document.index("At 90% load") < document.index("<figure>")
    for text in ("92.1", "Kleinrock", "a disk&#x27;s read", "closed form", "2,500,000,000"):
        assert text in document
    assert command(answer) == f"keyplane fleet run {MM1} --seed 1 --load 0.9"
    assert command(answer) in document


def test_tables_name_their_columns_and_rows(document: str) -> None:
    heads = [attributes for tag, attributes in Elements(document).found if tag == "th"]
    assert {attributes["scope"] for attributes in heads} == {"col", "row"}


def test_each_plot_says_its_name_and_how_many_marks_it_has(answer: Answer, document: str) -> None:
    found = {
        attributes["data-plot"]: attributes
        for tag, attributes in Elements(document).found
        if tag == "svg"
    }
    assert {name: int(each["data-marks"] or 0) for name, each in found.items()} == {
        plot.name: len(plot.marks) for plot in answer.outcome.plots
    }
    assert all(each["role"] == "img" for each in found.values())


# --- plots ----------------------------------------------------------------------------------------

X = np.arange(1.0, 6.0)


@pytest.mark.parametrize(
    "plot",
    [
        plot_of(Line("a", X, X)),
        plot_of(Line("a", X, X, "step", dashed=True), Line("b", X, X, "points")),
        plot_of(Line("one point", X[:1], X[:1])),
        plot_of(Line("flat", X, np.zeros(5)), Rule("far above", 9.0), Band("late", 4.0, 9.0)),
        plot_of(Line("a", X, X), Rule("r", 3.0, "x"), x=Axis("x", log=True)),
        plot_of(Line("a", X, X), Band("from zero", 0.0, 2.0), x=Axis("x", log=True)),
        plot_of(Bars("a", X[:2]), Bars("b", X[:2]), x=Axis("x", ticks=("m", "n"))),
        plot_of(Bars("a", X), y=Axis("y", log=True)),
        plot_of(HeatMap("h", "ms", X, X, np.ones((4, 4)))),
        plot_of(HeatMap("h", "ms", X, X, np.geomspace(1, 1e6, 16).reshape(4, 4))),
        plot_of(HeatMap("h", "", X, X, np.full((4, 4), -1.0)), Line("edge", X, X)),
        plot_of(HeatMap("h", "", np.arange(121.0), np.arange(101.0), np.ones((100, 120)))),
        plot_of(Line("a", np.arange(1e5), np.sin(np.arange(1e5)))),
        plot_of(Line("gaps", X, np.array([1, np.nan, 3, 4, np.inf]))),
    ],
    ids=range(14),
)
def test_each_mark_of_a_plot_is_drawn_and_can_be_found(plot: Plot) -> None:
    svg = drawn(plot)
    for number in range(len(plot.marks)):
        assert parts(svg, number), plot.marks[number]


def test_a_line_without_numbers_is_not_drawn_at_all() -> None:
    """Which is what a browser's test of reports looks for."""
    svg = drawn(plot_of(Line("a", X, X), Line("none", X, np.full(5, np.nan))))
    (group,) = parts(svg, 1) or [ElementTree.Element("g")]
    assert not [path for path in group.iter() if path.get("d")]


def test_axes_have_their_units_and_legends_their_names() -> None:
    svg = drawn(plot_of(Line("one $x$", X, X), Line("two", X, 2 * X)))
    texts = {"".join(each.itertext()) for each in svg.iter() if each.tag.endswith("text")}
    assert {"x, s", "y, ms", "one $x$", "two"} <= texts


def test_colours_are_variables_with_a_default_and_markers_are_gone() -> None:
    text = draw(plot_of(Line("a", X, X)), {"a": palette.SERIES[0]}, "t").svg
    assert "stroke: var(--series-1, #0072b2)" in text
    assert "#fedc" not in text
    assert "#000000" not in text


def test_a_label_has_its_colour_in_every_plot() -> None:
    first = plot_of(Line("a", X, X), Line("b", X, X))
    second = plot_of(Bars("b", X), Bars("c", X))
    colours = colours_of([first, second])
    assert [colours[label].name for label in "abc"] == ["series-1", "series-2", "series-3"]


def test_more_labels_than_colours_share_one_where_they_are_never_side_by_side() -> None:
    names = [str(number) for number in range(len(palette.SERIES) + 1)]
    first = plot_of(*(Line(name, X, X) for name in names[:-1]))
    second = plot_of(Line(names[0], X, X), Line(names[-1], X, X))
    colours = colours_of([first, second])
    assert len({colours[name] for name in names[:-1]}) == len(palette.SERIES)
    assert colours[names[-1]] != colours[names[0]]
    assert "stroke-dasharray" not in draw(second, colours, "t").svg


def test_more_labels_than_colours_begin_again_with_dots() -> None:
    labels = [f"design {number}" for number in range(len(palette.SERIES) + 1)]
    plot = plot_of(*(Line(label, X, X * number) for number, label in enumerate(labels, 1)))
    (last,) = parts(drawn(plot), len(labels) - 1)
    style = next(path.get("style", "") for path in last.iter() if path.get("d"))
    assert "var(--series-1" in style
    assert "stroke-dasharray" in style


def test_few_cells_are_vectors_and_many_are_one_image() -> None:
    few = drawn(plot_of(HeatMap("h", "", X, X, np.arange(16.0).reshape(4, 4))))
    (cells,) = parts(few, 0)
    assert len([each for each in cells.iter() if each.tag.endswith("path")]) == 16
    edges = np.arange(151.0)
    many = draw(plot_of(HeatMap("h", "", edges, edges, np.ones((150, 150)))), {}, "t").svg
    assert "data:image/png" in many
    assert len(many) < 200_000


@pytest.mark.parametrize(("unit", "ticks"), [("ms", "10⁻⁶"), ("fraction", "0.2")])
def test_shades_go_by_ratio_where_numbers_do_and_shares_do_not(unit: str, ticks: str) -> None:
    cells = np.geomspace(1e-8, 1, 16).reshape(4, 4)
    svg = drawn(plot_of(HeatMap("h", unit, X, X, cells)))
    assert ticks in {"".join(each.itertext()) for each in svg.iter() if each.tag.endswith("text")}


def test_a_file_of_its_own_has_ground_title_and_both_colour_schemes() -> None:
    plot = plot_of(Line("a", X, X))
    text = stand_alone(plot, colours_of([plot]), "t")
    root = ElementTree.fromstring(text)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert "prefers-color-scheme:dark" in text
    assert 'fill="var(--paper' in text
    texts = {
        each.text: float(each.get("y", 0)) for each in root.iter() if each.tag.endswith("}text")
    }
    assert min(texts, key=lambda text: texts[text]) == "Title"
    assert texts["Title"] < 0
    # Room for it, above the rest.
    assert root.get("viewBox") == "0 -20 518.4 272"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *((0.0, "0"), (0.001, "0.001"), (-20.0, "−20"), (250_000.0, "250,000")),
        *((1e6, "10⁶"), (2.5e7, "2.5·10⁷"), (1e-9, "10⁻⁹")),
    ],
)
def test_a_tick_is_written_so(value: float, text: str) -> None:
    assert tick(value) == text


# --- colours --------------------------------------------------------------------------------------


def luminance(colour: str) -> float:
    """WCAG 2.2, relative luminance."""
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_lines_stand_out_from_the_ground(scheme: str) -> None:
    """WCAG 2.2: 4.5 for text (1.4.3), 3 for what is drawn (1.4.11)."""
    ground = getattr(palette.PAPER, scheme)
    for colour in (palette.INK, palette.MUTED, palette.GOOD, palette.BAD):
        assert contrast(getattr(colour, scheme), ground) >= 4.5, colour
    for colour in palette.SERIES:
        assert contrast(getattr(colour, scheme), ground) >= 3, colour
