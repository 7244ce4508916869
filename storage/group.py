"""A group commit in the making: requests to write, the batch they become, and what follows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from keyplane.model.errors import KeyplaneError
from keyplane.storage.v1 import storage_pb2 as pb
from storage.layout import progress_key
from storage.records import encode_progress
from storage.request import ItemWrite
from storage.shard import Shard, TailEntry
from storage.token_log import SWEPT_PER_BATCH, TokenLog
from storage.tokens import Remembered
from wire.ports import Batch, Reply, ReplyFn
from wire.protobytes import delimited, tag, varint

_WRITE = tag(pb.ExecuteResponse.WRITE_FIELD_NUMBER, 2)
_BATCH_WRITE = tag(pb.ExecuteResponse.BATCH_WRITE_FIELD_NUMBER, 2)
_RESULTS = tag(pb.BatchWriteResult.RESULTS_FIELD_NUMBER, 2)
_VERSION = tag(pb.WriteResult.VERSION_FIELD_NUMBER, 0)
_EXISTED = tag(pb.WriteResult.EXISTED_FIELD_NUMBER, 0) + varint(1)
_REASON = tag(pb.WriteResult.REASON_FIELD_NUMBER, 2)


class Write:
    """One request to write: one operation, or a batch of them.

    keys: the engine key of each operation. arrived_at: when the request did.
    divert: called instead of evaluating if the shard is no longer open for writes at its turn.
    results: serialized `WriteResult`s.
    """

    __slots__ = (
        *("arrived_at", "data_bytes", "deadline", "divert", "error", "is_batch", "keys"),
        *("operations", "reply", "results", "shard"),
    )

    def __init__(
        self,
        shard: Shard,
        operations: Sequence[ItemWrite],
        keys: Sequence[bytes],
        is_batch: bool,
        arrived_at: float,
        deadline: float,
        divert: Callable[[], None],
        reply: ReplyFn,
        data_bytes: int,
    ) -> None:
        self.shard = shard
        self.operations = operations
        self.keys = keys
        self.is_batch = is_batch
        self.arrived_at = arrived_at
        self.deadline = deadline
        self.divert = divert
        self.reply = reply
        self.data_bytes = data_bytes
        self.results: list[bytes] = []
        self.error: KeyplaneError | None = None


class Group:
    """tokens: the node's. Memory learns of the batch once it is durable, and not before."""

    def __init__(self, tokens: TokenLog) -> None:
        self.tokens = tokens
        self.batch = Batch()
        self.writes: list[Write] = []
        self.sync = False
        # Results by the names of their tokens, and the shards that they belong to, in order.
        self.remembered: dict[bytes, Remembered] = {}
        self.owners: list[Shard] = []
        # Old records of the log that the batch deletes.
        self.swept = 0
        self.changes: list[tuple[Shard, TailEntry]] = []
        # Items and bytes by which a shard has grown.
        self.growth: dict[Shard, tuple[int, int]] = {}

    def recall(self, shard: Shard, name: bytes) -> Remembered | None:
        """The result of an earlier attempt, in this group or before."""
        return self.remembered.get(name) or shard.tokens.find(name)

    def remember(self, shard: Shard, name: bytes, result: Remembered) -> None:
        self.remembered[name] = result
        self.owners.append(shard)

    def change(self, shard: Shard, entry: TailEntry) -> None:
        """Makes an item anew, replaces it, or deletes it."""
        key, old, new = entry.key, entry.old, entry.new
        self.batch.writes[key] = new
        self.changes.append((shard, entry))
        items, data_bytes = self.growth.get(shard, (0, 0))
        self.growth[shard] = (
            items + (new is not None) - (old is not None),
            data_bytes + _entry_bytes(key, new) - _entry_bytes(key, old),
        )

    @property
    def empty(self) -> bool:
        """Whether nothing needs to be written down."""
        return not (self.batch or self.remembered)

    def close(self) -> None:
        """Completes the batch by what every batch of writes carries along."""
        self.swept = self.tokens.write(self.batch, self.remembered.items(), SWEPT_PER_BATCH)
        for shard, (items, data_bytes) in self.growth.items():
            self.batch.writes[progress_key(shard.partition.partition_id)] = encode_progress(
                shard.version, shard.items + items, shard.data_bytes + data_bytes, shard.counted
            )

    def learn(self) -> None:
        """Tells memory what the batch has done."""
        for shard, (name, result) in zip(self.owners, self.remembered.items(), strict=True):
            shard.tokens.remember(name, result)
        self.tokens.remembered(len(self.remembered))
        self.tokens.swept(self.swept)
        for shard, (items, data_bytes) in self.growth.items():
            shard.items += items
            shard.data_bytes += data_bytes
        for shard, entry in self.changes:
            if shard.tail is not None:
                shard.tail.append(entry)

    def answer(self, error: KeyplaneError | None = None) -> None:
        """Answers every write, with `error` if there is one."""
        for write in self.writes:
            if error is not None:
                write.reply(Reply(error=error))
            elif write.is_batch:
                results = b"".join(delimited(_RESULTS, result) for result in write.results)
                write.reply(Reply(delimited(_BATCH_WRITE, results)))
            elif write.error is not None:
                write.reply(Reply(error=write.error))
            else:
                write.reply(Reply(delimited(_WRITE, write.results[0])))


def result_of(version: int, existed: bool) -> bytes:
    """A serialized `WriteResult`, put together from bytes since every write makes one."""
    return _VERSION + varint(version) + (_EXISTED if existed else b"")


def result_of_failure(error: KeyplaneError) -> bytes:
    """The `WriteResult` of a write that was not done."""
    return delimited(_REASON, error.reason.name.encode())


def _entry_bytes(key: bytes, value: bytes | None) -> int:
    return 0 if value is None else len(key) + len(value)
