"""What a cluster on this machine consists of."""

from __future__ import annotations

from dataclasses import dataclass

from wire.auth import Auth
from wire.transports import TransportKind

# More than these help nobody on one machine; a slip of the finger should not start 1,000 processes.
MEMBERS_MAX = 64


@dataclass(frozen=True, slots=True)
class ClusterConfig:
    """Read when a cluster is made; one that exists keeps what it has.

    memds: memcached nodes. Two, so that reads can be hedged and one may be lost.
    routers: Request Routers. Two, so that clients outlive one.
    storage: storage nodes. Three, so that partitions have somewhere to move.
    database_url: of the Metadata Store, as SQLAlchemy writes it. Empty: an SQLite file in the
        cluster's own directory.
    ephemeral: `down` deletes the cluster's directory with all data.
    enable_faults: its processes can be told to misbehave, from this machine.
    transport: what carries the calls of routers and storage nodes. None: what KEYPLANE_TRANSPORT
        says, or else Keyplane's own engine.
    auth: whether routers and the Metadata Store take signed calls only. None: of a cluster that
        exists, what it has, and else they take all.
    """

    memds: int = 2
    routers: int = 2
    storage: int = 3
    database_url: str = ""
    ephemeral: bool = False
    enable_faults: bool = False
    transport: TransportKind | None = None
    auth: Auth | None = None


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long to wait for processes, in seconds.

    start_s: until a started process answers its health check. A start takes a second or two; the
        rest is room for a busy machine.
    stop_s: between SIGTERM and SIGKILL. Longer than the five seconds in which a server drains.
    probe_s: for one health check of a process that should be up.
    lock_s: for another command that is changing the same cluster.
    """

    start_s: float = 60.0
    stop_s: float = 8.0
    probe_s: float = 1.0
    lock_s: float = 90.0
