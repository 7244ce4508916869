"""What a router asks of a storage node is what the message class reads."""

from __future__ import annotations

import pytest

from keyplane.data.v1 import data_pb2 as data
from keyplane.model.items import to_item
from keyplane.model.partition import Partition
from keyplane.storage.v1 import storage_pb2 as storage
from router.capacity import Spending
from router.operation import BatchWrite, Get, Write, token_name
from wire.protobytes import varint

PARTITION = Partition(300, 1, 0, 1 << 64, 5000, "storage-1")
KEY = storage.ItemKey(hash=(1 << 64) - 5, encoded=b"\x01" + b"k" * 200)

NAME = token_name(b"c" * 16, 1 << 40)


def token(attempt: int = 0, age_ms: int = 0) -> data.WriteToken:
    return data.WriteToken(client_id=b"c" * 16, sequence=1 << 40, attempt=attempt, age_ms=age_ms)


def sent(operation: Get | Write | BatchWrite, elapsed_s: float = 0.25) -> storage.ExecuteRequest:
    return storage.ExecuteRequest.FromString(operation.encode(PARTITION, elapsed_s))


def request(**op: object) -> storage.ExecuteRequest:
    return storage.ExecuteRequest(partition_id=300, epoch=5000, **op)  # type: ignore[arg-type]


def test_a_read() -> None:
    get = storage.GetOp(key=KEY)
    assert sent(Get(KEY.hash, KEY.encoded, False)) == request(get=get)
    assert sent(Get(KEY.hash, KEY.encoded, True)) == request(get=get, consistent=True)


@pytest.mark.parametrize("put", [b"x" * 300, b"", None])
@pytest.mark.parametrize(
    "condition", [None, data.Condition(exists=False), data.Condition(version_equals=7)]
)
def test_a_write(put: bytes | None, condition: data.Condition | None) -> None:
    size = 0 if put is None else 2 * len(put) // 3
    write = storage.WriteOp(
        key=KEY,
        put=put,
        delete=True if put is None else None,
        condition=condition,
        token=token(),
        item_bytes=size,
    )
    operation = Write(KEY.hash, KEY.encoded, put, size, condition, NAME, 0, 0)
    assert sent(operation) == request(write=write)


def test_a_write_in_doubt_says_how_old_it_is() -> None:
    """Counted from the age that the client gave, however often it is sent."""
    operation = Write(KEY.hash, KEY.encoded, None, 0, None, NAME, 0, 1000)
    assert sent(operation).write.token == token(age_ms=1000)
    operation.doubt()
    assert sent(operation, 0.25).write.token == token(attempt=1, age_ms=1250)
    assert sent(operation, 0.75).write.token == token(attempt=1, age_ms=1750)


def test_a_batch_in_doubt_says_how_old_each_write_is() -> None:
    writes = [storage.WriteOp(key=KEY, token=token(age_ms=age_ms)) for age_ms in (0, 500)]
    operation = BatchWrite(writes, [0, 1])
    operation.doubt()
    written = sent(operation, 0.25).batch_write.writes
    assert [each.token.age_ms for each in written] == [250, 750]


def an_answer(**result: object) -> bytes:
    return storage.ExecuteResponse(**result).SerializeToString()  # type: ignore[arg-type]


ITEM = to_item({"id": "a", "n": 7, "list": [1, "two"], "s": "x" * 20_000})


@pytest.mark.parametrize("version", [1, 200, 1 << 40])
def test_what_a_read_answers(version: int) -> None:
    """The bytes that a storage node writes, and any other form of the same message."""
    item = ITEM.SerializeToString()
    result = storage.GetResult(found=True, item=item, version=version, item_bytes=20_032)
    plain = an_answer(get=result)
    # Of an older version.
    result.item_bytes = 0
    bare = an_answer(get=result)
    found = storage.GetResult(version=version).SerializeToString()
    rest = storage.GetResult(found=True, item=item).SerializeToString()
    turned = b"\x0a" + varint(len(found + rest)) + found + rest
    for payload in (plain, bare, turned):
        answer = Get(KEY.hash, KEY.encoded, True).read(payload)
        assert answer is not None
        assert data.GetItemResponse.FromString(answer) == data.GetItemResponse(
            item=ITEM, version=version
        )
    nothing = Get(KEY.hash, KEY.encoded, True).read(an_answer(get=storage.GetResult()))
    assert nothing is not None
    assert data.GetItemResponse.FromString(nothing) == data.GetItemResponse()


@pytest.mark.parametrize("existed", [True, False])
def test_what_a_write_answers(existed: bool) -> None:
    before_bytes = 5000 if existed else 0
    result = storage.WriteResult(version=300, existed=existed, before_bytes=before_bytes)
    payload = an_answer(write=result)
    put = Write(KEY.hash, KEY.encoded, b"", 0, None, NAME, 0, 0).read(payload)
    assert put is not None
    assert data.PutItemResponse.FromString(put) == data.PutItemResponse(version=300)
    gone = Write(KEY.hash, KEY.encoded, None, 0, None, NAME, 0, 0).read(payload)
    assert gone is not None
    assert data.DeleteItemResponse.FromString(gone) == data.DeleteItemResponse(deleted=existed)


def test_an_answer_to_something_else_is_none() -> None:
    read, write = (
        Get(KEY.hash, KEY.encoded, True),
        Write(KEY.hash, KEY.encoded, b"", 0, None, NAME, 0, 0),
    )
    got = an_answer(get=storage.GetResult(found=True, item=b"", version=1))
    wrote = an_answer(write=storage.WriteResult(version=1))
    assert read.read(wrote) is None and write.read(got) is None
    for payload in (b"", b"\xff", got[:-1], b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f"):
        assert read.read(payload) is None


def units(read: float = 0, write: float = 0, detailed: bool = False) -> data.ConsumedCapacity:
    part = {"capacity_units": read + write}
    part |= {"read_capacity_units": read, "write_capacity_units": write}
    table_capacity = data.Capacity(**part) if detailed else None
    return data.ConsumedCapacity(table="music", table_capacity=table_capacity, **part)


@pytest.mark.parametrize(
    ("item_bytes", "consistent", "read"),
    [(4096, True, 1), (4096, False, 0.5), (4097, True, 2), (0, True, 1), (0, False, 0.5)],
)
@pytest.mark.parametrize("detailed", [False, True])
def test_what_a_read_says_that_it_consumed(
    item_bytes: int, consistent: bool, read: float, detailed: bool
) -> None:
    found = bool(item_bytes)
    item = ITEM.SerializeToString() if found else b""
    result = storage.GetResult(found=found, item=item, version=3, item_bytes=item_bytes)
    operation = Get(KEY.hash, KEY.encoded, consistent, Spending("music", consistent, detailed))
    answer = operation.read(an_answer(get=result))
    assert answer is not None
    assert data.GetItemResponse.FromString(answer) == data.GetItemResponse(
        item=ITEM if found else None, version=3, consumed_capacity=units(read, 0, detailed)
    )


@pytest.mark.parametrize(
    ("before", "after", "write"),
    [(0, 1024, 1), (0, 1025, 2), (5000, 100, 5), (100, 5000, 5), (3000, 0, 3), (0, 0, 1)],
)
def test_what_a_write_says_that_it_consumed(before: int, after: int, write: int) -> None:
    result = storage.WriteResult(version=7, existed=bool(before), before_bytes=before)
    payload = an_answer(write=result)
    spending = Spending("music", False, False)
    put = b"x" if after else None
    operation = Write(KEY.hash, KEY.encoded, put, after, None, NAME, 0, 0, spending)
    answer = operation.read(payload)
    assert answer is not None
    if put:
        expected = data.PutItemResponse(version=7, consumed_capacity=units(0, write))
        assert data.PutItemResponse.FromString(answer) == expected
    else:
        gone = data.DeleteItemResponse(deleted=bool(before), consumed_capacity=units(0, write))
        assert data.DeleteItemResponse.FromString(answer) == gone
