"""Items survive the way to the wire and back, and garbage never gets through."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from keyplane.data.v1 import data_pb2 as data
from keyplane.model.errors import Code, KeyplaneError, Reason
from keyplane.model.items import from_item, item_size, to_item, validate_item

names = st.text(min_size=1, max_size=8)
numbers = st.integers(-(10**38) + 1, 10**38 - 1) | st.decimals(
    allow_nan=False, allow_infinity=False, min_value=-1000, max_value=1000, places=6
)
scalars = st.none() | st.booleans() | numbers | st.text(max_size=20) | st.binary(max_size=20)
sets = (
    st.sets(st.text(max_size=5), min_size=1, max_size=4)
    | st.sets(numbers, min_size=1, max_size=4)
    | st.sets(st.binary(max_size=5), min_size=1, max_size=4)
)
values = st.recursive(
    scalars | sets,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4),
    max_leaves=10,
)
items = st.dictionaries(names, values, max_size=6)


@given(items)
def test_python_values_come_back_as_they_were(values: dict[str, Any]) -> None:
    item = data.Item.FromString(to_item(values).SerializeToString())
    assert from_item(item) == values
    assert validate_item(item) <= item.ByteSize()


@given(items, names, values)
def test_every_attribute_adds_its_own_size(values: dict[str, Any], name: str, value: Any) -> None:
    without = {key: other for key, other in values.items() if key != name}
    added = item_size(to_item({name: value}))
    assert added >= len(name.encode())
    assert item_size(to_item({**without, name: value})) == item_size(to_item(without)) + added


@given(st.binary(max_size=200))
def test_garbage_is_refused_by_the_codec_or_by_validation(garbage: bytes) -> None:
    """Nothing else is raised, whatever bytes a client sends as an item."""
    try:
        item = data.Item.FromString(garbage)
    except DecodeError:
        return
    for check in (validate_item, item_size, from_item):
        try:
            check(item)
        except KeyplaneError as error:
            assert error.reason.code is Code.INVALID_ARGUMENT


@given(
    st.sampled_from(list(Reason)),
    st.text(max_size=50),
    st.dictionaries(st.text(max_size=10), st.text(max_size=10), max_size=3),
    st.none() | st.floats(0, 1e6),
)
def test_errors_survive_the_wire(
    reason: Reason, message: str, metadata: dict[str, str], retry_after_s: float | None
) -> None:
    status = KeyplaneError(reason, message, metadata, retry_after_s).to_status()
    got = KeyplaneError.from_status(status.code, status.message, status.SerializeToString())
    assert (got.reason, got.message, got.metadata) == (reason, message, metadata)
    if retry_after_s is None:
        assert got.retry_after_s is None
    else:
        assert got.retry_after_s is not None and abs(got.retry_after_s - retry_after_s) < 1e-6


@given(st.integers(0, 20), st.text(max_size=20), st.binary(max_size=100))
def test_any_trailer_can_be_read_as_some_error(code: int, message: str, details: bytes) -> None:
    assert KeyplaneError.from_status(code, message, details).message == message
