"""What a node remembers of recent writes, so that a retry is not done twice.

It knows since when it is complete: of anything tried after that moment and not in it nothing was
done. A retry that was first tried before that moment can be neither recognized nor ruled out. How
far back the memory reaches, and how it outlives the process, is the business of
`storage.token_log`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final

from mypy_extensions import mypyc_attr

# Ages are as old as the message that carries them, and clocks run at their own rates. A retry must
# be this much younger than the memory before its absence proves anything: longer than any message
# is on its way whose caller still waits (the SDK gives a router 2.5 s).
COVER_MARGIN_S = 5.0

# Results that are looked at in one go by who wants all: a few milliseconds of work at either end of
# a move.
PART: Final = 2_000


def covers(covers_since: float, age_s: float, now: float) -> bool:
    """Whether a write first tried `age_s` ago would be remembered if it had been done, where what
    was done after `covers_since` is.
    """
    return now - age_s - COVER_MARGIN_S > covers_since


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
    """Results of a node's writes, by the names of their tokens, whichever partition they belong to:
    so splits and merges have nothing to hand over.

    What has been forgotten is the oldest, so one moment says how far back the memory reaches. That
    of a partition may begin later (see `Shard.remembers_since`).
    """

    __slots__ = ("_arrived", "_by_name", "_forgotten_until", "_own")

    def __init__(self) -> None:
        self._by_name: dict[bytes, Remembered] = {}
        # One whose name was given another result since is passed over.
        self._own = _Line()
        self._arrived = _Line()
        self._forgotten_until = float("-inf")

    def __len__(self) -> int:
        return len(self._by_name)

    @property
    def forgotten_until(self) -> float:
        """Everything done until then may be forgotten."""
        return self._forgotten_until

    @property
    def newest(self) -> float:
        """None that is remembered from now on, but for those that arrive, was done before that."""
        return self._own.newest

    def find(self, name: bytes) -> Remembered | None:
        return self._by_name.get(name)

    def knows(self, result: Remembered) -> bool:
        """Whether it is the last word on its token, and not forgotten."""
        return self._by_name.get(result.name) is result

    def remember(self, result: Remembered) -> None:
        """Of this node. Results come in the order of their times."""
        self._by_name[result.name] = result
        self._own.append(result)

    def take(self, results: Iterable[Remembered]) -> None:
        """Of a partition that arrives, in any order; what was here of it has been dropped."""
        fresh = list(results)
        if not fresh:
            return
        for result in fresh:
            self._by_name[result.name] = result
        fresh += [result for part in self._arrived.parts() for result in part]
        self._arrived = _Line()
        for result in sorted(fresh, key=_done_at):
            if self.knows(result):
                self._arrived.append(result)

    def drop(self, low: bytes, high: bytes) -> None:
        """What is here of a half-open range of names does not count any more."""
        for name in [name for name in self._by_name if low <= name < high]:
            del self._by_name[name]

    def forget(self, until: float) -> None:
        """What was done until then."""
        self._forgotten_until = max(self._forgotten_until, until)
        for line in (self._own, self._arrived):
            oldest = line.oldest
            while oldest is not None and oldest.done_at <= until:
                self._shift(line, oldest)
                oldest = line.oldest

    def shed(self, most: int) -> None:
        """Forgets the oldest until there are no more than `most`, and what was done in the same
        moment as the last of these.
        """
        until = self._forgotten_until
        while len(self._by_name) > most:
            line, oldest = self._own, self._own.oldest
            arrived = self._arrived.oldest
            if oldest is None or (arrived is not None and arrived.done_at < oldest.done_at):
                line, oldest = self._arrived, arrived
            assert oldest is not None
            self._shift(line, oldest)
            until = max(until, oldest.done_at)
        if until > self._forgotten_until:
            self.forget(until)

    def parts(self) -> list[list[Remembered]]:
        """All of them in parts of up to PART, and with them some that are not known any more. Those
        of this node oldest first, and so those that have arrived.
        """
        return [*self._arrived.parts(), *self._own.parts()]

    def since(self, when: float) -> list[Remembered]:
        """What was done on this node at `when` or later, oldest first."""
        found = []
        for part in reversed(self._own.parts()):
            if part[-1].done_at < when:
                break
            for result in reversed(part):
                if result.done_at < when:
                    break
                if self.knows(result):
                    found.append(result)
        found.reverse()
        return found

    def _shift(self, line: _Line, oldest: Remembered) -> None:
        line.shift()
        if self.knows(oldest):
            del self._by_name[oldest.name]


class _Line:
    """Results, oldest first. A dictionary keeps its order too, but finds its first entry ever more
    slowly the more were taken out.
    """

    __slots__ = ("_first", "_parts")

    def __init__(self) -> None:
        # None of them is empty; all but the last are full.
        self._parts: deque[list[Remembered]] = deque()
        # So many of the first part are gone.
        self._first = 0

    @property
    def oldest(self) -> Remembered | None:
        return self._parts[0][self._first] if self._parts else None

    @property
    def newest(self) -> float:
        """When the last of them was done."""
        return self._parts[-1][-1].done_at if self._parts else float("-inf")

    def append(self, result: Remembered) -> None:
        parts = self._parts
        if not parts or len(parts[-1]) == PART:
            parts.append([])
        parts[-1].append(result)

    def shift(self) -> None:
        """Takes the oldest out."""
        self._first += 1
        if self._first == len(self._parts[0]):
            self._parts.popleft()
            self._first = 0

    def parts(self) -> list[list[Remembered]]:
        if not self._parts:
            return []
        first, *rest = self._parts
        return [first[self._first :], *rest]


def _done_at(result: Remembered) -> float:
    return result.done_at
