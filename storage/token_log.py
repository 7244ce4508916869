"""The write tokens that a node remembers: how many in all, and their image on disk.

On disk they are a log. Every batch of writes carries one record with the results of those writes,
so whatever keeps or loses a write keeps or loses its token: a kill, a loss of power, a failed
commit. Results say which key hash they belong to, and to no partition; so there is nothing to do
when partitions are split or merged, and what belongs to none (it has moved away, it was dropped) is
asked for by nobody. Only before a partition arrives the log notes that what was there of its hashes
no longer counts.

Progress. The record says also how far the partitions have come that the batch writes to (their
versions and sums), in place of a record of its own for each: a batch writes to one of thousands of
partitions nearly as fast as to one of ten. Before a record goes, what it alone says of a partition
is written under the partition's own key.

How far back it reaches. All partitions forget alike, by age: what is older than `token_age_s`, and
as much more of what is oldest on the node as there is over `tokens_max`. A busy partition thus has
as many tokens as it needs, and all reach back equally far. On disk the oldest records are deleted,
a few with every batch, never all of them. Records are numbered: if the first is still there, all
tokens are; otherwise they are complete since the oldest record.

Time. Tokens must keep their age over a restart, and no wall clock decides anything here. Records
are stamped with the node's *running time*: this process's clock, plus what the stamps on disk say
that earlier processes had. It stands still while the node is down. So an age taken from stamps may
be less than the true one, never more: the memory is taken to reach less far back than it does, and
its tokens are kept longer.
"""

from __future__ import annotations

import struct
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from librt.strings import BytesWriter

from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.numbers import write_u32_be, write_u64_be
from keyplane.model.partition import Partition
from storage.config import WriteConfig
from storage.layout import TOKEN_NAME_BYTES, log_key, log_keys, log_number, token_names
from storage.ownership import Holding, State
from storage.records import PROGRESS_FIELDS, Progress, put_progress
from storage.shard import Growth, Shard
from storage.tokens import Remembered, TokenMemory
from wire.ports import Batch, Clock, Engine

# Kind, and when it was written.
_HEADER: Final = struct.Struct(">Bd")
# As _WRITES without progress, in data of format 2.
_RESULTS: Final = 1
# What older records say of a range of hashes does not count.
_ARRIVAL: Final = 2
# How many partitions it says the progress of, then that, then results.
_WRITES: Final = 3

# Of _WRITES: partition id, then as under the partition's own key.
_COUNT: Final = struct.Struct(">I")
_PROGRESS: Final = struct.Struct(f">Q{PROGRESS_FIELDS}")
# Of _WRITES: the token's name, version, milliseconds before the record was written, flags.
_ENTRY: Final = struct.Struct(f">{TOKEN_NAME_BYTES}sQIB")
_EXISTED: Final = 0x01
_REFUSED: Final = 0x02
_AGE_MS_MAX: Final = (1 << 32) - 1

# Of _ARRIVAL: the half-open range of names.
_SPAN: Final = struct.Struct(">16s16s")

# Forgotten records that a batch of writes deletes: more than the one that it adds.
SWEPT_PER_BATCH = 4
# An idle node deletes them by so many at a time, and leaves fewer than that alone: each time leaves
# a record too.
SWEPT_PER_BEAT = 500
SWEPT_PER_BEAT_MIN = 50

_NO_GROWTH: Final[Mapping[Shard, Growth]] = {}

# How exactly the log knows when its records were written, when it comes to delete them.
_MARK_S: Final = 1.0


class Logged:
    """What a batch does to the log, for when it is committed.

    number: of its record; 0 for none. swept: records that it deletes. settled: partitions whose
    progress it writes under their own keys.
    """

    __slots__ = ("number", "settled", "swept")

    def __init__(self, number: int = 0, swept: int = 0, settled: int = 0) -> None:
        self.number = number
        self.swept = swept
        self.settled = settled


class TokenLog:
    def __init__(self, config: WriteConfig, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        # From this process's clock to the node's running time.
        self._offset = -clock.now()
        self.memory = TokenMemory()
        # Numbers of the oldest record that may be there, of the youngest of those that may go, and
        # of the next.
        self._oldest = 1
        self._forgotten = 0
        self._next = 1
        # Numbers of some records, and when they and all before had been written; oldest first.
        self._marks: deque[tuple[int, float]] = deque()
        # Shards whose progress is not under their own keys, and the first record that has later
        # progress of theirs than what is; oldest first.
        self._unsettled: deque[tuple[int, Shard]] = deque()
        # The youngest progress that was found at the start, and the record that has it.
        self._found: dict[int, tuple[int, Progress]] = {}

    @property
    def idle_sweep(self) -> bool:
        """Whether enough records wait to be deleted for a batch of their own."""
        return self._forgotten - self._oldest >= SWEPT_PER_BEAT_MIN

    def stamp(self, time: float) -> float:
        """The node's running time at a time of this process's clock."""
        return time + self._offset

    def time(self, stamp: float) -> float:
        """The time of this process's clock at a running time of the node."""
        return stamp - self._offset

    # --- Start ---------------------------------------------------------------------------------

    def load(self, engine: Engine, holdings: Iterable[Holding], complete: bool) -> None:
        """Remembers what the log says of the partitions that have their data here.

        complete: False for data of builds that kept no log.

        Raises KeyplaneError(CORRUPT).
        """
        holdings = list(holdings)
        now = self._clock.now()
        newest = 0.0
        for _, value in engine.scan(*log_keys(), backward=True):
            newest = _read_header(value)[1]
            break
        floors = [holding.remembers_since for holding in holdings]
        self._offset = max(0.0, newest, *floors) - now
        # Of the names that belong to somebody.
        bounds: list[bytes] = []
        for holding in holdings:
            if holding.state not in (State.RETIRED, State.INCOMING):
                _cover(bounds, *_names(holding.partition))
        found = [result for result in self._replay(engine) if bisect_right(bounds, result.name) % 2]
        found.sort(key=lambda result: result.done_at)
        for result in found:
            self.memory.remember(result)
        if not complete:
            self.memory.forget(now)
        self.learn(())

    def progress(self, partition_id: int, own: Progress) -> Progress:
        """How far a partition had come by the log and its own key. Once `load` has been called."""
        found = self._found.get(partition_id)
        return found[1] if found is not None and found[1].version > own.version else own

    def resume(self, shards: Iterable[Shard]) -> None:
        """The shards that were opened after `load`; then its findings are not needed any more."""
        found = self._found
        known = [shard for shard in shards if shard.partition_id in found]
        for shard in sorted(known, key=lambda shard: found[shard.partition_id][0]):
            self._unsettled.append((found[shard.partition_id][0], shard))
            shard.unsettled = True
        self._found = {}

    def _replay(self, engine: Engine) -> Iterator[Remembered]:
        """Results that still count, once each. Backward: the last word on a token is the one."""
        seen: set[bytes] = set()
        # Ranges that arrived after the record being read, as `_cover` keeps them.
        bounds: list[bytes] = []
        written_at = self._clock.now()
        number = 0
        for key, value in engine.scan(*log_keys(), backward=True):
            number = log_number(key)
            kind, stamp = _read_header(value)
            written_at = self.time(stamp)
            self._next = max(self._next, number + 1)
            if not self._marks or self._marks[0][1] - written_at >= _MARK_S:
                self._marks.appendleft((number, written_at))
            if kind == _ARRIVAL:
                _cover(bounds, *_SPAN.unpack_from(value, _HEADER.size))
                continue
            at = _HEADER.size
            if kind == _WRITES:
                at = self._find_progress(number, value)
            for name, version, age_ms, flags in _ENTRY.iter_unpack(value[at:]):
                if name not in seen and not bisect_right(bounds, name) % 2:
                    seen.add(name)
                    existed, refused = bool(flags & _EXISTED), bool(flags & _REFUSED)
                    done_at = written_at - age_ms / 1000
                    yield Remembered(name, done_at, version, existed, refused)
        if number > 1:
            self._oldest, self._forgotten = number, number - 1
            self.memory.forget(written_at)

    def _find_progress(self, number: int, record: bytes) -> int:
        """Of partitions that no younger record says more of. Returns where the results begin."""
        at = _HEADER.size + _COUNT.size
        end: int = at + _PROGRESS.size * _COUNT.unpack_from(record, _HEADER.size)[0]
        for partition_id, version, items, data_bytes, counted in _PROGRESS.iter_unpack(
            record[at:end]
        ):
            progress = Progress(version, items, data_bytes, bool(counted))
            self._found.setdefault(partition_id, (number, progress))
        return end

    # --- Memory --------------------------------------------------------------------------------

    def covers_since(self, shard: Shard) -> float:
        """What was done to the shard's items after that is remembered."""
        return max(shard.remembers_since, self.memory.forgotten_until)

    def learn(self, results: Iterable[Remembered]) -> None:
        """What a batch of writes has done, once it is committed."""
        memory = self.memory
        for result in results:
            memory.remember(result)
        before = memory.forgotten_until
        memory.shed(self._config.tokens_max)
        if memory.forgotten_until > before:
            self._unmark(memory.forgotten_until)

    def arrived(self, results: Iterable[Remembered]) -> None:
        """All that is remembered of a partition that has arrived."""
        self.memory.take(results)
        self.learn(())

    def drop(self, partition: Partition) -> None:
        """As `write_arrival`, in memory."""
        self.memory.drop(*_names(partition))

    def forget_old(self) -> None:
        """Called on every beat."""
        now = self._clock.now()
        if not self._marks or now - self._marks[-1][1] >= _MARK_S:
            self._marks.append((self._next - 1, now))
        until = now - self._config.token_age_s
        self.memory.forget(until)
        self._unmark(until)

    def _unmark(self, until: float) -> None:
        """Finds which records may go: what they say is no longer in memory. `forgotten_until` does
        not say that. At the start it is when the oldest record was written, and what that says of
        the moment, or of an earlier one, is remembered.
        """
        while self._marks and self._marks[0][1] <= until:
            self._forgotten = self._marks.popleft()[0]

    # --- Disk ----------------------------------------------------------------------------------

    def write(
        self,
        batch: Batch,
        results: Sequence[Remembered],
        growth: Mapping[Shard, Growth] = _NO_GROWTH,
        sweep: int = 0,
    ) -> Logged:
        """Adds a record, and deletes up to `sweep` of those that may go.

        growth: of the shards that the batch writes to.

        Without results or growth a record is added only to be the youngest, so that those that go
        are not all. `written` is to be told once the batch is committed.
        """
        going = range(self._oldest, min(self._oldest + sweep, self._forgotten + 1))
        if not (results or growth or going):
            return Logged()
        now = self._clock.now()
        record = BytesWriter()
        record.write(_HEADER.pack(_WRITES, now + self._offset))
        record.write(_COUNT.pack(len(growth)))
        for shard, each in growth.items():
            items, data_bytes = shard.items + each.items, shard.data_bytes + each.data_bytes
            record.write(
                _PROGRESS.pack(shard.partition_id, shard.version, items, data_bytes, shard.counted)
            )
        for result in results:
            record.write(result.name)
            write_u64_be(record, result.version)
            age_ms = min(int((now - result.done_at) * 1000), _AGE_MS_MAX)
            write_u32_be(record, age_ms)
            record.append(_EXISTED * result.existed | _REFUSED * result.refused)
        number = self._append(batch, record.getvalue())
        for gone in going:
            batch.writes[log_key(gone)] = None
        settled = self._settle(batch, going[-1], growth) if going else 0
        return Logged(number, len(going), settled)

    def _settle(self, batch: Batch, until: int, growth: Mapping[Shard, Growth]) -> int:
        """Writes down under its own key what of the progress is in no record after `until`."""
        settled = 0
        for number, shard in self._unsettled:
            if number > until:
                break
            settled += 1
            if not shard.retired:
                put_progress(batch, shard.partition_id, shard.after(growth.get(shard)))
        return settled

    def written(self, logged: Logged, growth: Mapping[Shard, Growth] = _NO_GROWTH) -> None:
        """What `write` returned, and the growth that it was given."""
        self._oldest += logged.swept
        for _ in range(logged.settled):
            self._unsettled.popleft()[1].unsettled = False
        for shard in growth:
            if not shard.unsettled:
                self._unsettled.append((logged.number, shard))
                shard.unsettled = True

    def write_arrival(self, batch: Batch, partition: Partition) -> None:
        """Notes that what is in the log of the hashes of a partition does not count any more."""
        header = _HEADER.pack(_ARRIVAL, self.stamp(self._clock.now()))
        self._append(batch, header + _SPAN.pack(*_names(partition)))

    def write_beginning(self, batch: Batch) -> None:
        """For data that had no log: it is complete from here on, and not since ever."""
        self._next = max(self._next, 2)
        self._append(batch, _HEADER.pack(_RESULTS, self.stamp(self._clock.now())))

    def _append(self, batch: Batch, record: bytes) -> int:
        """Returns its number, which is never given out again, even if the batch fails."""
        number = self._next
        batch.writes[log_key(number)] = record
        self._next += 1
        return number


def _names(partition: Partition) -> tuple[bytes, bytes]:
    return token_names(partition.table_id, partition.start, partition.end)


def _cover(bounds: list[bytes], low: bytes, high: bytes) -> None:
    """Adds a half-open range to a union of such, kept as its starts and ends in turn."""
    first, last = bisect_left(bounds, low), bisect_right(bounds, high)
    bounds[first:last] = [low] * (first % 2 == 0) + [high] * (last % 2 == 0)


def _read_header(value: bytes) -> tuple[int, float]:
    """Raises KeyplaneError(CORRUPT)."""
    kind, stamp = _HEADER.unpack_from(value) if len(value) >= _HEADER.size else (0, 0.0)
    size = len(value) - _HEADER.size
    if kind == _WRITES and size >= _COUNT.size:
        size -= _COUNT.size + _PROGRESS.size * _COUNT.unpack_from(value, _HEADER.size)[0]
    if kind == _ARRIVAL:
        whole = size == _SPAN.size
    else:
        whole = kind in (_RESULTS, _WRITES) and size >= 0 and size % _ENTRY.size == 0
    if whole:
        return kind, stamp
    raise KeyplaneError(
        Reason.CORRUPT, f"a record of {len(value)} bytes in the log of write tokens is unreadable"
    )
