"""Calibration and validation on a live cluster, made short: what is there, and nothing absurd.

How close predictions come is for `keyplane fleet validate` to say, on a machine left alone.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import psutil
import pytest

from fleet.calibration import load
from fleet.measured import NAMES

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.cluster]

# As people call it: what it starts must not depend on how it was started itself.
KEYPLANE = Path(sys.executable).with_name("keyplane")


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [KEYPLANE, "fleet", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(*arguments: str) -> tuple[int, dict[str, Any]]:
    running = start(*arguments, "--json")
    out, err = running.communicate(timeout=110)
    assert running.returncode in (0, 1), err
    result: dict[str, Any] = json.loads(out.splitlines()[-1])
    return running.returncode, result


def test_a_quick_calibration_has_every_value_within_reason(tmp_path: Path) -> None:
    file = tmp_path / "calibration.json"
    code, result = run("calibrate", "--quick", "--file", str(file))
    assert code == 0
    values = result["values"]
    assert set(values) == NAMES
    assert dict(load(file).values) == values
    for kind in ("get", "put"):
        for process in ("router", "storage", "generator"):
            assert 0.001 < values[f"{process}_{kind}_ms"] < 10
            assert 0.0001 < values[f"{process}_{kind}_each_ms"] < 10
        assert 0.05 < values[f"{kind}_idle_ms"] < 100
        assert 100 < values[f"{kind}_busy_per_s"] < 10_000_000
    # What a router asks for follows from its code: more than one key on each of 4 beats a second.
    assert 4 < values["memds_gets_per_router_per_s"] < 400
    assert values["memds_gets_per_router_beat"] == pytest.approx(
        values["memds_gets_per_router_per_s"] / 4
    )
    assert 0.00005 < values["memds_get_ms"] < 1
    assert values["memds_round_trip_ms"] < 50
    assert 0.01 < values["lookup_us"] < 1_000
    assert values["fresh_connection_ms"] < 1_000
    # A router looks a key up in its map; the Metadata Store reads a table's map from its database.
    assert 10 < values["metadata_lookups_per_s"] < values["route_lookups_per_s"] < 1_000_000
    assert 10 < values["memds_requests_per_s"] < 1_000_000
    assert 0.01 < values["route_lookup_ms"] < 100
    assert 0 < values["search_ms"] < 1_000
    assert 0 < values["durable_ms"] < 1_000


def test_a_quick_validation_predicts_every_size(tmp_path: Path) -> None:
    code, result = run("validate", "--quick")
    predictions = result["predictions"]
    sizes = {(each["what"], each["size"]) for each in predictions}
    assert len(sizes) == len(predictions) == 2 * 6 * 3 + 3
    for each in predictions:
        assert each["predicted"] > 0
        assert each["measured"] > 0
        assert 1 / 20 < each["predicted"] / each["measured"] < 20
    assert result["within"] == sum(each["error"] <= result["target"] for each in predictions)
    assert code == (0 if result["within"] == len(predictions) else 1)


def test_ctrl_c_ends_everything_it_started() -> None:
    running = start("calibrate", "--rounds", "50")
    give_up = threading.Timer(100, running.kill)
    give_up.start()
    try:
        assert running.stderr is not None
        assert any("round 1 of" in line for line in running.stderr)
        started = psutil.Process(running.pid).children(recursive=True)
        # Generators, and every process of a cluster.
        assert len(started) >= 8
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=60)
    finally:
        give_up.cancel()
        running.kill()
    _, alive = psutil.wait_procs(started, timeout=10)
    assert not [each for each in alive if each.status() != psutil.STATUS_ZOMBIE]
