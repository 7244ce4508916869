"""What a run of the data-plane benchmark is to do, and how long that takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bench._orders import Closed

# Of a window, before it counts; at least this many seconds.
_WARM_UP_SHARE = 0.1
_WARM_UP_S_MIN = 0.2

# Of each window, on top: the last answers, sorting, saying what it gave.
_BETWEEN_S = 0.5

# What an echo is called where others have a kind.
ECHO_KIND = "echo"

_NAMED = {"get": 0.0, "put": 1.0}


@dataclass(frozen=True, slots=True)
class Kind:
    """A mix of reads and writes. write_share: of requests, 0 to 1."""

    name: str
    write_share: float


@dataclass(frozen=True, slots=True)
class Plan:
    """seconds: of one window. rounds: windows of each sort. outstanding: closed loops to run."""

    seconds: float
    rounds: int
    outstanding: Sequence[int]
    kinds: Sequence[Kind]

    def closed(self, kind: Kind, outstanding: int) -> Closed:
        return Closed(outstanding, kind.write_share, self.seconds, warm_up_s(self.seconds))

    def takes_s(self, windows: int) -> float:
        """Seconds that so many windows take, without starting and filling."""
        return windows * (self.seconds + warm_up_s(self.seconds) + _BETWEEN_S)


@dataclass(frozen=True, slots=True)
class Turn:
    """One window of a comparison."""

    round: int
    system: str
    kind: Kind
    outstanding: int


def kind_named(name: str) -> Kind:
    """`get`, `put`, or the percent of reads and of writes, as `90/10`.

    Raises ValueError for anything else.
    """
    if name in _NAMED:
        return Kind(name, _NAMED[name])
    reads, slash, writes = name.partition("/")
    if slash and reads.isdigit() and writes.isdigit() and int(reads) + int(writes) == 100:
        return Kind(name, int(writes) / 100)
    raise ValueError(f"{name!r} is no kind of load; give get, put, or shares such as 90/10")


def turns(plan: Plan, systems: Sequence[str], echo: str) -> Iterator[Turn]:
    """Every window, in order: systems next to each other, each first in some rounds.

    echo: the system whose requests are of one kind only.
    """
    for number in range(plan.rounds):
        first = number % len(systems)
        rotated = [*systems[first:], *systems[:first]]
        for outstanding in plan.outstanding:
            for index, kind in enumerate(plan.kinds):
                for system in rotated:
                    if system != echo:
                        yield Turn(number, system, kind, outstanding)
                    elif index == 0:
                        yield Turn(number, system, Kind(ECHO_KIND, 1.0), outstanding)


def warm_up_s(seconds: float) -> float:
    return max(_WARM_UP_S_MIN, _WARM_UP_SHARE * seconds)
