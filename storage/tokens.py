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
    """Result of a write under a token, and when it was done on the node's own clock. Never changed.

    name: of the token and what it wrote (see `layout.token_name`).
    refused: its condition failed. That is remembered too: a late copy of a request that was
    answered so must not be carried out because the condition has come true meanwhile.
    """

    __slots__ = ("done_at", "existed", "name", "refused", "version")

    def __init__(
        self, name: bytes, done_at: float, version: int, existed: bool, refused: bool = False
    ) -> None:
        self.name = name
        self.done_at = done_at
        self.version = version
        self.existed = existed
        self.refused = refused

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Remembered)
            and self.name == other.name
            and self.done_at == other.done_at
            and self.version == other.version
            and self.existed == other.existed
            and self.refused == other.refused
        )

    def __hash__(self) -> int:
        return hash((self.name, self.done_at, self.version, self.existed, self.refused))

    def __repr__(self) -> str:
        result = f"{self.version}, {self.existed}, {self.refused}"
        return f"Remembered({self.name!r}, {self.done_at}, {result})"


class TokenMemory:
    """Results, by the names of their tokens; iterating gives them oldest first."""

    __slots__ = ("_by_name", "_covers_since", "_order")

    def __init__(self, covers_since: float, results: Iterable[Remembered] = ()) -> None:
        """results: oldest first."""
        self._covers_since = covers_since
        self._by_name: dict[bytes, Remembered] = {}
        # By age; one whose name was given another result since is passed over. A dictionary keeps
        # its order too, but finds its first entry ever more slowly the more were taken out.
        self._order: deque[Remembered] = deque()
        for result in results:
            self.remember(result)

    def __len__(self) -> int:
        return len(self._by_name)

    def __iter__(self) -> Iterator[Remembered]:
        by_name = self._by_name
        return iter([result for result in self._order if by_name[result.name] is result])

    @property
    def covers_since(self) -> float:
        return self._covers_since

    def find(self, name: bytes) -> Remembered | None:
        return self._by_name.get(name)

    def covers(self, age_s: float, now: float) -> bool:
        """Whether a write first tried `age_s` ago would be in here if it had been done."""
        return now - age_s - COVER_MARGIN_S > self._covers_since

    def remember(self, result: Remembered) -> None:
        """Results come in the order of their times."""
        self._by_name[result.name] = result
        self._order.append(result)

    def forget(self, until: float) -> int:
        """Drops what was done until then; returns how much that was."""
        self._covers_since = max(self._covers_since, until)
        order, by_name = self._order, self._by_name
        before = len(by_name)
        while order and order[0].done_at <= until:
            result = order.popleft()
            if by_name[result.name] is result:
                del by_name[result.name]
        return before - len(by_name)

    @property
    def oldest(self) -> float:
        """When the oldest of them was done. There must be one."""
        # The first may be one whose name was given another result since.
        while self._by_name[self._order[0].name] is not self._order[0]:
            self._order.popleft()
        return self._order[0].done_at

    def within(self, low: bytes, high: bytes) -> TokenMemory:
        """The part of a half-open range of names, for a child of a split."""
        inside = [result for result in self if low <= result.name < high]
        return TokenMemory(self._covers_since, inside)

    def union(self, other: TokenMemory) -> TokenMemory:
        """For a merge: complete only since both were."""
        return TokenMemory(
            max(self._covers_since, other._covers_since),
            merge_sorted(self, other, key=lambda result: result.done_at),
        )

    def since(self, when: float) -> list[Remembered]:
        """What was done at `when` or later, oldest first."""
        by_name = self._by_name
        found = []
        for result in reversed(self._order):
            if result.done_at < when:
                break
            if by_name[result.name] is result:
                found.append(result)
        found.reverse()
        return found
