"""The write tokens that a node remembers: how many in all, and their image on disk.

A token is an entry of the engine, written in the batch of the write whose result it is: whatever
keeps or loses the one keeps or loses the other, a kill, a loss of power or a failed commit. Entries
are ordered by key hash as items are, so a partition owns those of its hashes: nothing is copied
when it is split or merged, and all is deleted together when it goes.

How far back it reaches. All partitions forget alike, by age: what is older than `token_age_s`, and
as much more of what is oldest on the node as there is over `tokens_max`. A partition that is busy
thus has as many tokens as it needs, and the memory of each reaches back equally far. What has been
forgotten is deleted a little at a time, in batches of later writes; each such batch also says how
far back the entries on disk are still complete.

Time. Entries must keep their age over a restart, and no wall clock decides anything here. They are
stamped with the node's *running time*: this process's clock, plus what the stamps on disk say that
earlier processes had. It stands still while the node is down. So an age taken from stamps may be
less than the true one, never more: the memory is taken to reach less far back than it does, and its
entries are kept longer.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from heapq import merge as merge_sorted
from itertools import chain, islice

from keyplane.model.errors import KeyplaneError, Reason
from storage.config import WriteConfig
from storage.layout import REMEMBERS_RECORD, token_keys, token_range
from storage.ownership import Holding, State
from storage.tokens import Remembered, TokenMemory
from wire.ports import Batch, Clock, Engine

# When it was done, version, flags.
_ENTRY = struct.Struct(">dQB")
_EXISTED = 0x01
_REFUSED = 0x02

_STAMP = struct.Struct(">d")

# The bound on tokens is looked at once in this part of it, and overstepped by as much meanwhile.
_LOOKS = 64


class TokenStore:
    def __init__(self, config: WriteConfig, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        # From this process's clock to the node's running time.
        self._offset = -clock.now()
        # Of the partitions that are served.
        self._memories: dict[TokenMemory, None] = {}
        self._since_look = 0
        # Keys that no memory has any more and that are still on disk, oldest first.
        self._forgotten: OrderedDict[bytes, None] = OrderedDict()
        # What was done until then may be among them, or deleted.
        self._forgotten_until = float("-inf")

    def __len__(self) -> int:
        """Tokens that are remembered."""
        return sum(map(len, self._memories))

    @property
    def forgotten(self) -> int:
        """Tokens that are still to be deleted from disk."""
        return len(self._forgotten)

    def stamp(self, time: float) -> float:
        """The node's running time at a time of this process's clock."""
        return time + self._offset

    # --- Start ---------------------------------------------------------------------------------

    def load(
        self, engine: Engine, holdings: Iterable[Holding], complete: bool
    ) -> Mapping[int, TokenMemory]:
        """The memories of those that serve, by partition id. Learns the running time so far.

        complete: False for data that was written by builds which kept no tokens on disk.

        Raises KeyplaneError(CORRUPT).
        """
        holdings = list(holdings)
        since = _read_stamp(engine.get(REMEMBERS_RECORD))
        entries = list(engine.scan(*token_keys()))
        stamps = chain(
            [0.0, since],
            (holding.remembers_since for holding in holdings),
            (_read_entry(value)[0] for _, value in entries),
        )
        self._offset = max(stamps) - self._clock.now()
        self._forgotten_until = since - self._offset if complete else self._clock.now()
        keys = [key for key, _ in entries]
        memories = {}
        for holding in holdings:
            if holding.state not in (State.SERVING, State.HANDOVER):
                continue
            partition = holding.partition
            low, high = token_range(partition.table_id, partition.start, partition.end)
            mine = entries[bisect_left(keys, low) : bisect_left(keys, high)]
            memory = self._rebuild(mine, holding.remembers_since)
            self._forgotten.update(dict.fromkeys(memory.forget(self._forgotten_until)))
            memories[partition.partition_id] = memory
        return memories

    def read(self, engine: Engine, holding: Holding) -> TokenMemory:
        """The memory of a partition that this node has received and not served yet."""
        partition = holding.partition
        span = token_range(partition.table_id, partition.start, partition.end)
        return self._rebuild(engine.scan(*span), holding.remembers_since)

    def _rebuild(
        self, entries: Iterable[tuple[bytes, bytes]], remembers_since: float
    ) -> TokenMemory:
        found = []
        for key, value in entries:
            stamp, version, flags = _read_entry(value)
            done_at = stamp - self._offset
            result = Remembered(done_at, version, bool(flags & _EXISTED), bool(flags & _REFUSED))
            found.append((key, result))
        found.sort(key=lambda entry: entry[1].done_at)
        return TokenMemory(remembers_since - self._offset, found)

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
        if self._since_look * _LOOKS < self._config.tokens_max:
            return
        self._since_look = 0
        surplus = len(self) - self._config.tokens_max
        if surplus > 0:
            oldest = merge_sorted(*(memory.times() for memory in self._memories))
            self._forget(next(islice(oldest, surplus - 1, None)))

    def forget_old(self) -> None:
        """Called on every beat."""
        self._forget(self._clock.now() - self._config.token_age_s)

    def _forget(self, until: float) -> None:
        self._forgotten_until = max(self._forgotten_until, until)
        for memory in self._memories:
            self._forgotten.update(dict.fromkeys(memory.forget(until)))

    # --- Disk ----------------------------------------------------------------------------------

    def put(self, batch: Batch, key: bytes, result: Remembered) -> None:
        flags = _EXISTED * result.existed | _REFUSED * result.refused
        batch.writes[key] = _ENTRY.pack(self.stamp(result.done_at), result.version, flags)
        if self._forgotten:
            # Carried out again long after.
            self._forgotten.pop(key, None)

    def sweep(self, batch: Batch, most: int) -> list[bytes]:
        """Deletes forgotten tokens. To be told by `swept` once the batch is committed."""
        keys = list(islice(self._forgotten, most))
        if keys:
            batch.writes.update(dict.fromkeys(keys))
            self.put_limit(batch)
        return keys

    def swept(self, keys: Iterable[bytes]) -> None:
        for key in keys:
            del self._forgotten[key]

    def put_limit(self, batch: Batch) -> None:
        """Notes since when the tokens on disk are complete."""
        batch.writes[REMEMBERS_RECORD] = _STAMP.pack(self.stamp(self._forgotten_until))


def _read_entry(value: bytes) -> tuple[float, int, int]:
    try:
        stamp, version, flags = _ENTRY.unpack(value)
    except struct.error as error:
        raise KeyplaneError(Reason.CORRUPT, f"unreadable write token: {error}") from error
    return stamp, version, flags


def _read_stamp(value: bytes | None) -> float:
    if value is None:
        return float("-inf")
    try:
        stamp: float = _STAMP.unpack(value)[0]
    except struct.error as error:
        raise KeyplaneError(Reason.CORRUPT, f"unreadable reach of write tokens: {error}") from error
    return stamp
