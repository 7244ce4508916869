"""Where things are in a storage node's engine.

Keys begin with a tag byte: NODE records are about the node itself, ITEM entries hold the data,
TOKEN entries the results of recent writes. Items are ordered by table, key hash and key, tokens by
table, key hash and token, so a range of hashes is contiguous and splitting or merging partitions
touches neither.
"""

from __future__ import annotations

import struct

from keyplane.model.keys import address_range, item_address
from keyplane.model.partition import KEYSPACE_END

NODE_TAG = b"\x01"
ITEM_TAG = b"\x02"
TOKEN_TAG = b"\x03"

NODE_RECORD = NODE_TAG + b"node"
# Since when the node's TOKEN entries are complete.
REMEMBERS_RECORD = NODE_TAG + b"remembers"
_TABLE_PREFIX = NODE_TAG + b"table/"
_PARTITION_PREFIX = NODE_TAG + b"partition/"
_PROGRESS_PREFIX = NODE_TAG + b"progress/"

_ID = struct.Struct(">Q")
_ADDRESS_OFFSET = len(ITEM_TAG) + 8
_TOKEN_OFFSET = _ADDRESS_OFFSET + 8


def table_key(table_id: int) -> bytes:
    return _TABLE_PREFIX + _ID.pack(table_id)


def partition_key(partition_id: int) -> bytes:
    return _PARTITION_PREFIX + _ID.pack(partition_id)


def progress_key(partition_id: int) -> bytes:
    """Of the counters that change with every write of a partition."""
    return _PROGRESS_PREFIX + _ID.pack(partition_id)


def table_keys() -> tuple[bytes, bytes]:
    """Half-open range of all table records; likewise below."""
    return _TABLE_PREFIX, _TABLE_PREFIX + b"\xff" * 9


def partition_keys() -> tuple[bytes, bytes]:
    return _PARTITION_PREFIX, _PARTITION_PREFIX + b"\xff" * 9


def item_key(table_id: int, key_hash: int, encoded: bytes) -> bytes:
    return ITEM_TAG + item_address(table_id, key_hash, encoded)


def item_range(table_id: int, start: int, end: int) -> tuple[bytes, bytes]:
    """Half-open range of the items of one table with start <= key hash < end."""
    low, high = address_range(table_id, start, end)
    return ITEM_TAG + low, ITEM_TAG + high


def token_key(item_key: bytes, token: bytes) -> bytes:
    """Of the result of the write of an item under a token."""
    return TOKEN_TAG + item_key[len(ITEM_TAG) : _TOKEN_OFFSET] + token


def token_range(table_id: int, start: int, end: int) -> tuple[bytes, bytes]:
    """Half-open range of the tokens of one table with start <= key hash < end."""
    low, high = address_range(table_id, start, end)
    return TOKEN_TAG + low, TOKEN_TAG + high


def token_keys() -> tuple[bytes, bytes]:
    return TOKEN_TAG, TOKEN_TAG + b"\xff" * 33


def data_ranges(table_id: int, start: int, end: int) -> list[tuple[bytes, bytes]]:
    """All that belongs to hashes of one table with start <= key hash < end."""
    return [item_range(table_id, start, end), token_range(table_id, start, end)]


def table_data(table_id: int) -> list[tuple[bytes, bytes]]:
    """All that belongs to the hashes of one table."""
    return data_ranges(table_id, 0, KEYSPACE_END)


def split_token_key(key: bytes) -> tuple[int, bytes]:
    """Key hash and token of the engine key of a token."""
    hash_: int = _ID.unpack_from(key, _ADDRESS_OFFSET)[0]
    return hash_, key[_TOKEN_OFFSET:]


def split_item_key(key: bytes) -> tuple[int, bytes]:
    """Key hash and encoded key of an item's engine key."""
    hash_: int = _ID.unpack_from(key, _ADDRESS_OFFSET)[0]
    return hash_, key[_ADDRESS_OFFSET + 8 :]
