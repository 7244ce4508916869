"""What a partition remembers of recent writes, so that a retry is not done twice.

It knows since when it is complete: of anything tried after that moment and not in it nothing was
done. A retry that was first tried before that moment can be neither recognized nor ruled out. How
far back memories reach, and how they outlive the process, is the business of `storage.token_log`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from heapq import merge as merge_sorted

from mypy_extensions import mypyc_attr

# Ages are as old as the message that carries them, and clocks run at their own rates. A retry must
# be this much younger than the memory before its absence proves anything: longer than any message
# is on its way whose caller still waits (the SDK gives a router 2.5 s).
COVER_MARGIN_S = 5.0


@mypyc_attr(acyclic=True)
class Remembered:
    """Result of a write, and when it was done on the node's own clock. Never changed.

    refused: its condition failed. That is remembered too: a late copy of a request that was
    answered so must not be carried out because the condition has come true meanwhile.
    """

    __slots__ = ("done_at", "existed", "refused", "version")

    def __init__(self, done_at: float, version: int, existed: bool, refused: bool = False) -> None:
        self.done_at = done_at
        self.version = version
        self.existed = existed
        self.refused = refused

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Remembered)
            and self.done_at == other.done_at
            and self.version == other.version
            and self.existed == other.existed
            and self.refused == other.refused
        )

    def __hash__(self) -> int:
        return hash((self.done_at, self.version, self.existed, self.refused))

    def __repr__(self) -> str:
        return f"Remembered({self.done_at}, {self.version}, {self.existed}, {self.refused})"


class TokenMemory:
    """Names of tokens (see `layout.token_name`) to results, oldest first."""

    __slots__ = ("_by_name", "_covers_since", "_order")

    def __init__(
        self, covers_since: float, entries: Iterable[tuple[bytes, Remembered]] = ()
    ) -> None:
        """entries: oldest first."""
        self._covers_since = covers_since
        self._by_name: dict[bytes, Remembered] = {}
        # By age; one whose name was given another result since is passed over. A dictionary keeps
        # its order too, but finds its first entry ever more slowly the more were taken out.
        self._order: deque[tuple[bytes, Remembered]] = deque()
        for name, result in entries:
            self.remember(name, result)

    def __len__(self) -> int:
        return len(self._by_name)

    def __iter__(self) -> Iterator[tuple[bytes, Remembered]]:
        by_name = self._by_name
        return iter([entry for entry in self._order if by_name[entry[0]] is entry[1]])

    @property
    def covers_since(self) -> float:
        return self._covers_since

    def find(self, name: bytes) -> Remembered | None:
        return self._by_name.get(name)

    def covers(self, age_s: float, now: float) -> bool:
        """Whether a write first tried `age_s` ago would be in here if it had been done."""
        return now - age_s - COVER_MARGIN_S > self._covers_since

    def remember(self, name: bytes, result: Remembered) -> None:
        """Results come in the order of their times."""
        self._by_name[name] = result
        self._order.append((name, result))

    def forget(self, until: float) -> None:
        """Drops what was done until then."""
        self._covers_since = max(self._covers_since, until)
        order, by_name = self._order, self._by_name
        while order and order[0][1].done_at <= until:
            name, result = order.popleft()
            if by_name[name] is result:
                del by_name[name]

    def oldest(self, count: int) -> list[float]:
        """When the `count` oldest of them were done, in order."""
        by_name, order = self._by_name, self._order
        all_count = len(by_name) == len(order)
        found: list[float] = []
        for name, result in order:
            if len(found) >= count:
                break
            if all_count or by_name[name] is result:
                found.append(result.done_at)
        return found

    def nth_oldest(self, number: int) -> float:
        """When the `number`th oldest was done, 1 being the oldest and len(self) the youngest."""
        if len(self._order) == len(self._by_name):
            return self._order[number - 1][1].done_at
        return self.oldest(number)[-1]

    def within(self, low: bytes, high: bytes) -> TokenMemory:
        """The part of a half-open range of names, for a child of a split."""
        inside = (entry for entry in self if low <= entry[0] < high)
        return TokenMemory(self._covers_since, inside)

    def union(self, other: TokenMemory) -> TokenMemory:
        """For a merge: complete only since both were."""
        return TokenMemory(
            max(self._covers_since, other._covers_since),
            merge_sorted(self, other, key=lambda entry: entry[1].done_at),
        )

    def since(self, when: float) -> list[tuple[bytes, Remembered]]:
        """What was done at `when` or later, oldest first."""
        by_name = self._by_name
        found = []
        for entry in reversed(self._order):
            if entry[1].done_at < when:
                break
            if by_name[entry[0]] is entry[1]:
                found.append(entry)
        found.reverse()
        return found
