"""Protocol buffers written by hand, for the messages that every request is made of.

Building a nested message object by object costs several times what its bytes do. Who writes bytes
here has a test that the message class reads the same out of them.

Encoding: https://protobuf.dev/programming-guides/encoding/ (wire types 0, 1 and 2). Fields may come
in any order, and a message may be put together from parts.
"""

from __future__ import annotations

from typing import Final

from librt.strings import BytesWriter
from mypy_extensions import i64

from keyplane.model.numbers import read_u64_le

# Numbers that are used again and again: lengths, small ids and epochs.
_READY: Final = [
    bytes((number,)) if number < 0x80 else bytes((number & 0x7F | 0x80, number >> 7))
    for number in range(0x1000)
]


def varint(number: int) -> bytes:
    """An unsigned integer of up to 64 bits, 0 <= number < 2**64."""
    if number < 0x1000:
        return _READY[number]
    out = BytesWriter()
    write_varint(out, number)
    return out.getvalue()


def tag(number: int, wire_type: int) -> bytes:
    """What a field begins with. wire_type: 0 varint, 1 fixed64, 2 bytes, string or message."""
    return varint(number << 3 | wire_type)


def tag_byte(number: int, wire_type: int) -> int:
    """A tag that is one byte, as those of fields up to number 15 are."""
    assert 0 < number < 16
    return number << 3 | wire_type


def delimited(tag: bytes, content: bytes) -> bytes:
    """A field of bytes, a string or a message."""
    return tag + varint(len(content)) + content


# --- Writing -------------------------------------------------------------------------------------
#
# Parts of one message, one behind the other.


def write_varint(out: BytesWriter, number: int) -> None:
    """As `varint`."""
    left = number
    while left >= 0x80:
        out.append(int(left & 0x7F) | 0x80)
        left >>= 7
    out.append(int(left))


def write_delimited(out: BytesWriter, tag: int, content: bytes) -> None:
    """As `delimited`, with a tag of one byte."""
    out.append(tag)
    write_varint(out, len(content))
    out.write(content)


def varint_size(number: int) -> int:
    """Bytes that `varint` makes."""
    size, left = 1, number >> 7
    while left:
        size += 1
        left >>= 7
    return size


def delimited_size(content_size: int) -> int:
    """Bytes of a field with a tag of one byte and so much content."""
    return 1 + varint_size(content_size) + content_size


# --- Reading -------------------------------------------------------------------------------------
#
# For readers that know the one form in which a message is usually sent, and leave every other form
# to the message class: fields in another order, twice or unknown, numbers not in their shortest
# form, and what is no message at all.


def byte_at(data: bytes, at: i64) -> i64:
    """The byte there; -1 outside the data."""
    return data[at] if 0 <= at < len(data) else -1


def varint_at(data: bytes, at: i64) -> tuple[i64, i64]:
    """The number that begins there and where it ends; (-1, -1) for none in its shortest form, or
    one of more than 63 bits.
    """
    size: i64 = len(data)
    value: i64 = 0
    shift: i64 = 0
    while 0 <= at < size and shift < 63:
        byte: i64 = data[at]
        at += 1
        if byte < 0x80:
            if byte or not shift:
                return value | byte << shift, at
            break
        value |= (byte & 0x7F) << shift
        shift += 7
    return -1, -1


def fixed64_at(data: bytes, at: i64) -> int:
    """The fixed64 that begins there; 0 if it is cut off."""
    return read_u64_le(data, at) if at >= 0 and at + 8 <= len(data) else 0


def span_at(data: bytes, at: i64) -> tuple[i64, i64]:
    """Where the content of a delimited field begins and ends whose length is there; (-1, -1) if
    there is no such.
    """
    size: i64 = len(data)
    if 0 <= at < size and data[at] < 0x80:
        start: i64 = at + 1
        end: i64 = start + data[at]
        return (start, end) if end <= size else (-1, -1)
    length, start = varint_at(data, at)
    if length < 0 or length > size - start:
        return -1, -1
    return start, start + length
