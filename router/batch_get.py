"""BatchGetItem: up to 100 keys, read from as many partitions as they are on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from keyplane.data.v1 import data_pb2 as data
from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.limits import BATCH_BYTES_MAX, BATCH_GET_KEYS_MAX
from keyplane.storage.v1 import storage_pb2 as storage
from router.batch import check_count, check_distinct, misfit, send_part
from router.capacity import Spending, messages, spending
from router.context import RouterContext
from router.exchange import Exchange
from router.operation import BatchGet
from router.parse import item_key, read_item
from router.partition_call import PartitionCall
from router.tables import KnownTable


def batch_get_item(
    context: RouterContext, exchange: Exchange, request: data.BatchGetItemRequest
) -> None:
    check_count(
        sum(len(wanted.keys) for wanted in request.requests.values()), BATCH_GET_KEYS_MAX, "keys"
    )
    tables = sorted(request.requests)
    spent = {
        table: spending(request.return_consumed_capacity, table, wanted.consistent_read)
        for table, wanted in sorted(request.requests.items())
    }

    def send(known: dict[str, KnownTable]) -> None:
        places = [
            _Place(table, key, item_key(known[table], key, exact=True))
            for table in tables
            for key in request.requests[table].keys
        ]
        check_distinct([(place.table, place.key) for place in places])
        _Run(context, exchange, request, places, spent).start(known)

    context.with_tables(exchange, tables, send)


@dataclass(frozen=True, slots=True)
class _Place:
    """One key of the batch."""

    table: str
    item: data.Item
    key: storage.ItemKey


class _Run:
    """The batch under way, until every place is settled."""

    def __init__(
        self,
        context: RouterContext,
        exchange: Exchange,
        request: data.BatchGetItemRequest,
        places: list[_Place],
        spent: Mapping[str, Spending | None],
    ) -> None:
        self._context = context
        self._exchange = exchange
        self._request = request
        self._places = places
        self._spent = spent
        self._unsettled = len(places)
        self._response = data.BatchGetItemResponse()
        self._bytes = 0
        self._failed = 0
        self._error: KeyplaneError | None = None

    def start(self, known: dict[str, KnownTable]) -> None:
        for table in known:
            mine = [at for at, place in enumerate(self._places) if place.table == table]
            if mine:
                keys = [self._places[at].key for at in mine]
                operation = BatchGet(keys, mine, self._request.requests[table].consistent_read)
                send_part(self._context, self._exchange, known[table], operation, self._on_done)

    def _on_done(
        self, call: PartitionCall, result: storage.ExecuteResponse | KeyplaneError
    ) -> None:
        assert isinstance(call.operation, BatchGet)
        places = call.operation.places
        if isinstance(result, KeyplaneError):
            self._fail(places, result)
        elif len(result.batch_get.results) != len(places):
            self._fail(places, misfit(len(result.batch_get.results), len(places)))
        else:
            for at, found in zip(places, result.batch_get.results, strict=True):
                self._take(at, found)
        self._unsettled -= len(places)
        if not self._unsettled:
            self._finish()

    def _take(self, at: int, found: storage.GetResult) -> None:
        if found.deferred:
            self._leave(at)
            return
        table = self._places[at].table
        if found.found:
            self._bytes += len(found.item)
            if self._bytes > BATCH_BYTES_MAX:
                self._leave(at)
                return
            try:
                item = read_item(found.item)
            except KeyplaneError as error:
                self._fail([at], error)
                return
            self._response.items[table].items.append(item)
        spent = self._spent[table]
        if spent is not None:
            spent.read(found.item_bytes)

    def _fail(self, places: Sequence[int], error: KeyplaneError) -> None:
        self._error = self._error or error
        self._failed += len(places)
        for at in places:
            self._leave(at)

    def _leave(self, at: int) -> None:
        """Gives a key back to be asked for again."""
        place = self._places[at]
        left = self._response.unprocessed_keys[place.table]
        left.consistent_read = self._request.requests[place.table].consistent_read
        left.keys.append(place.item)

    def _finish(self) -> None:
        # Where nothing could be read, the reason says more than all the keys.
        if self._error is not None and (
            self._failed == len(self._places) or self._error.reason is Reason.TABLE_NOT_FOUND
        ):
            self._exchange.fail(self._error)
        else:
            self._response.consumed_capacity.extend(messages(self._spent))
            self._exchange.answer(self._response)
