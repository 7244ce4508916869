"""Where a run leaves what it found."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from keyplane.model.errors import KeyplaneError, Reason
from sim.plan import draw_plan
from sim.rundir import RunDirectory, read_plan, write_plan


def test_a_directory_is_made_when_the_first_thing_is_written(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path, "lite")
    assert list(tmp_path.iterdir()) == []
    directory.add_result({"seed": 1})
    directory.add_result({"seed": 2})
    directory.write_summary({"seeds": 2})
    assert directory.path.parent == tmp_path / "sim"
    assert directory.path.name.endswith("-lite")
    lines = (directory.path / "results.jsonl").read_text().splitlines()
    assert [json.loads(line)["seed"] for line in lines] == [1, 2]
    assert json.loads((directory.path / "summary.json").read_text()) == {"seeds": 2}


def test_latest_points_at_the_run_that_wrote_last(tmp_path: Path) -> None:
    latest = tmp_path / "sim" / "latest"
    for name in ("lite", "gray"):
        directory = RunDirectory(tmp_path, name)
        directory.add_result({})
        assert latest.is_symlink()
        assert latest.resolve() == directory.path.resolve()
    assert sorted(each.name for each in (tmp_path / "sim").iterdir())[-1] == "latest"
    assert len(list((tmp_path / "sim").iterdir())) == 3


def test_runs_that_begin_in_the_same_second_do_not_share_a_directory(tmp_path: Path) -> None:
    """Though none had written anything when the others chose their names."""
    directories = [RunDirectory(tmp_path, "lite") for _ in range(3)]
    for number, directory in enumerate(directories):
        directory.add_result({"seed": number})
    assert len({directory.path for directory in directories}) == 3
    for number, directory in enumerate(directories):
        (line,) = (directory.path / "results.jsonl").read_text().splitlines()
        assert json.loads(line) == {"seed": number}


def test_a_violation_leaves_its_plan_and_what_there_is_to_read(tmp_path: Path) -> None:
    plan = draw_plan(3, "lite")
    directory = RunDirectory(tmp_path, "lite")
    path = directory.write_violation(3, plan, ["I2 does not hold", "  seed 3"])
    assert path.read_text() == "I2 does not hold\n  seed 3\n"
    again = read_plan(path.with_name("seed-3.plan.json"))
    assert (again.seed, again.faults) == (3, plan.faults)


def test_one_plan_makes_one_file(tmp_path: Path) -> None:
    """What is left out is a set, and is written in order."""
    left_out = [f"client-1/0#{number}" for number in range(50)]
    plan = replace(draw_plan(3, "lite"), left_out=frozenset(left_out))
    write_plan(tmp_path / "plan.json", plan)
    written = json.loads((tmp_path / "plan.json").read_text())
    assert written["left_out"] == sorted(left_out)
    assert read_plan(tmp_path / "plan.json").left_out == plan.left_out


def spoilt(path: Path, how: str) -> Path:
    write_plan(path, draw_plan(3, "lite"))
    facts = json.loads(path.read_text())
    match how:
        case "not JSON":
            path.write_text("split-storm 12")
        case "no plan":
            path.write_text("[]")
        case "a field is missing":
            del facts["topology"]["routers"]
            del facts["seed"]
            path.write_text(json.dumps(facts))
        case "a field is of another type":
            facts["faults"] = [{**facts["faults"][0], "at": "soon"}]
            path.write_text(json.dumps(facts))
        case "an unknown profile":
            path.write_text(json.dumps({**facts, "profile": "storm"}))
        case "nobody may read it":
            path.unlink()
            path.mkdir()
        case "missing":
            path.unlink()
    return path


@pytest.mark.parametrize(
    ("how", "remedy"),
    [
        ("not JSON", "is no plan of a simulation: it: Invalid JSON"),
        ("no plan", "is no plan of a simulation: it:"),
        ("a field is missing", "is no plan of a simulation: seed: Field required"),
        ("a field is of another type", r"faults\.0\.at: Input should be a valid number"),
        ("an unknown profile", "no profile is called 'storm'; there are: lite, swarm"),
        ("nobody may read it", "cannot read .*plan.json: Is a directory"),
        ("missing", "cannot read .*plan.json: No such file or directory"),
    ],
)
def test_a_file_that_is_no_plan_is_refused_with_its_name_and_what_is_wrong(
    tmp_path: Path, how: str, remedy: str
) -> None:
    path = spoilt(tmp_path / "plan.json", how)
    with pytest.raises(KeyplaneError, match=remedy) as raised:
        read_plan(path)
    assert raised.value.reason is Reason.INVALID_ARGUMENT
    assert str(path) in raised.value.message
