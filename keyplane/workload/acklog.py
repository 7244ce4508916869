"""The log of writes: a JSON line for each that was acknowledged or that nobody knows about.

    {"table": "t", "key": "key-00000001", "writer": "5f3a…", "seq": 17, "version": 4, "digest": "…"}

`version` is null where the outcome is unknown: no answer, or one that leaves it open. Writes that
were refused for certain are not in it. A line is in the operating system's hands before the write
counts as acknowledged, so the log survives kill -9 of the workload.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from keyplane.model.errors import KeyplaneError, Reason
from keyplane.workload.items import WriteName


@dataclass(frozen=True, slots=True)
class LoggedWrite:
    """version: of the item as acknowledged; None where the outcome is unknown."""

    table: str
    key: str
    name: WriteName
    version: int | None
    digest: str


class AckLog:
    """Appends, so several runs may share a file."""

    def __init__(self, path: Path) -> None:
        # Line buffered: one write to the operating system for each line.
        self._file: TextIO = path.open("a", buffering=1)

    def append(self, write: LoggedWrite) -> None:
        row = {
            "table": write.table,
            "key": write.key,
            "writer": write.name.writer,
            "seq": write.name.sequence,
            "version": write.version,
            "digest": write.digest,
        }
        self._file.write(json.dumps(row) + "\n")

    def close(self) -> None:
        self._file.close()


def read_ack_log(path: Path) -> Iterator[LoggedWrite]:
    """The last line may be half written, and is left out then.

    Raises KeyplaneError(CORRUPT) for any other line that is none; OSError.
    """
    with path.open() as file:
        for number, line in enumerate(file, 1):
            if not line.endswith("\n"):
                return
            try:
                row = json.loads(line)
                version = None if row["version"] is None else int(row["version"])
                name = WriteName(row["writer"], int(row["seq"]))
                yield LoggedWrite(row["table"], row["key"], name, version, row["digest"])
            except (ValueError, KeyError, TypeError) as error:
                raise KeyplaneError(
                    Reason.CORRUPT, f"{path}, line {number} is no line of an ack log: {error!r}"
                ) from error
