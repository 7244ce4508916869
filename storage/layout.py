"""Where things are in a storage node's engine.

Keys begin with a tag byte: NODE records are about the node itself, ITEM entries hold the data, LOG
records the results of recent writes. Items are ordered by table, key hash and key, so a range of
hashes is contiguous and splitting or merging partitions touches no item.
"""

from __future__ import annotations

import struct
from typing import Final

from librt.strings import BytesWriter

from keyplane.model.keys import address_range, item_address
from keyplane.model.numbers import write_u64_be

NODE_TAG: Final = b"\x01"
ITEM_TAG: Final = b"\x02"
LOG_TAG: Final = b"\x03"

NODE_RECORD = NODE_TAG + b"node"
_TABLE_PREFIX: Final = NODE_TAG + b"table/"
_PARTITION_PREFIX: Final = NODE_TAG + b"partition/"
_PROGRESS_PREFIX: Final = NODE_TAG + b"progress/"

_ID: Final = struct.Struct(">Q")
_ADDRESS_OFFSET: Final = len(ITEM_TAG) + 8

# Table id, key hash, client id, sequence number.
TOKEN_NAME_BYTES = 8 + 8 + 16 + 8


def table_key(table_id: int) -> bytes:
    return _TABLE_PREFIX + _ID.pack(table_id)


def partition_key(partition_id: int) -> bytes:
    return _PARTITION_PREFIX + _ID.pack(partition_id)


def progress_key(partition_id: int) -> bytes:
    """Of the counters that change with every write of a partition."""
    return _numbered(_PROGRESS_PREFIX, partition_id)


def table_keys() -> tuple[bytes, bytes]:
    """Half-open range of all table records; likewise below."""
    return _TABLE_PREFIX, _TABLE_PREFIX + b"\xff" * 9


def partition_keys() -> tuple[bytes, bytes]:
    return _PARTITION_PREFIX, _PARTITION_PREFIX + b"\xff" * 9


def item_key(table_id: int, key_hash: int, encoded: bytes) -> bytes:
    return item_address(table_id, key_hash, encoded, ITEM_TAG)


def item_range(table_id: int, start: int, end: int) -> tuple[bytes, bytes]:
    """Half-open range of the items of one table with start <= key hash < end."""
    low, high = address_range(table_id, start, end)
    return ITEM_TAG + low, ITEM_TAG + high


def table_items(table_id: int) -> tuple[bytes, bytes]:
    """Half-open range of all items of one table."""
    return ITEM_TAG + _ID.pack(table_id), ITEM_TAG + _ID.pack(table_id + 1)


def split_item_key(key: bytes) -> tuple[int, bytes]:
    """Key hash and encoded key of an item's engine key."""
    hash_: int = _ID.unpack_from(key, _ADDRESS_OFFSET)[0]
    return hash_, key[_ADDRESS_OFFSET + 8 :]


def log_key(number: int) -> bytes:
    """Of a record of the log of write tokens."""
    return _numbered(LOG_TAG, number)


def log_number(key: bytes) -> int:
    number: int = _ID.unpack_from(key, len(LOG_TAG))[0]
    return number


def log_keys() -> tuple[bytes, bytes]:
    return LOG_TAG, LOG_TAG + b"\xff" * 9


def token_name(item_key: bytes, token: bytes) -> bytes:
    """Of a write of an item under a token: table and key hash as in the item's key, then the token.

    So those of a range of hashes are together, as items are.
    """
    return item_key[len(ITEM_TAG) : _ADDRESS_OFFSET + 8] + token


def token_names(table_id: int, start: int, end: int) -> tuple[bytes, bytes]:
    """Half-open range of the names of one table with start <= key hash < end."""
    return address_range(table_id, start, end)


def split_token_name(name: bytes) -> tuple[int, bytes]:
    """Key hash and token."""
    hash_: int = _ID.unpack_from(name, 8)[0]
    return hash_, name[16:]


def _numbered(prefix: bytes, number: int) -> bytes:
    out = BytesWriter()
    out.write(prefix)
    write_u64_be(out, number)
    return out.getvalue()
