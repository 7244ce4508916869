"""GetItem, PutItem, DeleteItem: one key, one partition, one answer.

Requests in the form that clients usually send are taken apart as bytes, and an item is passed on as
it came. All others are read by the message class, which costs several times as much.
"""

from __future__ import annotations

from collections.abc import Callable

from keyplane.data.v1 import data_pb2 as data
from keyplane.model.items import validate_item
from router.capacity import spending
from router.context import RouterContext
from router.exchange import Exchange
from router.operation import Get, Operation, Write, token_name
from router.parse import place, write_condition, write_token
from router.partition_call import PartitionCall
from router.plain import CONSISTENT, PlainRequest, place_plain, plain_request, plain_token
from router.tables import KnownTable
from wire.rpc import read_request


def get_item(context: RouterContext, exchange: Exchange, payload: bytes) -> None:
    plain = plain_request(payload)
    if plain is not None and (not plain.rest or plain.rest == CONSISTENT):
        found = _find(context, exchange, plain, True)
        if found is not None:
            known, key_hash, encoded, _ = found
            _send(context, exchange, known, Get(key_hash, encoded, bool(plain.rest)))
            return
    _get_item(context, exchange, read_request(data.GetItemRequest, payload))


def put_item(context: RouterContext, exchange: Exchange, payload: bytes) -> None:
    plain = plain_request(payload)
    if plain is not None:
        token = plain_token(plain.rest) if plain.rest else context.tokens.next_name()
        found = _find(context, exchange, plain, False) if token else None
        if found is not None:
            known, key_hash, encoded, size = found
            write = Write(key_hash, encoded, plain.item, size, None, token, 0, 0)
            _send(context, exchange, known, write)
            return
    _put_item(context, exchange, read_request(data.PutItemRequest, payload))


def delete_item(context: RouterContext, exchange: Exchange, payload: bytes) -> None:
    request = read_request(data.DeleteItemRequest, payload)

    def operation(known: KnownTable) -> Operation:
        key_hash, encoded = place(known, request.key, exact=True)
        return _write(context, request, key_hash, encoded, None, 0)

    _carry_out(context, exchange, request.table, operation)


def _find(
    context: RouterContext, exchange: Exchange, plain: PlainRequest, exact: bool
) -> tuple[KnownTable, int, bytes, int] | None:
    """The table of a request, hash and encoding of its key, and the size of its item, if the table
    is known and the item a plain one.
    """
    known = context.known(exchange, plain.table)
    if known is None:
        return None
    placed = place_plain(known, plain, exact)
    if placed is None:
        return None
    return known, placed[0], placed[1], placed[2]


def _get_item(context: RouterContext, exchange: Exchange, request: data.GetItemRequest) -> None:
    spent = spending(request.return_consumed_capacity, request.table, request.consistent_read)

    def operation(known: KnownTable) -> Operation:
        key_hash, encoded = place(known, request.key, exact=True)
        return Get(key_hash, encoded, request.consistent_read, spent)

    _carry_out(context, exchange, request.table, operation)


def _put_item(context: RouterContext, exchange: Exchange, request: data.PutItemRequest) -> None:
    def operation(known: KnownTable) -> Operation:
        item = request.item
        size = validate_item(item)
        key_hash, encoded = place(known, item)
        return _write(context, request, key_hash, encoded, item.SerializeToString(), size)

    _carry_out(context, exchange, request.table, operation)


def _write(
    context: RouterContext,
    request: data.PutItemRequest | data.DeleteItemRequest,
    key_hash: int,
    encoded: bytes,
    put: bytes | None,
    item_bytes: int,
) -> Write:
    spent = spending(request.return_consumed_capacity, request.table)
    token = write_token(context, request)
    name = token_name(token.client_id, token.sequence)
    condition = write_condition(request)
    return Write(
        key_hash, encoded, put, item_bytes, condition, name, token.attempt, token.age_ms, spent
    )


def _carry_out(
    context: RouterContext,
    exchange: Exchange,
    table: str,
    operation: Callable[[KnownTable], Operation],
) -> None:
    def send(known: KnownTable) -> None:
        _send(context, exchange, known, operation(known))

    context.with_table(exchange, table, send)


def _send(
    context: RouterContext, exchange: Exchange, known: KnownTable, operation: Operation
) -> None:
    PartitionCall(
        context, known, operation, exchange.started_at, exchange.deadline, exchange.settle
    ).start()
