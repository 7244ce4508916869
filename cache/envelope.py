"""The frame around every value in MemDS and around the snapshot file.

    magic "KPV" | format version, 1 byte | kind, 1 byte | checksum, 16 bytes | payload

The checksum is xxh3-128 of the first five bytes and the payload, so a value can be neither
truncated nor altered nor stored under a key of another kind without being noticed.
"""

from __future__ import annotations

import enum

import xxhash

from keyplane.model.errors import KeyplaneError, Reason

MAGIC = b"KPV"

# Raised when payloads change in a way that older readers would misread.
FORMAT_VERSION = 1

_CHECKSUM_BYTES = 16
_HEADER_BYTES = len(MAGIC) + 2
OVERHEAD_BYTES = _HEADER_BYTES + _CHECKSUM_BYTES


class Kind(enum.IntEnum):
    """What a payload is. Part of the format: numbers are never reused."""

    ROOT = 1
    PAGE = 2
    NODES = 3
    REPORT = 4
    MARKER = 5
    SNAPSHOT = 6
    TENANTS = 7


_HEADERS = {kind: MAGIC + bytes((FORMAT_VERSION, kind)) for kind in Kind}


def seal(kind: Kind, payload: bytes) -> bytes:
    """The payload as it is stored."""
    header = _HEADERS[kind]
    return header + xxhash.xxh3_128_digest(header + payload) + payload


def open_sealed(kind: Kind, value: bytes) -> bytes:
    """The payload of a stored value.

    Raises KeyplaneError: FOREIGN_FORMAT for a format version other than this build's, CORRUPT for
    anything else that `seal(kind, …)` did not write.
    """
    if len(value) < OVERHEAD_BYTES or value[: len(MAGIC)] != MAGIC:
        raise KeyplaneError(Reason.CORRUPT, f"{len(value)} bytes are not a {kind.name} value")
    version = value[len(MAGIC)]
    if version != FORMAT_VERSION:
        raise KeyplaneError(
            Reason.FOREIGN_FORMAT,
            f"the value has format version {version}, this build reads {FORMAT_VERSION}",
        )
    header, checksum = value[:_HEADER_BYTES], value[_HEADER_BYTES:OVERHEAD_BYTES]
    payload = value[OVERHEAD_BYTES:]
    if xxhash.xxh3_128_digest(header + payload) != checksum:
        raise KeyplaneError(Reason.CORRUPT, f"wrong checksum in a {kind.name} value")
    if header != _HEADERS[kind]:
        raise KeyplaneError(
            Reason.CORRUPT, f"expected a {kind.name} value, found kind {header[-1]}"
        )
    return payload
