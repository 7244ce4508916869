"""A group commit in the making: requests to write, the batch they become, and what follows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from librt.strings import BytesWriter
from mypy_extensions import mypyc_attr

from keyplane.model.errors import KeyplaneError
from keyplane.storage.v1 import storage_pb2 as pb
from storage.request import ItemWrite
from storage.shard import Growth, Shard, TailEntry
from storage.token_log import SWEPT_PER_BATCH, Logged, TokenLog
from storage.tokens import Remembered
from wire.ports import Batch, Reply, ReplyFn
from wire.protobytes import delimited, tag, tag_byte, write_varint

_WRITE: Final = tag(pb.ExecuteResponse.WRITE_FIELD_NUMBER, 2)
_BATCH_WRITE: Final = tag(pb.ExecuteResponse.BATCH_WRITE_FIELD_NUMBER, 2)
_RESULTS: Final = tag(pb.BatchWriteResult.RESULTS_FIELD_NUMBER, 2)
_VERSION: Final = tag_byte(pb.WriteResult.VERSION_FIELD_NUMBER, 0)
_EXISTED: Final = tag_byte(pb.WriteResult.EXISTED_FIELD_NUMBER, 0)
_BEFORE_BYTES: Final = tag_byte(pb.WriteResult.BEFORE_BYTES_FIELD_NUMBER, 0)
_REASON: Final = tag(pb.WriteResult.REASON_FIELD_NUMBER, 2)


@mypyc_attr(acyclic=True)
class Execution:
    """A request that can be begun anew."""

    __slots__ = ()

    def again(self) -> None:
        raise NotImplementedError


@mypyc_attr(acyclic=True)
class Write:
    """One request to write: one operation, or a batch of them.

    keys: the engine key of each operation. arrived_at: when the request did.
    execution: begun anew instead of evaluating if the shard is no longer open for writes at its
    turn.
    results: serialized `WriteResult`s.
    """

    __slots__ = (
        *("arrived_at", "data_bytes", "deadline", "error", "execution", "is_batch", "keys"),
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
        execution: Execution,
        reply: ReplyFn,
        data_bytes: int,
    ) -> None:
        self.shard = shard
        self.operations = operations
        self.keys = keys
        self.is_batch = is_batch
        self.arrived_at = arrived_at
        self.deadline = deadline
        self.execution = execution
        self.reply = reply
        self.data_bytes = data_bytes
        self.results: list[bytes] = []
        self.error: KeyplaneError | None = None


class Group:
    """tokens: the node's. Memory learns of the batch once it is durable, and not before.

    now: when its writes are evaluated, which takes no time worth telling.
    """

    def __init__(self, tokens: TokenLog, now: float) -> None:
        self.tokens = tokens
        self.now = now
        self.batch = Batch()
        self.writes: list[Write] = []
        self.sync = False
        # Results in order, and again by the names of their tokens.
        self.results: list[Remembered] = []
        self.remembered: dict[bytes, Remembered] = {}
        self.logged = Logged()
        # Of shards that are being moved: moves begin between two batches.
        self.changes: list[tuple[Shard, TailEntry]] = []
        self.growth: dict[Shard, Growth] = {}

    def recall(self, name: bytes) -> Remembered | None:
        """The result of an earlier attempt, in this group or before."""
        return self.remembered.get(name) or self.tokens.memory.find(name)

    def remember(self, result: Remembered) -> None:
        self.remembered[result.name] = result
        self.results.append(result)

    def change(self, shard: Shard, key: bytes, old: bytes | None, new: bytes | None) -> None:
        """Makes an item anew, replaces it, or deletes it."""
        self.batch.writes[key] = new
        if shard.tail is not None:
            self.changes.append((shard, TailEntry(key, old, new)))
        growth = self.growth.get(shard)
        if growth is None:
            growth = self.growth[shard] = Growth()
        if new is not None:
            growth.items += 1
            growth.data_bytes += len(key) + len(new)
        if old is not None:
            growth.items -= 1
            growth.data_bytes -= len(key) + len(old)

    @property
    def empty(self) -> bool:
        """Whether nothing needs to be written down."""
        return not (self.batch or self.results)

    def close(self) -> None:
        """Completes the batch by what every batch of writes carries along."""
        self.logged = self.tokens.write(self.batch, self.results, self.growth, SWEPT_PER_BATCH)

    def learn(self) -> None:
        """Tells memory what the batch has done."""
        self.tokens.learn(self.results)
        self.tokens.written(self.logged, self.growth)
        for shard, growth in self.growth.items():
            shard.items += growth.items
            shard.data_bytes += growth.data_bytes
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


def result_of(version: int, existed: bool, before_bytes: int) -> bytes:
    """A serialized `WriteResult`, put together from bytes since every write makes one."""
    out = BytesWriter()
    out.append(_VERSION)
    write_varint(out, version)
    if existed:
        out.append(_EXISTED)
        out.append(1)
    if before_bytes:
        out.append(_BEFORE_BYTES)
        write_varint(out, before_bytes)
    return out.getvalue()


def result_of_failure(error: KeyplaneError) -> bytes:
    """The `WriteResult` of a write that was not done."""
    return delimited(_REASON, error.reason.name.encode())
