"""The `keyplane` command as a person runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Cli:
    """The `keyplane` command as a person runs it: a process of its own."""

    home: Path

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        env = dict(os.environ) | {"KEYPLANE_HOME": str(self.home)}
        argv = [sys.executable, "-m", "keyplane", *arguments]
        return subprocess.Popen(
            argv, env=env, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            **options,
        )  # fmt: skip

    def __call__(self, *arguments: str, code: int = 0) -> dict[str, Any]:
        """Runs a command with --json, checks its exit code, and returns the object it printed."""
        running = self.start(*arguments, "--json")
        out, err = running.communicate(timeout=110)
        assert running.returncode == code, f"{arguments} exited {running.returncode}:\n{err}{out}"
        result: dict[str, Any] = json.loads(out.splitlines()[-1])
        return result
