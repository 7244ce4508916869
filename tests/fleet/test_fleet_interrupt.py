"""Ctrl-C on a sweep: its processes end, what is finished stays, and the rest can be had later."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from fleet.sweep.kept import POINTS

ROOT = Path(__file__).resolve().parents[2]
PAUSE = str(Path(__file__).with_name("pause.py"))

pytestmark = [pytest.mark.cluster, pytest.mark.apart]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KEYPLANE_HOME", str(tmp_path))
    monkeypatch.chdir(ROOT)
    return tmp_path


def test_ctrl_c_ends_the_workers_and_resume_computes_only_what_is_left(
    home: Path,
) -> None:
    words = ["--vary", "wait_s=0.15:0.25:64", "--workers", "2"]
    command = [sys.executable, "-m", "keyplane", "fleet", "sweep", PAUSE, *words]
    began = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    workers: list[psutil.Process] = []
    try:
        points = home / "fleet" / "latest" / POINTS
        until = time.monotonic() + 60
        while not (points.exists() and points.read_text().count("\n") >= 3):
            assert time.monotonic() < until
            assert began.poll() is None
            time.sleep(0.02)
        workers = psutil.Process(began.pid).children(recursive=True)
        busy = subprocess.run([*command, "--resume"], capture_output=True, text=True, timeout=60)
        os.killpg(began.pid, signal.SIGINT)
        _, said = began.communicate(timeout=30)
    finally:
        if began.poll() is None:
            os.killpg(began.pid, signal.SIGKILL)
            began.wait()
    # One at a time: two would compute the same points twice.
    assert busy.returncode not in (0, 130)
    assert f"RUN_BUSY another command (process {began.pid}) is at work in" in busy.stderr
    assert began.returncode == 130
    assert "go on with the same and --resume" in said
    assert len(workers) >= 2
    assert not psutil.wait_procs(workers, timeout=10)[1]
    before = points.read_text().splitlines()
    assert 3 <= len(before) < 64
    done = subprocess.run(
        [*command, "--resume", "--json"], capture_output=True, text=True, timeout=60, check=True
    )
    facts = json.loads(done.stdout.splitlines()[-1])
    assert (facts["points"], facts["computed"]) == (64, 64 - len(before))
    assert points.read_text().splitlines()[: len(before)] == before
