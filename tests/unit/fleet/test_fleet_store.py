"""What is kept of an answer is read back as it was."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fleet.answer import CHOSEN, MEASURED, PAPER, Answer, ask
from fleet.catalogue import find
from fleet.outcome import (
    Axis,
    Band,
    Bars,
    Check,
    Figure,
    HeatMap,
    Layer,
    Line,
    Outcome,
    Plot,
    Rule,
    Table,
)
from fleet.scenario import Context, Scenario
from fleet.store import OUTCOME, read_answer, write_answer
from keyplane.model.errors import KeyplaneError

MM1 = str(Path(__file__).with_name("mm1.py"))


def asked(calibration: dict[str, float] | None = None, **chosen: float) -> Answer:
    return ask(MM1, find(MM1), calibration, chosen, 1, lambda done, what: None)


def same(one: Any, other: Any) -> bool:
    """Equal all the way down, NaN to NaN."""
    if isinstance(one, np.ndarray):
        return bool(np.array_equal(one, other, equal_nan=True))
    if dataclasses.is_dataclass(one):
        return type(one) is type(other) and all(
            same(getattr(one, each.name), getattr(other, each.name))
            for each in dataclasses.fields(one)
        )
    if isinstance(one, tuple | list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float) and math.isnan(one):
        return math.isnan(other)
    return bool(one == other)


def test_an_answer_is_read_back_as_it_was(tmp_path: Path) -> None:
    answer = asked(load=0.9)
    write_answer(tmp_path, answer)
    assert same(read_answer(tmp_path), answer)


_NUMBERS = st.floats(allow_nan=True, allow_infinity=True, width=64)


@st.composite
def plots(draw: st.DrawFn) -> Plot:
    count = draw(st.integers(0, 5))
    row = arrays.arrays(np.float64, count, elements=_NUMBERS)
    rows, columns = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    cells = draw(arrays.arrays(np.float64, (rows, columns), elements=_NUMBERS))
    marks = (
        Line("a", draw(row), draw(row), draw(st.sampled_from(["line", "step", "points"])), True),
        Bars("<b>", draw(row)),
        HeatMap("c", "ms", np.arange(columns + 1.0), np.geomspace(1, 9, rows + 1), cells),
        Band("d", 0.0, 1.0),
        Rule("e", 0.5, "x"),
    )
    chosen = tuple(draw(st.lists(st.sampled_from(marks), max_size=4)))
    return Plot("p", "P", "", Axis("x", "s", True, 1.0), Axis("y", ticks=("m", "n")), chosen)


@given(plot=plots(), value=st.floats(allow_infinity=False))
@settings(max_examples=40, deadline=None)
def test_whatever_is_plotted_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, plot: Plot, value: float
) -> None:
    outcome = Outcome(
        [Figure("f", value, "ms", Layer.COHORT)],
        [Check("c", value, 1.0, 0.5, 0.1, "a book")],
        [Table("t", ("n", "w"), ((1.5, "word"),))],
        [plot],
        "So it is.",
        3,
        1e9,
        ["note"],
    )
    scenario = Scenario("s", "S", "?", "", find(MM1).parameters, lambda asked, context: outcome)
    answer = ask("s", scenario, None, {}, 7, lambda done, what: None)
    directory = tmp_path_factory.mktemp("kept")
    write_answer(directory, answer)
    assert same(read_answer(directory), answer)


def test_parquet_has_a_row_for_each_figure_check_and_point(tmp_path: Path) -> None:
    answer = asked()
    write_answer(tmp_path, answer)
    figures = pq.read_table(tmp_path / "figures.parquet").to_pylist()
    assert figures[0] == {
        "scenario": "mm1",
        "name": "mean time",
        "value": pytest.approx(10.0),
        "unit": "ms",
        "layer": "closed",
    }
    checks = pq.read_table(tmp_path / "checks.parquet").to_pylist()
    assert [row["held"] for row in checks] == [True, True]
    series = pq.read_table(tmp_path / "series.parquet").to_pylist()
    cells = [row for row in series if row["plot"] == "map"]
    assert len(cells) == 8 * 19
    assert cells[0]["x_stop"] == cells[1]["x"]
    bars = [row for row in series if row["plot"] == "parts" and row["label"] == "waiting"]
    assert [(row["category"], row["y"]) for row in bars] == [
        ("50 %", 2.0),
        ("80 %", 8.0),
        ("95 %", 38.0),
    ]


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"format": 9}', '{"format": 1}'],
)
def test_a_damaged_one_is_refused_with_what_to_do(content: str, tmp_path: Path) -> None:
    write_answer(tmp_path, asked())
    (tmp_path / OUTCOME).write_text(content)
    with pytest.raises(KeyplaneError, match="run it again"):
        read_answer(tmp_path)


def test_each_parameter_says_what_gave_it_its_value() -> None:
    answer = asked({"service_ms": 3.0, "other": 1.0}, load=0.5)
    assert {each.name: (each.value, each.origin) for each in answer.settings} == {
        "load": (0.5, CHOSEN),
        "service_ms": (3.0, MEASURED),
        "requests": (10_000, PAPER),
        "tolerance": (0.2, PAPER),
    }
    assert answer.preset == MEASURED


@pytest.mark.parametrize("names", [("Times",), ("a/b",), ("",), ("a", "a")])
def test_plots_whose_names_are_no_names_of_files_are_refused(names: tuple[str, ...]) -> None:
    drawn = [Plot(name, "", "", Axis("x"), Axis("y"), ()) for name in names]

    def run(asked: Any, context: Context) -> Outcome:
        return Outcome([], [], [], drawn, "")

    scenario = Scenario("s", "S", "?", "", find(MM1).parameters, run)
    with pytest.raises(KeyplaneError, match="plot"):
        ask("s", scenario, None, {}, 1, lambda done, what: None)
