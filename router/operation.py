"""What is asked of a storage node: operations that a partition call carries.

Each is encoded anew for every attempt, for the partition and its epoch. Reads and writes of a
single item are put together from bytes (`wire.protobytes`); the rest are messages.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from keyplane.data.v1 import data_pb2 as data
from keyplane.model.partition import Partition
from keyplane.storage.v1 import storage_pb2 as storage
from wire.protobytes import delimited, fixed64, tag, varint

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
_HASH = tag(storage.ItemKey.HASH_FIELD_NUMBER, 1)
_ENCODED = tag(storage.ItemKey.ENCODED_FIELD_NUMBER, 2)


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


class Write(Operation):
    """put: the serialized item; None deletes. token: goes along with every attempt, and counts them
    and its age from the first that may have been carried out.
    """

    __slots__ = ("_age_ms", "_body", "_token")

    result = "write"
    writes = True

    def __init__(
        self,
        key_hash: int,
        encoded_key: bytes,
        put: bytes | None,
        condition: data.Condition | None,
        token: data.WriteToken,
    ) -> None:
        self.key_hash = key_hash
        self._body = delimited(_WRITE_KEY, _item_key(key_hash, encoded_key)) + (
            _DELETE if put is None else delimited(_PUT, put)
        )
        if condition is not None:
            self._body += delimited(_CONDITION, condition.SerializeToString())
        self._token = token
        self._age_ms = token.age_ms

    def encode(self, partition: Partition, elapsed_s: float) -> bytes:
        token = self._token
        if token.attempt:
            token.age_ms = _age_ms(self._age_ms, elapsed_s)
        body = self._body + delimited(_TOKEN, token.SerializeToString())
        return _address(partition) + delimited(_WRITE, body)

    def doubt(self) -> None:
        self._token.attempt += 1


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
