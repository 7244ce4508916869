"""Commands as people call them, in a data directory of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def keyplane(home: Path, *words: str) -> Path:
    """Runs a command of `keyplane fleet`, and returns the report that it wrote."""
    subprocess.run(
        [sys.executable, "-m", "keyplane", "fleet", *words],
        cwd=ROOT,
        env=os.environ | {"KEYPLANE_HOME": str(home)},
        check=True,
        capture_output=True,
        timeout=200,
    )
    return (home / "fleet" / "latest").resolve() / "report.html"
