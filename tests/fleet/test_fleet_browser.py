"""Reports as a real browser shows them: every plot has its data, nothing comes from elsewhere."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from browser import look_at, picture_of
from commands import keyplane

from fleet.scenario import NAMES

ROOT = Path(__file__).resolve().parents[2]
MM1 = str(ROOT / "tests" / "unit" / "fleet" / "mm1.py")

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def report(home: Path) -> Path:
    return keyplane(home, "run", MM1)


def check(found: dict[str, Any]) -> None:
    assert found["errors"] == []
    assert found["refused"] == []
    assert found["loaded"] == []
    assert found["width"] <= found["viewport"]
    assert found["plots"]
    for plot in found["plots"]:
        assert plot["marks"], plot["name"]
        assert all(plot["marks"]), f"{plot['name']}: a mark of it shows nothing: {plot['marks']}"
        assert plot["width"] > 600
        assert plot["height"] > 200
        assert 0 <= plot["left"] < plot["right"] <= found["viewport"]
        assert len(plot["texts"]) > 5
        # CSS pixels of a line of text: what can be read.
        assert plot["font"] >= 11


def test_every_plot_of_a_run_has_its_data(report: Path) -> None:
    found = look_at(report)
    check(found)
    marks = {plot["name"]: plot["marks"] for plot in found["plots"]}
    assert {name: len(each) for name, each in marks.items()} == {
        "times": 4,
        "load": 3,
        "parts": 2,
        "map": 1,
        "queue": 1,
    }
    # Points, bars and cells one by one.
    assert marks["times"][1] == 20
    assert marks["parts"] == [3, 3]
    assert marks["map"] == [8 * 19]
    assert found["tables"] == 4


def test_every_plot_of_every_scenario_has_its_data(run_of_all: Path) -> None:
    """The report of `run all`, whose last line of JSON has what was checked."""
    found = look_at(run_of_all / "report.html")
    check(found)
    summary = json.loads((run_of_all / "summary.json").read_text())
    assert [row["scenario"] for row in summary["scenarios"]] == list(NAMES)
    for row in summary["scenarios"]:
        assert row["error"] <= row["tolerance"], row
    assert len(found["plots"]) >= 2 * len(NAMES)


def test_every_plot_of_a_sweep_has_its_data(home: Path) -> None:
    words = ("--vary", "load=0.1:0.9:5", "--vary", "service_ms=1:9:4:log", "--workers", "1")
    found = look_at(keyplane(home, "sweep", MM1, *words))
    check(found)
    assert found["plots"][0]["marks"] == [20]
    words = ("--figure", "p99", "--minimise", "--vary", "load=0.1:0.9", "--points", "9")
    found = look_at(keyplane(home, "optimise", MM1, *words, "--workers", "1"))
    check(found)
    assert found["plots"][0]["marks"] == [9, 1]


def lightness(colour: str) -> float:
    red, green, blue = (int(each) for each in re.findall(r"\d+", colour)[:3])
    return (0.2126 * red + 0.7152 * green + 0.0722 * blue) / 255


def test_the_page_is_light_in_a_light_browser_and_dark_in_a_dark_one(
    report: Path, tmp_path: Path
) -> None:
    light, dark = look_at(report), look_at(report, dark=True)
    assert lightness(light["paper"]) > 0.9 > 0.2 > lightness(light["ink"])
    assert lightness(dark["paper"]) < 0.1 < 0.8 < lightness(dark["ink"])
    check(dark)
    pictures = [picture_of(report, tmp_path / f"{each}.png", dark=each) for each in (False, True)]
    assert pictures[0].read_bytes() != pictures[1].read_bytes()


def test_an_empty_plot_and_a_picture_from_elsewhere_would_be_noticed(
    report: Path, tmp_path: Path
) -> None:
    """The probe can say no."""
    text = report.read_text()
    marked = re.search(r'<g data-mark="0" id="mm1-queue-mark-0-">.*?</g>', text, re.DOTALL)
    assert marked is not None
    worse = tmp_path / "worse.html"
    worse.write_text(
        text.replace(marked[0], "").replace(
            "</main>", '<img src="http://127.0.0.1:9/x.png" alt=""></main>'
        )
    )
    found = look_at(worse)
    assert {plot["name"]: plot["marks"] for plot in found["plots"]}["queue"] == [0]
    assert found["refused"] == ["http://127.0.0.1:9/x.png"]
    with pytest.raises(AssertionError):
        check(found)
