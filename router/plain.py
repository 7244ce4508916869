"""Requests for a single item in the form that clients usually send, read as bytes.

Nothing is refused here: whatever is not exactly of that form is None, and left to the message class
and to the checks that name what is wrong (`router.parse`, `keyplane.model.items`).
"""

from __future__ import annotations

from typing import Final

from mypy_extensions import i64, mypyc_attr

from keyplane.data.v1 import data_pb2 as data
from keyplane.model.limits import ITEM_BYTES_MAX
from router.context import CLIENT_ID_BYTES
from router.tables import KnownTable
from wire.protobytes import byte_at, span_at, tag, tag_byte, varint, varint_at

_TABLE: Final = tag_byte(data.GetItemRequest.TABLE_FIELD_NUMBER, 2)
_KEY: Final = tag_byte(data.GetItemRequest.KEY_FIELD_NUMBER, 2)
# The two write requests have the same numbers for the same things.
_TOKEN: Final = tag_byte(data.PutItemRequest.TOKEN_FIELD_NUMBER, 2)
# A read that must be consistent, as all are.
CONSISTENT: Final = tag(data.GetItemRequest.CONSISTENT_READ_FIELD_NUMBER, 0) + varint(1)

_CLIENT_ID: Final = tag_byte(data.WriteToken.CLIENT_ID_FIELD_NUMBER, 2)
_SEQUENCE: Final = tag_byte(data.WriteToken.SEQUENCE_FIELD_NUMBER, 0)
_SEQUENCE_AT: Final = 2 + CLIENT_ID_BYTES

# An entry of a map has its key in field 1, and its value in field 2.
_ATTRIBUTE: Final = tag_byte(data.Item.ATTRIBUTES_FIELD_NUMBER, 2)
_NAME: Final = tag_byte(1, 2)
_VALUE: Final = tag_byte(2, 2)
_STRING: Final = tag_byte(data.AttributeValue.S_FIELD_NUMBER, 2)
_BINARY: Final = tag_byte(data.AttributeValue.B_FIELD_NUMBER, 2)


@mypyc_attr(acyclic=True, free_list_len=1)
class PlainRequest:
    """table, item: its first two fields, the second as its place in the payload. rest: the bytes
    after them.
    """

    __slots__ = ("item_end", "item_start", "payload", "rest", "table")

    def __init__(
        self, table: str, payload: bytes, item_start: i64, item_end: i64, rest: bytes
    ) -> None:
        self.table = table
        self.payload = payload
        self.item_start = item_start
        self.item_end = item_end
        self.rest = rest

    @property
    def item(self) -> bytes:
        """Serialized."""
        return self.payload[self.item_start : self.item_end]


def plain_request(payload: bytes) -> PlainRequest | None:
    """A GetItemRequest, PutItemRequest or DeleteItemRequest."""
    if byte_at(payload, 0) != _TABLE:
        return None
    start, end = span_at(payload, 1)
    if end < 0 or byte_at(payload, end) != _KEY:
        return None
    item_start, item_end = span_at(payload, end + 1)
    if item_end < 0:
        return None
    try:
        table = payload[start:end].decode()
    except UnicodeDecodeError:
        return None
    return PlainRequest(table, payload, item_start, item_end, payload[item_end:])


def plain_token(rest: bytes) -> bytes:
    """The name of the token (`operation.token_name`) of a write's first attempt, if that is all
    there is; else empty.
    """
    if byte_at(rest, 0) != _TOKEN:
        return b""
    start, end = span_at(rest, 1)
    if end != len(rest) or byte_at(rest, start) != _CLIENT_ID:
        return b""
    at: i64 = start + _SEQUENCE_AT
    if byte_at(rest, start + 1) != CLIENT_ID_BYTES or byte_at(rest, at) != _SEQUENCE:
        return b""
    return rest[start:] if varint_at(rest, at + 1)[1] == end else b""


def place_plain(
    known: KnownTable, plain: PlainRequest, exact: bool
) -> tuple[int, bytes, int] | None:
    """Key hash, encoded key, and size (see `keyplane.model.items.item_size`), of an item of strings
    and bytes; with `exact` of its key alone.
    """
    parts = known.plain_key
    data = plain.payload
    at: i64 = plain.item_start
    end: i64 = plain.item_end
    if not parts or end - at > ITEM_BYTES_MAX:
        return None
    # What the key is made of, by its parts, and the names of all other attributes.
    found = [b""] * len(parts)
    others: set[bytes] | None = None
    count = 0
    size: i64 = 0
    while at < end:
        if data[at] != _ATTRIBUTE:
            return None
        start, at = span_at(data, at + 1)
        if at > end or at < start + 4 or data[start] != _NAME:
            return None
        name_start, name_end = span_at(data, start + 1)
        if not name_start < name_end < at or data[name_end] != _VALUE:
            return None
        value_start, value_end = span_at(data, name_end + 1)
        if value_end != at or value_start + 2 > at:
            return None
        kind: i64 = data[value_start]
        raw_start, raw_end = span_at(data, value_start + 1)
        if raw_end != at or (kind != _STRING and kind != _BINARY):
            return None
        name = data[name_start:name_end]
        raw = data[raw_start:raw_end]
        count += 1
        size += name_end - name_start + raw_end - raw_start
        for index, part in enumerate(parts):
            if name == part.name:
                if found[index] or kind != part.field or not 0 < len(raw) <= part.bytes_max:
                    return None
                found[index] = raw
                break
        else:
            if others is None:
                others = set()
            elif name in others:
                return None
            others.add(name)
            if not _is_utf8(name):
                return None
        if kind == _STRING and not _is_utf8(raw):
            return None
    if exact and count != len(parts):
        return None
    encoded = partition = b""
    for index, part in enumerate(parts):
        if not found[index]:
            return None
        encoded += part.encode(found[index])
        if not index:
            partition = encoded
    return known.hash_of(partition), encoded, int(size)


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True
