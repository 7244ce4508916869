"""What is asked of a storage node: operations that a partition call carries.

Each is encoded anew for every attempt, for the partition and its epoch, and reads what came back.
Reads and writes of a single item are put together from bytes and taken apart as bytes
(`wire.protobytes`), and what they read is the answer to the client; the rest are messages.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, TypeVar

from google.protobuf.message import DecodeError
from librt.strings import BytesWriter
from mypy_extensions import i64

from keyplane.data.v1 import data_pb2 as data
from keyplane.model.capacity import read_units, write_units
from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.numbers import write_u64_le
from keyplane.model.partition import Partition
from keyplane.storage.v1 import storage_pb2 as storage
from router.capacity import Spending
from wire.protobytes import (
    byte_at,
    delimited,
    delimited_size,
    span_at,
    tag,
    tag_byte,
    varint,
    varint_at,
    write_delimited,
    write_varint,
)

_T = TypeVar("_T")

_PARTITION_ID: Final = tag_byte(storage.ExecuteRequest.PARTITION_ID_FIELD_NUMBER, 0)
_EPOCH: Final = tag_byte(storage.ExecuteRequest.EPOCH_FIELD_NUMBER, 0)
_GET: Final = tag_byte(storage.ExecuteRequest.GET_FIELD_NUMBER, 2)
_WRITE: Final = tag_byte(storage.ExecuteRequest.WRITE_FIELD_NUMBER, 2)
_IS_CONSISTENT: Final = tag(storage.ExecuteRequest.CONSISTENT_FIELD_NUMBER, 0) + varint(1)
_GET_KEY: Final = tag_byte(storage.GetOp.KEY_FIELD_NUMBER, 2)
_WRITE_KEY: Final = tag_byte(storage.WriteOp.KEY_FIELD_NUMBER, 2)
_PUT: Final = tag_byte(storage.WriteOp.PUT_FIELD_NUMBER, 2)
_DELETE: Final = tag(storage.WriteOp.DELETE_FIELD_NUMBER, 0) + varint(1)
_CONDITION: Final = tag_byte(storage.WriteOp.CONDITION_FIELD_NUMBER, 2)
_TOKEN: Final = tag_byte(storage.WriteOp.TOKEN_FIELD_NUMBER, 2)
_ITEM_BYTES: Final = tag_byte(storage.WriteOp.ITEM_BYTES_FIELD_NUMBER, 0)
_CLIENT_ID: Final = tag(data.WriteToken.CLIENT_ID_FIELD_NUMBER, 2)
_SEQUENCE: Final = tag(data.WriteToken.SEQUENCE_FIELD_NUMBER, 0)
_ATTEMPT: Final = tag(data.WriteToken.ATTEMPT_FIELD_NUMBER, 0)
_AGE_MS: Final = tag(data.WriteToken.AGE_MS_FIELD_NUMBER, 0)
_HASH: Final = tag_byte(storage.ItemKey.HASH_FIELD_NUMBER, 1)
_ENCODED: Final = tag_byte(storage.ItemKey.ENCODED_FIELD_NUMBER, 2)

# What comes back, as storage nodes write it.
_GOT: Final = tag_byte(storage.ExecuteResponse.GET_FIELD_NUMBER, 2)
_FOUND: Final = tag_byte(storage.GetResult.FOUND_FIELD_NUMBER, 0)
_FOUND_ITEM: Final = tag_byte(storage.GetResult.ITEM_FIELD_NUMBER, 2)
_FOUND_VERSION: Final = tag_byte(storage.GetResult.VERSION_FIELD_NUMBER, 0)
_FOUND_BYTES: Final = tag_byte(storage.GetResult.ITEM_BYTES_FIELD_NUMBER, 0)
_WROTE: Final = tag_byte(storage.ExecuteResponse.WRITE_FIELD_NUMBER, 2)
_WRITTEN_VERSION: Final = tag_byte(storage.WriteResult.VERSION_FIELD_NUMBER, 0)
_BEFORE_BYTES: Final = tag_byte(storage.WriteResult.BEFORE_BYTES_FIELD_NUMBER, 0)

# What clients get.
_ITEM: Final = tag_byte(data.GetItemResponse.ITEM_FIELD_NUMBER, 2)
_READ_VERSION: Final = tag_byte(data.GetItemResponse.VERSION_FIELD_NUMBER, 0)
_READ_CAPACITY: Final = tag_byte(data.GetItemResponse.CONSUMED_CAPACITY_FIELD_NUMBER, 2)
_PUT_VERSION: Final = tag(data.PutItemResponse.VERSION_FIELD_NUMBER, 0)
_DELETED: Final = tag(data.DeleteItemResponse.DELETED_FIELD_NUMBER, 0) + varint(1)
# The two write responses have the same number for it.
_WRITE_CAPACITY: Final = tag(data.PutItemResponse.CONSUMED_CAPACITY_FIELD_NUMBER, 2)

_ATTRIBUTE: Final = tag_byte(data.Item.ATTRIBUTES_FIELD_NUMBER, 2)


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
        """An `ExecuteRequest`. elapsed_s: since the request came to this router, if it `writes`."""
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

    def least_units(self) -> float:
        """Capacity units that it consumes, as far as that is known before it is carried out."""
        raise NotImplementedError

    def units(self) -> float:
        """Those that it has consumed, by the answer that was read."""
        raise NotImplementedError

    def split_off(self, partition: Partition) -> Operation | None:
        """Leaves here what the partition covers, and gives the rest as an operation of its own.

        None if nothing is left over, as always for an operation on a single hash.
        """
        return None


class Get(Operation):
    __slots__ = ("_consistent", "_encoded_key", "_item_bytes", "_spending")

    result = "get"

    def __init__(
        self,
        key_hash: int,
        encoded_key: bytes,
        consistent: bool,
        spending: Spending | None = None,
    ) -> None:
        """consistent: which kind of read it is paid as. spending: what the answer says of that."""
        self.key_hash = key_hash
        self._encoded_key = encoded_key
        self._consistent = consistent
        self._spending = spending
        # Of what was read, as capacity units count it.
        self._item_bytes = 0

    def least_units(self) -> float:
        return read_units(0, self._consistent)

    def units(self) -> float:
        return read_units(self._item_bytes, self._consistent)

    def encode(self, partition: Partition, elapsed_s: float) -> bytes:
        out = BytesWriter()
        _write_address(out, partition)
        out.append(_GET)
        write_varint(out, delimited_size(_item_key_size(self._encoded_key)))
        out.append(_GET_KEY)
        _write_item_key(out, self.key_hash, self._encoded_key)
        if self._consistent:
            out.write(_IS_CONSISTENT)
        return out.getvalue()

    def read(self, payload: bytes) -> bytes | None:
        """A `GetItemResponse`."""
        size: i64 = len(payload)
        if self._spending is None and byte_at(payload, 0) == _GOT:
            found, end = span_at(payload, 1)
            field: i64 = found + 2
            if (
                end == size
                and byte_at(payload, found) == _FOUND
                and byte_at(payload, found + 1) == 1
                and byte_at(payload, field) == _FOUND_ITEM
            ):
                item, item_end = span_at(payload, field + 1)
                version_end: i64 = -1
                if item_end > 0 and byte_at(payload, item_end) == _FOUND_VERSION:
                    version_end = varint_at(payload, item_end + 1)[1]
                bytes_end: i64 = -1
                if version_end > 0 and byte_at(payload, version_end) == _FOUND_BYTES:
                    self._item_bytes, bytes_end = varint_at(payload, version_end + 1)
                if bytes_end == size:
                    _check_stored(payload, item, item_end)
                    # The answer has the same first two fields, under other numbers.
                    out = BytesWriter()
                    out.write(payload[field:version_end])
                    out[0] = _ITEM
                    out[item_end - field] = _READ_VERSION
                    return out.getvalue()
        response = self._message(payload)
        if response is None:
            return None
        found_item = response.get
        self._item_bytes = found_item.item_bytes
        out = BytesWriter()
        if found_item.found:
            _check_stored(found_item.item, 0, len(found_item.item))
            write_delimited(out, _ITEM, found_item.item)
        out.append(_READ_VERSION)
        write_varint(out, found_item.version)
        if self._spending is not None:
            self._spending.read(found_item.item_bytes)
            consumed = self._spending.message().SerializeToString()
            write_delimited(out, _READ_CAPACITY, consumed)
        return out.getvalue()


class Write(Operation):
    """Of an item, or a deletion. Its token goes along with every attempt, and counts them and its
    age from the first that may have been carried out.
    """

    __slots__ = (
        *("_age_ms", "_attempt", "_before_bytes", "_condition", "_encoded_key", "_item_bytes"),
        *("_put", "_spending", "_token"),
    )

    result = "write"
    writes = True

    def __init__(
        self,
        key_hash: int,
        encoded_key: bytes,
        put: bytes | None,
        item_bytes: int,
        condition: data.Condition | None,
        token: bytes,
        attempt: int,
        age_ms: int,
        spending: Spending | None = None,
    ) -> None:
        """put: the serialized item; None deletes. item_bytes: its size, as `item_size`; 0 without
        one. token: as `token_name`. spending: as in Get.
        """
        self.key_hash = key_hash
        self._encoded_key = encoded_key
        self._put = put
        self._item_bytes = item_bytes
        self._spending = spending
        self._condition = b"" if condition is None else condition.SerializeToString()
        self._token = token
        self._attempt = attempt
        self._age_ms = age_ms
        # Of the item that was there before it.
        self._before_bytes = 0

    def least_units(self) -> float:
        return write_units(0, self._item_bytes)

    def units(self) -> float:
        return write_units(self._before_bytes, self._item_bytes)

    def encode(self, partition: Partition, elapsed_s: float) -> bytes:
        token = self._token
        age_ms = self._age_ms
        if self._attempt:
            token += _ATTEMPT + varint(self._attempt)
            age_ms = _age_ms(age_ms, elapsed_s)
        if age_ms:
            token += _AGE_MS + varint(age_ms)
        body = BytesWriter()
        body.append(_WRITE_KEY)
        _write_item_key(body, self.key_hash, self._encoded_key)
        if self._put is None:
            body.write(_DELETE)
        else:
            write_delimited(body, _PUT, self._put)
        if self._condition:
            write_delimited(body, _CONDITION, self._condition)
        write_delimited(body, _TOKEN, token)
        if self._item_bytes:
            body.append(_ITEM_BYTES)
            write_varint(body, self._item_bytes)
        out = BytesWriter()
        _write_address(out, partition)
        write_delimited(out, _WRITE, body.getvalue())
        return out.getvalue()

    def doubt(self) -> None:
        self._attempt += 1

    def read(self, payload: bytes) -> bytes | None:
        """A `PutItemResponse` or `DeleteItemResponse`."""
        puts = self._put is not None
        spending = self._spending
        if puts and spending is None and byte_at(payload, 0) == _WROTE:
            start, end = span_at(payload, 1)
            if end == len(payload) and byte_at(payload, start) == _WRITTEN_VERSION:
                end = varint_at(payload, start + 1)[1]
                if end > 0:
                    if byte_at(payload, end) == _BEFORE_BYTES:
                        self._before_bytes = varint_at(payload, end + 1)[0]
                    return _PUT_VERSION + payload[start + 1 : end]
        response = self._message(payload)
        if response is None:
            return None
        self._before_bytes = response.write.before_bytes
        if puts:
            answer = _PUT_VERSION + varint(response.write.version)
        else:
            answer = _DELETED if response.write.existed else b""
        if spending is not None:
            spending.write(response.write.before_bytes, self._item_bytes)
            answer += delimited(_WRITE_CAPACITY, spending.message().SerializeToString())
        return answer


class Page(Operation):
    """A query or a scan."""

    __slots__ = ("_item_bytes", "_request")

    result = "page"

    def __init__(self, key_hash: int, request: storage.ExecuteRequest) -> None:
        self.key_hash = key_hash
        self._request = request
        # Of all its items, as capacity units count them.
        self._item_bytes = 0

    def least_units(self) -> float:
        return read_units(0, self._request.consistent)

    def units(self) -> float:
        return read_units(self._item_bytes, self._request.consistent)

    def read(self, payload: bytes) -> storage.ExecuteResponse | None:
        response = self._message(payload)
        if response is not None:
            self._item_bytes = response.page.item_bytes
        return response

    def encode(self, partition: Partition, elapsed_s: float) -> bytes:
        return _address(partition) + self._request.SerializeToString()


class BatchGet(Operation):
    """Reads of keys of one partition. `places` says which of the batch each key is, in order;
    `consistent` is as in Get.
    """

    __slots__ = ("_consistent", "_keys", "_units", "places")

    result = "batch_get"

    def __init__(
        self, keys: Sequence[storage.ItemKey], places: Sequence[int], consistent: bool
    ) -> None:
        self.key_hash = keys[0].hash
        self.places = places
        self._keys = keys
        self._consistent = consistent
        self._units = 0.0

    def least_units(self) -> float:
        return len(self._keys) * read_units(0, self._consistent)

    def units(self) -> float:
        return self._units

    def read(self, payload: bytes) -> storage.ExecuteResponse | None:
        response = self._message(payload)
        if response is not None:
            self._units = sum(
                [
                    read_units(found.item_bytes, self._consistent)
                    for found in response.batch_get.results
                    if not found.deferred
                ]
            )
        return response

    def encode(self, partition: Partition, elapsed_s: float) -> bytes:
        request = storage.ExecuteRequest(
            batch_get=storage.BatchGetOp(keys=self._keys), consistent=self._consistent
        )
        return _address(partition) + request.SerializeToString()

    def split_off(self, partition: Partition) -> Operation | None:
        keys, places = self._keys, self.places
        rest = _outside(keys, partition)
        if not rest:
            return None
        kept = [index for index in range(len(keys)) if index not in rest]
        self._keys, self.places = _chosen(keys, kept), _chosen(places, kept)
        return BatchGet(_chosen(keys, rest), _chosen(places, rest), self._consistent)


class BatchWrite(Operation):
    """Writes to keys of one partition. `places` as in BatchGet, tokens as in Write."""

    __slots__ = ("_ages_ms", "_units", "_writes", "places")

    result = "batch_write"
    writes = True

    def __init__(self, writes: Sequence[storage.WriteOp], places: Sequence[int]) -> None:
        self.key_hash = writes[0].key.hash
        self.places = places
        self._writes = writes
        self._ages_ms: Sequence[int] = [write.token.age_ms for write in writes]
        self._units = 0.0

    def least_units(self) -> float:
        return sum([write_units(0, write.item_bytes) for write in self._writes])

    def units(self) -> float:
        return self._units

    def read(self, payload: bytes) -> storage.ExecuteResponse | None:
        response = self._message(payload)
        if response is not None:
            # As many results as writes, or the answer is refused by who asked.
            self._units = sum(
                [
                    write_units(result.before_bytes, write.item_bytes)
                    for write, result in zip(
                        self._writes, response.batch_write.results, strict=False
                    )
                    if not result.reason
                ]
            )
        return response

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


def _check_stored(data: bytes, at: i64, end: i64) -> None:
    """data[at:end] is an item as far as its outer form tells: attributes, and nothing else.

    Raises KeyplaneError(CORRUPT). What an attribute holds is for whoever reads it.
    """
    while 0 <= at < end:
        if data[at] != _ATTRIBUTE:
            break
        at = span_at(data, at + 1)[1]
    if at != end:
        raise KeyplaneError(Reason.CORRUPT, "a stored item cannot be read")


def _address(partition: Partition) -> bytes:
    out = BytesWriter()
    _write_address(out, partition)
    return out.getvalue()


def _write_address(out: BytesWriter, partition: Partition) -> None:
    out.append(_PARTITION_ID)
    write_varint(out, partition.partition_id)
    out.append(_EPOCH)
    write_varint(out, partition.epoch)


def _item_key_size(encoded: bytes) -> int:
    return 9 + delimited_size(len(encoded))


def _write_item_key(out: BytesWriter, key_hash: int, encoded: bytes) -> None:
    """Its length, and an `ItemKey`."""
    write_varint(out, _item_key_size(encoded))
    out.append(_HASH)
    write_u64_le(out, key_hash)
    write_delimited(out, _ENCODED, encoded)


def _age_ms(at_arrival_ms: int, elapsed_s: float) -> int:
    return at_arrival_ms + round(elapsed_s * 1000)


def _outside(keys: Sequence[storage.ItemKey], partition: Partition) -> list[int]:
    """Places of the keys that the partition does not cover."""
    return [index for index, key in enumerate(keys) if not partition.covers(key.hash)]


def _chosen(from_: Sequence[_T], places: Sequence[int]) -> list[_T]:
    return [from_[place] for place in places]
