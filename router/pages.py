"""Query and Scan: pages of up to 1 MB, each going on where the one before ended."""

from __future__ import annotations

from typing import TypeVar

from keyplane.data.v1 import data_pb2 as data
from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.keys import decode_key, encode_key, encode_partition_key, sort_bounds
from keyplane.model.limits import PAGE_BYTES_MAX, SCAN_SEGMENTS_MAX
from keyplane.model.partition import KEYSPACE_END, end_to_wire
from keyplane.storage.v1 import storage_pb2 as storage
from router.capacity import Spending, spending
from router.context import RouterContext
from router.exchange import Exchange
from router.operation import Page
from router.parse import item_key, read_item
from router.partition_call import PartitionCall
from router.tables import KnownTable

_R = TypeVar("_R", data.QueryResponse, data.ScanResponse)

# In a continuation key that stands between two partitions, where there is no item to name: the key
# hash to go on at. No attribute of an item has an empty name, so the two cannot be confused.
POSITION_ATTRIBUTE = ""


def query(context: RouterContext, exchange: Exchange, request: data.QueryRequest) -> None:
    spent = spending(request.return_consumed_capacity, request.table, request.consistent_read)

    def send(known: KnownTable) -> None:
        hash_input = encode_partition_key(known.schema, request.partition_key)
        low, high = sort_bounds(known.schema, hash_input, request.sort_key)
        if request.HasField("exclusive_start_key"):
            start = encode_key(known.schema, request.exclusive_start_key.attributes, exact=True)
            if start.hash_input != hash_input:
                raise KeyplaneError(
                    Reason.INVALID_ARGUMENT,
                    "exclusive_start_key must have the partition key that is asked for",
                )
            if request.scan_index_backward:
                high = min(high, start.encoded)
            else:
                low = max(low, _next_key(start.encoded))
        if low >= high:
            exchange.answer(_told(data.QueryResponse(), spent, 0))
            return
        hash_ = known.hash_of(hash_input)
        op = storage.QueryOp(
            hash=hash_,
            to=high,
            backward=request.scan_index_backward,
            limit=request.limit,
            max_bytes=PAGE_BYTES_MAX,
        )
        setattr(op, "from", low)
        asked = storage.ExecuteRequest(query=op, consistent=request.consistent_read)
        operation = Page(hash_, asked)
        PartitionCall(
            context, known, operation, exchange.started_at, exchange.deadline, done
        ).start()

    def done(call: PartitionCall, result: storage.ExecuteResponse | KeyplaneError) -> None:
        if isinstance(result, KeyplaneError):
            exchange.fail(result)
            return
        response = data.QueryResponse()
        try:
            response.items.extend(map(read_item, result.page.items))
            if result.page.more:
                response.last_evaluated_key.CopyFrom(_last_key(call.table, result.page))
        except KeyplaneError as error:
            exchange.fail(error)
        else:
            exchange.answer(_told(response, spent, result.page.item_bytes))

    context.with_table(exchange, request.table, send)


def scan(context: RouterContext, exchange: Exchange, request: data.ScanRequest) -> None:
    start, end = _segment(request)
    spent = spending(request.return_consumed_capacity, request.table, request.consistent_read)

    def send(known: KnownTable) -> None:
        position, exclusive = storage.ItemKey(hash=start), False
        if request.HasField("exclusive_start_key"):
            position, exclusive = _read_position(known, request.exclusive_start_key)
        if not start <= position.hash < end:
            raise KeyplaneError(
                Reason.INVALID_ARGUMENT, "exclusive_start_key does not lie in the segment"
            )
        _Scan(
            context,
            exchange,
            known,
            position,
            exclusive,
            end,
            request.limit,
            request.consistent_read,
            spent,
        ).send()

    context.with_table(exchange, request.table, send)


class _Scan:
    """One page of a scan, put together from one partition after the other."""

    def __init__(
        self,
        context: RouterContext,
        exchange: Exchange,
        known: KnownTable,
        position: storage.ItemKey,
        exclusive: bool,
        end: int,
        limit: int,
        consistent: bool,
        spent: Spending | None,
    ) -> None:
        self._context = context
        self._exchange = exchange
        self._known = known
        self._position = position
        self._exclusive = exclusive
        self._end = end
        self._limit = limit
        self._consistent = consistent
        self._spent = spent
        self._bytes_left = PAGE_BYTES_MAX
        # Of all items, as capacity units count them.
        self._item_bytes = 0
        self._visited = 0
        self._response = data.ScanResponse()

    def send(self) -> None:
        op = storage.ScanOp(
            position=self._position,
            exclusive=self._exclusive,
            end=end_to_wire(self._end),
            limit=self._limit - len(self._response.items) if self._limit else 0,
            max_bytes=self._bytes_left,
        )
        asked = storage.ExecuteRequest(scan=op, consistent=self._consistent)
        operation = Page(self._position.hash, asked)
        exchange = self._exchange
        PartitionCall(
            self._context,
            self._known,
            operation,
            exchange.started_at,
            exchange.deadline,
            self._on_done,
        ).start()

    def _on_done(
        self, call: PartitionCall, result: storage.ExecuteResponse | KeyplaneError
    ) -> None:
        if isinstance(result, KeyplaneError):
            self._fail(result)
            return
        try:
            self._response.items.extend(map(read_item, result.page.items))
            if result.page.more:
                self._response.last_evaluated_key.CopyFrom(_last_key(self._known, result.page))
        except KeyplaneError as error:
            self._exchange.fail(error)
            return
        self._item_bytes += result.page.item_bytes
        if result.page.more:
            self._answer()
            return
        self._bytes_left -= sum(map(len, result.page.items))
        self._visited += 1
        assert call.partition is not None
        self._next(call.partition.end)

    def _next(self, boundary: int) -> None:
        """A partition is done, up to this hash."""
        if boundary >= self._end:
            self._answer()
            return
        self._position, self._exclusive = storage.ItemKey(hash=boundary), False
        if self._is_full():
            self._end_at_boundary()
        else:
            self.send()

    def _is_full(self) -> bool:
        config, exchange = self._context.config, self._exchange
        spent_s = self._context.clock.now() - exchange.started_at
        whole_s = exchange.deadline - exchange.started_at
        return (
            (self._limit > 0 and len(self._response.items) >= self._limit)
            or self._bytes_left <= 0
            or self._visited >= config.scan_partitions_max
            or spent_s > whole_s * config.batch_time_share
        )

    def _fail(self, error: KeyplaneError) -> None:
        """What was read before stays good: it is the page, and the next one meets the error."""
        if self._visited:
            self._end_at_boundary()
        else:
            self._exchange.fail(error)

    def _end_at_boundary(self) -> None:
        position = data.AttributeValue(n=str(self._position.hash))
        self._response.last_evaluated_key.attributes[POSITION_ATTRIBUTE].CopyFrom(position)
        self._answer()

    def _answer(self) -> None:
        self._exchange.answer(_told(self._response, self._spent, self._item_bytes))


def _told(response: _R, spent: Spending | None, item_bytes: int) -> _R:
    """The response, with what its page has consumed if that is wanted."""
    if spent is not None:
        spent.read(item_bytes)
        response.consumed_capacity.CopyFrom(spent.message())
    return response


def _segment(request: data.ScanRequest) -> tuple[int, int]:
    """The key hashes of the request's segment. Raises KeyplaneError(INVALID_ARGUMENT)."""
    total = request.total_segments or 1
    if total > SCAN_SEGMENTS_MAX or request.segment >= total:
        raise KeyplaneError(
            Reason.INVALID_ARGUMENT,
            f"segment {request.segment} of {total}: there are 1 to {SCAN_SEGMENTS_MAX} segments,"
            " counted from 0",
        )
    start = request.segment * KEYSPACE_END // total
    return start, (request.segment + 1) * KEYSPACE_END // total


def _read_position(known: KnownTable, key: data.Item) -> tuple[storage.ItemKey, bool]:
    """Where a scan goes on, and whether that place itself is left out.

    Raises KeyplaneError, as for any key.
    """
    if set(key.attributes) == {POSITION_ATTRIBUTE}:
        text = key.attributes[POSITION_ATTRIBUTE].n
        if not text.isdecimal() or not int(text) < KEYSPACE_END:
            raise KeyplaneError(Reason.INVALID_ARGUMENT, "exclusive_start_key is no key hash")
        return storage.ItemKey(hash=int(text)), False
    return item_key(known, key, exact=True), True


def _last_key(known: KnownTable, page: storage.PageResult) -> data.Item:
    """The key to go on after. Raises KeyplaneError(CORRUPT) if the page names none."""
    return data.Item(attributes=decode_key(known.schema, page.last.encoded))


def _next_key(encoded: bytes) -> bytes:
    """The least bytes above an encoded key: keys have a fixed end, so nothing lies between."""
    return encoded + b"\x00"
