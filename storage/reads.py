"""The read path: committed items only, straight from the engine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from librt.strings import BytesWriter

from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.limits import BATCH_BYTES_MAX, PAGE_BYTES_MAX
from keyplane.model.partition import COARSE_BITS, end_from_wire
from keyplane.storage.v1 import storage_pb2 as pb
from storage.layout import item_key, item_range, split_item_key
from storage.request import ItemKey
from storage.shard import Shard
from storage.stored import item_of, read_version, size_of
from wire.ports import Engine
from wire.protobytes import (
    delimited_size,
    tag,
    tag_byte,
    varint,
    varint_size,
    write_delimited,
    write_varint,
)

_GET: Final = tag_byte(pb.ExecuteResponse.GET_FIELD_NUMBER, 2)
_FOUND: Final = tag(pb.GetResult.FOUND_FIELD_NUMBER, 0) + varint(1)
_ITEM: Final = tag_byte(pb.GetResult.ITEM_FIELD_NUMBER, 2)
_VERSION: Final = tag_byte(pb.GetResult.VERSION_FIELD_NUMBER, 0)
_ITEM_BYTES: Final = tag_byte(pb.GetResult.ITEM_BYTES_FIELD_NUMBER, 0)
_NOTHING: Final = bytes((_GET, 0))

# Entries in one page, for items so small that a page of 1 MB would block the node for long.
PAGE_ITEMS_MAX = 10_000


def get(engine: Engine, shard: Shard, key: ItemKey, consistent: bool) -> bytes:
    """A serialized `ExecuteResponse`, put together from bytes since every read makes one."""
    key_hash = key.hash
    shard.heat.read(key_hash)
    value = engine.get(item_key(shard.table_id, key_hash, key.encoded))
    limits = shard.limits
    if value is None:
        if limits is not None:
            limits.read(0, consistent)
        return _NOTHING
    version = read_version(value)
    item = item_of(value)
    item_bytes = size_of(value)
    if limits is not None:
        limits.read(item_bytes, consistent)
    size = len(_FOUND) + delimited_size(len(item))
    size += 1 + varint_size(version) + 1 + varint_size(item_bytes)
    out = BytesWriter()
    out.append(_GET)
    write_varint(out, size)
    out.write(_FOUND)
    write_delimited(out, _ITEM, item)
    out.append(_VERSION)
    write_varint(out, version)
    out.append(_ITEM_BYTES)
    write_varint(out, item_bytes)
    return out.getvalue()


def batch_get(
    engine: Engine, shard: Shard, op: pb.BatchGetOp, consistent: bool
) -> pb.ExecuteResponse:
    """Results past DynamoDB's limit on the bytes of a batch are deferred."""
    results = []
    room = BATCH_BYTES_MAX
    for key in op.keys:
        if room <= 0:
            results.append(pb.GetResult(deferred=True))
            continue
        shard.heat.read(key.hash)
        result = _look_up(engine, shard, key)
        if shard.limits is not None:
            shard.limits.read(result.item_bytes, consistent)
        room -= len(result.item)
        results.append(result)
    return pb.ExecuteResponse(batch_get=pb.BatchGetResult(results=results))


def query(engine: Engine, shard: Shard, op: pb.QueryOp, consistent: bool) -> pb.ExecuteResponse:
    shard.heat.read(op.hash)
    table_id = shard.table_id
    low = item_key(table_id, op.hash, getattr(op, "from"))
    high = item_key(table_id, op.hash, op.to)
    entries = engine.scan(low, high, op.backward) if low < high else iter(())
    return _page_of(shard, _page(entries, op.limit, op.max_bytes), consistent)


def scan(engine: Engine, shard: Shard, op: pb.ScanOp, consistent: bool) -> pb.ExecuteResponse:
    """From the position on, within the partition: a position outside it is moved to its edge."""
    table_id = shard.table_id
    shard.heat.read(min(max(op.position.hash, shard.start), shard.end - 1))
    low, high = item_range(table_id, shard.start, min(shard.end, end_from_wire(op.end)))
    if op.HasField("position"):
        position = item_key(table_id, op.position.hash, op.position.encoded)
        low = max(low, position + b"\x00" if op.exclusive else position)
    entries = engine.scan(low, high) if low < high else iter(())
    return _page_of(shard, _page(entries, op.limit, op.max_bytes), consistent)


def _page_of(shard: Shard, page: pb.PageResult, consistent: bool) -> pb.ExecuteResponse:
    if shard.limits is not None:
        shard.limits.read(page.item_bytes, consistent)
    return pb.ExecuteResponse(page=page)


def _look_up(engine: Engine, shard: Shard, key: pb.ItemKey) -> pb.GetResult:
    value = engine.get(item_key(shard.table_id, key.hash, key.encoded))
    if value is None:
        return pb.GetResult()
    return pb.GetResult(
        found=True,
        version=read_version(value),
        item=item_of(value),
        item_bytes=size_of(value),
    )


def _page(entries: Iterator[tuple[bytes, bytes]], limit: int, bytes_max: int) -> pb.PageResult:
    """At least one entry if there is one, then as many as fit."""
    limit = min(limit or PAGE_ITEMS_MAX, PAGE_ITEMS_MAX)
    room = min(bytes_max or PAGE_BYTES_MAX, PAGE_BYTES_MAX)
    page = pb.PageResult()
    last = None
    for key, value in entries:
        read_version(value)
        item = item_of(value)
        if page.items and (len(page.items) >= limit or len(item) > room):
            page.more = True
            break
        page.items.append(item)
        page.item_bytes += size_of(value)
        room -= len(item)
        last = key
    if last is not None:
        page.last.hash, page.last.encoded = split_item_key(last)
    return page


def check_keys(shard: Shard, keys: Iterable[pb.ItemKey]) -> None:
    """As `check_key`, of each."""
    for key in keys:
        check_key(shard, key)


def check_key(shard: Shard, key: ItemKey | pb.ItemKey) -> None:
    """Raises KeyplaneError(MALFORMED_REQUEST) for a key that the partition cannot hold."""
    check_hash(shard, key.hash)
    if not key.encoded:
        raise KeyplaneError(Reason.MALFORMED_REQUEST, "the encoded key is empty")


def check_hash(shard: Shard, key_hash: int) -> None:
    """Raises KeyplaneError(MALFORMED_REQUEST) for a hash outside the partition."""
    if shard.inner_start <= key_hash >> COARSE_BITS < shard.inner_end:
        return
    if not shard.start <= key_hash < shard.end:
        raise KeyplaneError(
            Reason.MALFORMED_REQUEST,
            f"key hash {key_hash:#018x} is not in partition {shard.partition_id}:"
            " hash the key with its table's seed and look the partition up again",
        )
