"""Finds scenarios: the ten that are there by name, and scenarios and designs of a user by file."""

from __future__ import annotations

import hashlib
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from fleet import scenario as scenarios
from fleet.design import as_scenario
from fleet.scenario import Scenario, load
from keyplane.model.errors import KeyplaneError, Reason

ALL = "all"


def names() -> tuple[str, ...]:
    """Of `fleet run all`, in its order."""
    return scenarios.NAMES


def find(name: str) -> Scenario:
    """name: one of `names()`, or the path of a Python file with a SCENARIO, or of a design in TOML
    or Python (`fleet.design`).

    Raises INVALID_ARGUMENT where there is none, or the file is not one.
    """
    if name.startswith("-"):
        raise KeyplaneError(
            Reason.INVALID_ARGUMENT, f"the scenario comes first, and {name} after it"
        )
    if name.endswith(".toml"):
        return as_scenario(Path(name))
    if not name.endswith(".py"):
        return load(name)
    path = Path(name).resolve()
    module = _module_of(path)
    found = getattr(module, "SCENARIO", None)
    if isinstance(found, Scenario):
        return found
    if hasattr(module, "DESIGN"):
        return as_scenario(path)
    raise _refusal(
        path,
        "it has no SCENARIO = fleet.scenario.Scenario(...), nor DESIGN = fleet.design.Design(...)",
    )


def _module_of(path: Path) -> ModuleType:
    # Dataclasses look themselves up by the name of their module, so it is registered, once for
    # each path and time of change.
    try:
        changed = path.stat().st_mtime_ns
    except OSError as error:
        raise _refusal(path, error.strerror or str(error)) from error
    digest = hashlib.blake2b(f"{path} {changed}".encode(), digest_size=8).hexdigest()
    name = f"fleet_scenario_{digest}"
    if name in sys.modules:
        return sys.modules[name]
    spec = spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise _refusal(path, "it is no Python file")
    module = sys.modules[name] = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        if isinstance(error, ModuleNotFoundError):
            raise
        raise _refusal(path, f"{type(error).__name__}: {error}") from error
    return module


def _refusal(path: Path, why: str) -> KeyplaneError:
    return KeyplaneError(Reason.INVALID_ARGUMENT, f"no scenario can be read from {path}: {why}")
