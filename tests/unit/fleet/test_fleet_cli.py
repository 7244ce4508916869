"""`keyplane fleet`: what it takes, what it prints, what it leaves, and going on after a stop."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from fleet import scenario as scenarios
from fleet.calibration import Calibration, path_in, save
from keyplane.cli.main import main

ALL_PLOTS = Path(__file__).with_name("mm1.py")


@pytest.fixture(scope="module")
def mm1(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The scenario without its plots: drawing is what takes time."""
    path = tmp_path_factory.mktemp("light") / "mm1.py"
    path.write_text(ALL_PLOTS.read_text().replace("plots=plots", "plots=()"))
    return str(path)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KEYPLANE_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def two(mm1: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """All there are, for `all`: one, and the same again under another name."""
    other = tmp_path / "other.py"
    text = Path(mm1).read_text().replace('"mm1"', '"other"').replace("MM1_FAILS", "OTHER_FAILS")
    other.write_text(text)
    names = (mm1, str(other))
    monkeypatch.setattr(scenarios, "NAMES", names)
    return names


def fleet(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any], str]:
    """Exit code, the JSON object, and what was for people."""
    code = main(["fleet", *arguments, "--json"])
    printed = capsys.readouterr()
    (line,) = printed.out.splitlines()
    return code, json.loads(line, parse_constant=pytest.fail), printed.err


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    code, facts, _ = fleet(capsys, *arguments)
    assert code == 3
    message: str = facts["error"]["message"]
    return message


# --- list, show -----------------------------------------------------------------------------------


def test_list_has_each_with_its_question(
    two: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    code, facts, shown = fleet(capsys, "list")
    assert code == 0
    assert [each["name"] for each in facts["scenarios"]] == ["mm1", "other"]
    assert all(each["question"].endswith("?") for each in facts["scenarios"])
    assert "How long does a request wait" in shown


def test_show_has_each_parameter_with_unit_bounds_source_and_both_presets(
    mm1: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    calibrated(home, service_ms=3.25)
    code, facts, shown = fleet(capsys, "show", mm1)
    assert code == 0
    service = facts["parameters"][1]
    assert (service["default"], service["calibrated"], service["unit"]) == (2.0, 3.25, "ms")
    assert (service["low"], service["high"]) == (0.001, 1000.0)
    for word in ("--service-ms", "3.25", "a disk's read", "0.001 to 1,000", "Mean time of service"):
        assert word in shown


# --- run ------------------------------------------------------------------------------------------


def test_a_run_prints_its_figures_checks_and_conclusion_and_says_what_was_simulated(
    mm1: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["fleet", "run", mm1]) == 0
    shown = capsys.readouterr().out
    for text in (
        "46.05  ms    closed",
        "share beyond p99  0.0099  0.01",
        "10,000 requests simulated",
        "2,500,000,000 requests represented, not simulated",
        "A note & more.",
        "At 80% load a request takes 10.0 ms <on average>.",
    ):
        assert text in shown


def test_the_last_line_with_json_has_a_row_for_the_first_check(
    mm1: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, facts, _ = fleet(capsys, "run", mm1)
    assert code == 0
    (row,) = facts["scenarios"]
    assert row["scenario"] == "mm1"
    assert row["reference"] == pytest.approx(10.0)
    assert row["error"] == pytest.approx(abs(row["value"] - row["reference"]) / row["reference"])
    assert (row["tolerance"], row["held"]) == (0.2, True)
    assert len(facts["checks"]) == 2
    assert len(facts["figures"]) == 3
    assert facts["requests_simulated"] == 10_000
    assert facts["requests_represented"] == 2.5e9
    directory = Path(facts["directory"])
    assert (home / "fleet" / "latest").resolve() == directory.resolve()
    assert json.loads((directory / "summary.json").read_text()) == facts
    assert {each.name for each in (directory / "mm1").iterdir()} == {
        *("outcome.json", "figures.parquet", "checks.parquet", "series.parquet", "report.html")
    }


def test_the_same_seed_gives_the_same_figures_and_another_others(
    mm1: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    figures = [fleet(capsys, "run", mm1, "--seed", seed)[1]["figures"] for seed in "112"]
    assert figures[0] == figures[1] != figures[2]


def test_every_parameter_is_a_flag(mm1: str, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (
        ("--load", "0.9", "--service-ms=1"),
        ("--set", "load=0.9", "--set", "service-ms=1"),
        ("--load", "0.9", "--set", "service_ms=1"),
    ):
        _, facts, _ = fleet(capsys, "run", mm1, *arguments)
        assert facts["figures"][0]["value"] == pytest.approx(10.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--nodes", "3"), "no parameter nodes; there are load, service_ms, requests, tolerance"),
        (("--set", "nodes=3"), "no parameter nodes"),
        (("--load", "1.5"), "--load is 1.5; give from 0 to 0.999 fraction"),
        (("--load", "nan"), "--load is nan"),
        (("--load", "high"), "load is 'high', not a number"),
        (("--load",), "--load needs a value"),
        (("--load", "--seed", "1"), "--load needs a value"),
        (("--requests", "1000.5"), "a whole number"),
        (("--load", "0.5", "--set", "load=0.6"), "load is given twice"),
        (("--set", "load"), "not NAME=VALUE"),
        (("0.5",), "'0.5' is not expected here"),
        (("--preset", "guessed"), "no preset guessed; there are paper, measured"),
        (("--preset", "measured"), "keyplane fleet calibrate"),
    ],
    ids=" ".join,
)
def test_what_is_wrong_is_refused_by_name_and_leaves_nothing(
    mm1: str,
    arguments: tuple[str, ...],
    message: str,
    home: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert message in refusal(capsys, "run", mm1, *arguments)
    assert not (home / "fleet").exists()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("missing.py", None, "No such file"),
        ("broken.py", "def", "SyntaxError"),
        ("empty.py", "", "has no SCENARIO"),
        ("raising.py", "1 / 0", "ZeroDivisionError"),
    ],
)
def test_a_file_that_is_no_scenario_is_refused(
    name: str, text: str | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    assert message in refusal(capsys, "run", str(tmp_path / name))


def test_unknown_scenarios_are_refused_naming_those_there_are(
    mm1: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert "cold-start" in refusal(capsys, "run", "warm-start")
    assert "the scenario comes first" in refusal(capsys, "run", "--load", "0.5", mm1)


def calibrated(home: Path, **values: float) -> None:
    save(path_in(home), Calibration(datetime(2026, 1, 31, tzinfo=UTC), {}, values))


def test_the_preset_measured_takes_what_was_calibrated_and_what_is_chosen_goes_before(
    mm1: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    calibrated(home, service_ms=1.0, unheard_of=5.0)
    _, facts, _ = fleet(capsys, "run", mm1, "--preset", "measured")
    assert facts["figures"][0]["value"] == pytest.approx(5.0)
    _, facts, _ = fleet(capsys, "run", mm1, "--preset", "measured", "--service-ms", "4")
    assert facts["figures"][0]["value"] == pytest.approx(20.0)


def test_a_check_that_does_not_hold_is_the_exit_code(
    mm1: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, facts, _ = fleet(capsys, "run", mm1, "--tolerance", "0")
    assert code == 1
    assert [each["held"] for each in facts["checks"]] == [False, True]
    assert facts["scenarios"][0]["held"] is False


def test_plots_are_written_as_files_of_their_own(
    mm1: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet(capsys, "run", str(ALL_PLOTS), "--plots", str(tmp_path / "plots"))
    assert sorted(each.name for each in (tmp_path / "plots").iterdir()) == [
        f"mm1-{name}.svg" for name in ("load", "map", "parts", "queue", "times")
    ]


def test_a_missing_library_is_named_with_what_installs_it(
    mm1: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for name in [each for each in sys.modules if each.startswith(("fleet.runs", "fleet.store"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("fleet.runs", raising=False)
    assert "pip install 'keyplane[fleet]'" in refusal(capsys, "run", mm1)


# --- all ------------------------------------------------------------------------------------------


def test_all_are_run_one_after_the_other_with_a_row_for_each(
    two: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    code, facts, _ = fleet(capsys, "run", "all")
    assert code == 0
    assert [row["scenario"] for row in facts["scenarios"]] == ["mm1", "other"]
    assert {each["scenario"] for each in facts["checks"]} == {"mm1", "other"}
    report = Path(facts["report"]).read_text()
    assert '<section class="scenario" id="mm1">' in report
    assert '<section class="scenario" id="other">' in report


def test_one_that_fails_is_told_and_the_others_are_run_and_resume_runs_what_is_left(
    mm1: str,
    two: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MM1_FAILS", "1")
    code, facts, shown = fleet(capsys, "run", "all")
    assert code == 1
    assert [row["scenario"] for row in facts["scenarios"]] == ["other", two[0]]
    assert facts["failures"] == {two[0]: "told to fail"}
    assert "failed: told to fail" in shown
    monkeypatch.delenv("MM1_FAILS")
    monkeypatch.setenv("OTHER_FAILS", "1")
    code, again, shown = fleet(capsys, "run", "all", "--resume")
    assert code == 0
    assert again["directory"] == facts["directory"]
    assert [row["scenario"] for row in again["scenarios"]] == ["mm1", "other"]
    assert "other: was done before" in shown


@pytest.mark.parametrize("change", [("--seed", "2"), ("--set", "{0}.load=0.5")], ids=str)
def test_resume_goes_on_only_with_what_asked_the_same(
    mm1: str, change: tuple[str, str], two: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    _, first, _ = fleet(capsys, "run", "all")
    _, second, shown = fleet(
        capsys, "run", "all", "--resume", *(each.format(mm1) for each in change)
    )
    assert second["directory"] != first["directory"]
    assert "no run asked just this" in shown


def test_ctrl_c_keeps_what_is_finished_and_says_how_to_go_on(
    mm1: str,
    two: tuple[str, str],
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path(two[1]).write_text("raise KeyboardInterrupt")
    assert main(["fleet", "run", "all"]) == 130
    assert "1 of 2 are done; go on with the same and --resume" in capsys.readouterr().err
    Path(two[1]).write_text(Path(mm1).read_text().replace('"mm1"', '"other"'))
    _, facts, shown = fleet(capsys, "run", "all", "--resume")
    assert "mm1: was done before" in shown
    assert [row["held"] for row in facts["scenarios"]] == [True, True]


def test_parameters_with_all_say_whose_they_are(
    two: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert "--set SCENARIO.NAME=VALUE" in refusal(capsys, "run", "all", "--load", "0.5")
    assert "names no scenario" in refusal(capsys, "run", "all", "--set", "load=0.5")


# --- report ---------------------------------------------------------------------------------------


def test_a_report_is_written_again_from_what_is_kept(
    two: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    _, facts, _ = fleet(capsys, "run", "all")
    written = Path(facts["report"])
    text = written.read_text()
    written.unlink()
    code, again, _ = fleet(capsys, "report")
    assert (code, again["scenarios"]) == (0, ["mm1", "other"])
    assert written.read_text() == text
    assert refusal(capsys, "report", "--run", str(written.parent / "mm1"))


def test_a_report_of_nothing_says_what_to_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert "keyplane fleet run all" in refusal(capsys, "report")


def test_a_damaged_run_is_passed_over(
    home: Path, mm1: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _, facts, _ = fleet(capsys, "run", mm1)
    for name, text in (("99990101T000000-a", "{"), ("99990101T000000-b", '{"format": 99}')):
        (home / "fleet" / name).mkdir()
        (home / "fleet" / name / "run.json").write_text(text)
    code, again, _ = fleet(capsys, "report")
    assert (code, again["report"]) == (0, facts["report"])
    assert "another version" in refusal(
        capsys, "report", "--run", str(home / "fleet" / "99990101T000000-b")
    )
