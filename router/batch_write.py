"""BatchWriteItem: up to 25 puts and deletes, each atomic by itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from keyplane.data.v1 import data_pb2 as data
from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.items import validate_item
from keyplane.model.limits import BATCH_WRITE_ITEMS_MAX
from keyplane.storage.v1 import storage_pb2 as storage
from router.batch import check_count, check_distinct, misfit, send_part
from router.capacity import Spending, messages, spending
from router.context import RouterContext
from router.exchange import Exchange
from router.operation import BatchWrite
from router.parse import check_token, item_key
from router.partition_call import PartitionCall
from router.tables import KnownTable


def batch_write_item(
    context: RouterContext, exchange: Exchange, request: data.BatchWriteItemRequest
) -> None:
    check_count(
        sum(len(wanted.writes) for wanted in request.requests.values()),
        BATCH_WRITE_ITEMS_MAX,
        "writes",
    )
    if request.HasField("token"):
        check_token(request.token)
    tables = sorted(request.requests)
    spent = {table: spending(request.return_consumed_capacity, table) for table in tables}

    def send(known: dict[str, KnownTable]) -> None:
        writes = [(table, each) for table in tables for each in request.requests[table].writes]
        tokens = _tokens(context, request, [each for _, each in writes])
        places = [
            _Place(table, each, _write_op(known[table], each, token))
            for (table, each), token in zip(writes, tokens, strict=True)
        ]
        check_distinct([(place.table, place.op.key) for place in places])
        _Run(context, exchange, places, spent).start(known)

    context.with_tables(exchange, tables, send)


def _tokens(
    context: RouterContext, request: data.BatchWriteItemRequest, writes: list[data.WriteRequest]
) -> list[data.WriteToken]:
    """The token of each write.

    A client that marks the writes which may have been done has tried only those before. One that
    marks none may have tried them all.
    """
    if not request.HasField("token"):
        return [context.tokens.next() for _ in writes]
    batch = request.token
    any_marked = any(write.indefinite for write in writes)
    tokens = []
    for at, write in enumerate(writes):
        tried = write.indefinite or not any_marked
        tokens.append(
            data.WriteToken(
                client_id=batch.client_id,
                sequence=write.sequence or batch.sequence + at,
                attempt=batch.attempt if tried else 0,
                age_ms=batch.age_ms if tried else 0,
            )
        )
    return tokens


def _write_op(
    known: KnownTable, write: data.WriteRequest, token: data.WriteToken
) -> storage.WriteOp:
    """Raises KeyplaneError as PutItem and DeleteItem would."""
    match write.WhichOneof("write"):
        case "put":
            size = validate_item(write.put)
            key = item_key(known, write.put)
            put = write.put.SerializeToString()
            return storage.WriteOp(key=key, put=put, token=token, item_bytes=size)
        case "delete":
            key = item_key(known, write.delete, exact=True)
            return storage.WriteOp(key=key, delete=True, token=token)
        case _:
            raise KeyplaneError(
                Reason.INVALID_ARGUMENT, "each write of a batch is a put or a delete"
            )


@dataclass(frozen=True, slots=True)
class _Place:
    """One write of the batch."""

    table: str
    request: data.WriteRequest
    op: storage.WriteOp


class _Run:
    """The batch under way, until every place is settled."""

    def __init__(
        self,
        context: RouterContext,
        exchange: Exchange,
        places: list[_Place],
        spent: Mapping[str, Spending | None],
    ) -> None:
        self._context = context
        self._exchange = exchange
        self._places = places
        self._spent = spent
        self._unsettled = len(places)
        self._response = data.BatchWriteItemResponse()
        self._left = 0
        self._in_doubt = False
        self._error: KeyplaneError | None = None

    def start(self, known: dict[str, KnownTable]) -> None:
        for table in known:
            mine = [at for at, place in enumerate(self._places) if place.table == table]
            if mine:
                operation = BatchWrite([self._places[at].op for at in mine], mine)
                send_part(self._context, self._exchange, known[table], operation, self._on_done)

    def _on_done(
        self, call: PartitionCall, result: storage.ExecuteResponse | KeyplaneError
    ) -> None:
        assert isinstance(call.operation, BatchWrite)
        operation = call.operation
        count = len(operation.places)
        if not isinstance(result, KeyplaneError) and len(result.batch_write.results) != count:
            result = misfit(len(result.batch_write.results), count)
        for index, (at, token) in enumerate(zip(operation.places, operation.tokens, strict=True)):
            if isinstance(result, KeyplaneError):
                self._leave(at, token, result)
            elif error := _error_of(result.batch_write.results[index]):
                self._leave(at, token, error)
            elif (spent := self._spent[self._places[at].table]) is not None:
                before_bytes = result.batch_write.results[index].before_bytes
                spent.write(before_bytes, self._places[at].op.item_bytes)
        self._unsettled -= count
        if not self._unsettled:
            self._finish()

    def _leave(self, at: int, token: data.WriteToken, error: KeyplaneError) -> None:
        """Gives a write back to be sent again, under the same sequence number."""
        place = self._places[at]
        in_doubt = bool(token.attempt) or not error.definite
        self._response.unprocessed[place.table].writes.add(
            put=place.request.put if place.request.HasField("put") else None,
            delete=place.request.delete if place.request.HasField("delete") else None,
            indefinite=in_doubt,
            sequence=token.sequence,
        )
        self._left += 1
        self._in_doubt = self._in_doubt or in_doubt
        self._error = self._error or error

    def _finish(self) -> None:
        # Where nothing at all was done, the reason says more than all the writes.
        if self._error is not None and self._left == len(self._places) and not self._in_doubt:
            self._exchange.fail(self._error)
        else:
            self._response.consumed_capacity.extend(messages(self._spent))
            self._exchange.answer(self._response)


def _error_of(result: storage.WriteResult) -> KeyplaneError | None:
    if not result.reason:
        return None
    reason = Reason.__members__.get(result.reason, Reason.INTERNAL)
    return KeyplaneError(reason, f"a write of the batch failed with {result.reason}")
