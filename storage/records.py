"""Node records: what a node must know again after a restart, and how it is written down.

Records are protobuf messages, small and always written synced. The one exception is a partition's
progress, which is written often and is therefore packed by hand. What is here of it may be older
than what the log of write tokens says (see `storage.token_log`).
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from keyplane.catalog.v1 import catalog_pb2 as catalog
from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.partition import Partition
from keyplane.storage.v1 import records_pb2 as pb
from storage.layout import (
    NODE_RECORD,
    partition_key,
    partition_keys,
    progress_key,
    table_key,
    table_keys,
)
from storage.ownership import Holding, Move, NodeRef, State
from wire.ports import Batch, Engine

# Of everything in a data directory. A build refuses directories with a higher number.
FORMAT = 4
# Since this one every write leaves its token. Builds before it must not go on with the data: they
# would leave a gap that nobody knew of.
TOKENS_FORMAT = 2

_STATES = {
    State.SERVING: pb.HOLDING_STATE_SERVING,
    State.HANDOVER: pb.HOLDING_STATE_HANDOVER,
    State.RETIRED: pb.HOLDING_STATE_RETIRED,
    State.INCOMING: pb.HOLDING_STATE_INCOMING,
    State.CONFIRMED: pb.HOLDING_STATE_CONFIRMED,
}
_STATES_BACK = {number: state for state, number in _STATES.items()}

_M = TypeVar("_M", bound=Message)

# Of a partition's progress, as `struct` has it: last version, items, bytes, whether these two are
# known.
PROGRESS_FIELDS = "QqqB"
_PROGRESS = struct.Struct(f">{PROGRESS_FIELDS}")


@dataclass(frozen=True, slots=True)
class Progress:
    """version: the last one given to a write of the partition.
    items, data_bytes: of its entries in the engine; only meaningful when `counted`.
    """

    version: int = 0
    items: int = 0
    data_bytes: int = 0
    counted: bool = True


def put_holding(batch: Batch, holding: Holding) -> None:
    key = partition_key(holding.partition.partition_id)
    batch.writes[key] = _holding_to_proto(holding).SerializeToString(deterministic=True)


def delete_holding(batch: Batch, partition_id: int) -> None:
    batch.writes[partition_key(partition_id)] = None
    batch.writes[progress_key(partition_id)] = None


def put_progress(batch: Batch, partition_id: int, progress: Progress) -> None:
    batch.writes[progress_key(partition_id)] = _PROGRESS.pack(
        progress.version, progress.items, progress.data_bytes, progress.counted
    )


def put_table(batch: Batch, table: catalog.Table) -> None:
    batch.writes[table_key(table.table_id)] = table.SerializeToString(deterministic=True)


def delete_table(batch: Batch, table_id: int) -> None:
    batch.writes[table_key(table_id)] = None


def put_node(batch: Batch, node_id: str, cluster: str) -> None:
    record = pb.NodeRecord(format=FORMAT, node_id=node_id, cluster=cluster)
    batch.writes[NODE_RECORD] = record.SerializeToString(deterministic=True)


def check_node(engine: Engine, node_id: str, cluster: str) -> int:
    """Format of the data; 0 for none at all.

    Raises KeyplaneError: FOREIGN_FORMAT, or INVALID_ARGUMENT for the data of another node.
    """
    value = engine.get(NODE_RECORD)
    if value is None:
        return 0
    record = _parse(pb.NodeRecord, value, "node record")
    if record.format > FORMAT:
        raise KeyplaneError(
            Reason.FOREIGN_FORMAT,
            f"the data directory has format {record.format}; this build reads up to {FORMAT}:"
            " start it with a newer build",
        )
    if (record.node_id, record.cluster) != (node_id, cluster):
        raise KeyplaneError(
            Reason.INVALID_ARGUMENT,
            f"the data directory belongs to node {record.node_id!r} of cluster"
            f" {record.cluster!r}, not to {node_id!r} of {cluster!r}:"
            " start with its own --node-id and --cluster, or with an empty --data-dir",
        )
    return record.format


def load_tables(engine: Engine) -> list[catalog.Table]:
    """Raises KeyplaneError(CORRUPT)."""
    return [_parse(catalog.Table, value, "table record") for _, value in engine.scan(*table_keys())]


def load_holdings(engine: Engine) -> list[Holding]:
    """Raises KeyplaneError(CORRUPT)."""
    return [
        _holding_from_proto(_parse(pb.PartitionRecord, value, "partition record"))
        for _, value in engine.scan(*partition_keys())
    ]


def load_progress(engine: Engine, partition_id: int) -> Progress:
    """Raises KeyplaneError(CORRUPT)."""
    value = engine.get(progress_key(partition_id))
    if value is None:
        return Progress()
    if len(value) != _PROGRESS.size:
        raise KeyplaneError(Reason.CORRUPT, f"progress record of partition {partition_id}")
    version, items, data_bytes, counted = _PROGRESS.unpack(value)
    return Progress(version, items, data_bytes, bool(counted))


def _parse(kind: type[_M], value: bytes, what: str) -> _M:
    try:
        return kind.FromString(value)
    except DecodeError as error:
        raise KeyplaneError(Reason.CORRUPT, f"unreadable {what}: {error}") from error


def _holding_to_proto(holding: Holding) -> pb.PartitionRecord:
    move = holding.move
    return pb.PartitionRecord(
        partition=holding.partition.to_proto(),
        state=_STATES[holding.state],
        operation_id=holding.operation_id,
        successors=[successor.to_proto() for successor in holding.successors],
        nodes=[node.to_proto() for node in holding.nodes],
        move=None if move is None else _move_to_proto(move),
        before=None if holding.before is None else _holding_to_proto(holding.before),
        released=holding.released,
        remembers_since=None if math.isinf(holding.remembers_since) else holding.remembers_since,
    )


def _holding_from_proto(record: pb.PartitionRecord) -> Holding:
    state = _STATES_BACK.get(record.state)
    if state is None:
        raise KeyplaneError(Reason.CORRUPT, f"partition record in unknown state {record.state}")
    return Holding(
        partition=Partition.from_proto(record.partition),
        state=state,
        operation_id=record.operation_id,
        successors=tuple(Partition.from_proto(each) for each in record.successors),
        nodes=tuple(NodeRef.from_proto(each) for each in record.nodes),
        move=_move_from_proto(record.move) if record.HasField("move") else None,
        before=_holding_from_proto(record.before) if record.HasField("before") else None,
        released=record.released,
        remembers_since=(
            record.remembers_since if record.HasField("remembers_since") else float("-inf")
        ),
    )


def _move_to_proto(move: Move) -> pb.MoveRecord:
    return pb.MoveRecord(
        operation_id=move.operation_id,
        run=move.run,
        peer=move.peer.to_proto(),
        reason=move.error.reason.name if move.error else "",
        message=move.error.message if move.error else "",
        fence_ms=move.fence_ms,
    )


def _move_from_proto(record: pb.MoveRecord) -> Move:
    error = None
    if record.reason:
        reason = Reason.__members__.get(record.reason, Reason.INTERNAL)
        error = KeyplaneError(reason, record.message)
    peer = NodeRef.from_proto(record.peer)
    return Move(record.operation_id, record.run, peer, error, record.fence_ms)
