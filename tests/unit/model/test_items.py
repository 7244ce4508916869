"""Items: sizes as DynamoDB documents them, what is refused, and Python values."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from keyplane.data.v1 import data_pb2 as data
from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.items import from_item, item_size, to_item, validate_item
from keyplane.model.limits import ITEM_BYTES_MAX, NESTING_MAX


@pytest.mark.parametrize(
    ("value", "size"),
    [
        ("", 0),
        ("héllo", 6),
        (b"\x00" * 10, 10),
        (True, 1),
        (None, 1),
        (0, 1),
        (7, 2),
        (12, 2),
        (123, 3),
        (-120000, 2),
        (Decimal("0.00012"), 2),
        ([], 3),
        ([True, True], 3 + 2 * (1 + 1)),
        ({}, 3),
        ({"ab": "cde"}, 3 + 1 + 2 + 3),
        ([{"a": [1]}], 3 + 1 + (3 + 1 + 1 + (3 + 1 + 2))),
        ({"x", "yz"}, 3),
        ({1, 23}, 4),
        ({b"abc"}, 3),
    ],
)
def test_sizes_are_dynamodbs_names_included(value: Any, size: int) -> None:
    assert item_size(to_item({"näme": value})) == len("näme".encode()) + size


def test_an_item_fits_up_to_400_kb() -> None:
    fits = to_item({"k": "x" * (ITEM_BYTES_MAX - 1)})
    assert validate_item(fits) == ITEM_BYTES_MAX
    with pytest.raises(KeyplaneError, match="at most 409600") as caught:
        validate_item(to_item({"k": "x" * ITEM_BYTES_MAX}))
    assert caught.value.reason is Reason.ITEM_TOO_LARGE


@pytest.mark.parametrize(
    ("attributes", "why"),
    [
        ({"": {"s": "x"}}, "needs a name"),
        ({"a": {"m": {"entries": {"": {"s": "x"}}}}}, "needs a name"),
        ({"a": {}}, "'a' has no value"),
        ({"a": {"l": {"values": [{"s": "x"}, {}]}}}, r"'a\[1\]' has no value"),
        ({"a": {"m": {"entries": {"b": {}}}}}, "'a.b' has no value"),
        ({"a": {"n": "twelve"}}, "is not a number"),
        ({"a": {"n": "1e126"}}, "out of range"),
        ({"a": {"null": False}}, "null is always true"),
        ({"a": {"ss": {}}}, "must not be empty"),
        ({"a": {"ns": {}}}, "must not be empty"),
        ({"a": {"bs": {}}}, "must not be empty"),
        ({"a": {"ss": {"values": ["x", "x"]}}}, "twice"),
        ({"a": {"ns": {"values": ["1", "1.0"]}}}, "twice"),
        ({"a": {"bs": {"values": [b"x", b"x"]}}}, "twice"),
    ],
)
def test_items_that_are_not_well_formed_are_refused(attributes: dict[str, Any], why: str) -> None:
    item = data.Item(attributes=attributes)
    with pytest.raises(KeyplaneError, match=why) as caught:
        validate_item(item)
    assert caught.value.reason is Reason.INVALID_ARGUMENT


@pytest.mark.parametrize("wrap", [lambda inner: [inner], lambda inner: {"in": inner}])
def test_lists_and_maps_nest_32_deep(wrap: Any) -> None:
    value: Any = "bottom"
    for _ in range(NESTING_MAX):
        value = wrap(value)
    validate_item(to_item({"a": value}))
    with pytest.raises(KeyplaneError, match="nest 32 deep"):
        validate_item(to_item({"a": wrap(value)}))


def test_python_values_come_back() -> None:
    values = {
        "text": "é",
        "whole": -17,
        "fraction": Decimal("1.25"),
        "bytes": b"\x00\xff",
        "yes": True,
        "nothing": None,
        "list": [1, [False, {"deep": b""}]],
        "map": {"": "kept as it is; validation is another step"},
        "names": {"b", "a"},
        "numbers": {1, Decimal("0.5")},
        "blobs": {b"x"},
    }
    assert from_item(to_item(values)) == values


def test_a_whole_number_comes_back_as_int_however_it_was_written() -> None:
    assert from_item(to_item({"n": Decimal("1.50E+3")})) == {"n": 1500}
    (number,) = from_item(data.Item(attributes={"n": {"n": "1e2"}})).values()
    assert type(number) is int


def test_other_collections_are_taken_for_what_they_are_like() -> None:
    item = to_item(
        {"t": (1, 2), "f": frozenset({"x"}), "v": memoryview(b"x"), "a": bytearray(b"y")}
    )
    assert from_item(item) == {"t": [1, 2], "f": {"x"}, "v": b"x", "a": b"y"}


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (0.1, r"write Decimal\('0.1'\)"),
        ([{"deep": 0.1}], r"'a\[0\].deep' is a float"),
        (set(), "a set of no members"),
        ({1, "x"}, "a set of mixed types"),
        ({True}, "cannot hold a bool"),
        ({None}, "cannot hold a NoneType"),
        ({0.5}, "cannot hold a float"),
        (object(), "is a object"),
        (Decimal("NaN"), "not a number an item can hold"),
        (Decimal("-Infinity"), "not a number an item can hold"),
        (10**126, "more than 126 digits"),
        pytest.param(10**5000, "more than 126 digits", id="more than Python writes"),
    ],
)
def test_python_values_that_no_item_can_hold_are_refused(value: Any, why: str) -> None:
    with pytest.raises(KeyplaneError, match=why) as caught:
        to_item({"a": value})
    assert caught.value.reason is Reason.INVALID_ARGUMENT


def test_an_attribute_without_a_value_is_malformed() -> None:
    with pytest.raises(KeyplaneError) as caught:
        from_item(data.Item(attributes={"a": data.AttributeValue()}))
    assert caught.value.reason is Reason.MALFORMED_REQUEST
