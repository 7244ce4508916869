"""What `keyplane fleet calibrate` measured on this machine's cluster, as a file.

{"format": 1, "measured_at": "2026-01-31T12:00:00+00:00", "machine": {...},
 "values": {"name": number, ...}, "quality": {...}}
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from keyplane.model.errors import KeyplaneError, Reason
from wire.files import replace_file

FORMAT = 1

_AGAIN = "measure it again: keyplane fleet calibrate"


@dataclass(frozen=True, slots=True)
class Calibration:
    """measured_at: with its zone. values: by the names that parameters give as `measured`, in the
    units of those. quality: how well each was measured, in words or numbers, for people.
    """

    measured_at: datetime
    machine: Mapping[str, Any]
    values: Mapping[str, float]
    quality: Mapping[str, Any] = field(default_factory=dict)


def path_in(home: Path) -> Path:
    """Where the calibration of a data directory is kept."""
    return home / "fleet" / "calibration.json"


def save(path: Path, calibration: Calibration) -> None:
    """Replaces the file in one step. Raises INVALID_ARGUMENT on what `load` would refuse."""
    facts = {
        "format": FORMAT,
        "measured_at": calibration.measured_at.isoformat(),
        "machine": dict(calibration.machine),
        "values": dict(calibration.values),
        "quality": dict(calibration.quality),
    }
    _parse(path, facts)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, (json.dumps(facts, indent=2) + "\n").encode())


def load(path: Path) -> Calibration:
    """Raises INVALID_ARGUMENT where there is none or it is none; the message says what to do."""
    try:
        facts = json.loads(path.read_bytes())
    except FileNotFoundError:
        message = f"no calibration at {path}; measure one: keyplane fleet calibrate"
        raise KeyplaneError(Reason.INVALID_ARGUMENT, message) from None
    except OSError as error:
        message = f"cannot read {path}: {error.strerror}"
        raise KeyplaneError(Reason.INVALID_ARGUMENT, message) from error
    except ValueError as error:
        raise _refusal(path, f"not JSON ({error})") from error
    return _parse(path, facts)


def _parse(path: Path, facts: Any) -> Calibration:
    if not isinstance(facts, dict):
        raise _refusal(path, "not an object")
    if facts.get("format") != FORMAT:
        raise _refusal(path, f"format is {facts.get('format')!r}, and {FORMAT} is understood")
    known = {"format", "measured_at", "machine", "values", "quality"}
    if set(facts) != known:
        odd = ", ".join(sorted(set(facts) ^ known))
        raise _refusal(path, f"missing or unknown: {odd}")
    for name in ("machine", "values", "quality"):
        if not isinstance(facts[name], dict):
            raise _refusal(path, f"{name} is no object")
    values = {name: _number(path, name, value) for name, value in facts["values"].items()}
    if not values:
        raise _refusal(path, "it has no values")
    return Calibration(
        _time(path, facts["measured_at"]), facts["machine"], values, facts["quality"]
    )


def _number(path: Path, name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise _refusal(path, f"values.{name} is {value!r}, not a finite number")
    return float(value)


def _time(path: Path, value: Any) -> datetime:
    try:
        time = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        time = None
    if time is None or time.tzinfo is None:
        raise _refusal(path, f"measured_at is {value!r}, not an ISO 8601 time with its zone")
    return time


def _refusal(path: Path, what: str) -> KeyplaneError:
    return KeyplaneError(Reason.INVALID_ARGUMENT, f"{path} is no calibration: {what}; {_AGAIN}")
