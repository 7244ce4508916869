"""Bytes written by hand are read as the messages they are meant to be."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st
from librt.strings import BytesWriter

from keyplane.data.v1 import data_pb2 as data
from keyplane.model.numbers import write_u64_le
from keyplane.storage.v1 import storage_pb2 as storage
from wire.protobytes import delimited, tag, varint

unsigned = st.integers(0, (1 << 64) - 1)


@given(unsigned)
@example(0x7F)
@example(0x80)
@example(0xFFF)
@example(0x1000)
@example((1 << 64) - 1)
def test_numbers(number: int) -> None:
    written = tag(storage.GetResult.VERSION_FIELD_NUMBER, 0) + varint(number)
    assert storage.GetResult.FromString(written).version == number
    assert not number or written == storage.GetResult(version=number).SerializeToString()


@given(unsigned, st.binary(max_size=20_000))
def test_nested_messages(key_hash: int, encoded: bytes) -> None:
    out = BytesWriter()
    write_u64_le(out, key_hash)
    key = tag(1, 1) + out.getvalue() + delimited(tag(2, 2), encoded)
    message = storage.GetOp.FromString(delimited(tag(1, 2), key))
    assert message == storage.GetOp(key=storage.ItemKey(hash=key_hash, encoded=encoded))


def test_field_numbers_of_two_bytes() -> None:
    assert tag(16, 2) == b"\x82\x01"
    assert data.AttributeValue.FromString(delimited(tag(10, 2), b"")).HasField("bs")
