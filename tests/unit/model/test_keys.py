"""Keys: which attributes make one, what is refused, and where items end up."""

from __future__ import annotations

import pytest

from keyplane.catalog.v1 import catalog_pb2 as catalog
from keyplane.data.v1 import data_pb2 as data
from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.items import to_item
from keyplane.model.keys import (
    EncodedKey,
    KeySchema,
    address_range,
    after,
    decode_key,
    encode_key,
    encode_partition_key,
    item_address,
    key_hash,
    parse_address,
    sort_bounds,
)
from keyplane.model.partition import KEYSPACE_END

S, N, B = catalog.SCALAR_TYPE_STRING, catalog.SCALAR_TYPE_NUMBER, catalog.SCALAR_TYPE_BINARY

USERS = KeySchema("user", S)
ORDERS = KeySchema("user", S, "placed", N)
FILES = KeySchema("owner", N, "path", S)


def encode(schema: KeySchema, exact: bool = False, **values: object) -> EncodedKey:
    return encode_key(schema, to_item(values).attributes, exact)


def refused(reason: Reason, schema: KeySchema, exact: bool = False, **values: object) -> str:
    with pytest.raises(KeyplaneError) as caught:
        encode(schema, exact, **values)
    assert caught.value.reason is reason
    return caught.value.message


# --- Schemas -------------------------------------------------------------------------------------


def test_a_schema_is_read_from_a_table() -> None:
    table = catalog.Table(
        partition_key=catalog.KeyAttribute(name="user", type=S),
        sort_key=catalog.KeyAttribute(name="placed", type=N),
    )
    assert KeySchema.from_table(table) == ORDERS
    table.ClearField("sort_key")
    assert KeySchema.from_table(table) == USERS


@pytest.mark.parametrize(
    ("partition", "sort", "why"),
    [
        (("", S), None, "partition key needs a name"),
        (("n" * 256, S), None, "partition key needs a name"),
        (("user", catalog.SCALAR_TYPE_UNSPECIFIED), None, "needs a type"),
        (("user", 9), None, "needs a type"),
        (("user", S), ("", S), "sort key needs a name"),
        (("user", S), ("user", N), "both named 'user'"),
    ],
)
def test_a_key_that_is_not_well_defined_is_refused(
    partition: tuple[str, int], sort: tuple[str, int] | None, why: str
) -> None:
    table = catalog.Table(partition_key={"name": partition[0], "type": partition[1]})
    if sort is not None:
        table.sort_key.CopyFrom(catalog.KeyAttribute(name=sort[0], type=sort[1]))
    with pytest.raises(KeyplaneError, match=why) as caught:
        KeySchema.from_table(table)
    assert caught.value.reason is Reason.INVALID_ARGUMENT


# --- Encoding ------------------------------------------------------------------------------------


def test_the_encoding_is_the_one_that_is_on_disk() -> None:
    """A change here is a change of format: stored items would no longer be found."""
    assert encode(USERS, user="ann").encoded == b"\x01ann\x00\x01"
    assert encode(USERS, user="a\0b").encoded == b"\x01a\x00\xffb\x00\x01"
    assert encode(KeySchema("k", B), k=b"\x00\xff").encoded == b"\x03\x00\xff\xff\x00\x01"
    assert encode(ORDERS, user="ann", placed=0).encoded == b"\x01ann\x00\x01\x02\x02"
    assert encode(ORDERS, user="ann", placed=15).encoded == b"\x01ann\x00\x01\x02\x03\x83\x10\x00"
    assert encode(ORDERS, user="ann", placed=-15).encoded == b"\x01ann\x00\x01\x02\x01\x7c\xef\xff"


def test_a_key_begins_with_its_partition_key_which_alone_is_hashed() -> None:
    first, second = encode(ORDERS, user="ann", placed=1), encode(ORDERS, user="ann", placed=2)
    assert first.hash_input == second.hash_input == encode(USERS, user="ann").encoded
    assert first.encoded.startswith(first.hash_input)


def test_numbers_that_are_equal_are_one_key() -> None:
    one, same = data.AttributeValue(n="1"), data.AttributeValue(n="1.00e0")
    schema = KeySchema("k", N)
    assert encode_partition_key(schema, one) == encode_partition_key(schema, same)


def test_a_key_may_be_picked_out_of_an_item() -> None:
    assert encode(ORDERS, user="ann", placed=1, total=99) == encode(ORDERS, user="ann", placed=1)


def test_an_exact_key_has_no_other_attributes() -> None:
    assert "'total'" in refused(
        Reason.INVALID_ARGUMENT, ORDERS, exact=True, user="ann", placed=1, total=99
    )
    assert "'placed'" in refused(Reason.INVALID_ARGUMENT, USERS, exact=True, user="ann", placed=1)


def test_missing_and_mistyped_keys_are_named() -> None:
    assert "'user'" in refused(Reason.MISSING_KEY, ORDERS, placed=1)
    assert "'placed'" in refused(Reason.MISSING_KEY, ORDERS, user="ann")
    assert "type S, not N" in refused(Reason.WRONG_KEY_TYPE, ORDERS, user=1, placed=1)
    assert "type N, not S" in refused(Reason.WRONG_KEY_TYPE, ORDERS, user="ann", placed="1")
    assert "type S, not M" in refused(Reason.WRONG_KEY_TYPE, USERS, user={})
    with pytest.raises(KeyplaneError, match="not empty"):
        encode_key(USERS, {"user": data.AttributeValue()})


def test_empty_and_oversized_keys_are_refused() -> None:
    assert "must not be empty" in refused(Reason.INVALID_ARGUMENT, USERS, user="")
    assert "2049 bytes" in refused(Reason.INVALID_ARGUMENT, USERS, user="k" * 2049)
    assert "1025 bytes" in refused(Reason.INVALID_ARGUMENT, FILES, owner=1, path="k" * 1025)
    assert "2050 bytes" in refused(Reason.INVALID_ARGUMENT, USERS, user="é" * 1025)
    encode(USERS, user="k" * 2048)
    encode(FILES, owner=1, path="k" * 1024)


def test_a_key_is_read_back() -> None:
    encoded = encode(FILES, owner=-12, path="/tmp\0x").encoded
    assert decode_key(FILES, encoded) == dict(to_item({"owner": -12, "path": "/tmp\0x"}).attributes)


@pytest.mark.parametrize(
    "encoded",
    [
        b"",
        b"\x01ann",
        b"\x02\x02",
        b"\x01\x00\x01",
        b"\x01a\x00b\x00\x01",
        b"\x01\xc3\x28\x00\x01",
        b"\x01ann\x00\x01more",
    ],
)
def test_bytes_that_are_no_key_are_corrupt(encoded: bytes) -> None:
    with pytest.raises(KeyplaneError) as caught:
        decode_key(USERS, encoded)
    assert caught.value.reason is Reason.CORRUPT


# --- Ranges of sort keys -------------------------------------------------------------------------

PATHS = ["a", "a\0", "a/b", "ab", "b", "\U0001f600"]
PARTITION = encode_partition_key(FILES, data.AttributeValue(n="7"))


def selected(**bounds: object) -> list[str]:
    """The paths that a range of sort keys selects, in order."""
    wrapped = {
        name: value if isinstance(value, bool) else data.AttributeValue(s=str(value))
        for name, value in bounds.items()
    }
    low, high = sort_bounds(FILES, PARTITION, data.SortKeyRange(**wrapped))
    return [path for path in PATHS if low <= encode(FILES, owner=7, path=path).encoded < high]


def test_unset_bounds_are_open() -> None:
    assert selected() == PATHS
    assert selected(**{"from": "ab"}) == ["ab", "b", "\U0001f600"]
    assert selected(to="a/b") == ["a", "a\0", "a/b"]


def test_bounds_may_leave_themselves_out() -> None:
    assert selected(**{"from": "a", "to": "ab"}) == ["a", "a\0", "a/b", "ab"]
    assert selected(**{"from": "a", "to": "ab", "from_exclusive": True, "to_exclusive": True}) == [
        "a\0",
        "a/b",
    ]
    assert selected(**{"from": "a", "to": "a", "from_exclusive": True}) == []


def test_a_prefix_selects_what_begins_with_it() -> None:
    assert selected(begins_with="a") == ["a", "a\0", "a/b", "ab"]
    assert selected(begins_with="a\0") == ["a\0"]


@pytest.mark.parametrize(
    ("schema", "bounds", "reason", "why"),
    [
        (USERS, {"to": {"s": "x"}}, Reason.INVALID_ARGUMENT, "no sort key"),
        (FILES, {"to": {"n": "1"}}, Reason.WRONG_KEY_TYPE, "type S, not N"),
        (FILES, {"begins_with": {"s": ""}}, Reason.INVALID_ARGUMENT, "must not be empty"),
        (ORDERS, {"begins_with": {"n": "1"}}, Reason.INVALID_ARGUMENT, "a number"),
        (
            FILES,
            {"begins_with": {"s": "x"}, "to": {"s": "x"}},
            Reason.INVALID_ARGUMENT,
            "excludes",
        ),
        (FILES, {"from": {"s": "b"}, "to": {"s": "a"}}, Reason.INVALID_ARGUMENT, "above"),
    ],
)
def test_bounds_that_make_no_sense_are_refused(
    schema: KeySchema, bounds: dict[str, dict[str, str]], reason: Reason, why: str
) -> None:
    with pytest.raises(KeyplaneError, match=why) as caught:
        sort_bounds(schema, b"\x01x\x00\x01", data.SortKeyRange(**bounds))
    assert caught.value.reason is reason


# --- Hashes and addresses ------------------------------------------------------------------------


def test_the_hash_is_seeded_xxh3_64() -> None:
    """A change here would send every key to another partition."""
    encoded = encode(USERS, user="ann").hash_input
    assert key_hash(0, b"") == 0x2D06800538D394C2  # test vector of the xxHash specification
    assert key_hash(0, encoded) == 0x477CEB43E7D587BD
    assert key_hash(1, encoded) != key_hash(0, encoded)
    assert 0 <= key_hash(2**64 - 1, encoded) < KEYSPACE_END


def test_an_address_is_read_back_and_lies_in_the_range_of_its_hash() -> None:
    address = item_address(5, 0xABC, b"key")
    assert parse_address(address) == (5, 0xABC, b"key")
    low, high = address_range(5, 0xABC, 0xABD)
    assert low <= address < high
    low, high = address_range(5, 0, KEYSPACE_END)
    assert low <= item_address(5, KEYSPACE_END - 1, b"\xff" * 40) < high <= item_address(6, 0, b"")


def test_after_is_above_every_string_with_the_prefix_and_below_all_others() -> None:
    assert after(b"ab") == b"ac"
    assert after(b"a\xff\xff") == b"b"
    for nothing_above in (b"", b"\xff\xff"):
        with pytest.raises(ValueError):
            after(nothing_above)
