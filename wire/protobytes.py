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


# --- Reading -------------------------------------------------------------------------------------
#
# For readers that know the one form in which a message is usually sent, and leave every other form
# to the message class: fields in another order, twice or unknown, numbers not in their shortest
# form, and what is no message at all.


def varint_at(data: bytes, at: int) -> tuple[int, int]:
    """The number that begins there and where it ends; (-1, -1) for none in its shortest form, or
    one of more than 62 bits.
    """
    size = len(data)
    value = shift = 0
    while at < size and shift < 63:
        byte = data[at]
        at += 1
        if byte < 0x80:
            if byte or not shift:
                return value | byte << shift, at
            break
        value |= (byte & 0x7F) << shift
        shift += 7
    return -1, -1


def fixed64_at(data: bytes, at: int) -> int:
    """The fixed64 that begins there; 0 if it is cut off."""
    return int.from_bytes(data[at : at + 8], "little") if at + 8 <= len(data) else 0


def span_at(data: bytes, at: int) -> tuple[int, int]:
    """Where the content of a delimited field begins and ends whose length is there; (-1, -1) if
    there is no such.
    """
    if at < len(data) and data[at] < 0x80:
        start = at + 1
        end = start + data[at]
    else:
        length, start = varint_at(data, at)
        if length < 0:
            return -1, -1
        end = start + length
    return (start, end) if end <= len(data) else (-1, -1)
