"""Unsigned numbers of four and eight bytes in a run of bytes.

What `struct` does, a number at a time and without a tuple for them: compiled, a few instructions
each. The compiler knows signed numbers only, so those that begin with a one are shifted over.
"""

from __future__ import annotations

from typing import Final

from librt.strings import (
    BytesWriter,
    read_i32_be,
    read_i64_be,
    read_i64_le,
    write_i32_be,
    write_i64_be,
    write_i64_le,
)
from mypy_extensions import i32, i64

_U32: Final = 1 << 32
_U64: Final = 1 << 64
_HALF_U32: Final = 1 << 31
_HALF_U64: Final = 1 << 63


def read_u32_be(data: bytes, at: i64) -> i64:
    """Raises IndexError where there are no four bytes; likewise below."""
    return i64(read_i32_be(data, at)) & 0xFFFFFFFF


def read_u64_be(data: bytes, at: i64) -> int:
    number = read_i64_be(data, at)
    return int(number) if number >= 0 else int(number) + _U64


def read_u64_le(data: bytes, at: i64) -> int:
    number = read_i64_le(data, at)
    return int(number) if number >= 0 else int(number) + _U64


def write_u32_be(out: BytesWriter, number: i64) -> None:
    """0 <= number < 2**32, and likewise below."""
    write_i32_be(out, i32(number if number < _HALF_U32 else number - _U32))


def write_u64_be(out: BytesWriter, number: int) -> None:
    write_i64_be(out, number if number < _HALF_U64 else number - _U64)


def write_u64_le(out: BytesWriter, number: int) -> None:
    write_i64_le(out, number if number < _HALF_U64 else number - _U64)
