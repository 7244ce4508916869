"""The commands on live clusters and designs, without a cluster."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from known_tandem import calibration, measurements

import fleet.calibrate
import fleet.validate
from bench._load import GeneratorFailed
from fleet.calibration import load
from fleet.live_measure import QUICK, Plan
from fleet.measured import NAMES
from fleet.validate import compared
from keyplane.cli import fleet_live
from keyplane.model.errors import KeyplaneError, Reason

DESIGNS = Path(__file__).resolve().parents[3] / "docs/designs"


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, dict[str, Any]]]:
    app = typer.Typer()
    fleet_live.register(app)

    def run(*arguments: str) -> tuple[int, dict[str, Any]]:
        code = app([*arguments, "--json"], standalone_mode=False) or 0
        result: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
        return code, result

    return run


def test_a_calibration_is_kept_where_the_models_look_for_it(
    cli: Callable[..., tuple[int, dict[str, Any]]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[Plan] = []

    def measured(plan: Plan, say: object, advance: Callable[[float], None]) -> object:
        asked.append(plan)
        advance(0.5)
        return calibration()

    monkeypatch.setattr(fleet.calibrate, "calibrate", measured)
    code, result = cli("calibrate", "--rounds", "2", "--data-dir", str(tmp_path))
    assert code == 0
    assert asked == [Plan(2, Plan().seconds, Plan().items)]
    assert set(result["values"]) == NAMES
    kept = load(tmp_path / "fleet" / "calibration.json")
    assert str(tmp_path / "fleet" / "calibration.json") == result["file"]
    assert dict(kept.values) == result["values"]


def test_defaults_of_the_command_are_those_of_the_plan() -> None:
    assert fleet_live._plan(False, fleet_live._ROUNDS, fleet_live._SECONDS) == Plan()
    assert fleet_live._plan(True, fleet_live._ROUNDS, fleet_live._SECONDS) is QUICK


@pytest.mark.parametrize(("times", "expected"), [(1, 0), (2, 1)])
def test_a_prediction_that_is_too_far_off_is_a_no(
    cli: Callable[..., tuple[int, dict[str, Any]]],
    monkeypatch: pytest.MonkeyPatch,
    times: int,
    expected: int,
) -> None:
    found = measurements()
    found.counted_to_predict[3].gets *= times
    monkeypatch.setattr(fleet.validate, "validate", lambda *_: compared(found, calibration()))
    code, result = cli("validate", "--quick")
    assert code == expected
    assert result["within"] == 39 - expected
    assert result["target"] == 0.15
    assert {each["unit"] for each in result["predictions"]} == {"1/s", "ms"}
    assert result["conclusion"]


def test_what_goes_wrong_on_the_cluster_is_an_error_of_the_command(
    cli: Callable[..., tuple[int, dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object) -> object:
        raise GeneratorFailed("requests failed: {'TIMEOUT': 3}")

    monkeypatch.setattr(fleet.calibrate, "calibrate", failing)
    with pytest.raises(KeyplaneError, match="could not be measured: requests failed") as caught:
        cli("calibrate", "--quick")
    assert caught.value.reason is Reason.NODE_UNAVAILABLE


def test_a_design_is_checked(
    cli: Callable[..., tuple[int, dict[str, Any]]], tmp_path: Path
) -> None:
    code, result = cli("design", "check", str(DESIGNS / "ttl-cache.toml"))
    assert code == 0
    assert result == {
        "file": str(DESIGNS / "ttl-cache.toml"),
        "name": "ttl-cache",
        "valid": True,
    }
    wrong = tmp_path / "wrong.toml"
    wrong.write_text('name = "x"\n[router]\n')
    with pytest.raises(KeyplaneError, match=r"did you mean routers\?"):
        cli("design", "check", str(wrong))
