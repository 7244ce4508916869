"""Writes reports and plots to files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fleet.answer import Answer
from fleet.report.page import Section, answer_page, run_page
from fleet.report.svg import colours_of, stand_alone
from fleet.runs import REPORT
from wire.files import replace_file


def write_report(directory: Path, sections: Sequence[Section]) -> Path:
    """One document of all of them. Returns its path."""
    path = directory / REPORT
    text = answer_page(sections[0]) if len(sections) == 1 else run_page(sections)
    replace_file(path, text.encode())
    return path


def write_plots(directory: Path, answer: Answer) -> list[Path]:
    """A file for each plot, `<scenario>-<plot>.svg`."""
    directory.mkdir(parents=True, exist_ok=True)
    colours = colours_of(answer.outcome.plots)
    paths = []
    for plot in answer.outcome.plots:
        name = f"{answer.scenario}-{plot.name}"
        path = directory / f"{name}.svg"
        replace_file(path, (stand_alone(plot, colours, name) + "\n").encode())
        paths.append(path)
    return paths
