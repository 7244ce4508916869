"""The demo keeps its promise, reports it in full, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from live_cli import ROOT

from keyplane.cluster import Cluster, process

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]


class Demo:
    """`python -m keyplane.demo --json`, keeping its files in a directory that the test knows."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.process = subprocess.Popen(
            [sys.executable, "-m", "keyplane.demo", "--json"],
            env=os.environ | {"TMPDIR": str(directory)},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def cluster(self) -> Cluster:
        (made,) = self.directory.glob("keyplane-demo-*")
        return Cluster("demo", made)

    def left(self) -> list[str]:
        """Command lines of processes that carry a path below the demo's directory."""
        left = []
        for running in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                command = " ".join(running.cmdline())
                if str(self.directory) in command:
                    left.append(command)
        return left


@pytest.fixture
def demo() -> Iterator[Demo]:
    with tempfile.TemporaryDirectory() as directory:
        running = Demo(Path(directory))
        try:
            yield running
        finally:
            if running.process.poll() is None:
                running.process.kill()
                running.process.communicate()
                for made in running.directory.glob("keyplane-demo-*"):
                    Cluster("demo", made).down(wipe=True)


def test_nothing_is_lost_nothing_fails_and_every_figure_is_told(demo: Demo) -> None:
    # Known while it runs only: the directory goes with the demo.
    assert demo.process.stderr is not None
    said = [demo.process.stderr.readline()]
    cluster_id = demo.cluster().paths.cluster_id
    out, rest = demo.process.communicate(timeout=240)
    assert demo.process.returncode == 0, "".join(said) + rest

    told = json.loads(out.splitlines()[-1])
    assert told["acknowledged_writes"] > 0
    assert told["lost_writes"] == 0
    assert told["failed_requests"] == 0
    assert told["requests_while_control_plane_down"] > 0
    assert told["failed_while_control_plane_down"] == 0
    assert told["p99_ms_before"] > 0
    assert told["p99_ms_while_control_plane_down"] > 0
    assert told["splits"] >= 1
    assert told["merges"] >= 1
    assert told["moves"] >= 2
    assert told["max_fence_ms"] > 0
    assert told["router_started_without_control_plane"] is True
    assert told["operations_resumed"] >= 1
    assert told["seconds"] > 0

    assert process.belonging_to(cluster_id) == []
    assert demo.left() == []
    assert list(demo.directory.iterdir()) == []


def test_ctrl_c_in_the_middle_of_the_load_stops_everything(demo: Demo) -> None:
    assert demo.process.stderr is not None
    for line in demo.process.stderr:
        if "load is on" in line:
            break
    else:
        pytest.fail("the demo never put load on")
    cluster_id = demo.cluster().paths.cluster_id
    assert len(process.belonging_to(cluster_id)) > 8
    demo.process.send_signal(signal.SIGINT)
    _, rest = demo.process.communicate(timeout=60)
    assert demo.process.returncode == 130, rest
    assert process.belonging_to(cluster_id) == []
    assert demo.left() == []
    assert list(demo.directory.iterdir()) == []
