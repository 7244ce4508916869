"""Where a run leaves what it found: a directory of its own, and `latest`, which points at it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from keyplane.model.errors import KeyplaneError, Reason
from sim.plan import Plan

_PLAN: TypeAdapter[Plan] = TypeAdapter(Plan)


class RunDirectory:
    """`<home>/sim/<time>-<what>`, made when the first thing is written.

    results.jsonl: one line for each seed. summary.json: figures of the whole run. seed-N.txt and
    seed-N.plan.json: what is to be known of a seed that failed.
    """

    def __init__(self, home: Path, what: str) -> None:
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        self._parent = home / "sim"
        self.path = _unused(self._parent / f"{stamp}-{what}")

    def add_result(self, facts: Mapping[str, Any]) -> None:
        self._make()
        with (self.path / "results.jsonl").open("a") as file:
            file.write(json.dumps(facts) + "\n")

    def write_summary(self, facts: Mapping[str, Any]) -> None:
        self._make()
        (self.path / "summary.json").write_text(json.dumps(facts, indent=2) + "\n")

    def write_violation(self, seed: int | str, plan: Plan, lines: Iterable[str]) -> Path:
        """Returns the file to read."""
        self._make()
        write_plan(self.path / f"seed-{seed}.plan.json", plan)
        path = self.path / f"seed-{seed}.txt"
        path.write_text("\n".join(lines) + "\n")
        return path

    def _make(self) -> None:
        if self.path.is_dir():
            return
        self.path.mkdir(parents=True)
        link = self._parent / f".latest-{os.getpid()}"
        link.unlink(missing_ok=True)
        link.symlink_to(self.path.name)
        link.replace(self._parent / "latest")


def write_plan(path: Path, plan: Plan) -> None:
    path.write_bytes(_PLAN.dump_json(plan, indent=2) + b"\n")


def read_plan(path: Path) -> Plan:
    """Raises KeyplaneError(INVALID_ARGUMENT) on a file that cannot be read or is no plan."""
    try:
        return _PLAN.validate_json(path.read_bytes())
    except OSError as error:
        message = f"cannot read {path}: {error.strerror}"
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        message = f"{path} is no plan of a simulation: {place or 'it'}: {first['msg']}"
    raise KeyplaneError(Reason.INVALID_ARGUMENT, message)


def _unused(path: Path) -> Path:
    number = 1
    unused = path
    while unused.exists():
        number += 1
        unused = path.with_name(f"{path.name}-{number}")
    return unused
