"""The file of a calibration: what is saved is read back, and what is wrong with it is said."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from fleet.calibration import Calibration, load, path_in, save
from keyplane.model.errors import KeyplaneError

MEASURED = Calibration(
    measured_at=datetime(2026, 1, 31, 12, tzinfo=UTC),
    machine={"processors": 2},
    values={"service_ms": 0.25, "hit_ratio": 1.0},
    quality={"service_ms": {"error": 0.02}},
)


def test_what_is_saved_is_read_back(tmp_path: Path) -> None:
    path = path_in(tmp_path)
    save(path, MEASURED)
    assert path == tmp_path / "fleet" / "calibration.json"
    assert load(path) == MEASURED
    assert [each.name for each in path.parent.iterdir()] == ["calibration.json"]


def test_a_missing_one_names_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(KeyplaneError, match=r"no calibration at .*keyplane fleet calibrate"):
        load(path_in(tmp_path))


def test_one_that_cannot_be_read_is_told_from_a_missing_one(tmp_path: Path) -> None:
    with pytest.raises(KeyplaneError, match="cannot read"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "format is 2, and 1 is understood"),
        ({"values": {"service_ms": "fast"}}, "values.service_ms is 'fast', not a finite number"),
        ({"values": {"service_ms": True}}, "values.service_ms is True"),
        ({"values": {"service_ms": float("nan")}}, "values.service_ms is nan"),
        ({"values": {"service_ms": float("inf")}}, "values.service_ms is inf"),
        ({"values": {}}, "has no values"),
        ({"values": [1]}, "values is no object"),
        ({"machine": None}, "machine is no object"),
        ({"measured_at": "yesterday"}, "measured_at is 'yesterday'"),
        ({"measured_at": 5}, "measured_at is 5"),
        ({"measured_at": "2026-01-31T12:00:00"}, "with its zone"),
        ({"more": 1}, "missing or unknown: more"),
    ],
    ids=str,
)
def test_a_bad_field_is_named(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = path_in(tmp_path)
    save(path, MEASURED)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(KeyplaneError) as refused:
        load(path)
    assert message in refused.value.message
    assert "keyplane fleet calibrate" in refused.value.message


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 1}'])
def test_what_is_no_calibration_at_all_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    path.write_text(text)
    with pytest.raises(KeyplaneError, match="is no calibration"):
        load(path)


def test_what_could_not_be_read_back_is_not_written(tmp_path: Path) -> None:
    path = path_in(tmp_path)
    save(path, MEASURED)
    worse = Calibration(MEASURED.measured_at, {}, {"service_ms": float("nan")})
    with pytest.raises(KeyplaneError, match="not a finite number"):
        save(path, worse)
    assert load(path) == MEASURED
