"""What a partition remembers of recent writes, so that a retry is not done twice.

The memory is bounded in number and age. It knows since when it is complete: of anything tried after
that moment and not in it nothing was done. A retry that was first tried before that moment can be
neither recognized nor ruled out.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from heapq import merge as merge_sorted
from itertools import takewhile
from typing import NamedTuple

# Clocks of client and node run at their own rates, and a retry is on its way for a while: it must
# be this much younger than the memory before its absence proves anything.
COVER_MARGIN_S = 1.0


class Remembered(NamedTuple):
    """Result of a write, and when it was done on the node's own clock.

    refused: its condition failed. That is remembered too: a late copy of a request that was
    answered so must not be carried out because the condition has come true meanwhile.
    """

    done_at: float
    version: int
    existed: bool
    refused: bool = False


class TokenBudget:
    """Shares a bound on remembered tokens equally among the partitions of a node.

    A memory that is over its share because others have come gives it up with its next write.
    """

    __slots__ = ("_each_max", "_total", "each")

    def __init__(self, total: int, each_max: int) -> None:
        self._total = total
        self._each_max = each_max
        self.each = each_max

    def share_among(self, partitions: int) -> None:
        self.each = max(1, min(self._each_max, self._total // max(1, partitions)))


class TokenMemory:
    """Tokens (see `stored.token_key`) to results, oldest first."""

    __slots__ = ("_budget", "_covers_since", "_entries")

    def __init__(self, covers_since: float, budget: TokenBudget) -> None:
        self._covers_since = covers_since
        self._entries: OrderedDict[bytes, Remembered] = OrderedDict()
        self._budget = budget

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[tuple[bytes, Remembered]]:
        return iter(self._entries.items())

    @property
    def covers_since(self) -> float:
        return self._covers_since

    def find(self, token: bytes) -> Remembered | None:
        return self._entries.get(token)

    def covers(self, age_s: float, now: float) -> bool:
        """Whether a write first tried `age_s` ago would be in here if it had been done."""
        return now - age_s - COVER_MARGIN_S > self._covers_since

    def remember(self, token: bytes, result: Remembered) -> None:
        """Results come in the order of their times."""
        self._entries[token] = result
        if len(self._entries) > self._budget.each:
            self._shrink()

    def forget_before(self, when: float) -> None:
        """Drops what was done before `when`."""
        entries = self._entries
        while entries and next(iter(entries.values())).done_at < when:
            entries.popitem(last=False)
        self._covers_since = max(self._covers_since, when)

    def copy(self) -> TokenMemory:
        """For a child of a split: either child may see the retry."""
        twin = TokenMemory(self._covers_since, self._budget)
        twin._entries.update(self._entries)
        return twin

    def union(self, other: TokenMemory) -> TokenMemory:
        """For a merge: complete only since both were."""
        joined = TokenMemory(max(self._covers_since, other._covers_since), self._budget)
        for token, result in merge_sorted(self, other, key=lambda entry: entry[1].done_at):
            joined._entries[token] = result
        joined._shrink()
        return joined

    def since(self, when: float) -> list[tuple[bytes, Remembered]]:
        """What was done at `when` or later, oldest first."""
        found = list(
            takewhile(lambda entry: entry[1].done_at >= when, reversed(self._entries.items()))
        )
        found.reverse()
        return found

    def _shrink(self) -> None:
        while len(self._entries) > self._budget.each:
            _, oldest = self._entries.popitem(last=False)
            self._covers_since = max(self._covers_since, oldest.done_at)
