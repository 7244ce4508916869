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
from mypy_extensions import i64

_U32: Final = 1 << 32
_U64: Final = 1 << 64
_HALF_U32: Final = 1 << 31
_HALF_U64: Final = 1 << 63


def read_u32_be(data: bytes, at: i64) -> int:
    """Raises IndexError where there are no four bytes; likewise below."""
    number: int = read_i32_be(data, at)
    return number & 0xFFFFFFFF


def read_u64_be(data: bytes, at: i64) -> int:
    number: int = read_i64_be(data, at)
    return number if number >= 0 else number + _U64


def read_u64_le(data: bytes, at: i64) -> int:
    number: int = read_i64_le(data, at)
    return number if number >= 0 else number + _U64


def write_u32_be(out: BytesWriter, number: int) -> None:
    """0 <= number < 2**32, and likewise below."""
    write_i32_be(out, number if number < _HALF_U32 else number - _U32)


def write_u64_be(out: BytesWriter, number: int) -> None:
    write_i64_be(out, number if number < _HALF_U64 else number - _U64)


def write_u64_le(out: BytesWriter, number: int) -> None:
    write_i64_le(out, number if number < _HALF_U64 else number - _U64)
