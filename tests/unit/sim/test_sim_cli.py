"""`keyplane sim`: what it prints, what it exits with, and what it leaves behind."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from keyplane.cli.main import main
from keyplane.history.linearizability import Finding, Verdict
from sim.observers.base import Observer
from sim.plan import draw_plan
from sim.profiles import PROFILES
from sim.rundir import read_plan, write_plan
from sim.scenario import Scenario

Command = Callable[..., tuple[int, Any, str]]


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Command:
    """Runs `keyplane sim … --json`: exit code, the one object, and what is for people."""
    monkeypatch.setenv("KEYPLANE_HOME", str(tmp_path / "home"))

    def run(*arguments: str) -> tuple[int, Any, str]:
        code = main(["sim", *arguments, "--json"])
        out, err = capfd.readouterr()
        return code, json.loads(out.splitlines()[-1]), err

    return run


class Alarm(Observer):
    """An invariant that never holds."""

    def beat(self) -> None:
        if self.world.now > 3.0:
            self.world.violate("I2", "an item is gone", "orders/k1")


@pytest.fixture
def violated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(Scenario.__init__.__kwdefaults__, "watchers", [Alarm])


@pytest.fixture
def undecided(monkeypatch: pytest.MonkeyPatch) -> None:
    finding = Finding(Verdict.UNDECIDED, "orders/k1", "too many at once", ())
    monkeypatch.setattr("sim.scenario.check_history", lambda *_: finding)


def home(tmp_path: Path) -> Path:
    return tmp_path / "home" / "sim"


# --- run ----------------------------------------------------------------------------------------


def test_a_seed_that_holds(command: Command, tmp_path: Path) -> None:
    code, facts, people = command("run", "--seed", "1", "-p", "lite")
    assert code == 0
    assert facts.keys() >= {
        *("seeds", "violations", "virtual_seconds", "wall_seconds", "operations", "trace_hash"),
        *("profile", "first_seed", "undecided", "failed", "failures", "directory"),
    }
    assert (facts["seeds"], facts["violations"], facts["first_seed"]) == (1, 0, 1)
    assert facts["operations"] > 100
    assert facts["virtual_seconds"] > 20
    directory = Path(facts["directory"])
    assert (home(tmp_path) / "latest").resolve() == directory.resolve()
    assert json.loads((directory / "summary.json").read_text()) == facts
    assert str(directory) in people.replace("\n", "")


def test_the_same_seeds_have_the_same_hash_and_others_another(command: Command) -> None:
    hashes = [
        command("run", "--seeds", "1", "--from", first, "-p", "lite")[1]["trace_hash"]
        for first in ("0", "0", "1")
    ]
    assert hashes[0] == hashes[1] != hashes[2]


@pytest.mark.usefixtures("violated")
def test_a_violation_is_1_and_leaves_its_trace_and_plan(command: Command) -> None:
    code, facts, people = command("run", "--seeds", "2", "--workers", "1", "-p", "lite")
    assert code == 1
    assert (facts["violations"], facts["violated_seeds"]) == (2, ["0", "1"])
    assert "seed 0: VIOLATED I2 at" in people
    assert "keyplane sim replay 0 -p lite" in people
    directory = Path(facts["directory"])
    lines = [json.loads(line) for line in (directory / "results.jsonl").read_text().splitlines()]
    assert [line["invariant"] for line in lines] == ["I2", "I2"]
    text = (directory / "seed-0.txt").read_text()
    assert "an item is gone" in text
    assert lines[0]["trace_hash"] in text
    assert read_plan(directory / "seed-0.plan.json").seed == 0


@pytest.mark.usefixtures("undecided")
def test_what_could_not_be_told_is_2(command: Command) -> None:
    code, facts, people = command("run", "--seed", "1", "-p", "lite")
    assert code == 2
    assert (facts["violations"], facts["undecided"]) == (0, 1)
    assert "could not tell: too many at once" in people


@pytest.mark.usefixtures("violated", "undecided")
def test_a_violation_counts_for_more_than_what_could_not_be_told(command: Command) -> None:
    assert command("run", "--seed", "1", "-p", "lite")[0] == 1


def test_fresh_seeds_are_said(command: Command) -> None:
    code, facts, _ = command("run", "--fresh", "--seeds", "1", "-p", "lite")
    assert code == 0, facts
    assert facts["first_seed"] > 1000


@pytest.mark.parametrize("name", ["run", "replay"])
def test_an_unknown_profile_is_refused_with_those_there_are(command: Command, name: str) -> None:
    seed = ["1"] if name == "replay" else []
    code, facts, people = command(name, *seed, "-p", "storm")
    assert code == 3
    assert facts["error"]["reason"] == "INVALID_ARGUMENT"
    assert "no profile is called 'storm'; there are: lite, swarm" in facts["error"]["message"]
    assert "storm" in people


# --- replay -------------------------------------------------------------------------------------


def test_a_replay_goes_as_the_run_did(command: Command, tmp_path: Path) -> None:
    _, ran, _ = command("run", "--seed", "1", "-p", "lite")
    (line,) = (Path(ran["directory"]) / "results.jsonl").read_text().splitlines()
    code, facts, people = command("replay", "1", "-p", "lite")
    assert code == 0
    assert facts["trace_hash"] == json.loads(line)["trace_hash"]
    assert (facts["held"], facts["runs"], facts["plan"]) == (True, 1, None)
    assert "seed 1: held" in people
    assert "the plan:" in people


def test_the_file_of_a_plan_is_replayed_as_its_seed(command: Command, tmp_path: Path) -> None:
    """Whatever profile is given, the plan's own counts."""
    path = tmp_path / "plan.json"
    write_plan(path, draw_plan(1, "lite"))
    by_file, by_seed = (
        command("replay", each, "-p", profile)[1]["trace_hash"]
        for each, profile in ((str(path), "swarm"), ("1", "lite"))
    )
    assert by_file == by_seed


@pytest.mark.usefixtures("violated")
def test_a_violation_is_shown_and_kept(command: Command) -> None:
    code, facts, people = command("replay", "1", "-p", "lite")
    assert code == 1
    assert facts["invariant"] == "I2"
    assert "I2 does not hold" in people
    assert read_plan(Path(facts["plan"])).seed == 1


@pytest.mark.usefixtures("violated")
def test_shrinking_leaves_a_plan_that_still_fails(command: Command) -> None:
    """Nothing is needed for this one to fail, so nothing is left."""
    code, facts, _ = command("replay", "3", "-p", "lite", "--shrink")
    assert code == 1
    assert (facts["invariant"], facts["faults"]) == ("I2", 0)
    assert facts["runs"] > 1
    plan = read_plan(Path(facts["plan"]))
    assert plan.faults == plan.actions == ()
    assert command("replay", facts["plan"])[1]["invariant"] == "I2"


def test_there_is_nothing_to_shrink_of_a_seed_that_holds(command: Command) -> None:
    code, facts, _ = command("replay", "1", "-p", "lite", "--shrink")
    assert code == 3
    assert facts["error"]["message"] == (
        "seed 1 of profile lite violates nothing; there is nothing to shrink"
    )


@pytest.mark.usefixtures("undecided")
def test_a_replay_that_could_not_be_told_is_2(command: Command) -> None:
    assert command("replay", "1", "-p", "lite")[0] == 2


def test_what_is_neither_a_seed_nor_a_file_is_refused(command: Command, tmp_path: Path) -> None:
    code, facts, _ = command("replay", "twelve")
    assert code == 3
    assert "'twelve' is neither a seed, which is a number, nor a file" in facts["error"]["message"]
    (tmp_path / "notes.txt").write_text("not a plan")
    code, facts, _ = command("replay", str(tmp_path / "notes.txt"))
    assert code == 3
    assert "notes.txt is no plan of a simulation" in facts["error"]["message"]


# --- profiles -----------------------------------------------------------------------------------


def test_profiles_are_listed_with_what_they_are_made_of(command: Command) -> None:
    code, facts, people = command("profiles")
    assert code == 0
    assert [each["name"] for each in facts["profiles"]] == list(PROFILES)
    for each in facts["profiles"]:
        assert each["routers"] == PROFILES[each["name"]].topology.routers
        assert each["what"] in people
