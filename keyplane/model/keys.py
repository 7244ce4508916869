"""Keys: from attributes to bytes that sort as DynamoDB sorts, to a hash, to an item's address.

A key is encoded as its partition key followed by its sort key, each as a type tag and then

* S and B: the bytes with 0x00 written as 0x00 0xff, ended by 0x00 0x01;
* N: an order-preserving decimal (`keyplane.model.decimals`).

Both are self-delimiting, so no encoded partition key is a prefix of another, byte order is the
order of sort keys within one partition key, and a key can be read back.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

import xxhash
from librt.strings import BytesWriter

from keyplane.catalog.v1 import catalog_pb2 as catalog
from keyplane.data.v1 import data_pb2 as data
from keyplane.model.decimals import decode_number, encode_number, parse_number
from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.limits import (
    KEY_NAME_BYTES_MAX,
    PARTITION_KEY_BYTES_MAX,
    SORT_KEY_BYTES_MAX,
)
from keyplane.model.numbers import write_u64_be
from keyplane.model.partition import KEYSPACE_END

ScalarType: TypeAlias = catalog.ScalarType.ValueType

# Also the type tags of the encoding: stored on disk, never to change.
_STRING = catalog.SCALAR_TYPE_STRING
_NUMBER = catalog.SCALAR_TYPE_NUMBER
_BINARY = catalog.SCALAR_TYPE_BINARY
_TAGS = {type_: bytes((type_,)) for type_ in (_STRING, _NUMBER, _BINARY)}
_FIELDS = {_STRING: "s", _NUMBER: "n", _BINARY: "b"}

_ZERO: Final = 0
_ESCAPED_ZERO: Final = b"\x00\xff"
_END: Final = b"\x00\x01"

_ADDRESS: Final = struct.Struct(">QQ")

_xxh3: Final = xxhash.xxh3_64_intdigest


@dataclass(frozen=True, slots=True)
class KeySchema:
    """Names and types of a table's key attributes. `sort` is None without a sort key."""

    partition: str
    partition_type: ScalarType
    sort: str | None = None
    sort_type: ScalarType = catalog.SCALAR_TYPE_UNSPECIFIED

    @classmethod
    def from_table(cls, table: catalog.Table) -> KeySchema:
        """Raises KeyplaneError(INVALID_ARGUMENT) on a table whose key is not well defined."""
        partition, sort = table.partition_key, table.sort_key
        _check_attribute("partition key", partition)
        if not table.HasField("sort_key"):
            return cls(partition.name, partition.type)
        _check_attribute("sort key", sort)
        if sort.name == partition.name:
            raise _invalid(f"partition key and sort key are both named {sort.name!r}")
        return cls(partition.name, partition.type, sort.name, sort.type)


class EncodedKey(NamedTuple):
    """hash_input: the encoded partition key. encoded: the whole key, which begins with it."""

    hash_input: bytes
    encoded: bytes


def encode_key(
    schema: KeySchema, attributes: Mapping[str, data.AttributeValue], exact: bool = False
) -> EncodedKey:
    """The key among an item's attributes; with `exact` there may be no other attributes.

    Raises KeyplaneError: MISSING_KEY, WRONG_KEY_TYPE, or INVALID_ARGUMENT for a value that is
    empty, too long or no valid number, and for attributes that `exact` does not allow.
    """
    value = attributes.get(schema.partition)
    if value is None:
        raise _missing(schema.partition)
    partition = encoded = encode_partition_key(schema, value)
    if schema.sort is not None:
        value = attributes.get(schema.sort)
        if value is None:
            raise _missing(schema.sort)
        encoded = partition + _encode_sort_key(schema, value)
    if exact and len(attributes) != (1 if schema.sort is None else 2):
        extra = sorted(set(attributes) - {schema.partition, schema.sort})
        raise _invalid(f"a key has no attribute {extra[0]!r}; give only the key attributes")
    return EncodedKey(partition, encoded)


def encode_partition_key(schema: KeySchema, value: data.AttributeValue) -> bytes:
    """Raises KeyplaneError: WRONG_KEY_TYPE or INVALID_ARGUMENT, as `encode_key`."""
    return _encode(schema.partition, schema.partition_type, value, PARTITION_KEY_BYTES_MAX)


def sort_bounds(
    schema: KeySchema, partition_bytes: bytes, bounds: data.SortKeyRange
) -> tuple[bytes, bytes]:
    """Half-open range of encoded keys of one partition key whose sort key is within bounds.

    Raises KeyplaneError: WRONG_KEY_TYPE, or INVALID_ARGUMENT for bounds on a table without a sort
    key, bounds beside `begins_with`, `begins_with` on numbers, or a lower bound above the upper.
    """
    low, high = partition_bytes, after(partition_bytes)
    has_from, has_to = bounds.HasField("from"), bounds.HasField("to")
    has_prefix = bounds.HasField("begins_with")
    if not (has_from or has_to or has_prefix):
        return low, high
    if schema.sort is None:
        raise _invalid("the table has no sort key to set bounds on")
    if has_prefix:
        if has_from or has_to:
            raise _invalid("begins_with excludes the bounds `from` and `to`")
        if schema.sort_type == _NUMBER:
            raise _invalid(f"begins_with does not apply to {schema.sort!r}, a number")
        prefix = partition_bytes + _encode_sort_key(schema, bounds.begins_with, end=b"")
        return prefix, after(prefix)
    lower = upper = None
    if has_from:
        lower = partition_bytes + _encode_sort_key(schema, getattr(bounds, "from"))
        low = after(lower) if bounds.from_exclusive else lower
    if has_to:
        upper = partition_bytes + _encode_sort_key(schema, bounds.to)
        high = upper if bounds.to_exclusive else after(upper)
    if lower is not None and upper is not None and lower > upper:
        raise _invalid("the lower bound of the sort key is above the upper bound")
    return low, max(low, high)


def decode_key(schema: KeySchema, encoded: bytes) -> dict[str, data.AttributeValue]:
    """The key attributes. Numbers come back in plain notation.

    Raises KeyplaneError(CORRUPT) on bytes that `encode_key` would not write for this schema.
    """
    try:
        partition, position = _decode(schema.partition_type, encoded, 0)
        key = {schema.partition: partition}
        if schema.sort is not None:
            key[schema.sort], position = _decode(schema.sort_type, encoded, position)
    except ValueError as error:
        raise KeyplaneError(Reason.CORRUPT, f"not an encoded key: {error}") from error
    if position != len(encoded):
        raise KeyplaneError(Reason.CORRUPT, "not an encoded key: bytes after its end")
    return key


def key_hash(seed: int, partition_bytes: bytes) -> int:
    """xxh3-64 of an encoded partition key. The seed is the table's, so that nobody can prepare keys
    that collide in tables whose seed they do not know.
    """
    return _xxh3(partition_bytes, seed)


def item_address(table_id: int, key_hash: int, encoded: bytes, before: bytes = b"") -> bytes:
    """Where an item lives among all items of a node: by table, then hash, then key.

    before: bytes to put in front of that.
    """
    out = BytesWriter()
    out.write(before)
    write_u64_be(out, table_id)
    write_u64_be(out, key_hash)
    out.write(encoded)
    return out.getvalue()


def parse_address(address: bytes) -> tuple[int, int, bytes]:
    """Table id, key hash and encoded key of an address. Raises struct.error if it is too short."""
    table_id, hash_ = _ADDRESS.unpack_from(address)
    return table_id, hash_, address[_ADDRESS.size :]


def address_range(table_id: int, start: int, end: int) -> tuple[bytes, bytes]:
    """Half-open range of the addresses of one table whose key hash is in [start, end)."""
    if end == KEYSPACE_END:
        return _ADDRESS.pack(table_id, start), _ADDRESS.pack(table_id + 1, 0)
    return _ADDRESS.pack(table_id, start), _ADDRESS.pack(table_id, end)


def after(prefix: bytes) -> bytes:
    """The smallest bytes above every string with that prefix.

    Raises ValueError where there are none: an empty prefix, or one of 0xff only.
    """
    stem = prefix.rstrip(b"\xff")
    if not stem:
        raise ValueError("nothing sorts after every string")
    return stem[:-1] + bytes((stem[-1] + 1,))


def _encode_sort_key(schema: KeySchema, value: data.AttributeValue, end: bytes = _END) -> bytes:
    assert schema.sort is not None
    return _encode(schema.sort, schema.sort_type, value, SORT_KEY_BYTES_MAX, end)


def _encode(
    name: str, type_: ScalarType, value: data.AttributeValue, bytes_max: int, end: bytes = _END
) -> bytes:
    """`end` closes S and B; a prefix of many keys leaves it off."""
    field = value.WhichOneof("value")
    if field != _FIELDS[type_]:
        raise KeyplaneError(
            Reason.WRONG_KEY_TYPE,
            f"key attribute {name!r} must be of type {_FIELDS[type_].upper()},"
            f" not {field.upper() if field else 'empty'}",
        )
    if type_ == _NUMBER:
        return _TAGS[type_] + encode_number(parse_number(value.n))
    raw = value.s.encode() if type_ == _STRING else value.b
    if not raw:
        raise _invalid(f"key attribute {name!r} must not be empty")
    if len(raw) > bytes_max:
        raise _invalid(f"key attribute {name!r} has {len(raw)} bytes; at most {bytes_max} fit")
    return encode_raw(_TAGS[type_], raw, end)


def type_tag(type_: ScalarType) -> bytes:
    """What a part of a key of that type begins with."""
    return _TAGS[type_]


def encode_raw(head: bytes, raw: bytes, end: bytes = _END) -> bytes:
    """A string (as UTF-8) or bytes as a part of a key.

    head: its `type_tag`. end: as in `_encode`.
    """
    out = BytesWriter()
    out.write(head)
    out.write(raw.replace(b"\x00", _ESCAPED_ZERO) if _ZERO in raw else raw)
    out.write(end)
    return out.getvalue()


def _decode(type_: ScalarType, encoded: bytes, position: int) -> tuple[data.AttributeValue, int]:
    if encoded[position : position + 1] != _TAGS[type_]:
        raise ValueError(f"no {_FIELDS[type_].upper()} at byte {position}")
    position += 1
    if type_ == _NUMBER:
        number, end = decode_number(encoded, position)
        return data.AttributeValue(n=str(number)), end
    end = encoded.index(_END, position)
    escaped = encoded[position:end]
    raw = escaped.replace(_ESCAPED_ZERO, b"\x00")
    if not raw or raw.replace(b"\x00", _ESCAPED_ZERO) != escaped:
        raise ValueError(f"badly escaped bytes from byte {position}")
    value = data.AttributeValue(s=raw.decode()) if type_ == _STRING else data.AttributeValue(b=raw)
    return value, end + len(_END)


def _check_attribute(role: str, attribute: catalog.KeyAttribute) -> None:
    if not 1 <= len(attribute.name.encode()) <= KEY_NAME_BYTES_MAX:
        raise _invalid(f"the {role} needs a name of 1 to {KEY_NAME_BYTES_MAX} bytes")
    if attribute.type not in _FIELDS:
        raise _invalid(f"the {role} {attribute.name!r} needs a type: string, number or binary")


def _missing(name: str) -> KeyplaneError:
    return KeyplaneError(Reason.MISSING_KEY, f"key attribute {name!r} is missing")


def _invalid(message: str) -> KeyplaneError:
    return KeyplaneError(Reason.INVALID_ARGUMENT, message)
