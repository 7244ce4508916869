"""An item as the engine holds it: a header, then the serialized item as it was put.

The header carries the item's version, its size, and the token of the write that made it, so that a
retry of that write can be recognized even after a restart. A moving item travels with its header.
"""

from __future__ import annotations

from typing import Final

from librt.strings import BytesWriter

from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.numbers import read_u32_be, read_u64_be, write_u32_be, write_u64_be

# Format (1 byte), version (8), token as `join_token` joins it (24), flags (1), size (4).
_TOKEN_AT: Final = 9
_FLAGS_AT: Final = 33
_SIZE_AT: Final = 34
HEADER_BYTES: Final = 38

_FORMAT: Final = 2
# Had no size.
_FORMAT_BEFORE: Final = 1
_HEADER_BYTES_BEFORE: Final = 34
_HAS_TOKEN: Final = 0x01
_NO_TOKEN: Final = bytes(_FLAGS_AT - _TOKEN_AT)

# Bytes of a token's client id.
CLIENT_ID_BYTES: Final = 16


def join_token(client_id: bytes, sequence: int) -> bytes:
    """A write token as one value, equal exactly for attempts of one write."""
    out = BytesWriter()
    out.write(client_id)
    write_u64_be(out, sequence)
    return out.getvalue()


def seal_item(version: int, token: bytes, item: bytes, item_bytes: int) -> bytes:
    """token: of `join_token`, or empty. item_bytes: the item's size as capacity units count it."""
    out = BytesWriter()
    out.append(_FORMAT)
    write_u64_be(out, version)
    out.write(token or _NO_TOKEN)
    out.append(_HAS_TOKEN if token else 0)
    write_u32_be(out, item_bytes)
    out.write(item)
    return out.getvalue()


def read_version(value: bytes) -> int:
    """Of a stored item. Raises KeyplaneError: FOREIGN_FORMAT or CORRUPT."""
    size = len(value)
    if size < _HEADER_BYTES_BEFORE:
        raise KeyplaneError(Reason.CORRUPT, f"a stored item has only {size} bytes")
    if value[0] != _FORMAT and value[0] != _FORMAT_BEFORE:
        raise KeyplaneError(
            Reason.FOREIGN_FORMAT,
            f"a stored item has format {value[0]}; this build reads up to {_FORMAT}",
        )
    if value[0] == _FORMAT and size < HEADER_BYTES:
        raise KeyplaneError(Reason.CORRUPT, f"a stored item has only {size} bytes")
    return read_u64_be(value, 1)


def made_by(value: bytes, token: bytes) -> bool:
    """Whether the write under a token, as `join_token` joins it, made a stored item that
    `read_version` accepts.
    """
    return value[_TOKEN_AT:_FLAGS_AT] == token and value[_FLAGS_AT] & _HAS_TOKEN != 0


def item_of(value: bytes) -> bytes:
    """The serialized item behind a header that `read_version` accepts."""
    return value[HEADER_BYTES if value[0] == _FORMAT else _HEADER_BYTES_BEFORE :]


def size_of(value: bytes) -> int:
    """Bytes of a stored item that `read_version` accepts, as capacity units count them. Those of an
    item that was written without its size are counted as they are stored, which is never less.
    """
    if value[0] == _FORMAT:
        return read_u32_be(value, _SIZE_AT)
    return len(value) - _HEADER_BYTES_BEFORE
