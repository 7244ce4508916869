"""What several tests of whole runs look at."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def run_of_all(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of `keyplane fleet run all`, at its defaults."""
    home = tmp_path_factory.mktemp("all")
    subprocess.run(
        [sys.executable, "-m", "keyplane", "fleet", "run", "all"],
        cwd=ROOT,
        env=os.environ | {"KEYPLANE_HOME": str(home)},
        check=True,
        capture_output=True,
        timeout=200,
    )
    return (home / "fleet" / "latest").resolve()
