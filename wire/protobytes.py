"""Protocol buffers written by hand, for the messages that every request is made of.

Building a nested message object by object costs several times what its bytes do. Who writes bytes
here has a test that the message class reads the same out of them.

Encoding: https://protobuf.dev/programming-guides/encoding/ (wire types 0, 1 and 2). Fields may come
in any order, and a message may be put together from parts.
"""

from __future__ import annotations

import struct

# Numbers that are used again and again: lengths, small ids and epochs.
_READY = tuple(
    bytes((number,)) if number < 0x80 else bytes((number & 0x7F | 0x80, number >> 7))
    for number in range(0x1000)
)

fixed64 = struct.Struct("<Q").pack


def varint(number: int) -> bytes:
    """An unsigned integer of up to 64 bits, 0 <= number < 2**64."""
    if number < 0x1000:
        return _READY[number]
    parts = bytearray()
    while number >= 0x80:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    parts.append(number)
    return bytes(parts)


def tag(number: int, wire_type: int) -> bytes:
    """What a field begins with. wire_type: 0 varint, 1 fixed64, 2 bytes, string or message."""
    return varint(number << 3 | wire_type)


def delimited(tag: bytes, content: bytes) -> bytes:
    """A field of bytes, a string or a message."""
    return tag + varint(len(content)) + content
