"""Requests for a single item in the form that clients usually send, read as bytes.

Nothing is refused here: whatever is not exactly of that form is None, and left to the message class
and to the checks that name what is wrong (`router.parse`, `keyplane.model.items`).
"""

from __future__ import annotations

from keyplane.data.v1 import data_pb2 as data
from keyplane.model.limits import ITEM_BYTES_MAX
from router.context import CLIENT_ID_BYTES
from router.tables import KnownTable
from wire.protobytes import span_at, tag, varint, varint_at

_TABLE = tag(data.GetItemRequest.TABLE_FIELD_NUMBER, 2)
_KEY = tag(data.GetItemRequest.KEY_FIELD_NUMBER, 2)
# The two write requests have the same numbers for the same things.
_TOKEN = tag(data.PutItemRequest.TOKEN_FIELD_NUMBER, 2)
# A read that must be consistent, as all are.
CONSISTENT = tag(data.GetItemRequest.CONSISTENT_READ_FIELD_NUMBER, 0) + varint(1)

_CLIENT_ID = tag(data.WriteToken.CLIENT_ID_FIELD_NUMBER, 2) + varint(CLIENT_ID_BYTES)
_SEQUENCE = tag(data.WriteToken.SEQUENCE_FIELD_NUMBER, 0)
_SEQUENCE_AT = len(_CLIENT_ID) + CLIENT_ID_BYTES

# An entry of a map has its key in field 1, and its value in field 2.
_ATTRIBUTE = tag(data.Item.ATTRIBUTES_FIELD_NUMBER, 2)[0]
_NAME = tag(1, 2)[0]
_VALUE = tag(2, 2)[0]
_STRING = tag(data.AttributeValue.S_FIELD_NUMBER, 2)[0]
_BINARY = tag(data.AttributeValue.B_FIELD_NUMBER, 2)[0]


class PlainRequest:
    """table, item: its first two fields, the second serialized. rest: the bytes after them."""

    __slots__ = ("item", "rest", "table")

    def __init__(self, table: str, item: bytes, rest: bytes) -> None:
        self.table = table
        self.item = item
        self.rest = rest


def plain_request(payload: bytes) -> PlainRequest | None:
    """A GetItemRequest, PutItemRequest or DeleteItemRequest."""
    if not payload.startswith(_TABLE):
        return None
    start, end = span_at(payload, 1)
    if not payload.startswith(_KEY, end):
        return None
    item_start, item_end = span_at(payload, end + 1)
    if end < 0 or item_end < 0:
        return None
    try:
        table = payload[start:end].decode()
    except UnicodeDecodeError:
        return None
    return PlainRequest(table, payload[item_start:item_end], payload[item_end:])


def plain_token(rest: bytes) -> bytes:
    """The name of the token (`operation.token_name`) of a write's first attempt, if that is all
    there is; else empty.
    """
    if not rest.startswith(_TOKEN):
        return b""
    start, end = span_at(rest, 1)
    if end != len(rest) or not rest.startswith(_CLIENT_ID, start):
        return b""
    at = start + _SEQUENCE_AT
    if not rest.startswith(_SEQUENCE, at) or varint_at(rest, at + 1)[1] != end:
        return b""
    return rest[start:]


def place_plain(known: KnownTable, item: bytes, exact: bool) -> tuple[int, bytes] | None:
    """Key hash and encoded key of an item of strings and bytes; with `exact` of its key alone."""
    parts = known.plain_key
    if not parts or len(item) > ITEM_BYTES_MAX:
        return None
    attributes = _attributes(item)
    if attributes is None or (exact and len(attributes) != len(parts)):
        return None
    encoded = partition = b""
    for part in parts:
        value = attributes.get(part.name)
        if value is None or value[0] != part.field:
            return None
        raw = value[span_at(value, 1)[0] :]
        if not 0 < len(raw) <= part.bytes_max:
            return None
        encoded += part.encode(raw)
        partition = partition or encoded
    return known.hash_of(partition), encoded


def _attributes(item: bytes) -> dict[bytes, bytes] | None:
    """The serialized values by their names, none of which comes twice."""
    found: dict[bytes, bytes] = {}
    at, size = 0, len(item)
    count = 0
    while at < size:
        if item[at] != _ATTRIBUTE:
            return None
        start, at = span_at(item, at + 1)
        if at < start + 4 or item[start] != _NAME:
            return None
        name_start, name_end = span_at(item, start + 1)
        if not name_start < name_end < at or item[name_end] != _VALUE:
            return None
        value_start, value_end = span_at(item, name_end + 1)
        if value_end != at or value_start + 2 > at:
            return None
        kind = item[value_start]
        raw_start, raw_end = span_at(item, value_start + 1)
        if raw_end != at:
            return None
        name = item[name_start:name_end]
        try:
            name.decode()
            if kind == _STRING:
                item[raw_start:raw_end].decode()
            elif kind != _BINARY:
                return None
        except UnicodeDecodeError:
            return None
        found[name] = item[value_start:at]
        count += 1
    return found if len(found) == count else None
