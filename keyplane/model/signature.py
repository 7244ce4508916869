"""The signature on a call: who makes it, and that nobody has changed it or sent it again.

It travels in one field of gRPC metadata, `keyplane-authorization`, always of the same length:

    key id, 20 characters | format, "1" | base64 of 42 bytes, 56 characters
    42 bytes: milliseconds since 1970 (8) | signer (8) | sequence (8) | MAC (18)

Numbers are big-endian. The MAC is keyed BLAKE2b (RFC 7693) of 18 bytes, under the key's secret, of
the format, the first 24 bytes, the full name of the method, a zero byte and the message. A signer
is a random number that somebody who signs draws once; its sequence numbers rise, so that a server
can tell whether it has seen a call before without remembering each (`cache.replays`).
"""

from __future__ import annotations

import hashlib
import os
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable
from itertools import count
from typing import Final

from mypy_extensions import i64, mypyc_attr

from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.numbers import read_u64_be

HEADER: Final = "keyplane-authorization"

KEY_ID_CHARS: Final = 20
VALUE_CHARS: Final = KEY_ID_CHARS + 1 + 56

SECRET_BYTES: Final = 32

_FORMAT: Final = b"1"
_SIGNED_BYTES: Final = 24
_MAC_BYTES: Final = 18
_PACKED_BYTES: Final = _SIGNED_BYTES + _MAC_BYTES

# Longer messages are not copied to be signed.
_COPIED_BYTES_MAX: Final = 16 * 1024

# Full names of methods with the zero byte, as they are signed; of as many as any server has.
_METHODS_MAX: Final = 256
_METHODS: Final[dict[str, bytes]] = {}


class SigningKey:
    """Keyed BLAKE2b of one secret, with its state after key and format kept: the key is a block of
    its own, and compressed only when more comes.

    It does what HMAC-SHA256 does in half the time, which a router feels: it verifies one for every
    request.
    """

    __slots__ = ("_keyed",)

    def __init__(self, secret: bytes) -> None:
        """secret: up to 64 bytes."""
        self._keyed = hashlib.blake2b(_FORMAT, key=secret, digest_size=_MAC_BYTES)

    def mac(self, head: bytes, method: str, payload: bytes) -> bytes:
        """head: the first 24 bytes."""
        named = _METHODS.get(method)
        if named is None:
            named = method.encode() + b"\0"
            if len(_METHODS) < _METHODS_MAX:
                _METHODS[method] = named
        state = self._keyed.copy()
        if len(payload) <= _COPIED_BYTES_MAX:
            state.update(b"".join((head, named, payload)))
        else:
            state.update(head + named)
            state.update(payload)
        return state.digest()


@mypyc_attr(acyclic=True, free_list_len=1)
class Signature:
    """One as it was read; nothing of it is verified. signed_at_ms: since 1970."""

    __slots__ = ("head", "key_id", "mac", "sequence", "signed_at_ms", "signer")

    def __init__(
        self,
        key_id: bytes,
        head: bytes,
        signed_at_ms: int,
        signer: bytes,
        sequence: int,
        mac: bytes,
    ) -> None:
        self.key_id = key_id
        self.head = head
        self.signed_at_ms = signed_at_ms
        self.signer = signer
        self.sequence = sequence
        self.mac = mac


def read_signature(value: bytes) -> Signature:
    """Raises KeyplaneError(BAD_SIGNATURE) on a value of another form."""
    at: i64 = KEY_ID_CHARS
    if len(value) != VALUE_CHARS or value[at] != _FORMAT[0]:
        raise malformed()
    try:
        packed = a2b_base64(value[at + 1 :])
    except ValueError:
        raise malformed() from None
    if len(packed) != _PACKED_BYTES:
        raise malformed()
    return Signature(
        value[:at],
        packed[:_SIGNED_BYTES],
        read_u64_be(packed, 0),
        packed[8:16],
        read_u64_be(packed, 16),
        packed[_SIGNED_BYTES:],
    )


def malformed() -> KeyplaneError:
    return KeyplaneError(
        Reason.BAD_SIGNATURE,
        f"{HEADER} is not of the form that signers of Keyplane give it; sign calls with its SDK, or"
        " as keyplane/model/signature.py says",
    )


class Signer:
    """Signs the calls of one client, from any number of threads."""

    __slots__ = ("_key", "_sequence", "_signer", "_start", "_wall", "key_id", "secret")

    def __init__(
        self,
        key_id: str,
        secret: bytes,
        wall: Callable[[], float],
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        """wall: seconds since 1970. entropy: so many random bytes."""
        self.key_id = key_id
        self.secret = secret
        self._start = key_id + _FORMAT.decode()
        self._key = SigningKey(secret)
        self._wall = wall
        self._signer = entropy(8)
        # Taking the next is one step of the interpreter.
        self._sequence = count(1)

    def value(self, method: str, payload: bytes) -> str:
        """Of the header, for one attempt at a call."""
        signed_at = int(self._wall() * 1000.0).to_bytes(8, "big")
        sequence = next(self._sequence).to_bytes(8, "big")
        head = signed_at + self._signer + sequence
        packed = b2a_base64(head + self._key.mac(head, method, payload), newline=False)
        return self._start + packed.decode()
