"""What happened in a run: a fingerprint always, and on request every event, to be read.

The fingerprint covers the time, ends and kind of every message and every event in a process's life.
Two runs with one fingerprint went the same way. Writing everything down takes several times as long
as the run itself, so a run that fails is done again with a full trace.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field

import xxhash


@dataclass(frozen=True, slots=True)
class Line:
    """One event of a full trace.

    at: virtual seconds. lamport: Lamport time at `process`: a message is received later than it
    was sent (Lamport, Time, Clocks, and the Ordering of Events, CACM 1978). what: a sentence.
    about: keys (`table/key`), partitions (`p7`), operations and processes that it touches.
    """

    at: float
    lamport: int
    process: str
    what: str
    about: frozenset[str] = frozenset()

    def __str__(self) -> str:
        return f"{self.at:10.4f}  {self.lamport:>6}  {self.process:<11} {self.what}"


@dataclass(slots=True)
class Trace:
    """full: whether to keep `lines` as well as the fingerprint."""

    full: bool = False
    lines: list[Line] = field(default_factory=list)
    _marks: array[float] = field(default_factory=lambda: array("d"))
    # Kinds of event in the order in which they were first seen, which is part of the run.
    _kinds: dict[str, int] = field(default_factory=dict)
    _lamport: dict[str, int] = field(default_factory=dict)

    def mark(self, at: float, kind: str) -> None:
        """Adds one event to the fingerprint."""
        kinds = self._kinds
        number = kinds.get(kind)
        if number is None:
            number = kinds[kind] = len(kinds)
        self._marks.append(at)
        self._marks.append(number)

    def note(
        self,
        at: float,
        process: str,
        what: str,
        about: frozenset[str] = frozenset(),
        after: int = 0,
    ) -> int:
        """Writes one line down, if there is a full trace. `after`: Lamport time it follows on.

        Returns its own Lamport time, for the message that carries it.
        """
        if not self.full:
            return 0
        lamport = max(self._lamport.get(process, 0), after) + 1
        self._lamport[process] = lamport
        self.lines.append(Line(at, lamport, process, what, about))
        return lamport

    def fingerprint(self) -> str:
        """32 hex digits."""
        digest = xxhash.xxh3_128(self._marks.tobytes())
        digest.update("\n".join(self._kinds).encode())
        return digest.hexdigest()
