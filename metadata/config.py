"""Everything about a Metadata Store that may be tuned."""

from __future__ import annotations

from dataclasses import dataclass

# Bound on the partitions of one table: the largest map whose every part (pages in MemDS, rows,
# memory of router and Metadata Store) is exercised and measured.
PARTITIONS_MAX = 1_000_000

PAGE_SIZE_DEFAULT = 100
PAGE_SIZE_MAX = 1_000

REQUEST_ID_CHARS_MAX = 64
NODE_ID_CHARS_MAX = 64
ZONE_CHARS_MAX = 64

# Loads that one heartbeat may carry, and that are remembered of one node.
HEARTBEAT_LOADS_MAX = 1_000
NODE_LOADS_MAX = 50_000


@dataclass(frozen=True, slots=True)
class MetadataConfig:
    # Silence after which a node is SUSPECT: no new partitions or moves to it, and operations on it
    # are refused early. Seconds; five missed heartbeats of one a second.
    node_silence_s: float = 5.0
    # How often silence is looked for. Seconds.
    node_beat_s: float = 1.0
    # How often operations that wait (for their turn, for a retry) are looked at. Seconds; steps
    # that follow each other at once do not wait for it.
    drive_beat_s: float = 0.1
    # Deadline of one call to a storage node. Seconds; opening a full chunk with a sync fits well.
    call_timeout_s: float = 5.0
    # For how long an operation tries to reach a node before it is given up, provided it is certain
    # that nothing was done. Seconds; about the time after which a silent node is SUSPECT, twice.
    give_up_s: float = 10.0
    # Back-off of a failed step, doubled from the first to the second with full jitter. Seconds.
    retry_min_s: float = 0.1
    retry_max_s: float = 5.0
    # How often the source of a move is asked how far it is. Seconds.
    move_poll_s: float = 0.2
    # Moves that one drain has under way at once: a node sends several snapshots without its
    # requests noticing, since each is rate-limited.
    drain_moves_max: int = 4
    # Operations that have not ended; past it new ones are refused with OVERLOADED.
    operations_active_max: int = 1_000
    # Operations that talk to storage nodes at once; others wait their turn in order.
    operations_driven_max: int = 32
    # Ended operations that stay readable, and whose request ids are still recognised.
    operations_kept_max: int = 10_000
    # Tables that exist; DynamoDB's default quota per Region.
    tables_max: int = 2_500
    # Tombstones of deleted tables that stay published; past it the oldest are forgotten.
    tombstones_max: int = 10_000
    # Tenants, and users of each.
    tenants_max: int = 2_500
    users_max: int = 100
    # Storage nodes that may register.
    nodes_max: int = 1_000
    # Partitions in one OpenPartitions call: below gRPC's default limit of 4 MB a message.
    open_chunk: int = 4_000
    # Calls that one step has under way at once when it must reach many nodes.
    fan_out_max: int = 8
    # Changes that wait for the database; past it new ones are refused with OVERLOADED.
    changes_queued_max: int = 1_000
    # Pause between attempts to reach a database that failed. Seconds.
    database_retry_s: float = 0.5
