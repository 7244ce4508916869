"""The key encoding keeps DynamoDB's order, and loses nothing."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyplane.catalog.v1 import catalog_pb2 as catalog
from keyplane.data.v1 import data_pb2 as data
from keyplane.model.decimals import decode_number, encode_number, parse_number
from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.items import from_item, to_item
from keyplane.model.keys import (
    KeySchema,
    address_range,
    after,
    decode_key,
    encode_key,
    item_address,
    parse_address,
    sort_bounds,
)
from keyplane.model.partition import KEYSPACE_END

S, N, B = catalog.SCALAR_TYPE_STRING, catalog.SCALAR_TYPE_NUMBER, catalog.SCALAR_TYPE_BINARY

# Few letters, and the ones that the encoding treats specially, so that prefixes are common.
texts = st.text(st.sampled_from("\0\1ab\u00ff\U0001f600"), min_size=1, max_size=6) | st.text(
    min_size=1, max_size=20
)
blobs = st.lists(st.sampled_from([0, 1, 2, 254, 255]), min_size=1, max_size=6).map(bytes)


@st.composite
def numbers(draw: st.DrawFn) -> Decimal:
    digits = draw(st.integers(0, 10 ** draw(st.integers(1, 38)) - 1))
    sign = draw(st.sampled_from((1, -1)))
    # Keeps the leading digit's exponent within -130 to 125.
    shift = draw(st.integers(-130, 126 - len(str(digits))))
    return Decimal(sign * digits).scaleb(shift)


VALUES: dict[Any, st.SearchStrategy[Any]] = {S: texts, N: numbers(), B: blobs}


def sorts_as(type_: int, value: Any) -> Any:
    return value.encode() if type_ == S else value


@st.composite
def schemas_with_keys(draw: st.DrawFn, count: int) -> tuple[KeySchema, list[dict[str, Any]]]:
    """A schema and some keys of it that have the partition key in common."""
    schema = KeySchema("p", draw(st.sampled_from((S, N, B))), "s", draw(st.sampled_from((S, N, B))))
    partition = draw(VALUES[schema.partition_type])
    return schema, [{"p": partition, "s": draw(VALUES[schema.sort_type])} for _ in range(count)]


@given(schemas_with_keys(count=1))
def test_a_key_is_read_back_as_it_was(drawn: tuple[KeySchema, list[dict[str, Any]]]) -> None:
    schema, (key,) = drawn
    encoded = encode_key(schema, to_item(key).attributes, exact=True).encoded
    assert from_item(data.Item(attributes=decode_key(schema, encoded))) == key


@given(schemas_with_keys(count=2))
def test_byte_order_is_the_order_of_sort_keys(
    drawn: tuple[KeySchema, list[dict[str, Any]]],
) -> None:
    schema, keys = drawn
    first, second = (encode_key(schema, to_item(key).attributes).encoded for key in keys)
    left, right = (sorts_as(schema.sort_type, key["s"]) for key in keys)
    assert (first < second, first == second) == (left < right, left == right)


@given(st.sampled_from((S, N, B)).flatmap(lambda type_: st.tuples(*[VALUES[type_]] * 2)))
def test_no_partition_key_is_a_prefix_of_another(values: tuple[Any, Any]) -> None:
    kinds = {str: S, Decimal: N, bytes: B}
    schema = KeySchema("p", kinds[type(values[0])])
    first, second = (encode_key(schema, to_item({"p": value}).attributes)[1] for value in values)
    assert first.startswith(second) == (values[0] == values[1])


@given(schemas_with_keys(count=3), st.booleans(), st.booleans())
def test_bounds_select_exactly_what_lies_between_them(
    drawn: tuple[KeySchema, list[dict[str, Any]]], from_exclusive: bool, to_exclusive: bool
) -> None:
    schema, (item, *ends) = drawn
    low, high = sorted((end["s"] for end in ends), key=lambda s: sorts_as(schema.sort_type, s))
    wrapped = to_item({"from": low, "to": high}).attributes
    bounds = data.SortKeyRange(
        **dict(wrapped), from_exclusive=from_exclusive, to_exclusive=to_exclusive
    )
    key = encode_key(schema, to_item(item).attributes)
    start, end = sort_bounds(schema, key.hash_input, bounds)
    low, high, value = (sorts_as(schema.sort_type, x) for x in (low, high, item["s"]))
    above = low < value if from_exclusive else low <= value
    below = value < high if to_exclusive else value <= high
    assert (start <= key.encoded < end) == (above and below)
    assert start <= end


@given(texts, texts)
def test_begins_with_selects_exactly_what_begins_so(prefix: str, text: str) -> None:
    schema = KeySchema("p", N, "s", S)
    key = encode_key(schema, to_item({"p": 1, "s": text}).attributes)
    bounds = data.SortKeyRange(begins_with=data.AttributeValue(s=prefix))
    start, end = sort_bounds(schema, key.hash_input, bounds)
    assert (start <= key.encoded < end) == text.startswith(prefix)


@given(st.binary(max_size=60))
def test_bytes_read_as_a_key_are_the_bytes_that_key_has(garbage: bytes) -> None:
    """Whatever is not exactly what the encoding writes is refused as corrupt."""
    for schema in (KeySchema("p", S, "s", N), KeySchema("p", N, "s", B), KeySchema("p", N)):
        try:
            key = decode_key(schema, garbage)
        except KeyplaneError as error:
            assert error.reason is Reason.CORRUPT
        else:
            assert encode_key(schema, key, exact=True).encoded == garbage


@given(schemas_with_keys(count=1), st.data())
def test_a_damaged_key_never_passes_for_another_spelling_of_a_key(
    drawn: tuple[KeySchema, list[dict[str, Any]]], choice: st.DataObject
) -> None:
    schema, (key,) = drawn
    encoded = bytearray(encode_key(schema, to_item(key).attributes).encoded)
    encoded[choice.draw(st.integers(0, len(encoded) - 1))] = choice.draw(st.integers(0, 255))
    try:
        read = decode_key(schema, bytes(encoded))
    except KeyplaneError as error:
        assert error.reason is Reason.CORRUPT
    else:
        try:
            assert encode_key(schema, read).encoded == encoded
        except KeyplaneError as error:
            # Only a value that is too long or out of range, which decoding does not look at.
            assert error.reason is Reason.INVALID_ARGUMENT


@given(numbers(), numbers())
def test_numbers_sort_as_bytes_and_come_back(left: Decimal, right: Decimal) -> None:
    first, second = (encode_number(parse_number(str(value))) for value in (left, right))
    assert (first < second, first == second) == (left < right, left == right)
    number, end = decode_number(b"before" + first + b"after", 6)
    assert (Decimal(str(number)), end) == (left, 6 + len(first))


@given(st.text(st.sampled_from("0123456789.eE+-"), max_size=50))
def test_number_text_means_what_python_takes_it_for(text: str) -> None:
    try:
        number = parse_number(text)
    except KeyplaneError:
        return
    assert Decimal(str(number)) == Decimal(text)


@given(
    st.integers(1, 2**63),
    st.integers(0, KEYSPACE_END - 1),
    st.binary(max_size=20),
    st.integers(0, KEYSPACE_END - 1),
    st.integers(1, KEYSPACE_END),
)
def test_an_address_is_in_a_range_exactly_if_its_hash_is(
    table_id: int, hash_: int, encoded: bytes, start: int, end: int
) -> None:
    address = item_address(table_id, hash_, encoded)
    assert parse_address(address) == (table_id, hash_, encoded)
    low, high = address_range(table_id, start, end)
    assert (low <= address < high) == (start <= hash_ < end)


@given(st.binary(min_size=1, max_size=8), st.binary(max_size=8), st.binary(max_size=8))
def test_after_separates_a_prefix_from_all_that_is_above(
    prefix: bytes, rest: bytes, other: bytes
) -> None:
    if not prefix.rstrip(b"\xff"):
        with pytest.raises(ValueError):
            after(prefix)
        return
    assert prefix + rest < after(prefix)
    if other > prefix and not other.startswith(prefix):
        assert other >= after(prefix)
