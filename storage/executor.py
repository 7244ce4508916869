"""Execute: ownership and epoch first, then the operation."""

from __future__ import annotations

from collections.abc import Sequence

from mypy_extensions import mypyc_attr

from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.limits import BATCH_GET_KEYS_MAX, BATCH_WRITE_ITEMS_MAX
from keyplane.route.v1.route_pb2 import RouteHint
from storage import reads
from storage.group import Execution, Write
from storage.layout import item_key
from storage.request import Execute, read_execute
from storage.shard import Shard
from storage.state import NodeState
from storage.stored import HEADER_BYTES
from wire.ports import EngineError, Reply, ReplyFn, Request


@mypyc_attr(acyclic=True)
class _Execution(Execution):
    """One request until it is answered. It may have to wait at a gate, and is then done again."""

    __slots__ = ("arrived_at", "deadline", "executor", "message", "reply")

    def __init__(
        self,
        executor: Executor,
        message: Execute,
        arrived_at: float,
        deadline: float,
        reply: ReplyFn,
    ) -> None:
        self.executor = executor
        self.message = message
        self.arrived_at = arrived_at
        self.deadline = deadline
        self.reply = reply

    def again(self) -> None:
        self.executor.again(self)


class Executor:
    """Carries data operations out for the partitions that this node serves."""

    def __init__(self, state: NodeState) -> None:
        self._state = state
        self._requests = state.metrics.counter(
            "storage_requests", "Data operations by kind", "operation"
        )

    def handle(self, request: Request, reply: ReplyFn) -> None:
        """Raises KeyplaneError instead of replying when the request is refused at once."""
        message = read_execute(request.payload)
        self._requests.inc(message.kind)
        now = self._state.clock.now()
        _check_deadline(request.deadline, now)
        self._execute(_Execution(self, message, now, request.deadline, reply), now)

    def again(self, execution: _Execution) -> None:
        """Of one that has waited."""
        try:
            now = self._state.clock.now()
            _check_deadline(execution.deadline, now)
            self._execute(execution, now)
        except KeyplaneError as error:
            execution.reply(Reply(error=error))

    def _execute(self, execution: _Execution, now: float) -> None:
        message = execution.message
        shard = self._state.shard(message.partition_id)
        if shard is None or shard.epoch != message.epoch:
            raise self.stale_route(message.partition_id)
        if message.kind in ("write", "batch_write"):
            if shard.gate is not None:
                shard.gate.wait(execution.deadline, execution.again, execution.reply)
            else:
                self._enqueue(shard, execution, now)
        elif shard.gate is not None and shard.handed_over:
            # Until the point of no return nobody else can write, so reads are still true here.
            shard.gate.wait(execution.deadline, execution.again, execution.reply)
        else:
            if shard.limits is not None:
                if self._state.queue.crowded:
                    shard.limits.give_up_savings(now)
                refusal = shard.limits.admit_read(now)
                if refusal is not None:
                    execution.reply(Reply(error=refusal))
                    return
            execution.reply(Reply(self._read(shard, message)))

    def _read(self, shard: Shard, message: Execute) -> bytes:
        engine = self._state.engine
        try:
            key = message.key
            if key is not None:
                reads.check_key(shard, key)
                return reads.get(engine, shard, key, message.consistent)
            return self._read_many(shard, message)
        except EngineError as error:
            raise KeyplaneError(Reason.CORRUPT, f"the item cannot be read: {error}") from error

    def _read_many(self, shard: Shard, execute: Execute) -> bytes:
        engine = self._state.engine
        message = execute.message
        assert message is not None
        match execute.kind:
            case "batch_get":
                keys = message.batch_get.keys
                _check_count(keys, BATCH_GET_KEYS_MAX)
                reads.check_keys(shard, keys)
                response = reads.batch_get(engine, shard, message.batch_get, execute.consistent)
            case "query":
                reads.check_hash(shard, message.query.hash)
                response = reads.query(engine, shard, message.query, execute.consistent)
            case _:
                response = reads.scan(engine, shard, message.scan, execute.consistent)
        return response.SerializeToString()

    def _enqueue(self, shard: Shard, execution: _Execution, now: float) -> None:
        message = execution.message
        operations = message.writes
        is_batch = message.kind == "batch_write"
        if is_batch:
            _check_count(operations, BATCH_WRITE_ITEMS_MAX)
        limits = shard.limits
        if limits is not None:
            if self._state.queue.crowded:
                limits.give_up_savings(now)
            refusal = limits.admit_write(now)
            if refusal is not None:
                execution.reply(Reply(error=refusal))
                return
        table_id = shard.table_id
        keys, data_bytes = [], 0
        for operation in operations:
            key = operation.key
            reads.check_key(shard, key)
            keys.append(item_key(table_id, key.hash, key.encoded))
            data_bytes += HEADER_BYTES
            if operation.put is not None:
                data_bytes += len(operation.put)
        write = Write(
            shard,
            operations,
            keys,
            is_batch,
            execution.arrived_at,
            execution.deadline,
            execution,
            execution.reply,
            data_bytes,
        )
        self._state.queue.write(write)
        for operation in operations:
            shard.heat.write(operation.key.hash)
            if limits is not None:
                # What an item that is there already adds is taken when it is found.
                limits.write(operation.item_bytes)

    def stale_route(self, partition_id: int) -> KeyplaneError:
        """Why this node does not serve the partition, with what it knows of who does."""
        ownership = self._state.ownership
        holding = ownership.get(partition_id)
        node_id = ownership.node.node_id
        if holding is None:
            return KeyplaneError(
                Reason.STALE_ROUTE,
                f"node {node_id} has never served partition {partition_id}",
                details=(RouteHint(),),
            )
        self._state.table(holding.partition.table_id)
        return KeyplaneError(
            Reason.STALE_ROUTE,
            f"partition {partition_id} at this epoch is not served by node {node_id} (any more)",
            details=(ownership.hint(holding),),
        )


def _check_deadline(deadline: float, now: float) -> None:
    """Raises KeyplaneError(DEADLINE_BEFORE_START)."""
    if now >= deadline:
        raise KeyplaneError(Reason.DEADLINE_BEFORE_START, "the deadline passed on the way")


def _check_count(operations: Sequence[object], most: int) -> None:
    """Raises KeyplaneError: BATCH_TOO_LARGE, or MALFORMED_REQUEST for an empty batch."""
    if not operations:
        raise KeyplaneError(Reason.MALFORMED_REQUEST, "the batch is empty")
    if len(operations) > most:
        raise KeyplaneError(
            Reason.BATCH_TOO_LARGE, f"a batch has at most {most} operations, not {len(operations)}"
        )
