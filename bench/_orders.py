"""What a load generator may be told to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Closed:
    """`outstanding` requests in flight at any time, each followed by the next.

    write_share: of requests, 0 to 1. warm_up_s: seconds before it counts.
    """

    outstanding: int
    write_share: float
    seconds: float
    warm_up_s: float


@dataclass(frozen=True, slots=True)
class Paced:
    """`per_second` requests, evenly spaced, whether answers come or not.

    Latency counts from when a request was due: one that was sent late because the generator was
    busy has waited, too.
    """

    per_second: float
    write_share: float
    seconds: float
    warm_up_s: float


@dataclass(frozen=True, slots=True)
class Fill:
    """Writes every item once, BATCH at a time."""

    outstanding: int = 16


Order: TypeAlias = Closed | Paced | Fill
