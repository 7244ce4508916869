"""What is asked of a storage node: operations that a partition call carries.

Each is encoded anew for every attempt, for the partition and its epoch, and reads what came back.
Reads and writes of a single item are put together from bytes and taken apart as bytes
(`wire.protobytes`), and what they read is the answer to the client; the rest are messages.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from google.protobuf.message import DecodeError

from keyplane.data.v1 import data_pb2 as data
from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.partition import Partition
from keyplane.storage.v1 import storage_pb2 as storage
from wire.protobytes import delimited, fixed64, span_at, tag, varint, varint_at

_T = TypeVar("_T")

_PARTITION_ID = tag(storage.ExecuteRequest.PARTITION_ID_FIELD_NUMBER, 0)
_EPOCH = tag(storage.ExecuteRequest.EPOCH_FIELD_NUMBER, 0)
_GET = tag(storage.ExecuteRequest.GET_FIELD_NUMBER, 2)
_WRITE = tag(storage.ExecuteRequest.WRITE_FIELD_NUMBER, 2)
_GET_KEY = tag(storage.GetOp.KEY_FIELD_NUMBER, 2)
_WRITE_KEY = tag(storage.WriteOp.KEY_FIELD_NUMBER, 2)
_PUT = tag(storage.WriteOp.PUT_FIELD_NUMBER, 2)
_DELETE = tag(storage.WriteOp.DELETE_FIELD_NUMBER, 0) + varint(1)
_CONDITION = tag(storage.WriteOp.CONDITION_FIELD_NUMBER, 2)
_TOKEN = tag(storage.WriteOp.TOKEN_FIELD_NUMBER, 2)
_CLIENT_ID = tag(data.WriteToken.CLIENT_ID_FIELD_NUMBER, 2)
_SEQUENCE = tag(data.WriteToken.SEQUENCE_FIELD_NUMBER, 0)
_ATTEMPT = tag(data.WriteToken.ATTEMPT_FIELD_NUMBER, 0)
_AGE_MS = tag(data.WriteToken.AGE_MS_FIELD_NUMBER, 0)
_HASH = tag(storage.ItemKey.HASH_FIELD_NUMBER, 1)
_ENCODED = tag(storage.ItemKey.ENCODED_FIELD_NUMBER, 2)

# What comes back, as storage nodes write it.
_GOT = tag(storage.ExecuteResponse.GET_FIELD_NUMBER, 2)
_FOUND = tag(storage.GetResult.FOUND_FIELD_NUMBER, 0) + varint(1)
_FOUND += tag(storage.GetResult.ITEM_FIELD_NUMBER, 2)
_FOUND_VERSION = tag(storage.GetResult.VERSION_FIELD_NUMBER, 0)
_WROTE = tag(storage.ExecuteResponse.WRITE_FIELD_NUMBER, 2)
_WRITTEN_VERSION = tag(storage.WriteResult.VERSION_FIELD_NUMBER, 0)

# What clients get.
_ITEM = tag(data.GetItemResponse.ITEM_FIELD_NUMBER, 2)
_READ_VERSION = tag(data.GetItemResponse.VERSION_FIELD_NUMBER, 0)
_PUT_VERSION = tag(data.PutItemResponse.VERSION_FIELD_NUMBER, 0)
_DELETED = tag(data.DeleteItemResponse.DELETED_FIELD_NUMBER, 0) + varint(1)

_ATTRIBUTE = tag(data.Item.ATTRIBUTES_FIELD_NUMBER, 2)[0]


class Operation:
    """One operation on the partition of one key hash.

    result: the field of `ExecuteResponse` that answers it. writes: whether it may change anything,
    so that an attempt without an answer leaves that open.
    """

    __slots__ = ("key_hash",)

    key_hash: int
    result: str
    writes = False

    def encode(self, partition: Partition, elapsed_s: float) -> bytes:
        """An `ExecuteRequest`. elapsed_s: since the request came to this router."""
        raise NotImplementedError

    def read(self, payload: bytes) -> Any:
        """What was asked for, out of an `ExecuteResponse`; None if it is not in there.

        For an operation on a single item that is what its client gets, serialized; else the
        message. Raises KeyplaneError(CORRUPT) for a stored item that is none.
        """
        return self._message(payload)

    def _message(self, payload: bytes) -> storage.ExecuteResponse | None:
        try:
            response = storage.ExecuteResponse.FromString(payload)
        except DecodeError:
            return None
        return response if response.WhichOneof("result") == self.result else None

    def doubt(self) -> None:
        """An attempt ended so that the writes may have been done."""

    def split_off(self, partition: Partition) -> Operation | None:
        """Leaves here what the partition covers, and gives the rest as an operation of its own.

        None if nothing is left over, as always for an operation on a single hash.
        """
        return None


class Get(Operation):
    __slots__ = ("_body",)

    result = "get"

    def __init__(self, key_hash: int, encoded_key: bytes) -> None:
        self.key_hash = key_hash
        self._body = delimited(_GET, delimited(_GET_KEY, _item_key(key_hash, encoded_key)))

    def encode(self, partition: Partition, elapsed_s: float) -> bytes:
        return _address(partition) + self._body

    def read(self, payload: bytes) -> bytes | None:
        """A `GetItemResponse`."""
        size = len(payload)
        if payload.startswith(_GOT):
            start, end = span_at(payload, 1)
            if end == size and payload.startswith(_FOUND, start):
                start, end = span_at(payload, start + len(_FOUND))
                if payload.startswith(_FOUND_VERSION, end):
                    version = payload[end + 1 :]
                    if varint_at(version, 0)[1] == len(version):
                        item = payload[start:end]
                        return delimited(_ITEM, check_stored(item)) + _READ_VERSION + version
        response = self._message(payload)
        if response is None:
            return None
        found = response.get
        answer = _READ_VERSION + varint(found.version)
        return delimited(_ITEM, check_stored(found.item)) + answer if found.found else answer


class Write(Operation):
    """Of an item, or a deletion. Its token goes along with every attempt, and counts them and its
    age from the first that may have been carried out.
    """

    __slots__ = ("_age_ms", "_attempt", "_body", "_puts", "_token")

    result = "write"
    writes = True

    def __init__(
        self,
        key_hash: int,
        encoded_key: bytes,
        put: bytes | None,
        condition: data.Condition | None,
        token: bytes,
        attempt: int,
        age_ms: int,
    ) -> None:
        """put: the serialized item; None deletes. token: as `token_name`."""
        self.key_hash = key_hash
        self._puts = put is not None
        self._body = delimited(_WRITE_KEY, _item_key(key_hash, encoded_key)) + (
            _DELETE if put is None else delimited(_PUT, put)
        )
        if condition is not None:
            self._body += delimited(_CONDITION, condition.SerializeToString())
        self._token = token
        self._attempt = attempt
        self._age_ms = age_ms

    def encode(self, partition: Partition, elapsed_s: float) -> bytes:
        token = self._token
        age_ms = self._age_ms
        if self._attempt:
            token += _ATTEMPT + varint(self._attempt)
            age_ms = _age_ms(age_ms, elapsed_s)
        if age_ms:
            token += _AGE_MS + varint(age_ms)
        body = self._body + delimited(_TOKEN, token)
        return _address(partition) + delimited(_WRITE, body)

    def doubt(self) -> None:
        self._attempt += 1

    def read(self, payload: bytes) -> bytes | None:
        """A `PutItemResponse` or `DeleteItemResponse`."""
        if self._puts and payload.startswith(_WROTE):
            start, end = span_at(payload, 1)
            if end == len(payload) and payload.startswith(_WRITTEN_VERSION, start):
                end = varint_at(payload, start + 1)[1]
                if end > 0:
                    return _PUT_VERSION + payload[start + 1 : end]
        response = self._message(payload)
        if response is None:
            return None
        if self._puts:
            return _PUT_VERSION + varint(response.write.version)
        return _DELETED if response.write.existed else b""


class Page(Operation):
    """A query or a scan."""

    __slots__ = ("_request",)

    result = "page"

    def __init__(self, key_hash: int, request: storage.ExecuteRequest) -> None:
        self.key_hash = key_hash
        self._request = request

    def encode(self, partition: Partition, elapsed_s: float) -> bytes:
        return _address(partition) + self._request.SerializeToString()


class BatchGet(Operation):
    """Reads of keys of one partition. `places` says which of the batch each key is, in order."""

    __slots__ = ("_keys", "places")

    result = "batch_get"

    def __init__(self, keys: Sequence[storage.ItemKey], places: Sequence[int]) -> None:
        self.key_hash = keys[0].hash
        self.places = places
        self._keys = keys

    def encode(self, partition: Partition, elapsed_s: float) -> bytes:
        request = storage.ExecuteRequest(batch_get=storage.BatchGetOp(keys=self._keys))
        return _address(partition) + request.SerializeToString()

    def split_off(self, partition: Partition) -> Operation | None:
        keys, places = self._keys, self.places
        rest = _outside(keys, partition)
        if not rest:
            return None
        kept = [index for index in range(len(keys)) if index not in rest]
        self._keys, self.places = _chosen(keys, kept), _chosen(places, kept)
        return BatchGet(_chosen(keys, rest), _chosen(places, rest))


class BatchWrite(Operation):
    """Writes to keys of one partition. `places` as in BatchGet, tokens as in Write."""

    __slots__ = ("_ages_ms", "_writes", "places")

    result = "batch_write"
    writes = True

    def __init__(self, writes: Sequence[storage.WriteOp], places: Sequence[int]) -> None:
        self.key_hash = writes[0].key.hash
        self.places = places
        self._writes = writes
        self._ages_ms: Sequence[int] = [write.token.age_ms for write in writes]

    @property
    def tokens(self) -> list[data.WriteToken]:
        """As they were sent last, one for each place."""
        return [write.token for write in self._writes]

    def encode(self, partition: Partition, elapsed_s: float) -> bytes:
        for write, age_ms in zip(self._writes, self._ages_ms, strict=True):
            if write.token.attempt:
                write.token.age_ms = _age_ms(age_ms, elapsed_s)
        request = storage.ExecuteRequest(batch_write=storage.BatchWriteOp(writes=self._writes))
        return _address(partition) + request.SerializeToString()

    def doubt(self) -> None:
        for write in self._writes:
            write.token.attempt += 1

    def split_off(self, partition: Partition) -> Operation | None:
        writes, places, ages_ms = self._writes, self.places, self._ages_ms
        rest = _outside([write.key for write in writes], partition)
        if not rest:
            return None
        kept = [index for index in range(len(writes)) if index not in rest]
        self._writes, self.places = _chosen(writes, kept), _chosen(places, kept)
        self._ages_ms = _chosen(ages_ms, kept)
        others = BatchWrite(_chosen(writes, rest), _chosen(places, rest))
        others._ages_ms = _chosen(ages_ms, rest)
        return others


def token_name(client_id: bytes, sequence: int) -> bytes:
    """What a `WriteToken` says of the write it belongs to, the same with every attempt."""
    return delimited(_CLIENT_ID, client_id) + _SEQUENCE + varint(sequence)


def check_stored(item: bytes) -> bytes:
    """The item, if it is one as far as its outer form tells: attributes, and nothing else.

    Raises KeyplaneError(CORRUPT). What an attribute holds is for whoever reads it.
    """
    at, size = 0, len(item)
    while at < size:
        if item[at] != _ATTRIBUTE:
            break
        at = span_at(item, at + 1)[1]
        if at < 0:
            break
    if at != size:
        raise KeyplaneError(Reason.CORRUPT, "a stored item cannot be read")
    return item


def _address(partition: Partition) -> bytes:
    return _PARTITION_ID + varint(partition.partition_id) + _EPOCH + varint(partition.epoch)


def _item_key(key_hash: int, encoded: bytes) -> bytes:
    return _HASH + fixed64(key_hash) + delimited(_ENCODED, encoded)


def _age_ms(at_arrival_ms: int, elapsed_s: float) -> int:
    return at_arrival_ms + round(elapsed_s * 1000)


def _outside(keys: Sequence[storage.ItemKey], partition: Partition) -> list[int]:
    """Places of the keys that the partition does not cover."""
    return [index for index, key in enumerate(keys) if not partition.covers(key.hash)]


def _chosen(from_: Sequence[_T], places: Sequence[int]) -> list[_T]:
    return [from_[place] for place in places]
