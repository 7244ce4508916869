"""Every benchmark of docs/performance.md runs, made short, and ends with one JSON object."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

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
        ("hops", ["--requests", "200", "--rounds", "1"]),
    ],
)
def test_a_short_run_measures_something(name: str, options: list[str]) -> None:
    measured = numbers(run(name, *options))
    assert measured
    assert all(number >= 0 for number in measured)


def test_every_benchmark_is_tried_here_and_shown_to_readers() -> None:
    shown = (ROOT / "docs/performance.md").read_text()
    names = {path.stem.replace("_", "-") for path in (ROOT / "bench").glob("[!_]*.py")}
    assert names == {"map", "client-pool", "hops"}
    assert all(f"$ scripts/bench {name}\n" in shown for name in names)
