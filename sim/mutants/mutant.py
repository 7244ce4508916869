"""What a planted bug is."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass

from sim.mutants.patch import Edit, planted


@dataclass(frozen=True, slots=True)
class Mutant:
    """One bug that somebody could have written.

    what: the bug, in one sentence. invariants: those that may notice, by their names in
    `sim.violation.Violation`. killed_by: a profile and seed that notices, the cheapest known.
    """

    name: str
    what: str
    invariants: tuple[str, ...]
    edits: tuple[Edit, ...]
    killed_by: tuple[str, int] | None = None

    def apply(self) -> AbstractContextManager[None]:
        """The bug is in the code until the context ends. Raises ValueError if it does not fit."""
        return planted(self.edits)
