"""An item as the engine holds it: a header, then the serialized item as it was put.

The header carries the item's version and the token of the write that made it, so that a retry of
that write can be recognized even after a restart. A moving item travels with its header.
"""

from __future__ import annotations

import struct

from keyplane.model.errors import KeyplaneError, Reason

# Format, version, token as `join_token` joins it, flags.
_HEADER = struct.Struct(">BQ24sB")
HEADER_BYTES = _HEADER.size

_FORMAT = 1
_HAS_TOKEN = 0x01

# Bytes of a token's client id.
CLIENT_ID_BYTES = 16


class StoredHeader:
    """token: client id and sequence number as `join_token` joins them; empty without one."""

    __slots__ = ("token", "version")

    def __init__(self, version: int, token: bytes) -> None:
        self.version = version
        self.token = token


def join_token(client_id: bytes, sequence: int) -> bytes:
    """A write token as one value, equal exactly for attempts of one write."""
    return client_id + sequence.to_bytes(8, "big")


def seal_item(version: int, token: bytes, item: bytes) -> bytes:
    """token: of `join_token`, or empty."""
    return _HEADER.pack(_FORMAT, version, token, _HAS_TOKEN if token else 0) + item


def read_header(value: bytes) -> StoredHeader:
    """Raises KeyplaneError: FOREIGN_FORMAT or CORRUPT."""
    if len(value) < HEADER_BYTES:
        raise KeyplaneError(Reason.CORRUPT, f"a stored item has only {len(value)} bytes")
    format_, version, token, flags = _HEADER.unpack_from(value)
    if format_ != _FORMAT:
        raise KeyplaneError(
            Reason.FOREIGN_FORMAT,
            f"a stored item has format {format_}; this build reads {_FORMAT}",
        )
    return StoredHeader(version, token if flags & _HAS_TOKEN else b"")


def item_of(value: bytes) -> bytes:
    """The serialized item behind a header that `read_header` accepts."""
    return value[HEADER_BYTES:]
