"""Everything a client decides, without I/O: calls to make, and the pages of queries and scans."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from keyplane.client import requests
from keyplane.client.batch import BatchGetCall, BatchWriteCall
from keyplane.client.call import Call, CallContext, Method
from keyplane.client.config import ClientConfig
from keyplane.client.errors import InvalidRequest
from keyplane.client.pool import Rng, RouterPool
from keyplane.client.requests import Attributes, Delete, Item, Page, Put, to_item
from keyplane.data.v1 import data_pb2 as data
from keyplane.model.errors import Reason
from keyplane.model.retry import RetryBudget
from keyplane.route.v1 import route_pb2 as route

_DATA = "/keyplane.data.v1.DataService/"
_ROUTE = "/keyplane.route.v1.RouteService/"

GET = Method(_DATA + "GetItem", data.GetItemResponse)
PUT = Method(_DATA + "PutItem", data.PutItemResponse, writes=True)
DELETE = Method(_DATA + "DeleteItem", data.DeleteItemResponse, writes=True)
QUERY = Method(_DATA + "Query", data.QueryResponse)
SCAN = Method(_DATA + "Scan", data.ScanResponse)
EXPLAIN = Method(_ROUTE + "Explain", route.ExplainResponse)
DESCRIBE_ROUTER = Method(_ROUTE + "DescribeRouter", route.DescribeRouterResponse)

CLIENT_ID_BYTES = 16


class ClientCore:
    """Makes the calls of one client. Not thread-safe: its shell takes care of that.

    Every write gets a token: the client's id and the next sequence number, which no other write of
    this object has, and which stays the same over its retries.
    """

    def __init__(
        self,
        routers: Sequence[str],
        config: ClientConfig,
        rng: Rng,
        client_id: bytes,
        now: float,
    ) -> None:
        """routers: `host:port` each. client_id: CLIENT_ID_BYTES that no other client has."""
        if isinstance(routers, str):
            raise InvalidRequest(
                Reason.INVALID_ARGUMENT, f"routers is a list of addresses: [{routers!r}]"
            )
        if len(client_id) != CLIENT_ID_BYTES:
            raise InvalidRequest(
                Reason.INVALID_ARGUMENT, f"a client id has {CLIENT_ID_BYTES} bytes"
            )
        self.pool = RouterPool(routers, config, rng)
        budget = RetryBudget(config.retry_ratio, config.retry_floor_per_s, config.retry_burst, now)
        self._context = CallContext(config, self.pool, budget, rng)
        self._client_id = client_id
        self._sequence = 0

    def get(
        self, now: float, table: str, key: Attributes, consistent: bool, timeout_s: float | None
    ) -> Call[requests.VersionedItem | None]:
        request = data.GetItemRequest(table=table, key=to_item(key), consistent_read=consistent)
        return Call(self._context, GET, request, requests.versioned, now, timeout_s)

    def put(
        self,
        now: float,
        table: str,
        item: Attributes,
        condition: data.Condition | None,
        timeout_s: float | None,
    ) -> Call[int]:
        request = data.PutItemRequest(
            table=table, item=to_item(item), condition=condition, token=self._token()
        )
        return Call(self._context, PUT, request, lambda reply: reply.version, now, timeout_s)

    def delete(
        self,
        now: float,
        table: str,
        key: Attributes,
        condition: data.Condition | None,
        timeout_s: float | None,
    ) -> Call[bool]:
        request = data.DeleteItemRequest(
            table=table, key=to_item(key), condition=condition, token=self._token()
        )
        return Call(self._context, DELETE, request, lambda reply: reply.deleted, now, timeout_s)

    def batch_get(
        self,
        now: float,
        keys: Mapping[str, Iterable[Attributes]],
        consistent: bool,
        timeout_s: float | None,
    ) -> Call[dict[str, list[Item]]]:
        request = requests.batch_get(keys, consistent)
        return BatchGetCall(self._context, request, requests.items_by_table, now, timeout_s)

    def batch_write(
        self,
        now: float,
        writes: Mapping[str, Iterable[Put | Delete]],
        timeout_s: float | None,
    ) -> Call[None]:
        request = requests.batch_write(writes)
        token = data.WriteToken(client_id=self._client_id, sequence=self._sequence + 1)
        request.token.CopyFrom(token)
        self._sequence += requests.number_writes(request, token.sequence)
        return BatchWriteCall(self._context, request, now, timeout_s)

    def query(self, request: data.QueryRequest, timeout_s: float | None) -> PageCursor:
        return PageCursor(self._context, QUERY, request, timeout_s)

    def scan(self, request: data.ScanRequest, timeout_s: float | None) -> PageCursor:
        return PageCursor(self._context, SCAN, request, timeout_s)

    def explain(
        self, now: float, table: str, key: Attributes, timeout_s: float | None
    ) -> Call[route.ExplainResponse]:
        request = route.ExplainRequest(table=table, key=to_item(key))
        return Call(self._context, EXPLAIN, request, _same, now, timeout_s)

    def describe_router(
        self, now: float, timeout_s: float | None
    ) -> Call[route.DescribeRouterResponse]:
        request = route.DescribeRouterRequest()
        return Call(self._context, DESCRIBE_ROUTER, request, _same, now, timeout_s)

    def _token(self) -> data.WriteToken:
        self._sequence += 1
        return data.WriteToken(client_id=self._client_id, sequence=self._sequence)


class PageCursor:
    """The pages of one query or scan, each a call of its own with its own deadline.

    `limit` of the request is for all pages together.
    """

    __slots__ = ("_context", "_left", "_method", "_next_key", "_request", "_timeout_s", "exhausted")

    def __init__(
        self,
        context: CallContext,
        method: Method,
        request: data.QueryRequest | data.ScanRequest,
        timeout_s: float | None,
    ) -> None:
        self._context = context
        self._method = method
        self._request = request
        self._timeout_s = timeout_s
        # Items still wanted; 0 without a limit.
        self._left = request.limit
        self.exhausted = False

    def next_page(self, now: float) -> Call[Page]:
        """The call for the next page; only while not `exhausted`."""
        self._request.limit = self._left
        return Call(self._context, self._method, self._request, self._take, now, self._timeout_s)

    def _take(self, response: Any) -> Page:
        page = requests.page(response)
        if page.next_key is None:
            self.exhausted = True
        elif self._left:
            self._left -= len(page.items)
            self.exhausted = self._left <= 0
        if not self.exhausted:
            self._request.exclusive_start_key.CopyFrom(response.last_evaluated_key)
        return page


def query_request(
    table: str,
    partition_key: Any,
    bounds: data.SortKeyRange | None,
    backward: bool,
    limit: int,
    start_after: Attributes | None,
    consistent: bool,
) -> data.QueryRequest:
    return data.QueryRequest(
        table=table,
        partition_key=requests.scalar(partition_key),
        sort_key=bounds,
        scan_index_backward=backward,
        limit=limit,
        exclusive_start_key=None if start_after is None else to_item(start_after),
        consistent_read=consistent,
    )


def scan_request(
    table: str,
    segment: int,
    total_segments: int,
    limit: int,
    start_after: Attributes | None,
    consistent: bool,
) -> data.ScanRequest:
    return data.ScanRequest(
        table=table,
        segment=segment,
        total_segments=total_segments,
        limit=limit,
        exclusive_start_key=None if start_after is None else to_item(start_after),
        consistent_read=consistent,
    )


def _same(response: Any) -> Any:
    return response
