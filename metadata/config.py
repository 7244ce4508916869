"""Everything about a Metadata Store that may be tuned."""

from __future__ import annotations

from dataclasses import dataclass, field

from keyplane.metadata.v1.metadata_pb2 import PartitionLoad
from keyplane.model.limits import PARTITION_BYTES, PARTITION_READ_UNITS, PARTITION_WRITE_UNITS

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
# Parts of a partition's range that a report may tell apart.
SAMPLED_BINS_MAX = 64
# Requests or capacity units a second that one partition may be said to have: far above what any
# machine does, and still a number that sums and averages can be made of.
LOAD_PER_SECOND_MAX = 1e12


# Changes that one GetPlan shows.
PLAN_SHOWN_MAX = 1_000


@dataclass(frozen=True, slots=True)
class PlannerConfig:
    """When partitions are split, merged and moved without being asked.

    Heat is the load of a partition as a share of what one can do: of reads or of writes, whichever
    is more. Tables without limits have none, and are split for their size only.
    """

    # How often it is looked for what there is to do. Seconds.
    beat_s: float = 1.0
    # What one partition does. Capacity units a second.
    read_units: float = PARTITION_READ_UNITS
    write_units: float = PARTITION_WRITE_UNITS

    # A partition is hot from this heat on, or while so many requests a second are refused, and is
    # split once it has been for so long. Seconds.
    split_above: float = 0.9
    throttled_per_s: float = 1.0
    hot_for_s: float = 5.0
    # Bytes from which it is split whatever its load.
    split_bytes: int = PARTITION_BYTES
    # Seconds for which a new partition is left alone: its averages need five beats to be true.
    settle_s: float = 10.0
    # Seconds until a split that would not have helped is looked at again.
    declined_s: float = 300.0

    # Neighbours are merged if, over so many seconds, the sum of their highest heats was below this
    # share of `split_above`, and their bytes are below that share of `split_bytes`.
    cold_s: float = 300.0
    merge_below: float = 0.5
    # Partitions that are looked at for that in one beat, in turns.
    merge_scan_max: int = 10_000

    # A partition is moved if the heat of two nodes has differed by so much for so long (seconds),
    # and by at least that share of the average, and the move takes away that share of it.
    move_gap: float = 0.5
    move_gap_share: float = 0.25
    move_gain: float = 0.2
    unbalanced_for_s: float = 15.0

    # What it may start: so many operations a second, saved up to so many, and so many that have not
    # ended; of moves, which carry data, one at a time.
    operations_per_s: float = 5.0
    operations_burst: float = 20.0
    operations_max: int = 16
    # Reports older than this are no reason for a split or a move. Seconds. For a merge they may be
    # half as old as `cold_s`: of many partitions only the busy ones are reported with every beat.
    stale_s: float = 5.0
    # Partitions that are watched; past it those not heard of for longest are forgotten.
    watched_max: int = 200_000

    def heat(self, load: PartitionLoad) -> float:
        """Of a partition with limits."""
        return max(
            load.read_units_per_second / self.read_units,
            load.write_units_per_second / self.write_units,
        )


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
    planner: PlannerConfig = field(default_factory=PlannerConfig)
