"""An invariant that did not hold."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Violation:
    """invariant: I1 to I10; `no-crash` for an exception that no code expects; `liveness`.

    at: virtual seconds. about: keys (`table/key`), partitions (`p7`) and processes concerned: the
    trace is cut to what touched them.
    """

    invariant: str
    message: str
    at: float
    about: frozenset[str] = frozenset()

    def __str__(self) -> str:
        return f"{self.invariant} at {self.at:.4f} s: {self.message}"


class ViolationError(Exception):
    """Ends a run at its first violation."""

    def __init__(self, violation: Violation) -> None:
        super().__init__(str(violation))
        self.violation = violation
