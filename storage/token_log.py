"""The write tokens that a node remembers: how many in all, and their image on disk.

On disk they are a log. Every batch of writes carries one record with the results of those writes,
so whatever keeps or loses a write keeps or loses its token: a kill, a loss of power, a failed
commit. Results say which key hash they belong to. They are handed out to the partitions that have
those hashes when the log is read, at the start of the process; so nothing is copied when partitions
are split or merged, and what belongs to none (it has moved away, it was dropped) is passed over.
Only before a partition arrives the log notes that what was there of its hashes no longer counts.

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
from collections.abc import Iterable, Iterator, Sequence
from heapq import heapify, heappop, heapreplace
from typing import Final

from librt.strings import BytesWriter

from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.numbers import write_u32_be, write_u64_be
from keyplane.model.partition import Partition
from storage.config import WriteConfig
from storage.layout import TOKEN_NAME_BYTES, log_key, log_keys, log_number, token_names
from storage.ownership import Holding, State
from storage.tokens import Remembered, TokenMemory
from wire.ports import Batch, Clock, Engine

# Kind, and when it was written.
_HEADER: Final = struct.Struct(">Bd")
_RESULTS: Final = 1
# What older records say of a range of hashes does not count.
_ARRIVAL: Final = 2

# Of _RESULTS: the token's name, version, milliseconds before the record was written, flags.
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

# Tokens that come between two looks at their bound, which is overstepped by as many meanwhile: few,
# since those that are too many go at once, while requests wait; and some for each partition, since
# all are looked at. At most this part of the bound.
_LOOK_AFTER: Final = 256
_LOOK_AFTER_PER_PARTITION: Final = 4
_LOOKS: Final = 64
# How exactly the log knows when its records were written, when it comes to delete them.
_MARK_S: Final = 1.0


class TokenLog:
    def __init__(self, config: WriteConfig, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        # From this process's clock to the node's running time.
        self._offset = -clock.now()
        # Of the partitions that are served.
        self._memories: dict[TokenMemory, None] = {}
        self._since_look = 0
        # Everything done until then may be forgotten.
        self._forgotten_until = float("-inf")
        # Numbers of the oldest record that may be there, of the youngest of those that may go, and
        # of the next.
        self._oldest = 1
        self._forgotten = 0
        self._next = 1
        # Numbers of some records, and when they and all before had been written; oldest first.
        self._marks: deque[tuple[int, float]] = deque()

    def __len__(self) -> int:
        """Tokens that are remembered."""
        return sum(map(len, self._memories))

    @property
    def idle_sweep(self) -> bool:
        """Whether enough records wait to be deleted for a batch of their own."""
        return self._forgotten - self._oldest >= SWEPT_PER_BEAT_MIN

    def stamp(self, time: float) -> float:
        """The node's running time at a time of this process's clock."""
        return time + self._offset

    # --- Start ---------------------------------------------------------------------------------

    def load(
        self, engine: Engine, holdings: Iterable[Holding], complete: bool
    ) -> dict[int, TokenMemory]:
        """The memories of all partitions that have their data here, by id.

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
        if not complete:
            self._forgotten_until = now
        results = sorted(self._replay(engine), key=lambda result: result.name)
        names = [result.name for result in results]
        memories = {}
        for holding in holdings:
            if holding.state in (State.RETIRED, State.INCOMING):
                continue
            low, high = _names(holding.partition)
            mine = results[bisect_left(names, low) : bisect_left(names, high)]
            mine.sort(key=lambda result: result.done_at)
            covers_since = max(holding.remembers_since - self._offset, self._forgotten_until)
            memories[holding.partition.partition_id] = TokenMemory(covers_since, mine)
        return memories

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
            written_at = stamp - self._offset
            self._next = max(self._next, number + 1)
            if not self._marks or self._marks[0][1] - written_at >= _MARK_S:
                self._marks.appendleft((number, written_at))
            if kind == _ARRIVAL:
                _cover(bounds, *_SPAN.unpack_from(value, _HEADER.size))
                continue
            for name, version, age_ms, flags in _ENTRY.iter_unpack(value[_HEADER.size :]):
                if name not in seen and not bisect_right(bounds, name) % 2:
                    seen.add(name)
                    existed, refused = bool(flags & _EXISTED), bool(flags & _REFUSED)
                    done_at = written_at - age_ms / 1000
                    yield Remembered(name, done_at, version, existed, refused)
        if number > 1:
            self._oldest, self._forgotten = number, number - 1
            self._forgotten_until = max(self._forgotten_until, written_at)

    # --- Memories ------------------------------------------------------------------------------

    def adopt(self, memory: TokenMemory) -> None:
        """Of a partition that is served from now on."""
        self._memories[memory] = None
        self.remembered(len(memory))

    def release(self, memory: TokenMemory) -> None:
        """Of a partition that is no longer served."""
        del self._memories[memory]

    def remembered(self, count: int) -> None:
        """So many tokens have come; makes room if they are too many."""
        self._since_look += count
        look_after = max(_LOOK_AFTER, _LOOK_AFTER_PER_PARTITION * len(self._memories))
        if self._since_look < min(look_after, self._config.tokens_max // _LOOKS):
            return
        self._since_look = 0
        self._shed(len(self) - self._config.tokens_max)

    def _shed(self, surplus: int) -> None:
        """Forgets so many of the oldest, whosever they are, and what was done in the same moment as
        the last of these.
        """
        if surplus <= 0:
            return
        # Each memory under when its oldest was done. The number keeps memories from being compared.
        heap = [
            (memory.oldest, number, memory)
            for number, memory in enumerate(self._memories)
            if len(memory)
        ]
        heapify(heap)
        until = float("-inf")
        while surplus > 0:
            until, number, memory = heap[0]
            surplus -= memory.forget(until)
            if len(memory):
                heapreplace(heap, (memory.oldest, number, memory))
            else:
                heappop(heap)
        self._forget(until)

    def forget_old(self) -> None:
        """Called on every beat."""
        now = self._clock.now()
        if not self._marks or now - self._marks[-1][1] >= _MARK_S:
            self._marks.append((self._next - 1, now))
        self._forget(now - self._config.token_age_s)

    def _forget(self, until: float) -> None:
        self._forgotten_until = max(self._forgotten_until, until)
        for memory in self._memories:
            memory.forget(until)
        while self._marks and self._marks[0][1] <= until:
            self._forgotten = self._marks.popleft()[0]

    # --- Disk ----------------------------------------------------------------------------------

    def write(self, batch: Batch, results: Sequence[Remembered], sweep: int = 0) -> int:
        """Adds a record, and deletes up to `sweep` of those that may go.

        Without results a record is added only to be the youngest, so that those that go are not
        all. Returns how many go; `swept` is to be told once the batch is committed.
        """
        going = range(self._oldest, min(self._oldest + sweep, self._forgotten + 1))
        if not (results or going):
            return 0
        now = self._clock.now()
        record = BytesWriter()
        record.write(_HEADER.pack(_RESULTS, now + self._offset))
        for result in results:
            record.write(result.name)
            write_u64_be(record, result.version)
            age_ms = min(int((now - result.done_at) * 1000), _AGE_MS_MAX)
            write_u32_be(record, age_ms)
            record.append(_EXISTED * result.existed | _REFUSED * result.refused)
        self._append(batch, record.getvalue())
        for number in going:
            batch.writes[log_key(number)] = None
        return len(going)

    def swept(self, count: int) -> None:
        self._oldest += count

    def write_arrival(self, batch: Batch, partition: Partition) -> None:
        """Notes that what is in the log of the hashes of a partition does not count any more."""
        header = _HEADER.pack(_ARRIVAL, self.stamp(self._clock.now()))
        self._append(batch, header + _SPAN.pack(*_names(partition)))

    def write_beginning(self, batch: Batch) -> None:
        """For data that had no log: it is complete from here on, and not since ever."""
        self._next = max(self._next, 2)
        self._append(batch, _HEADER.pack(_RESULTS, self.stamp(self._clock.now())))

    def _append(self, batch: Batch, record: bytes) -> None:
        """A number is never given out again, even if its batch fails."""
        batch.writes[log_key(self._next)] = record
        self._next += 1


def _names(partition: Partition) -> tuple[bytes, bytes]:
    return token_names(partition.table_id, partition.start, partition.end)


def _cover(bounds: list[bytes], low: bytes, high: bytes) -> None:
    """Adds a half-open range to a union of such, kept as its starts and ends in turn."""
    first, last = bisect_left(bounds, low), bisect_right(bounds, high)
    bounds[first:last] = [low] * (first % 2 == 0) + [high] * (last % 2 == 0)


def _read_header(value: bytes) -> tuple[int, float]:
    """Raises KeyplaneError: CORRUPT, or FOREIGN_FORMAT for a kind of record that is unknown."""
    kind, stamp = _HEADER.unpack_from(value) if len(value) >= _HEADER.size else (0, 0.0)
    size = len(value) - _HEADER.size
    if (kind == _RESULTS and size % _ENTRY.size == 0) or (kind == _ARRIVAL and size == _SPAN.size):
        return kind, stamp
    raise KeyplaneError(
        Reason.CORRUPT, f"a record of {len(value)} bytes in the log of write tokens is unreadable"
    )
