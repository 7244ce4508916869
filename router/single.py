"""GetItem, PutItem, DeleteItem: one key, one partition, one answer."""

from __future__ import annotations

from collections.abc import Callable

from google.protobuf.message import Message

from keyplane.data.v1 import data_pb2 as data
from keyplane.model.errors import KeyplaneError
from keyplane.model.items import validate_item
from keyplane.storage.v1 import storage_pb2 as storage
from router.context import RouterContext
from router.exchange import Exchange
from router.operation import Operation, get_operation, write_operation
from router.parse import item_key, read_item, write_condition, write_token
from router.partition_call import PartitionCall
from router.tables import KnownTable


def get_item(context: RouterContext, exchange: Exchange, request: data.GetItemRequest) -> None:
    def operation(known: KnownTable) -> Operation:
        return get_operation(item_key(known, request.key, exact=True))

    def response(result: storage.ExecuteResponse) -> Message:
        found = result.get
        item = read_item(found.item) if found.found else None
        return data.GetItemResponse(item=item, version=found.version)

    _carry_out(context, exchange, request.table, operation, response)


def put_item(context: RouterContext, exchange: Exchange, request: data.PutItemRequest) -> None:
    def operation(known: KnownTable) -> Operation:
        validate_item(request.item)
        write = storage.WriteOp(
            key=item_key(known, request.item),
            put=request.item.SerializeToString(),
            condition=write_condition(request),
            token=write_token(context, request),
        )
        return write_operation(write)

    def response(result: storage.ExecuteResponse) -> Message:
        return data.PutItemResponse(version=result.write.version)

    _carry_out(context, exchange, request.table, operation, response)


def delete_item(
    context: RouterContext, exchange: Exchange, request: data.DeleteItemRequest
) -> None:
    def operation(known: KnownTable) -> Operation:
        write = storage.WriteOp(
            key=item_key(known, request.key, exact=True),
            delete=True,
            condition=write_condition(request),
            token=write_token(context, request),
        )
        return write_operation(write)

    def response(result: storage.ExecuteResponse) -> Message:
        return data.DeleteItemResponse(deleted=result.write.existed)

    _carry_out(context, exchange, request.table, operation, response)


def _carry_out(
    context: RouterContext,
    exchange: Exchange,
    table: str,
    operation: Callable[[KnownTable], Operation],
    response: Callable[[storage.ExecuteResponse], Message],
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
            answer = response(result)
        except KeyplaneError as error:
            exchange.fail(error)
        else:
            exchange.answer(answer)

    context.with_table(exchange, table, send)
