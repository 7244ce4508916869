"""Where a run leaves what it found: a directory of its own, and `latest`, which points at it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from keyplane.model.errors import KeyplaneError, Reason
from keyplane.rundir import make_run_directory, stamped
from sim.plan import Plan
from sim.profiles import PROFILES

_PLAN: TypeAdapter[Plan] = TypeAdapter(Plan)


class RunDirectory:
    """`<home>/sim/<time>-<what>`, made when the first thing is written.

    results.jsonl: one line for each seed. summary.json: figures of the whole run. seed-N.txt and
    seed-N.plan.json: what is to be known of a seed that failed.
    """

    def __init__(self, home: Path, what: str) -> None:
        self._parent = home / "sim"
        self._name = stamped(what)
        self._path: Path | None = None

    @property
    def path(self) -> Path:
        if self._path is None:
            self._path = make_run_directory(self._parent, self._name)
        return self._path

    def add_result(self, facts: Mapping[str, Any]) -> None:
        with (self.path / "results.jsonl").open("a") as file:
            file.write(json.dumps(facts) + "\n")

    def write_summary(self, facts: Mapping[str, Any]) -> None:
        (self.path / "summary.json").write_text(json.dumps(facts, indent=2) + "\n")

    def write_violation(self, seed: int | str, plan: Plan, lines: Iterable[str]) -> Path:
        """Returns the file to read."""
        write_plan(self.path / f"seed-{seed}.plan.json", plan)
        path = self.path / f"seed-{seed}.txt"
        path.write_text("\n".join(lines) + "\n")
        return path


def write_plan(path: Path, plan: Plan) -> None:
    facts = _PLAN.dump_python(plan, mode="json")
    # One plan, one file, whatever the order of its set.
    facts["left_out"].sort()
    path.write_text(json.dumps(facts, indent=2) + "\n")


def read_plan(path: Path) -> Plan:
    """Raises KeyplaneError(INVALID_ARGUMENT) on a file that cannot be read or is no plan."""
    try:
        plan = _PLAN.validate_json(path.read_bytes())
        if plan.profile in PROFILES:
            return plan
        message = f"{path}: no profile is called {plan.profile!r}; there are: {', '.join(PROFILES)}"
    except OSError as error:
        message = f"cannot read {path}: {error.strerror}"
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        message = f"{path} is no plan of a simulation: {place or 'it'}: {first['msg']}"
    raise KeyplaneError(Reason.INVALID_ARGUMENT, message)
