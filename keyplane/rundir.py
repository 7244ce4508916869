"""Directories of runs, one for each, and `latest` beside them, which points at the newest."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

LATEST = "latest"


def stamped(what: str) -> str:
    """The name of a run that begins now: its time in UTC and what it does."""
    return f"{datetime.now(UTC).strftime('%Y%m%dT%H%M%S')}-{what}"


def make_run_directory(parent: Path, name: str) -> Path:
    """Makes one of this name, or with a number after it where there is one, and points at it."""
    parent.mkdir(parents=True, exist_ok=True)
    path = _make_unused(parent / name)
    link = parent / f".latest-{os.getpid()}"
    link.unlink(missing_ok=True)
    link.symlink_to(path.name)
    link.replace(parent / LATEST)
    return path


def _make_unused(path: Path) -> Path:
    number = 1
    unused = path
    while True:
        try:
            unused.mkdir()
        except FileExistsError:
            number += 1
            unused = path.with_name(f"{path.name}-{number}")
        else:
            return unused
