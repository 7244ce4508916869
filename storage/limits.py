"""How much one partition admits: reads and writes each on their own, however much its table may
use.
"""

from __future__ import annotations

from typing import Final

from keyplane.model.bucket import Bucket
from keyplane.model.capacity import read_units, write_units
from keyplane.model.errors import KeyplaneError
from keyplane.model.throttling import Limit, Refusals
from storage.heat import smoothed

# What is not used within this time is lost: the limits are of each second.
WINDOW_S: Final = 1.0

# And within this time while the node has no room for bursts.
CROWDED_WINDOW_S: Final = 0.05


class PartitionLimits:
    """Of one partition, with what has been used and refused: averages as in `Heat`."""

    __slots__ = (
        "_partition_id",
        "_read_units",
        "_reads_refused",
        "_refused_reads",
        "_refused_writes",
        "_table",
        "_write_units",
        "_writes_refused",
        "read_units_per_s",
        "reads",
        "refused_reads_per_s",
        "refused_writes_per_s",
        "write_units_per_s",
        "writes",
    )

    def __init__(
        self, partition_id: int, table: str, read_units: float, write_units: float, now: float
    ) -> None:
        """read_units, write_units: that it admits, a second."""
        self._partition_id = partition_id
        self._table = table
        self.reads = Bucket(read_units, read_units * WINDOW_S, now)
        self.writes = Bucket(write_units, write_units * WINDOW_S, now)
        # Made with the first of them: few partitions are ever throttled.
        self._refused_reads: Refusals | None = None
        self._refused_writes: Refusals | None = None
        # Since the last beat: units used, and requests refused.
        self._read_units = 0.0
        self._write_units = 0.0
        self._reads_refused = 0
        self._writes_refused = 0
        self.read_units_per_s = 0.0
        self.write_units_per_s = 0.0
        self.refused_reads_per_s = 0.0
        self.refused_writes_per_s = 0.0

    def admit_read(self, now: float) -> KeyplaneError | None:
        """None, or why not: THROTTLED. To be answered and not raised, since others get it, too."""
        if self.reads.admits(now):
            return None
        self._reads_refused += 1
        refused = self._refused_reads
        if refused is None:
            refused = self._refused_reads = self._refusals(self.reads, writes=False)
        return refused.after(self.reads.wait_s())

    def admit_write(self, now: float) -> KeyplaneError | None:
        """As `admit_read`."""
        if self.writes.admits(now):
            return None
        self._writes_refused += 1
        refused = self._refused_writes
        if refused is None:
            refused = self._refused_writes = self._refusals(self.writes, writes=True)
        return refused.after(self.writes.wait_s())

    def give_up_savings(self, now: float) -> None:
        """Leaves hardly more than what comes in: the node has no room for bursts."""
        for bucket in (self.reads, self.writes):
            bucket.cut(max(1.0, bucket.rate * CROWDED_WINDOW_S), now)

    def read(self, item_bytes: int, consistent: bool) -> None:
        """Takes what a read of so much costs."""
        units = read_units(item_bytes, consistent)
        self._read_units += units
        self.reads.take(units)

    def write(self, item_bytes: int) -> None:
        """Takes what a write costs by the size of the item, as long as none is known before it."""
        self._take_write(write_units(0, item_bytes))

    def write_over(self, before_bytes: int, after_bytes: int) -> None:
        """Takes what a write costs more by the size of the item that was there before."""
        if before_bytes > after_bytes:
            whole = write_units(before_bytes, after_bytes)
            self._take_write(whole - write_units(0, after_bytes))

    def beat(self, elapsed_s: float) -> None:
        """Ends a beat of `elapsed_s` seconds."""
        self.read_units_per_s = smoothed(self.read_units_per_s, self._read_units, elapsed_s)
        self.write_units_per_s = smoothed(self.write_units_per_s, self._write_units, elapsed_s)
        self.refused_reads_per_s = smoothed(
            self.refused_reads_per_s, self._reads_refused, elapsed_s
        )
        self.refused_writes_per_s = smoothed(
            self.refused_writes_per_s, self._writes_refused, elapsed_s
        )
        self._read_units = self._write_units = 0.0
        self._reads_refused = self._writes_refused = 0

    def start_empty(self) -> None:
        """Of a partition that replaces others: it gets what those had by `inherit`."""
        self.reads.drain()
        self.writes.drain()

    def inherit(self, other: PartitionLimits, share: float) -> None:
        """Goes on with a part of what another one held, so that all together hold no more."""
        self.reads.inherit(other.reads, share)
        self.writes.inherit(other.writes, share)
        self.read_units_per_s += share * other.read_units_per_s
        self.write_units_per_s += share * other.write_units_per_s

    def _take_write(self, units: float) -> None:
        self._write_units += units
        self.writes.take(units)

    def _refusals(self, bucket: Bucket, writes: bool) -> Refusals:
        kind = "write" if writes else "read"
        return Refusals(
            Limit.KEY_RANGE,
            writes,
            self._table,
            f"partition {self._partition_id} of {self._table!r} has done its {bucket.rate:,.0f}"
            f" {kind} units of this second; spread the load over more keys, or split it",
        )
