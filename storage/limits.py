"""How much one partition admits.

One partition of DynamoDB does up to 3,000 read units and 1,000 write units a second, each
independent of the other, however much its table may use: "Best practices for designing and using
partition keys effectively",
https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/bp-partition-key-design.html
"""

from __future__ import annotations

from typing import Final

from keyplane.model.bucket import Bucket
from keyplane.model.capacity import read_units, write_units
from keyplane.model.errors import KeyplaneError
from keyplane.model.throttling import Limit, Refusals

PARTITION_READ_UNITS: Final = 3000.0
PARTITION_WRITE_UNITS: Final = 1000.0

# What is not used within this time is lost: the limits are of each second.
WINDOW_S: Final = 1.0


class PartitionLimits:
    """Of one partition."""

    __slots__ = ("_partition_id", "_refused_reads", "_refused_writes", "_table", "reads", "writes")

    def __init__(self, partition_id: int, table: str, now: float) -> None:
        self._partition_id = partition_id
        self._table = table
        # Made with the first of them: few partitions are ever throttled.
        self._refused_reads: Refusals | None = None
        self._refused_writes: Refusals | None = None
        self.reads = Bucket(PARTITION_READ_UNITS, PARTITION_READ_UNITS * WINDOW_S, now)
        self.writes = Bucket(PARTITION_WRITE_UNITS, PARTITION_WRITE_UNITS * WINDOW_S, now)

    def admit_read(self, now: float) -> KeyplaneError | None:
        """None, or why not: THROTTLED. To be answered and not raised, since others get it, too."""
        if self.reads.admits(now):
            return None
        refused = self._refused_reads
        if refused is None:
            refused = self._refused_reads = self._refusals(self.reads, writes=False)
        return refused.after(self.reads.wait_s())

    def admit_write(self, now: float) -> KeyplaneError | None:
        """As `admit_read`."""
        if self.writes.admits(now):
            return None
        refused = self._refused_writes
        if refused is None:
            refused = self._refused_writes = self._refusals(self.writes, writes=True)
        return refused.after(self.writes.wait_s())

    def read(self, item_bytes: int, consistent: bool) -> None:
        """Takes what a read of so much costs."""
        self.reads.take(read_units(item_bytes, consistent))

    def write(self, item_bytes: int) -> None:
        """Takes what a write costs by the size of the item, as long as none is known before it."""
        self.writes.take(write_units(0, item_bytes))

    def write_over(self, before_bytes: int, after_bytes: int) -> None:
        """Takes what a write costs more by the size of the item that was there before."""
        if before_bytes > after_bytes:
            whole = write_units(before_bytes, after_bytes)
            self.writes.take(whole - write_units(0, after_bytes))

    def start_empty(self) -> None:
        """Of a partition that replaces others: it gets what those had by `inherit`."""
        self.reads.drain()
        self.writes.drain()

    def inherit(self, other: PartitionLimits, share: float) -> None:
        """Goes on with a part of what another one held, so that all together hold no more."""
        self.reads.inherit(other.reads, share)
        self.writes.inherit(other.writes, share)

    def _refusals(self, bucket: Bucket, writes: bool) -> Refusals:
        kind = "write" if writes else "read"
        return Refusals(
            Limit.KEY_RANGE,
            writes,
            self._table,
            f"partition {self._partition_id} of {self._table!r} has done its {bucket.rate:,.0f}"
            f" {kind} units of this second; spread the load over more keys, or split it",
        )
