"""Sealed connections: who calls is proven once for all that a client writes at once.

A MAC and a header field for every call cost a router a quarter of its throughput. A client that has
this engine seals its connection instead, with three types of frame out of the range that HTTP/2
leaves for experiments (0xf0 to 0xff; others ignore them, RFC 9113 section 5.5):

    HELLO      client    "keyplane", key id (20 characters), nonce (16 bytes), proof (16 bytes)
    CHALLENGE  server    "keyplane", nonce (16 bytes)
    RECORD     client    length (4 bytes), MAC (16 bytes); so many bytes of frames come next

Both ends derive a key of the connection from the secret and the two nonces, so nothing that was
said on one connection means anything on another. From its first RECORD on, all that the client says
is in records. The MAC is GMAC (NIST SP 800-38D: AES-256-GCM of nothing, with the record's bytes as
additional data and its number as nonce), which processors have instructions for: a record that was
changed, left out, put elsewhere or sent again ends the connection, and nothing of it is run.

Until the challenge has come, and at servers that never send one, each call is signed
(`keyplane.model.signature`). The proof, a MAC of what is before it under the secret, is not what
anybody is let in for: a client with the wrong secret is to hear so in answer to a call that it has
signed. What the server says is not sealed, as it is not signed there.
"""

from __future__ import annotations

import hashlib
from typing import Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from librt.strings import BytesWriter
from mypy_extensions import i64

from keyplane.model.numbers import read_u32_be, write_u32_be
from keyplane.model.signature import KEY_ID_CHARS
from wire.http2 import frames as h2

HELLO: Final = 0xF0
CHALLENGE: Final = 0xF1
RECORD: Final = 0xF2

NONCE_BYTES: Final = 16
MAC_BYTES: Final = 16
# Others may use these types for something else.
_MAGIC: Final = b"keyplane"

# The head of its frame, which is always the same, and what is in it.
RECORD_FRAME: Final = h2.FRAME_HEAD.pack((4 + MAC_BYTES) << 8 | RECORD, 0, 0)
RECORD_HEAD_BYTES: Final = h2.FRAME_HEAD_BYTES + 4 + MAC_BYTES

# Of the frames in one record: a server holds so much before it knows whose it is.
RECORD_BYTES_MAX: Final = 65_536

_PURPOSE: Final = b"keyplane seal 1"


def hello_frame(secret: bytes, key_id: bytes, nonce: bytes) -> bytes:
    return h2.frame(HELLO, payload=_MAGIC + key_id + nonce + proof(secret, key_id, nonce))


def proof(secret: bytes, key_id: bytes, nonce: bytes) -> bytes:
    return hashlib.blake2b(b"hello" + key_id + nonce, key=secret, digest_size=MAC_BYTES).digest()


def read_hello(payload: bytes) -> tuple[bytes, bytes, bytes] | None:
    """Key id, nonce and proof; None for what somebody else means by a frame of this type."""
    nonce = len(_MAGIC) + KEY_ID_CHARS
    end = nonce + NONCE_BYTES
    if len(payload) != end + MAC_BYTES or not payload.startswith(_MAGIC):
        return None
    return payload[len(_MAGIC) : nonce], payload[nonce:end], payload[end:]


def challenge_frame(nonce: bytes) -> bytes:
    return h2.frame(CHALLENGE, payload=_MAGIC + nonce)


def read_challenge(payload: bytes) -> bytes | None:
    """The nonce; None for what somebody else means by a frame of this type."""
    if len(payload) != len(_MAGIC) + NONCE_BYTES or not payload.startswith(_MAGIC):
        return None
    return payload[len(_MAGIC) :]


class Seal:
    """The MACs of a connection's records, in their order, at either end."""

    __slots__ = ("_cipher", "_number")

    def __init__(self, secret: bytes, key_id: bytes, client_nonce: bytes, nonce: bytes) -> None:
        """secret: up to 64 bytes. nonce: the server's."""
        derived = hashlib.blake2b(
            _PURPOSE + key_id + client_nonce + nonce, key=secret, digest_size=32
        ).digest()
        self._cipher = AESGCM(derived)
        self._number: i64 = 0

    def mac(self, data: bytes) -> bytes:
        """Of the next record. No number is used twice with a key."""
        nonce = int(self._number).to_bytes(12, "big")
        self._number += 1
        return self._cipher.encrypt(nonce, b"", data)

    def records(self, data: bytes) -> bytes:
        """What is written instead of `data`."""
        if len(data) > RECORD_BYTES_MAX:
            parts = range(0, len(data), RECORD_BYTES_MAX)
            return b"".join([self.records(data[at : at + RECORD_BYTES_MAX]) for at in parts])
        out = BytesWriter()
        out.write(RECORD_FRAME)
        write_u32_be(out, len(data))
        out.write(self.mac(data))
        out.write(data)
        return out.getvalue()


def find_record(buf: bytes) -> int:
    """Where the first RECORD begins among the whole frames of `buf`; -1 if none does."""
    at: i64 = 0
    size: i64 = len(buf)
    while size - at >= RECORD_HEAD_BYTES:
        word: i64 = read_u32_be(buf, at)
        if word & 0xFF == RECORD:
            return int(at)
        at += h2.FRAME_HEAD_BYTES + (word >> 8)
    return -1
