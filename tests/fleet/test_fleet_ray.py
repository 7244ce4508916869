"""A sweep on a real Ray: the same points as without, and no process of Ray's is left."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).resolve().parents[2]
MM1 = str(ROOT / "tests" / "unit" / "fleet" / "mm1.py")

MARK = "KEYPLANE_TEST_MARK"

pytestmark = [pytest.mark.cluster, pytest.mark.apart, pytest.mark.timeout(240)]


def sweep(home: Path, *arguments: str, **environment: str) -> dict[str, Any]:
    """What it printed, its exit code, and where its processes listened meanwhile.

    A mark in the environment, which children inherit, tells its processes from others'.
    """
    words = ["sweep", MM1, "--vary", "load=0.1:0.9:5", "--requests", "1000", "--tolerance", "1"]
    running = subprocess.Popen(
        [sys.executable, "-m", "keyplane", "fleet", *words, "--json", *arguments],
        cwd=ROOT,
        env=os.environ | environment | {"KEYPLANE_HOME": str(home), MARK: str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    listened: set[str] = set()
    until = time.monotonic() + 90
    try:
        while running.poll() is None:
            assert time.monotonic() < until
            listened |= {host for process in marked(home) for host in listening(process)}
            time.sleep(0.2)
        said, _ = running.communicate()
    finally:
        if running.poll() is None:
            running.kill()
            running.wait()
    facts: dict[str, Any] = json.loads(said.splitlines()[-1])
    return facts | {"code": running.returncode, "listened": listened}


def listening(process: psutil.Process) -> list[str]:
    try:
        return [
            each.laddr.ip.removeprefix("::ffff:")
            for each in process.net_connections()
            if each.status == psutil.CONN_LISTEN
        ]
    except psutil.Error:
        # It has ended just now.
        return []


def marked(home: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == str(home):
                found.append(process)
        except psutil.Error:
            # Another's, or one that has ended just now.
            continue
    return found


def test_a_local_ray_computes_the_same_points_and_ends_with_the_sweep(tmp_path: Path) -> None:
    # Sockets are named in there, and names of sockets are short.
    with tempfile.TemporaryDirectory(dir="/tmp") as temporary:
        on_ray = sweep(tmp_path / "ray", "--ray", "local", "--workers", "2", TMPDIR=temporary)
        assert list(Path(temporary).iterdir()) == []
    assert (on_ray["code"], on_ray["computed"], on_ray["failed"]) == (0, 5, 0)
    assert on_ray["listened"] == {"127.0.0.1"}
    assert not psutil.wait_procs(marked(tmp_path / "ray"), timeout=20)[1]
    here = sweep(tmp_path / "here", "--workers", "1")
    tables = [pq.read_table(each["table"]).drop_columns("seconds") for each in (on_ray, here)]
    assert tables[0].equals(tables[1])


_CLUSTER = """
import os, sys
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
import ray
found = ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False,
                 object_store_memory=100 * 1024 * 1024)
print(found.address_info["gcs_address"], flush=True)
sys.stdin.read()
ray.shutdown()
"""


def test_a_cluster_at_an_address_computes_the_points_and_goes_on_running(tmp_path: Path) -> None:
    # Ray's own: who has not this word is not let in. And a cluster on loopback is looked for there.
    known = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    }
    running = subprocess.Popen(
        [sys.executable, "-c", _CLUSTER],
        cwd=ROOT,
        env=os.environ | known | {MARK: str(tmp_path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert running.stdout is not None
        address = running.stdout.readline().strip()
        first = sweep(tmp_path, "--ray", address, **known)
        assert (first["code"], first["computed"], first["failed"]) == (0, 5, 0)
        assert running.poll() is None
        # Closes its input, on which it waits.
        running.communicate(timeout=30)
    finally:
        left = marked(tmp_path)
        if running.poll() is None:
            running.kill()
            running.wait()
    assert not psutil.wait_procs(left, timeout=20)[1]


def test_an_address_where_no_ray_is_is_refused(tmp_path: Path) -> None:
    facts = sweep(tmp_path, "--ray", "127.0.0.1:1")
    assert facts["code"] == 3
    assert "no Ray cluster at 127.0.0.1:1" in facts["error"]["message"]
    assert not marked(tmp_path)


def test_without_ray_the_extra_is_named(tmp_path: Path) -> None:
    """A Python that finds none, as after installing without the extra."""
    hidden = "import sys; sys.modules['ray'] = None; from keyplane.cli.main import main; "
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            hidden + "sys.exit(main(sys.argv[1:]))",
            *("fleet", "sweep", MM1, "--vary", "load=0.1:0.9:5", "--ray", "local"),
        ],
        cwd=ROOT,
        env=os.environ | {"KEYPLANE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 3
    assert "pip install 'keyplane[ray]'" in done.stderr
