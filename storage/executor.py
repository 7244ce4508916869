"""Execute: ownership and epoch first, then the operation."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from google.protobuf.message import DecodeError

from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.limits import BATCH_GET_KEYS_MAX, BATCH_WRITE_ITEMS_MAX
from keyplane.route.v1.route_pb2 import RouteHint
from keyplane.storage.v1 import storage_pb2 as pb
from storage import reads
from storage.evaluate import check_write
from storage.group import Write
from storage.layout import item_key
from storage.shard import Shard
from storage.state import NodeState
from storage.stored import HEADER_BYTES
from wire.ports import EngineError, Reply, ReplyFn, Request


class Executor:
    """Carries data operations out for the partitions that this node serves."""

    def __init__(self, state: NodeState) -> None:
        self._state = state
        self._requests = state.metrics.counter(
            "storage_requests", "Data operations by kind", "operation"
        )

    def handle(self, request: Request, reply: ReplyFn) -> None:
        """Raises KeyplaneError instead of replying when the request is refused at once."""
        try:
            message = pb.ExecuteRequest.FromString(request.payload)
        except DecodeError as error:
            raise KeyplaneError(
                Reason.MALFORMED_REQUEST, f"not an ExecuteRequest: {error}"
            ) from error
        kind = message.WhichOneof("op")
        if kind is None:
            raise KeyplaneError(Reason.MALFORMED_REQUEST, "the request names no operation")
        self._requests.inc(kind)
        now = self._state.clock.now()
        _check_deadline(request.deadline, now)
        self._execute(message, kind, now, request.deadline, reply)

    def _execute(
        self,
        message: pb.ExecuteRequest,
        kind: str,
        arrived_at: float,
        deadline: float,
        reply: ReplyFn,
    ) -> None:
        shard = self._state.shards.get(message.partition_id)
        if shard is None or shard.partition.epoch != message.epoch:
            raise self.stale_route(message.partition_id)

        def again() -> None:
            try:
                _check_deadline(deadline, self._state.clock.now())
                self._execute(message, kind, arrived_at, deadline, reply)
            except KeyplaneError as error:
                reply(Reply(error=error))

        if kind in ("write", "batch_write"):
            if shard.gate is not None:
                shard.gate.wait(deadline, again, reply)
            else:
                self._enqueue(shard, message, kind, arrived_at, deadline, again, reply)
        elif shard.gate is not None and shard.handed_over:
            # Until the point of no return nobody else can write, so reads are still true here.
            shard.gate.wait(deadline, again, reply)
        else:
            reply(Reply(self._read(shard, message, kind)))

    def _read(self, shard: Shard, message: pb.ExecuteRequest, kind: str) -> bytes:
        engine = self._state.engine
        try:
            match kind:
                case "get":
                    key = message.get.key
                    reads.check_key(shard, key)
                    return reads.get(engine, shard, key)
                case "batch_get":
                    keys = message.batch_get.keys
                    _check_count(keys, BATCH_GET_KEYS_MAX)
                    reads.check_keys(shard, keys)
                    response = reads.batch_get(engine, shard, message.batch_get)
                case "query":
                    reads.check_hash(shard, message.query.hash)
                    response = reads.query(engine, shard, message.query)
                case _:
                    response = reads.scan(engine, shard, message.scan)
        except EngineError as error:
            raise KeyplaneError(Reason.CORRUPT, f"the item cannot be read: {error}") from error
        return response.SerializeToString()

    def _enqueue(
        self,
        shard: Shard,
        message: pb.ExecuteRequest,
        kind: str,
        arrived_at: float,
        deadline: float,
        again: Callable[[], None],
        reply: ReplyFn,
    ) -> None:
        is_batch = kind == "batch_write"
        if is_batch:
            operations: Sequence[pb.WriteOp] = message.batch_write.writes
            _check_count(operations, BATCH_WRITE_ITEMS_MAX)
        else:
            operations = (message.write,)
        table_id = shard.partition.table_id
        hashes, keys, tokens, data_bytes = [], [], [], 0
        for operation in operations:
            key = operation.key
            reads.check_key(shard, key)
            key_hash = key.hash
            hashes.append(key_hash)
            keys.append(item_key(table_id, key_hash, key.encoded))
            tokens.append(check_write(operation))
            data_bytes += len(operation.put) + HEADER_BYTES
        write = Write(
            shard,
            operations,
            keys,
            tokens,
            is_batch,
            arrived_at,
            deadline,
            again,
            reply,
            data_bytes,
        )
        self._state.queue.write(write)
        for key_hash in hashes:
            shard.heat.write(key_hash)

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
