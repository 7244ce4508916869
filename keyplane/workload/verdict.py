"""Whether what is stored now agrees with what was acknowledged."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from keyplane.workload.acklog import LoggedWrite
from keyplane.workload.items import WriteName, digest_of, name_of


class Verdict(enum.StrEnum):
    # The last acknowledged write is there.
    KEPT = "kept"
    # A later one is there, whose outcome the workload never learned.
    LATER = "later"
    # Nothing, an older write, or other bytes than were acknowledged.
    LOST = "lost"
    # A write that was acknowledged under one version is there under a later one.
    APPLIED_TWICE = "applied_twice"


@dataclass(slots=True)
class KeyHistory:
    """Of one key: its acknowledged writes by name, and the last of them in the store's order.

    The order is that of versions, not of the log: two writes under way at once may be answered in
    either order.
    """

    versions: dict[WriteName, int] = field(default_factory=dict)
    last: LoggedWrite | None = None
    unknown: int = 0

    def add(self, write: LoggedWrite) -> None:
        if write.version is None:
            self.unknown += 1
            return
        self.versions[write.name] = write.version
        if self.last is None or write.version > (self.last.version or 0):
            self.last = write

    def judge(self, item: dict[str, Any] | None, version: int) -> Verdict:
        """item, version: what a consistent read found after every write had ended."""
        last = self.last
        if last is None or last.version is None:
            return Verdict.LATER
        if item is None or version < last.version:
            return Verdict.LOST
        name = name_of(item)
        if version == last.version:
            same = name == last.name and digest_of(item) == last.digest
            return Verdict.KEPT if same else Verdict.LOST
        acknowledged = name is not None and name in self.versions
        return Verdict.APPLIED_TWICE if acknowledged else Verdict.LATER


def histories(writes: Iterable[LoggedWrite]) -> dict[tuple[str, str], KeyHistory]:
    """By table and key."""
    found: dict[tuple[str, str], KeyHistory] = {}
    for write in writes:
        found.setdefault((write.table, write.key), KeyHistory()).add(write)
    return found
