"""docs/fleet.md says what the models say."""

from __future__ import annotations

import json
import re
from pathlib import Path

import fleet_page
import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "fleet.md"

NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?(?:e[+-]\d+)?")

pytestmark = pytest.mark.timeout(300)


def test_the_answers_of_the_page_are_those_of_a_run(run_of_all: Path) -> None:
    """Other processors may round otherwise, and then a simulation goes another way now and then."""
    summary = json.loads((run_of_all / "summary.json").read_text())
    made = fleet_page.section(summary)
    written = PAGE.read_text().partition(fleet_page.BEGIN)[2].partition(fleet_page.END)[0]
    assert words(written) == words(made), "out of date: run scripts/gen-fleet-docs"
    # The column of errors is nearly nothing, and so says nothing relative to itself.
    conclusions = [text.partition("| scenario |")[0] for text in (written, made)]
    ours, theirs = (numbers(text) for text in conclusions)
    assert ours == pytest.approx(theirs, rel=0.05), "out of date: run scripts/gen-fleet-docs"


def test_every_plot_that_the_page_shows_is_there() -> None:
    shown = re.findall(r"!\[.*?\]\((.*?)\)", PAGE.read_text())
    assert len(shown) > 10
    assert [path for path in shown if not (PAGE.parent / path).is_file()] == []


def words(text: str) -> list[str]:
    """Lines may break elsewhere where a number has a digit more."""
    return NUMBER.sub("#", text).split()


def numbers(text: str) -> list[float]:
    return [float(each.replace(",", "")) for each in NUMBER.findall(text)]
