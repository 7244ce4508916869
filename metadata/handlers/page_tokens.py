"""Page tokens: where a listing goes on, as text that means nothing to the caller.

A token holds what it lists, a position and a checksum, so one that was cut, made up or taken from
another listing is refused instead of giving a wrong page.
"""

from __future__ import annotations

import base64
import binascii

import xxhash

from keyplane.model.errors import KeyplaneError
from metadata.handlers.checks import invalid

_CHECKSUM_BYTES = 8


def make_token(listing: str, position: bytes) -> str:
    """listing: what is listed, as "tables". position: up to the listing itself."""
    return base64.urlsafe_b64encode(_checksum(listing, position) + position).decode()


def read_token(listing: str, token: str) -> bytes | None:
    """The position; None for an empty token, the first page.

    Raises KeyplaneError(INVALID_ARGUMENT) on anything `make_token` did not make for this listing.
    """
    if not token:
        return None
    try:
        packed = base64.b64decode(token, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise _not_ours(listing) from error
    checksum, position = packed[:_CHECKSUM_BYTES], packed[_CHECKSUM_BYTES:]
    if checksum != _checksum(listing, position):
        raise _not_ours(listing)
    return position


def _checksum(listing: str, position: bytes) -> bytes:
    return xxhash.xxh3_64_digest(listing.encode() + b"\0" + position)


def _not_ours(listing: str) -> KeyplaneError:
    return invalid(
        f"this is not a page token of the list of {listing}; "
        "pass next_page_token of the page before, or nothing"
    )
