"""What has been done to a cluster on purpose, between two commands: one JSON file, replaced whole.

Processes know their own faults. The file has what only a supervisor can know, such as that a dead
process was killed on purpose, and every fault as it was asked for.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from keyplane.lock import exclusive
from keyplane.model.errors import KeyplaneError, Reason
from wire.faults import Direction, Fault, FaultKind

# Between reading and replacing the file there is nothing to wait for.
_LOCK_S = 10.0


@dataclass(frozen=True, slots=True)
class Record:
    """members: processes it is done to, or by. until: wall time; None: until it is healed."""

    fault: Fault
    members: tuple[str, ...]
    until: float | None = None


@dataclass(slots=True)
class Records:
    """by_id: in the order in which they began. counted: how many there have ever been."""

    by_id: dict[str, Record] = field(default_factory=dict)
    counted: int = 0

    def next_id(self, kind: FaultKind) -> str:
        self.counted += 1
        return f"{kind.value}-{self.counted}"


@contextlib.contextmanager
def changing(path: Path) -> Iterator[Records]:
    """The records, to be changed; written back at the end unless that raises.

    Raises KeyplaneError: CLUSTER_BUSY, CORRUPT.
    """
    with exclusive(path.with_suffix(".lock"), _LOCK_S):
        records = load(path)
        yield records
        rows = [_row(record) for record in records.by_id.values()]
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps({"counted": records.counted, "faults": rows}, indent=1))
        temporary.replace(path)


def load(path: Path) -> Records:
    """Raises KeyplaneError(CORRUPT)."""
    try:
        raw = json.loads(path.read_bytes())
        records = [_record(row) for row in raw["faults"]]
        return Records({record.fault.id: record for record in records}, int(raw["counted"]))
    except FileNotFoundError:
        return Records()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise KeyplaneError(
            Reason.CORRUPT,
            f"{path} cannot be read ({error}); delete it, and bring members back with "
            "`keyplane resume` and `keyplane restart`",
        ) from error


def _row(record: Record) -> dict[str, Any]:
    fault = record.fault
    return {
        "id": fault.id,
        "kind": fault.kind.value,
        "target": fault.target,
        "peer": fault.peer,
        "direction": fault.direction.value,
        "probability": fault.probability,
        "parameters": dict(fault.parameters),
        "point": fault.point,
        "members": list(record.members),
        "until": record.until,
    }


def _record(row: dict[str, Any]) -> Record:
    fault = Fault(
        id=row["id"],
        kind=FaultKind(row["kind"]),
        target=row["target"],
        peer=row["peer"],
        direction=Direction(row["direction"]),
        probability=float(row["probability"]),
        parameters={name: float(number) for name, number in row["parameters"].items()},
        point=row["point"],
    )
    until = None if row["until"] is None else float(row["until"])
    return Record(fault, tuple(row["members"]), until)
