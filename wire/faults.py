"""A fault as data: what is done to whom, in which direction, how often and until when.

The seeded world and the live cluster speak of faults in these words. Whoever can do one (a network,
a disk, a memcached node, a supervisor) takes the record and does it; removing the record heals it.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field


class FaultKind(enum.Enum):
    """What a fault does to its target, in seconds where time is a parameter."""

    # Ends the process at once, as kill -9.
    KILL = "kill"
    # Stops the process; it goes on later without having noticed.
    PAUSE = "pause"
    # Kill, and a start on what was left on disk.
    RESTART = "restart"
    # The machine loses power: kill, and what was not synced is gone.
    POWER_LOSS = "power-loss"
    # Messages between target and peer are lost.
    PARTITION = "partition"
    # Messages are late by `delay_s`, plus up to `jitter_s`.
    LATENCY = "latency"
    # Messages are lost with the fault's probability.
    DROP = "drop"
    # Messages arrive twice with the fault's probability.
    DUPLICATE = "duplicate"
    # Every commit takes `delay_s` longer.
    SLOW_DISK = "slow-disk"
    # Whoever gets to the crash point `point` first dies there. Once.
    CRASH_POINT = "crash-point"
    # Writes are refused: no space is left.
    FULL_DISK = "full-disk"
    # The clock runs at `rate` times the speed of time.
    SKEW = "skew"
    # A memcached node forgets everything, once.
    MEMDS_FLUSH = "memds-flush"
    MEMDS_DOWN = "memds-down"
    # Readers see what was there when the fault began.
    MEMDS_STALE = "memds-stale"
    # Values are damaged on their way to readers, with the fault's probability.
    MEMDS_CORRUPT = "memds-corrupt"
    # Answers are late by `delay_s`.
    MEMDS_SLOW = "memds-slow"
    METADATA_DOWN = "metadata-down"
    # The Metadata Store's database and what it publishes are late by `delay_s`.
    METADATA_LAG = "metadata-lag"
    # Commits of the Metadata Store fail, made or not.
    DATABASE_ERROR = "database-error"


class Direction(enum.Enum):
    """Which messages between target and peer a network fault touches."""

    BOTH = "both"
    TO_PEER = "to-peer"
    FROM_PEER = "from-peer"


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault.

    target: name of a process, such as `storage-2`.
    peer: the other end, of network faults; empty: everybody.
    parameters: numbers that the kind asks for, by name.
    point: the crash point's name, of that kind.
    until: when it heals by itself, on the axis of whoever keeps it; None: when it is healed.
    """

    id: str
    kind: FaultKind
    target: str
    peer: str = ""
    direction: Direction = Direction.BOTH
    probability: float = 1.0
    parameters: Mapping[str, float] = field(default_factory=dict)
    point: str = ""
    until: float | None = None

    def __str__(self) -> str:
        """As `keyplane fault` would be asked for it."""
        arrow = {Direction.BOTH: "<->", Direction.TO_PEER: "->", Direction.FROM_PEER: "<-"}
        words = [self.kind.value, *filter(None, (self.target, self.point))]
        if self.peer:
            words += [arrow[self.direction], self.peer]
        words += [f"{name}={number:g}" for name, number in sorted(self.parameters.items())]
        if self.probability < 1.0:
            words.append(f"p={self.probability:g}")
        return " ".join(words)
