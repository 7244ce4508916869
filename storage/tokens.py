"""What a partition remembers of recent writes, so that a retry is not done twice.

It knows since when it is complete: of anything tried after that moment and not in it nothing was
done. A retry that was first tried before that moment can be neither recognized nor ruled out. How
far back memories reach, and how they outlive the process, is the business of `storage.token_log`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from heapq import merge as merge_sorted
from itertools import takewhile
from typing import NamedTuple

# Ages are as old as the message that carries them, and clocks run at their own rates. A retry must
# be this much younger than the memory before its absence proves anything: longer than any message
# is on its way whose caller still waits (the SDK gives a router 2.5 s).
COVER_MARGIN_S = 5.0


class Remembered(NamedTuple):
    """Result of a write, and when it was done on the node's own clock.

    refused: its condition failed. That is remembered too: a late copy of a request that was
    answered so must not be carried out because the condition has come true meanwhile.
    """

    done_at: float
    version: int
    existed: bool
    refused: bool = False


class TokenMemory:
    """Names of tokens (see `layout.token_name`) to results, oldest first."""

    __slots__ = ("_covers_since", "_entries")

    def __init__(
        self, covers_since: float, entries: Iterable[tuple[bytes, Remembered]] = ()
    ) -> None:
        """entries: oldest first."""
        self._covers_since = covers_since
        self._entries: OrderedDict[bytes, Remembered] = OrderedDict(entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[tuple[bytes, Remembered]]:
        return iter(self._entries.items())

    @property
    def covers_since(self) -> float:
        return self._covers_since

    def find(self, name: bytes) -> Remembered | None:
        return self._entries.get(name)

    def covers(self, age_s: float, now: float) -> bool:
        """Whether a write first tried `age_s` ago would be in here if it had been done."""
        return now - age_s - COVER_MARGIN_S > self._covers_since

    def remember(self, name: bytes, result: Remembered) -> None:
        """Results come in the order of their times."""
        self._entries[name] = result

    def forget(self, until: float) -> None:
        """Drops what was done until then."""
        self._covers_since = max(self._covers_since, until)
        entries = self._entries
        while entries and next(iter(entries.values())).done_at <= until:
            entries.popitem(last=False)

    def times(self) -> Iterator[float]:
        """When each of them was done, in order."""
        return (result.done_at for result in self._entries.values())

    def within(self, low: bytes, high: bytes) -> TokenMemory:
        """The part of a half-open range of names, for a child of a split."""
        inside = (entry for entry in self._entries.items() if low <= entry[0] < high)
        return TokenMemory(self._covers_since, inside)

    def union(self, other: TokenMemory) -> TokenMemory:
        """For a merge: complete only since both were."""
        return TokenMemory(
            max(self._covers_since, other._covers_since),
            merge_sorted(self, other, key=lambda entry: entry[1].done_at),
        )

    def since(self, when: float) -> list[tuple[bytes, Remembered]]:
        """What was done at `when` or later, oldest first."""
        found = list(
            takewhile(lambda entry: entry[1].done_at >= when, reversed(self._entries.items()))
        )
        found.reverse()
        return found
