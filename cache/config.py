"""Settings of the reader and the publishers. Defaults suit a cluster on one machine and a fleet."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Refresh(enum.Enum):
    """What makes a reader read."""

    # The same requests every beat, whatever happened: constant work.
    FIXED = "fixed"
    # DynamoDB's own variant: every use of a table queues a refresh of it, coalesced per beat.
    PER_REQUEST = "per_request"


@dataclass(frozen=True, slots=True)
class ReaderConfig:
    """How a router reads MemDS."""

    # Names the keys; all processes of a cluster share it.
    cluster: str
    # Seconds between beats. A change is seen one beat after it was published, and MemDS gets
    # 4 / beat_s requests a second from each router: 16 at the default.
    beat_s: float = 0.25
    refresh: Refresh = Refresh.FIXED
    # Roots read per request, rotating when there are more tables.
    root_slots: int = 256
    # Storage nodes' reports read per request, rotating.
    report_slots: int = 16
    # Pages read per request, missing ones first. The two nodes of a beat are asked for different
    # ones, so a map of 1,000,000 partitions (9,600 pages) loads in 38 s at the defaults.
    page_slots: int = 32
    # Bounds in seconds on the wait before the second node is asked: the 95th percentile of recent
    # answers lies between them in any healthy network.
    hedge_delay_s_min: float = 0.001
    hedge_delay_s_max: float = 0.05


@dataclass(frozen=True, slots=True)
class PublisherConfig:
    """How MemDS is kept full."""

    cluster: str
    # Seconds between beats: the longest a committed change waits before it is published.
    beat_s: float = 0.5
    # Versioned values (roots, directory, report) written per beat and node: changed ones first,
    # then in rotation, so that 100 tables are all rewritten in about 3 s.
    value_slots: int = 16
    # Pages written per beat and node, new ones first. An emptied node holds a map of 1,000,000
    # partitions (9,600 pages) again after 19 s at the defaults; one of a laptop after one beat.
    page_slots: int = 256
