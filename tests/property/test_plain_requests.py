"""Requests read as bytes mean what the message class reads, or are left to it."""

from __future__ import annotations

from google.protobuf.message import DecodeError
from hypothesis import example, given
from hypothesis import strategies as st

from cache.routes import RouteTable
from keyplane.catalog.v1 import catalog_pb2 as catalog
from keyplane.data.v1 import data_pb2 as data
from keyplane.model.errors import KeyplaneError
from keyplane.model.items import to_item, validate_item
from keyplane.storage.v1 import storage_pb2 as storage
from router.parse import place
from router.plain import PlainRequest, place_plain, plain_request, plain_token
from router.tables import KnownTable
from storage import request as asked
from wire.protobytes import varint, varint_at

U64 = st.integers(0, 2**64 - 1)
SMALL = st.integers(0, 2**62 - 1)
NAMES = st.sampled_from(["id", "at", "a", "n\x00", "\u00e4"])
VALUES = st.one_of(
    st.text(max_size=5),
    st.binary(max_size=5),
    st.booleans(),
    st.integers(-5, 5),
    st.text(min_size=120, max_size=150),
)
ITEMS = st.dictionaries(NAMES, VALUES, max_size=4).map(to_item)
TOKENS = st.builds(
    data.WriteToken,
    client_id=st.one_of(st.binary(min_size=16, max_size=16), st.binary(max_size=3)),
    sequence=st.one_of(U64, st.integers(0, 3)),
    attempt=st.integers(0, 1),
    age_ms=st.integers(0, 1),
)
CONDITIONS = st.one_of(st.none(), st.builds(data.Condition, exists=st.booleans()))


def known(sort: catalog.KeyAttribute | None) -> KnownTable:
    table = catalog.Table(
        table_id=3,
        name="t",
        hash_seed=9,
        partition_key=catalog.KeyAttribute(name="id", type=catalog.SCALAR_TYPE_STRING),
        sort_key=sort,
    )
    return KnownTable(RouteTable(table))


TABLES = [
    known(None),
    known(catalog.KeyAttribute(name="at", type=catalog.SCALAR_TYPE_BINARY)),
    known(catalog.KeyAttribute(name="at", type=catalog.SCALAR_TYPE_NUMBER)),
]


def plain_item(item: bytes) -> PlainRequest:
    return PlainRequest("orders", item, 0, len(item), b"")


@given(st.sampled_from(TABLES), st.text(max_size=4), ITEMS, CONDITIONS, st.none() | TOKENS)
def test_a_write_means_the_same(
    table: KnownTable,
    name: str,
    item: data.Item,
    condition: data.Condition | None,
    token: data.WriteToken | None,
) -> None:
    request = data.PutItemRequest(table=name, item=item, condition=condition, token=token)
    plain = plain_request(request.SerializeToString())
    if plain is None:
        assert not name
        return
    assert plain.table == name
    assert data.Item.FromString(plain.item) == item
    rest = data.PutItemRequest(condition=condition, token=token)
    assert data.PutItemRequest.FromString(plain.rest) == rest
    named = plain_token(plain.rest)
    if named:
        assert token is not None and condition is None
        assert not token.attempt and not token.age_ms and len(token.client_id) == 16
        assert data.WriteToken.FromString(named) == token
    for exact in (False, True):
        placed = place_plain(table, plain, exact)
        if placed is not None:
            assert placed == (*place(table, item, exact), validate_item(item))


@given(st.sampled_from(TABLES), st.dictionaries(NAMES, st.text(min_size=1, max_size=9), max_size=3))
def test_keys_that_are_usual_are_read_as_bytes(table: KnownTable, values: dict[str, str]) -> None:
    item = to_item(values)
    placed = place_plain(table, plain_item(item.SerializeToString()), False)
    usual = table is TABLES[0] and "id" in values
    assert (placed is not None) == usual


@given(st.sampled_from(TABLES), st.binary(max_size=60), st.booleans())
@example(TABLES[0], b"\x0a\x09\x0a\x02id\x12\x03\x0a\x01a" * 2, False)
@example(TABLES[0], b"\x0a\x09\x0a\x02id\x12\x03\x0a\x01\xff", False)
@example(TABLES[0], b"\x0a\x0a\x0a\x02id\x12\x84\x00\x0a\x01a", False)
def test_no_bytes_are_taken_for_an_item_that_is_none(
    table: KnownTable, noise: bytes, exact: bool
) -> None:
    placed = place_plain(table, plain_item(noise), exact)
    if placed is not None:
        item = data.Item.FromString(noise)
        assert placed == (*place(table, item, exact), validate_item(item))
    plain_token(noise)
    plain = plain_request(noise)
    if plain is not None:
        try:
            request = data.PutItemRequest.FromString(noise)
        except DecodeError:
            return
        if not plain.rest:
            assert request.table == plain.table


WRITES = st.builds(
    storage.WriteOp,
    key=st.builds(storage.ItemKey, hash=U64, encoded=st.binary(max_size=200)),
    put=st.binary(max_size=300),
    item_bytes=st.integers(0, 400),
    condition=CONDITIONS,
    token=st.none() | TOKENS,
)
EXECUTES = st.one_of(
    st.builds(
        storage.ExecuteRequest,
        partition_id=SMALL,
        epoch=SMALL,
        get=st.builds(storage.GetOp, key=st.builds(storage.ItemKey, hash=U64, encoded=st.binary())),
        consistent=st.booleans(),
    ),
    st.builds(
        storage.ExecuteRequest,
        partition_id=SMALL,
        epoch=SMALL,
        write=WRITES,
        consistent=st.booleans(),
    ),
)


def facts(execute: asked.Execute) -> tuple[object, ...]:
    key = execute.key
    return (
        *(execute.partition_id, execute.epoch, execute.kind, execute.consistent),
        None if key is None else (key.hash, key.encoded),
        [
            (
                *(w.key.hash, w.key.encoded, w.put, w.item_bytes),
                *(w.condition, w.token, w.attempt, w.age_ms),
            )
            for w in execute.writes
        ],
    )


@given(EXECUTES)
def test_what_a_storage_node_is_asked_means_the_same(request: storage.ExecuteRequest) -> None:
    payload = request.SerializeToString()
    plain = asked._plain(payload)
    if plain is not None:
        assert facts(plain) == facts(asked._general(payload))


@given(st.binary(max_size=60))
def test_no_bytes_crash_a_storage_node(noise: bytes) -> None:
    plain = asked._plain(noise)
    if plain is not None:
        assert facts(plain) == facts(asked._general(noise))
    try:
        asked.read_execute(noise)
    except KeyplaneError as error:
        assert error.definite


@given(SMALL, st.binary(max_size=3))
def test_numbers_are_read_in_their_shortest_form(number: int, after: bytes) -> None:
    encoded = varint(number)
    assert varint_at(encoded + after, 0) == (number, len(encoded))
    assert varint_at(encoded[:-1], 0) == (-1, -1)
    longer = encoded[:-1] + bytes((encoded[-1] | 0x80, 0))
    assert varint_at(longer, 0) == (-1, -1)
