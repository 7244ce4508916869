"""Settings of a storage node."""

from __future__ import annotations

from dataclasses import dataclass, field

from keyplane.model.limits import PARTITION_READ_UNITS, PARTITION_WRITE_UNITS


@dataclass(frozen=True, slots=True)
class WriteConfig:
    # Writes that may wait for their group commit. More are refused with OVERLOADED. At the measured
    # few microseconds a write this is some 50 ms of work, past which waiting helps nobody.
    queue_writes_max: int = 10_000
    # Bytes of items among them.
    queue_bytes_max: int = 64 << 20
    # Part of both for tenants to share, where there are any: once as much waits, each may hold that
    # divided by those that wait. The rest is for those that hold less.
    queue_shared: float = 0.75
    # One group commit takes at most this many writes, so that no reply waits for a huge batch.
    batch_writes_max: int = 512
    # Remembered write tokens on the whole node; each takes about 300 bytes of memory. At 5,000
    # writes/s they reach back 40 s, well past a retry after the loss of a router.
    tokens_max: int = 200_000
    # Older tokens are dropped: nobody retries for longer than the longest deadline (60 s).
    token_age_s: float = 120.0
    # While the device refuses writes, how often it is tried: doubling between these.
    probe_s_min: float = 0.1
    probe_s_max: float = 2.0


@dataclass(frozen=True, slots=True)
class MoveConfig:
    # Moves that this node drives at a time. More are refused with PARTITION_BUSY.
    moves_max: int = 4
    # Bytes of entries in one chunk: a few milliseconds of work at either end.
    chunk_bytes: int = 256 << 10
    # Most bytes per second that one move sends of its snapshot, to leave room for requests.
    rate_bytes_s: float = 64 << 20
    # Writes made while the snapshot is sent wait for their turn; more bytes than this abort it.
    tail_bytes_max: int = 64 << 20
    # Fence once no more than this many writes are left to send.
    fence_lag_writes: int = 64
    # Where so few are never left, because more come with every chunk: fence after so many chunks of
    # the tail all the same, if what is left fits one more.
    tail_rounds_max: int = 20
    # Before the point of no return: requests wait at most so long, then the move is aborted.
    fence_s_max: float = 2.0
    # Requests that may wait at one fenced partition. More are refused with NOT_SERVING.
    fence_queue_max: int = 1_000
    # Each call to the other end, and how often it is tried before the move is aborted.
    call_timeout_s: float = 2.0
    call_attempts: int = 5
    # Before the fence, when nobody waits for the move, it is tried at least for so long: well over
    # the second in which the transport reaches a node that has just been restarted.
    call_patience_s: float = 5.0
    # Between tries, with full jitter, doubling between these.
    retry_s_min: float = 0.05
    retry_s_max: float = 1.0
    # A target forgets what it has received when the source is silent for so long. Never once it has
    # confirmed that all is there.
    incoming_idle_s: float = 60.0
    # Finished and aborted moves whose outcome is kept for callers that ask again.
    outcomes_max: int = 1_000


@dataclass(frozen=True, slots=True)
class StorageConfig:
    """node_id: unique in the cluster and fixed for the life of the data directory."""

    node_id: str
    cluster: str
    # host:port that others reach this node at.
    address: str
    # Failure domain, for placement.
    zone: str = ""
    # host:port of the Metadata Store; empty: no heartbeats. Nothing on the data path waits for it.
    metadata_address: str = ""
    # Between heartbeats, and the deadline of each.
    heartbeat_s: float = 1.0
    # Between reports to MemDS of what the node serves. Routers that boot without a map and without
    # the control plane see it through them.
    report_s: float = 0.5
    # Partitions in one heartbeat: the busiest, and a rotating slice of the others.
    heartbeat_loads_max: int = 1_000
    # Partitions that have left or were split: tombstones kept, in number. Routers that are behind
    # find the new owner through them; without one they ask other nodes.
    tombstones_max: int = 20_000
    # Deleted tables whose tombstones are kept, in number. A late message that belongs to one finds
    # out by it.
    dropped_tables_max: int = 1_000
    # Entries looked at per turn by background scans (counting, split suggestions), about 2 ms.
    scan_turn_entries: int = 2_000
    # Capacity units a second that a partition admits, of tables with limits.
    read_units: float = PARTITION_READ_UNITS
    write_units: float = PARTITION_WRITE_UNITS
    # A split suggestion by item count gives up past so many items and halves the range instead.
    suggest_items_max: int = 200_000
    writes: WriteConfig = field(default_factory=WriteConfig)
    moves: MoveConfig = field(default_factory=MoveConfig)
