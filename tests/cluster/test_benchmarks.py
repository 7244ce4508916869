"""Every benchmark of docs/performance.md runs, made short, and ends with one JSON object."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.cluster


def run(name: str, *options: str) -> dict[str, Any]:
    done = subprocess.run(
        [ROOT / "scripts/bench", name, "--json", *options],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    *before, last = done.stdout.splitlines()
    assert not before, "what is for people goes to stderr"
    result: dict[str, Any] = json.loads(last)
    return result


def numbers(value: object) -> list[float]:
    """Every number anywhere in a result."""
    if isinstance(value, dict):
        return [number for inner in value.values() for number in numbers(inner)]
    if isinstance(value, list):
        return [number for inner in value for number in numbers(inner)]
    return [value] if isinstance(value, int | float) else []


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("map", ["--sizes", "10,1000"]),
        ("client-pool", ["--outstanding", "4", "--rounds", "1", "--window-s", "0.5"]),
        ("client-routers", ["--outstanding", "4", "--rounds", "1", "--window-s", "0.3"]),
        ("echo-hop", ["--seconds", "0.2", "--rounds", "1", "--outstanding", "4"]),
        ("fleet", ["--requests", "20000", "--rounds", "1"]),
        ("hops", ["--requests", "200", "--rounds", "1"]),
    ],
)
def test_a_short_run_measures_something(name: str, options: list[str]) -> None:
    measured = numbers(run(name, *options))
    assert measured
    assert all(number >= 0 for number in measured)


def test_a_burst_is_compared_with_its_arithmetic(tmp_path: Path) -> None:
    """So short that its figures say little; but burst and refusals are there."""
    options = ("--burst-s", "3", "--seconds", "1", "--plots", str(tmp_path))
    result = run("admission", *options, "--only", "overload", "--only", "burst")
    found = {each["name"]: each for each in result["scenarios"]}
    assert found["burst: lasts"]["error"] < 0.5
    assert 0.5 < result["overload_goodput_ratio"] < 1.5
    assert result["admission_ns_per_request"] > 0
    assert all(result["signature_ns"][each] > 0 for each in ("signing", "verifying"))
    assert {path.name for path in tmp_path.iterdir()} == {
        "admission-burst.svg",
        "admission-granter-dead.svg",
        "admission-granter-back.svg",
    }


@pytest.mark.long
def test_admission_is_compared_with_its_arithmetic(tmp_path: Path) -> None:
    """As short, with everything else that is measured."""
    result = run(
        "admission",
        *("--burst-s", "3", "--seconds", "1", "--outage-s", "1", "--heat-s", "1"),
        *("--plots", str(tmp_path)),
        *("--only", "independence", "--only", "overload"),
        *("--only", "heat", "--only", "burst", "--only", "tenants"),
    )
    found = {each["name"]: each for each in result["scenarios"]}
    assert len(found) == 18
    assert found["one hot item: partitions"]["measured"] == 1
    assert found["noisy tenant: other's success"]["measured"] == 1.0
    assert result["noisy_tenant_p99_ratio"] > 0
    assert result["noisy_tenant_times"] > 1
    assert found["granter dead: let in"]["measured"] == 1.0
    assert found["burst: lasts"]["error"] < 0.5
    assert all(each["measured"] > 0 for each in found.values())
    assert 0.5 < result["overload_goodput_ratio"] < 1.5
    assert result["admission_ns_per_request"] > 0
    assert all(result["signature_ns"][each] > 0 for each in ("signing", "verifying"))
    assert {path.name for path in tmp_path.iterdir()} == {
        "admission-burst.svg",
        "admission-heat.svg",
        "admission-granter-dead.svg",
        "admission-granter-back.svg",
    }


@pytest.mark.long
def test_on_demand_tables_are_seen_to_double(tmp_path: Path) -> None:
    """So short that its figures say little; but a new table is throttled and a grown one is not."""
    options = ("--only", "doubling", "--doubling-s", "5", "--plots", str(tmp_path))
    result = run("admission", *options)
    found = {each["name"]: each for each in result["scenarios"]}
    assert found["doubling: new table"]["computed"] == 4_000
    assert found["doubling: twice the peak, let in"]["measured"] > 0.5
    assert found["doubling: three times the peak"]["measured"] > 0
    assert result["overload_goodput_ratio"] is None
    assert [path.name for path in tmp_path.iterdir()] == ["admission-doubling.svg"]


TINY = ["--seconds", "0.3", "--rounds", "1", "--items", "500"]


def test_stages_are_told_apart_or_it_says_what_that_takes(tmp_path: Path) -> None:
    """perf is on few machines, and may not look into other processes on many."""
    options = [
        "--seconds",
        "1.5",
        "--items",
        "500",
        "--kinds",
        "put",
        "--json",
        "--plots",
        tmp_path,
    ]
    done = subprocess.run(
        [ROOT / "scripts/bench", "stages", *options],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    if done.returncode:
        assert done.returncode == 1
        assert re.search("apt-get install|run scripts/compile|perf_event_paranoid", done.stderr)
        return
    for found in json.loads(done.stdout.splitlines()[-1])["stages"]:
        assert sum(found["stages_us"].values()) == pytest.approx(found["cpu_us"])
        assert found["stages_us"]["HTTP/2 and gRPC"] > 0
    assert {path.name for path in tmp_path.iterdir()} == {
        "data-plane-stages-router.svg",
        "data-plane-stages-storage.svg",
    }


def test_the_data_plane_is_compared_on_both_transports(tmp_path: Path) -> None:
    options = ["--systems", "keyplane,keyplane-grpcio,echo", "--outstanding", "1,32"]
    result = run("data-plane", *TINY, *options, "--plots", str(tmp_path))
    assert not result["failures"]
    for name in ("get_rps", "put_rps", "get_p99_ms_at_32", "p50_us_at_1", "cpu_us_per_request"):
        assert result[name] > 0
    for name in ("ratio_get_vs_grpcio", "ratio_put_vs_grpcio"):
        assert result[name] > 0
    # Left out, and said so.
    assert result["ratio_get_vs_dynalite"] is result["ratio_put_vs_dynalite"] is None
    assert result["cpu_us_by_process"].keys() == {"router", "storage", "background", "generator"}
    assert {(row["system"], row["kind"]) for row in result["table"]} == {
        *(("keyplane", kind) for kind in ("get", "put", "90/10")),
        *(("keyplane-grpcio", kind) for kind in ("get", "put", "90/10")),
        ("echo", "echo"),
    }
    drawn = {path.name for path in tmp_path.iterdir()}
    kinds = ("get", "put", "90-10")
    assert drawn == {"data-plane-cpu.svg", *(f"data-plane-latency-{kind}.svg" for kind in kinds)}
    assert all(b"<script" not in path.read_bytes() for path in tmp_path.iterdir())


@pytest.mark.skipif(shutil.which("npm") is None, reason="there is no npm to fetch dynalite with")
def test_dynalite_takes_part_where_it_can_be_had() -> None:
    options = ["--systems", "dynalite", "--outstanding", "4", "--kinds", "get,put"]
    result = run("data-plane", *TINY, *options)
    if "dynalite" in result["skipped"]:
        pytest.skip(result["skipped"]["dynalite"])
    assert not result["failures"]
    assert [row["kind"] for row in result["table"]] == ["get", "put"]
    assert all(row["rps"] > 0 for row in result["table"])


@pytest.mark.long
def test_load_rises_partitions_grow_and_time_passes() -> None:
    modes = ["--sweep", "--growth", "--growth-partitions", "2,20", "--soak", "2"]
    result = run("data-plane", *TINY, "--kinds", "90/10", *modes)
    assert not result["failures"]
    assert result["get_rps"] is None
    assert [step["share"] for step in result["sweep"]["steps"]][-1] == 0.8
    assert [list(each["cpu_us"]) for each in result["growth"]] == [["2", "20"]]
    assert all(each["rss_bytes"]["router"] > 0 for each in result["soak"]["slices"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_benchmark_that_is_stopped_leaves_nothing_behind(number: signal.Signals) -> None:
    command = [ROOT / "scripts/bench", "data-plane", "--systems", "echo,keyplane"]
    options = [*TINY, "--seconds", "30", "--outstanding", "1"]
    with subprocess.Popen([*command, *options], stderr=subprocess.PIPE, text=True) as bench:
        assert bench.stderr is not None
        try:
            for line in bench.stderr:
                if line.startswith("keyplane: writing") and line.strip().endswith(": 500"):
                    break
            started = psutil.Process(bench.pid).children(recursive=True)
            bench.send_signal(number)
            bench.stderr.read()
            assert bench.wait(60) != 0
        finally:
            bench.kill()
    # The cluster's four, the echo server, and two generators.
    assert len(started) >= 7
    _, alive = psutil.wait_procs(started, timeout=30)
    assert not alive


def test_what_makes_no_sense_is_refused_before_anything_starts() -> None:
    for options in (["--kinds", "scan"], ["--systems", "redis"], ["--outstanding", "0"]):
        done = subprocess.run(
            [ROOT / "scripts/bench", "data-plane", *options],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 2, done.stderr


def test_every_benchmark_is_tried_here_and_shown_to_readers() -> None:
    shown = (ROOT / "docs/performance.md").read_text()
    names = {path.stem.replace("_", "-") for path in (ROOT / "bench").glob("[!_]*.py")}
    assert names == {
        *("admission", "map", "client-pool", "client-routers", "data-plane", "echo-hop"),
        *("fleet", "hops", "stages"),
    }
    assert all(f"$ scripts/bench {name}\n" in shown for name in names)
