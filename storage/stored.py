"""An item as the engine holds it: a header, then the serialized item as it was put.

The header carries the item's version and the token of the write that made it, so that a retry of
that write can be recognized even after a restart. A moving item travels with its header.
"""

from __future__ import annotations

from typing import Final

from librt.strings import BytesWriter

from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.numbers import read_u64_be, write_u64_be

# Format (1 byte), version (8), token as `join_token` joins it (24), flags (1).
_TOKEN_AT: Final = 9
_FLAGS_AT: Final = 33
HEADER_BYTES: Final = 34

_FORMAT: Final = 1
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


def seal_item(version: int, token: bytes, item: bytes) -> bytes:
    """token: of `join_token`, or empty."""
    out = BytesWriter()
    out.append(_FORMAT)
    write_u64_be(out, version)
    out.write(token or _NO_TOKEN)
    out.append(_HAS_TOKEN if token else 0)
    out.write(item)
    return out.getvalue()


def read_version(value: bytes) -> int:
    """Of a stored item. Raises KeyplaneError: FOREIGN_FORMAT or CORRUPT."""
    if len(value) < HEADER_BYTES:
        raise KeyplaneError(Reason.CORRUPT, f"a stored item has only {len(value)} bytes")
    if value[0] != _FORMAT:
        raise KeyplaneError(
            Reason.FOREIGN_FORMAT,
            f"a stored item has format {value[0]}; this build reads {_FORMAT}",
        )
    return read_u64_be(value, 1)


def made_by(value: bytes, token: bytes) -> bool:
    """Whether the write under a token, as `join_token` joins it, made a stored item that
    `read_version` accepts.
    """
    return value[_TOKEN_AT:_FLAGS_AT] == token and value[_FLAGS_AT] & _HAS_TOKEN != 0


def item_of(value: bytes) -> bytes:
    """The serialized item behind a header that `read_version` accepts."""
    return value[HEADER_BYTES:]
