"""Sweeps and searches: which points there are, that none is computed twice, and what is found."""

from __future__ import annotations

import json
import math
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.outcome import HeatMap, Line
from fleet.parameters import Parameter
from fleet.report.sweep_plots import edges, plots_of, search_plot
from fleet.sweep.grid import POINTS_MAX, Values, Vary, grid, parse_vary
from fleet.sweep.kept import POINTS, KeptPoints
from fleet.sweep.local import local
from fleet.sweep.point import Numbered, Point, Task, evaluate
from fleet.sweep.search import Search, halton
from keyplane.cli.main import main
from keyplane.model.errors import KeyplaneError

MM1 = str(Path(__file__).with_name("mm1.py"))


def named(name: str, whole: bool = False, low: float = -1e6, high: float = 1e6) -> Parameter:
    return Parameter(name, 1 if whole else 1.0, whole, "ms", low, high, f"{name}.", "chosen", None)


def point(number: int, values: Mapping[str, float], **figures: float) -> Point:
    return Point(number, values, figures, dict.fromkeys(figures, "ms"), True, 0.1)


# --- grids ----------------------------------------------------------------------------------------


def test_a_grid_has_every_combination_ends_included() -> None:
    varied = [
        parse_vary("a=0:1:3", needs_steps=True),
        parse_vary("b-c=1:100:3:log", needs_steps=True),
    ]
    points = grid(varied, [named("a"), named("b_c")])
    assert [tuple(each.values()) for each in points] == [
        (a, pytest.approx(b)) for a in (0.0, 0.5, 1.0) for b in (1.0, 10.0, 100.0)
    ]


def test_a_whole_parameter_has_whole_values_each_once() -> None:
    points = grid([Vary("n", 1, 4, 9, False)], [named("n", whole=True)])
    assert [each["n"] for each in points] == [1, 2, 3, 4]
    assert all(isinstance(each["n"], int) for each in points)


@given(
    low=st.floats(1e-3, 1e3),
    ratio=st.floats(1.001, 1e3),
    steps=st.integers(2, 50),
    log=st.booleans(),
)
def test_values_rise_and_stay_between_the_ends(
    low: float, ratio: float, steps: int, log: bool
) -> None:
    high = low * ratio
    values = Vary("a", low, high, steps, log).values(named("a"))
    assert list(values) == sorted(set(values))
    assert values[0] == low
    assert values[-1] == pytest.approx(high)
    assert all(low <= value <= high for value in values)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        *((text, "give NAME=LOW") for text in ("", "a", "a=", "a=1:2", "a=1:x:3", "=1:2:3")),
        *((text, "give NAME=LOW") for text in ("a=2:1:3", "a=1:nan:3", "a=1:2:2.5", "a=1:2:3:4")),
        ("a=1:2:1", "two steps"),
        ("a=0:1:3:log", "begins above zero"),
    ],
)
def test_what_is_no_range_is_refused(text: str, message: str) -> None:
    with pytest.raises(KeyplaneError, match=message):
        parse_vary(text, needs_steps=True)


@pytest.mark.parametrize(
    ("varied", "message"),
    [
        ([], "give --vary"),
        ([Vary("b", 0, 1, 2, False)], "no parameter b; there are a"),
        ([Vary("a", 0, 1, 2, False)] * 2, "varied twice"),
        ([Vary("a", 0, 9, 2, False)], "--a is 9"),
        ([Vary("a", 0, 1, POINTS_MAX + 1, False)], "points; 100,000 are the most"),
    ],
)
def test_what_is_no_grid_is_refused(varied: list[Vary], message: str) -> None:
    with pytest.raises(KeyplaneError, match=message):
        grid(varied, [named("a", low=0, high=1)])


# --- points ---------------------------------------------------------------------------------------


def task(path: str = MM1, **chosen: float) -> Task:
    return Task(path, 1, chosen, None)


def test_a_point_is_what_a_run_would_answer() -> None:
    found = evaluate(task(service_ms=1.0), 3, {"load": 0.9})
    assert (found.number, found.error, found.held) == (3, "", True)
    assert found.figures["mean time"] == pytest.approx(10.0)
    assert found.units["mean time"] == "ms"


def test_an_error_in_the_scenario_is_the_points(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MM1_FAILS", "1")
    found = evaluate(task(), 0, {"load": 0.5})
    assert "told to fail" in found.error
    assert not found.held
    assert math.isnan(found.figure("mean time"))


def computed(points: Iterable[Numbered], calls: list[Mapping[str, float]]) -> Generator[Point]:
    for number, values in points:
        calls.append(values)
        yield point(number, values, f=values["a"] ** 2)


def test_what_is_kept_is_not_computed_again_not_even_after_a_torn_line(tmp_path: Path) -> None:
    wanted = [{"a": float(each)} for each in range(4)]
    calls: list[Mapping[str, float]] = []
    first = KeptPoints(tmp_path).evaluated(wanted, lambda points: computed(points, calls))
    assert next(first).values == {"a": 0.0}
    assert next(first).values == {"a": 1.0}
    first.close()
    with (tmp_path / POINTS).open("a") as file:
        file.write('{"number": 2, "val')
    kept = KeptPoints(tmp_path)
    assert len(kept) == 2
    again = list(kept.evaluated(wanted, lambda points: computed(points, calls)))
    assert [each.figure("f") for each in again] == [0.0, 1.0, 4.0, 9.0]
    assert [each["a"] for each in calls] == [0.0, 1.0, 2.0, 3.0]
    assert [each.number for each in kept.all()] == [0, 1, 2, 3]
    assert len(KeptPoints(tmp_path)) == 4


def test_damage_is_told_from_a_line_that_was_cut_off(tmp_path: Path) -> None:
    (tmp_path / POINTS).write_text('{"number": 2}\n')
    with pytest.raises(KeyplaneError, match="damaged"):
        KeptPoints(tmp_path)


def test_parquet_has_a_column_for_each_parameter_and_figure_with_units(tmp_path: Path) -> None:
    kept = KeptPoints(tmp_path)
    failed = Point(1, {"a": 2.0}, {}, {}, False, 0.1, "no")
    first = point(0, {"a": 1.0}, f=5.0, a=7.0)
    list(kept.evaluated([{"a": 2.0}, {"a": 1.0}], lambda _: (each for each in (failed, first))))
    table = pq.read_table(kept.write_table([{"a": 1.0}, {"a": 2.0}], {"a": "s"}))
    names = ["point", "a", "f", "figure a", "held", "seconds", "error"]
    assert table.column_names == names
    assert table["a"].to_pylist() == [1.0, 2.0]
    assert table["figure a"].to_pylist()[0] == 7.0
    assert math.isnan(table["f"].to_pylist()[1])
    assert table.schema.field("a").metadata == {b"unit": b"s"}
    assert table.schema.field("f").metadata == {b"unit": b"ms"}


def test_workers_find_what_this_process_finds() -> None:
    points = [(number, {"load": load}) for number, load in enumerate((0.1, 0.5, 0.9))]
    with local(task(), 1) as evaluated:
        alone = sorted(evaluated(points), key=lambda each: each.number)
    with local(task(), 2) as evaluated:
        together = sorted(evaluated(points), key=lambda each: each.number)
    assert [asdict(each) | {"seconds": 0} for each in alone] == [
        asdict(each) | {"seconds": 0} for each in together
    ]


# --- searches -------------------------------------------------------------------------------------


def search(
    cost: Any, varied: Sequence[Vary], budget: int, *, whole: bool = False
) -> tuple[Point | None, list[Values]]:
    asked: list[Values] = []

    def evaluate_all(wanted: Sequence[Values]) -> Iterator[Point]:
        asked.extend(wanted)
        # Out of order, as workers give them.
        for values in reversed(wanted):
            yield point(0, values, f=cost(**values))

    parameters = {each.name: named(each.name, whole) for each in varied}
    found = Search(varied, parameters, lambda each: each.figure("f"), budget, evaluate_all).run()
    return found, asked


@settings(deadline=None)
@given(at=st.tuples(st.floats(-9, 9), st.floats(0.02, 90)))
def test_the_bottom_of_a_bowl_is_found_wherever_it_is(at: tuple[float, float]) -> None:
    varied = [Vary("a", -10, 10, 0, False), Vary("b", 0.01, 100, 0, True)]
    found, asked = search(lambda a, b: (a - at[0]) ** 2 + math.log(b / at[1]) ** 2, varied, 300)
    assert found is not None
    assert len(asked) <= 300
    assert found.values["a"] == pytest.approx(at[0], abs=0.02)
    assert found.values["b"] == pytest.approx(at[1], rel=0.02)


def test_the_best_may_be_at_an_end_and_whole() -> None:
    found, asked = search(lambda n: -n, [Vary("n", 1, 50, 0, False)], 60, whole=True)
    assert found is not None
    assert found.values == {"n": 50}
    assert len({each["n"] for each in asked}) == len(asked)


@given(budget=st.integers(2, 40))
def test_no_search_asks_more_often_than_it_may_nor_twice_the_same(budget: int) -> None:
    varied = [Vary("a", 0, 1, 0, False), Vary("b", 0, 1, 0, False)]
    _, asked = search(lambda a, b: abs(a - b), varied, budget)
    assert 0 < len(asked) <= budget
    assert len({tuple(each.values()) for each in asked}) == len(asked)


def test_points_without_a_number_are_no_best() -> None:
    assert search(lambda a: math.nan, [Vary("a", 0, 1, 0, False)], 10)[0] is None


def test_the_spread_is_even() -> None:
    """Of a low-discrepancy sequence every quarter has a quarter of the points."""
    points = [halton(number, 2) for number in range(1, 65)]
    counts = np.histogram2d(*zip(*points, strict=True), bins=2, range=[[0, 1], [0, 1]])[0]
    assert np.all(np.abs(counts - 16) <= 2)


# --- plots ----------------------------------------------------------------------------------------


def test_one_varied_is_a_line_two_are_a_map_and_three_what_each_does() -> None:
    names = ("a", "b", "c")
    varied = [Vary(name, 1, 2, 2, False) for name in names]
    parameters = {name: named(name) for name in names}
    for count, kind in ((1, [Line]), (2, [HeatMap]), (3, [Line] * 3)):
        asked = grid(varied[:count], [parameters[name] for name in names[:count]])
        points = [point(0, each, f=sum(each.values())) for each in asked]
        plots = plots_of("f", varied[:count], parameters, points)
        assert [type(plot.marks[0]) for plot in plots] == kind
        assert len({plot.name for plot in plots}) == len(plots)
        assert all(plot.y.unit == "ms" for plot in plots)
    (highest, middle, lowest) = plots[0].marks
    assert isinstance(highest, Line)
    assert isinstance(lowest, Line)
    assert highest.y.tolist() == [5.0, 6.0]
    assert lowest.y.tolist() == [3.0, 4.0]
    assert middle.label == "middle"


def test_a_point_that_failed_leaves_a_gap_in_the_map() -> None:
    varied = [Vary("a", 1, 2, 2, False), Vary("b", 1, 100, 2, True)]
    points = [
        point(0, {"a": 1.0, "b": 1.0}, f=1.0),
        Point(1, {"a": 2.0, "b": 1.0}, {}, {}, False, 0),
    ]
    (plot,) = plots_of("f", varied, {each.name: named(each.name) for each in varied}, points)
    (heat,) = plot.marks
    assert isinstance(heat, HeatMap)
    assert heat.z.shape == (1, 2)
    assert np.isnan(heat.z[0, 1])


def test_edges_lie_half_way_between() -> None:
    assert edges([1.0, 2.0, 4.0], False).tolist() == [0.5, 1.5, 3.0, 5.0]
    assert edges([1.0, 100.0], True).tolist() == pytest.approx([0.1, 10.0, 1000.0])
    assert edges([3.0], False).tolist() == [2.5, 3.5]


def test_a_search_is_shown_point_by_point() -> None:
    points = [point(number, {"a": float(number)}, f=9.0 - number) for number in range(3)]
    plot = search_plot("f", points, points[2])
    assert isinstance(plot.marks[0], Line)
    assert plot.marks[0].y.tolist() == [9.0, 8.0, 7.0]


# --- the command line -----------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KEYPLANE_HOME", str(tmp_path))
    return tmp_path


def fleet(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    code = main(["fleet", *arguments, "--json"])
    return code, json.loads(capsys.readouterr().out.splitlines()[-1])


def test_a_sweep_leaves_points_parquet_and_a_report(capsys: pytest.CaptureFixture[str]) -> None:
    vary = ("--vary", "load=0.5:0.9:3", "--vary", "service_ms=1:4:3:log")
    chosen = ("--requests", "200", "--tolerance", "1")
    code, facts = fleet(capsys, "sweep", MM1, *vary, *chosen, "--figure", "p99", "--workers", "1")
    assert code == 0
    assert (facts["points"], facts["computed"], facts["failed"]) == (9, 9, 0)
    assert "P99 is lowest, 9.21 ms, at load 0.5 and service ms 1" in facts["conclusion"]
    table = pq.read_table(facts["table"])
    assert table["p99"].to_pylist()[0] == pytest.approx(2 * math.log(100))
    report = Path(facts["report"]).read_text()
    assert 'data-plot="p99-map"' in report
    assert "--set requests=200" in report
    code, again = fleet(
        capsys, "sweep", MM1, *vary, *chosen, "--figure", "mean time", "--workers", "1", "--resume"
    )
    assert (again["directory"], again["computed"]) == (facts["directory"], 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give --vary"),
        (("--vary", "nodes=1:2:3"), "no parameter nodes"),
        (("--vary", "load=0.1:0.9:3", "--load", "0.5"), "load is varied"),
        (
            ("--vary", "load=0.1:0.9:2", "--figure", "p50", "--workers", "1"),
            "there are mean time, p99",
        ),
    ],
    ids=" ".join,
)
def test_a_sweep_of_what_is_not_there_is_refused(
    arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, facts = fleet(capsys, "sweep", MM1, *arguments)
    assert code == 3
    assert message in facts["error"]["message"]


def test_points_that_fail_are_counted_and_the_others_are_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MM1_FAILS", "1")
    code, facts = fleet(capsys, "sweep", MM1, "--vary", "load=0.5:0.9:3", "--workers", "1")
    assert (code, facts["failed"]) == (1, 3)
    assert "told to fail" in Path(facts["report"]).read_text()


def test_the_best_is_found_and_a_longer_search_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--figure", "p99", "--maximise", "--vary", "load=0.1:0.9", "--workers", "1")
    code, facts = fleet(capsys, "optimise", MM1, *words, "--points", "12")
    assert code == 0
    assert (facts["points"], facts["computed"]) == (12, 12)
    code, more = fleet(capsys, "optimise", MM1, *words, "--points", "40", "--resume")
    assert more["directory"] == facts["directory"]
    assert more["best"]["load"] == pytest.approx(0.9)
    assert more["value"] == pytest.approx(20 * math.log(100))
    assert 0 < more["computed"] < more["points"] <= 40 + 12
    assert "The highest p99 found" in Path(more["report"]).read_text()


@pytest.mark.parametrize(
    "arguments",
    [("--figure", "p99"), ("--minimise",), ("--figure", "p99", "--minimise", "--maximise")],
    ids=" ".join,
)
def test_a_search_says_what_is_best(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    code, facts = fleet(capsys, "optimise", MM1, "--vary", "load=0:0.5", *arguments)
    assert code == 3
    assert "--minimise or --maximise" in facts["error"]["message"]
