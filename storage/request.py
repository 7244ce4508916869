"""What `Execute` is asked for, read from its bytes.

Reads and writes of one item, which is what most requests are, are taken apart as bytes as long as
they have the form in which routers send them (`wire.protobytes`); all others by the message class.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from google.protobuf.message import DecodeError
from mypy_extensions import i64, mypyc_attr

from keyplane.data.v1 import data_pb2 as data
from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.limits import ITEM_BYTES_MAX
from keyplane.storage.v1 import storage_pb2 as pb
from storage.stored import CLIENT_ID_BYTES, join_token
from wire.protobytes import byte_at, fixed64_at, span_at, tag, tag_byte, varint, varint_at

# The router enforces DynamoDB's limit on an item's size; its encoding may be somewhat longer.
PUT_BYTES_MAX: Final = 2 * ITEM_BYTES_MAX

_PARTITION_ID: Final = tag_byte(pb.ExecuteRequest.PARTITION_ID_FIELD_NUMBER, 0)
_EPOCH: Final = tag_byte(pb.ExecuteRequest.EPOCH_FIELD_NUMBER, 0)
_GET: Final = tag_byte(pb.ExecuteRequest.GET_FIELD_NUMBER, 2)
_WRITE: Final = tag_byte(pb.ExecuteRequest.WRITE_FIELD_NUMBER, 2)
# Both operations have the key in field 1.
_IS_CONSISTENT: Final = tag(pb.ExecuteRequest.CONSISTENT_FIELD_NUMBER, 0) + varint(1)
_KEY: Final = tag_byte(pb.GetOp.KEY_FIELD_NUMBER, 2)
_HASH: Final = tag_byte(pb.ItemKey.HASH_FIELD_NUMBER, 1)
_ENCODED: Final = tag_byte(pb.ItemKey.ENCODED_FIELD_NUMBER, 2)
_PUT: Final = tag_byte(pb.WriteOp.PUT_FIELD_NUMBER, 2)
_TOKEN: Final = tag_byte(pb.WriteOp.TOKEN_FIELD_NUMBER, 2)
_ITEM_BYTES: Final = tag_byte(pb.WriteOp.ITEM_BYTES_FIELD_NUMBER, 0)
_CLIENT_ID: Final = tag_byte(data.WriteToken.CLIENT_ID_FIELD_NUMBER, 2)
_SEQUENCE: Final = tag_byte(data.WriteToken.SEQUENCE_FIELD_NUMBER, 0)


@mypyc_attr(acyclic=True)
class ItemKey:
    """hash: of the partition key. encoded: the whole key."""

    __slots__ = ("encoded", "hash")

    def __init__(self, hash: int, encoded: bytes) -> None:
        self.hash = hash
        self.encoded = encoded


@mypyc_attr(acyclic=True)
class ItemWrite:
    """Of one item. put: the serialized item; None deletes. item_bytes: its size as capacity units
    count it, 0 without one.

    token: as `join_token` joins it, empty without one. attempt, age_ms: as the token says.
    """

    __slots__ = ("age_ms", "attempt", "condition", "item_bytes", "key", "put", "token")

    def __init__(
        self,
        key: ItemKey,
        put: bytes | None,
        item_bytes: int,
        condition: data.Condition | None,
        token: bytes,
        attempt: int,
        age_ms: int,
    ) -> None:
        self.key = key
        self.put = put
        self.item_bytes = item_bytes
        self.condition = condition
        self.token = token
        self.attempt = attempt
        self.age_ms = age_ms


@mypyc_attr(acyclic=True)
class Execute:
    """kind: the field of the operation. key: of a `get`. writes: of a `write` or `batch_write`.

    message: of all other kinds. consistent: whether reads cost as much as consistent ones.
    """

    __slots__ = ("consistent", "epoch", "key", "kind", "message", "partition_id", "writes")

    def __init__(self, partition_id: int, epoch: int, kind: str) -> None:
        self.partition_id = partition_id
        self.epoch = epoch
        self.kind = kind
        self.key: ItemKey | None = None
        self.writes: Sequence[ItemWrite] = ()
        self.message: pb.ExecuteRequest | None = None
        self.consistent = False


def read_execute(payload: bytes) -> Execute:
    """Raises KeyplaneError: MALFORMED_REQUEST or ITEM_TOO_LARGE."""
    return _plain(payload) or _general(payload)


def read_write(op: pb.WriteOp) -> ItemWrite:
    """Raises KeyplaneError: MALFORMED_REQUEST or ITEM_TOO_LARGE."""
    action = op.WhichOneof("action")
    if action is None or (action == "delete" and not op.delete):
        raise KeyplaneError(Reason.MALFORMED_REQUEST, "a write is a put or a delete")
    if len(op.put) > PUT_BYTES_MAX:
        raise KeyplaneError(
            Reason.ITEM_TOO_LARGE, f"an item may be {ITEM_BYTES_MAX >> 10} KB; this is larger"
        )
    name = b""
    token = op.token
    if op.HasField("token"):
        if len(token.client_id) != CLIENT_ID_BYTES:
            raise KeyplaneError(
                Reason.MALFORMED_REQUEST, f"a token's client_id has {CLIENT_ID_BYTES} bytes"
            )
        name = join_token(token.client_id, token.sequence)
    return ItemWrite(
        ItemKey(op.key.hash, op.key.encoded),
        op.put if action == "put" else None,
        _item_bytes(op.item_bytes, len(op.put)),
        op.condition if op.HasField("condition") else None,
        name,
        token.attempt,
        token.age_ms,
    )


def _general(payload: bytes) -> Execute:
    try:
        message = pb.ExecuteRequest.FromString(payload)
    except DecodeError as error:
        raise KeyplaneError(Reason.MALFORMED_REQUEST, f"not an ExecuteRequest: {error}") from error
    kind = message.WhichOneof("op")
    if kind is None:
        raise KeyplaneError(Reason.MALFORMED_REQUEST, "the request names no operation")
    execute = Execute(message.partition_id, message.epoch, kind)
    execute.consistent = message.consistent
    if kind == "get":
        execute.key = ItemKey(message.get.key.hash, message.get.key.encoded)
    elif kind == "write":
        execute.writes = (read_write(message.write),)
    elif kind == "batch_write":
        execute.writes = [read_write(op) for op in message.batch_write.writes]
    else:
        execute.message = message
    return execute


def _plain(payload: bytes) -> Execute | None:
    """A `get`, or a `write` that is a put without condition, in its first attempt."""
    size: i64 = len(payload)
    if byte_at(payload, 0) != _PARTITION_ID:
        return None
    partition_id, at = varint_at(payload, 1)
    if byte_at(payload, at) != _EPOCH:
        return None
    epoch, at = varint_at(payload, at + 1)
    kind: i64 = byte_at(payload, at)
    if kind != _GET and kind != _WRITE:
        return None
    at, end = span_at(payload, at + 1)
    if end < 0 or byte_at(payload, at) != _KEY:
        return None
    consistent = False
    if end != size:
        consistent = kind == _GET and payload[end:] == _IS_CONSISTENT
        if not consistent:
            return None
    at, key_end = span_at(payload, at + 1)
    if key_end < 0 or byte_at(payload, at) != _HASH:
        return None
    key_hash = fixed64_at(payload, at + 1)
    at += 9
    if byte_at(payload, at) != _ENCODED:
        return None
    at, encoded_end = span_at(payload, at + 1)
    if encoded_end != key_end:
        return None
    key = ItemKey(key_hash, payload[at:key_end])
    if kind == _GET:
        if key_end != end:
            return None
        execute = Execute(int(partition_id), int(epoch), "get")
        execute.key = key
        execute.consistent = consistent
        return execute
    write = _plain_put(payload, key_end, end, key)
    if write is None:
        return None
    execute = Execute(int(partition_id), int(epoch), "write")
    execute.writes = (write,)
    return execute


def _plain_put(payload: bytes, at: i64, end: i64, key: ItemKey) -> ItemWrite | None:
    """The rest of a `WriteOp` after its key, in payload[at:end]."""
    if byte_at(payload, at) != _PUT:
        return None
    start, put_end = span_at(payload, at + 1)
    if put_end < 0 or put_end - start > PUT_BYTES_MAX:
        return None
    put = payload[start:put_end]
    if put_end == end:
        return ItemWrite(key, put, len(put), None, b"", 0, 0)
    if byte_at(payload, put_end) != _TOKEN:
        return None
    at, token_end = span_at(payload, put_end + 1)
    if token_end < 0 or byte_at(payload, at) != _CLIENT_ID:
        return None
    if byte_at(payload, at + 1) != CLIENT_ID_BYTES:
        return None
    client_id = payload[at + 2 : at + 2 + CLIENT_ID_BYTES]
    at += 2 + CLIENT_ID_BYTES
    if byte_at(payload, at) != _SEQUENCE:
        return None
    sequence, at = varint_at(payload, at + 1)
    if at != token_end:
        return None
    item_bytes: i64 = 0
    if at != end:
        if byte_at(payload, at) != _ITEM_BYTES:
            return None
        item_bytes, at = varint_at(payload, at + 1)
        if at != end:
            return None
    size = _item_bytes(int(item_bytes), len(put))
    return ItemWrite(key, put, size, None, join_token(client_id, int(sequence)), 0, 0)


def _item_bytes(told: int, encoded_bytes: int) -> int:
    """The size of an item, of which a router may have told nothing, or what cannot be."""
    return told if 0 < told <= encoded_bytes else encoded_bytes
