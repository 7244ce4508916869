"""Every server that is told addresses checks them before it starts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from wire.service import EXIT_FAILED

# Each keeps its files in the working directory.
_SERVERS = {
    "router": ["--snapshot-dir", "snapshots"],
    "storage": ["--node-id", "storage-1", "--data-dir", "data"],
    "metadata": ["--database-url", "sqlite:///metadata.db"],
}


@pytest.mark.parametrize(
    ("server", "flag"),
    [
        ("router", "--memds"),
        ("router", "--seeds"),
        ("storage", "--memds"),
        ("storage", "--metadata"),
        ("metadata", "--memds"),
    ],
)
def test_an_address_that_is_none_is_refused_and_its_flag_named(
    server: str, flag: str, tmp_path: Path
) -> None:
    """And nothing is made on disk first."""
    done = subprocess.run(
        [sys.executable, "-m", server, *_SERVERS[server], flag, "no address"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == EXIT_FAILED
    assert f"{flag}: 'no address' is no address; write host:port" in done.stderr
    assert not list(tmp_path.iterdir())
