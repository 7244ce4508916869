"""GetItem, PutItem, DeleteItem: one key, one partition, one answer.

Answers are put together from bytes (`wire.protobytes`): an item is passed on as it is stored.
"""

from __future__ import annotations

from collections.abc import Callable

from keyplane.data.v1 import data_pb2 as data
from keyplane.model.errors import KeyplaneError
from keyplane.model.items import check_item
from keyplane.storage.v1 import storage_pb2 as storage
from router.context import RouterContext
from router.exchange import Exchange
from router.operation import Get, Operation, Write
from router.parse import place, read_item, write_condition, write_token
from router.partition_call import PartitionCall
from router.tables import KnownTable
from wire.protobytes import delimited, tag, varint

_ITEM = tag(data.GetItemResponse.ITEM_FIELD_NUMBER, 2)
_READ_VERSION = tag(data.GetItemResponse.VERSION_FIELD_NUMBER, 0)
_PUT_VERSION = tag(data.PutItemResponse.VERSION_FIELD_NUMBER, 0)
_DELETED = tag(data.DeleteItemResponse.DELETED_FIELD_NUMBER, 0) + varint(1)


def get_item(context: RouterContext, exchange: Exchange, request: data.GetItemRequest) -> None:
    def operation(known: KnownTable) -> Operation:
        return Get(*place(known, request.key, exact=True))

    _carry_out(context, exchange, request.table, operation, _read)


def put_item(context: RouterContext, exchange: Exchange, request: data.PutItemRequest) -> None:
    def operation(known: KnownTable) -> Operation:
        item = request.item
        encoded = item.SerializeToString()
        check_item(item, len(encoded))
        return Write(
            *place(known, item),
            encoded,
            write_condition(request),
            write_token(context, request),
        )

    _carry_out(context, exchange, request.table, operation, _written)


def delete_item(
    context: RouterContext, exchange: Exchange, request: data.DeleteItemRequest
) -> None:
    def operation(known: KnownTable) -> Operation:
        return Write(
            *place(known, request.key, exact=True),
            None,
            write_condition(request),
            write_token(context, request),
        )

    _carry_out(context, exchange, request.table, operation, _deleted)


def _read(result: storage.ExecuteResponse) -> bytes:
    """Raises KeyplaneError(CORRUPT) on bytes that are no item."""
    found = result.get
    version = _READ_VERSION + varint(found.version)
    if not found.found:
        return version
    item = found.item
    read_item(item)
    return delimited(_ITEM, item) + version


def _written(result: storage.ExecuteResponse) -> bytes:
    return _PUT_VERSION + varint(result.write.version)


def _deleted(result: storage.ExecuteResponse) -> bytes:
    return _DELETED if result.write.existed else b""


def _carry_out(
    context: RouterContext,
    exchange: Exchange,
    table: str,
    operation: Callable[[KnownTable], Operation],
    answer: Callable[[storage.ExecuteResponse], bytes],
) -> None:
    def send(known: KnownTable) -> None:
        PartitionCall(
            context, known, operation(known), exchange.started_at, exchange.deadline, done
        ).start()

    def done(_call: PartitionCall, result: storage.ExecuteResponse | KeyplaneError) -> None:
        if isinstance(result, KeyplaneError):
            exchange.fail(result)
            return
        try:
            encoded = answer(result)
        except KeyplaneError as error:
            exchange.fail(error)
        else:
            exchange.answer_bytes(encoded)

    context.with_table(exchange, table, send)
