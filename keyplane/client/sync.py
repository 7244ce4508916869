"""The blocking client, for threads."""

from __future__ import annotations

import os
import random
import secrets
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, Self

import grpc
from grpc_health.v1 import health_pb2

from keyplane.client.call import Call, Method, T, Wait
from keyplane.client.capacity import Spent
from keyplane.client.channels import (
    HEALTH,
    CallSigner,
    channel_options,
    is_healthy,
    read_error,
    serialize,
)
from keyplane.client.config import ClientConfig
from keyplane.client.core import (
    CLIENT_ID_BYTES,
    ClientCore,
    PageCursor,
    query_request,
    scan_request,
)
from keyplane.client.errors import InvalidRequest
from keyplane.client.requests import (
    Attributes,
    Delete,
    Item,
    Page,
    Put,
    VersionedItem,
    condition,
    sort_range,
)
from keyplane.model.credentials import Credentials
from keyplane.model.errors import Reason
from keyplane.route.v1 import route_pb2 as route


class Client:
    """Reads and writes items through a static list of routers, from any number of threads.

    There is one connection to each router, shared by all threads. A call goes to the router with
    the fewest outstanding; a router that fails or is slow is left alone until it is well again; and
    a call that a router fails is tried on another as long as it has time, writes under a token that
    keeps them from being done twice. Every method raises a `KeyplaneError` of one of the classes in
    `keyplane.client.errors`.

    Keys and items are plain dictionaries; see `keyplane.model.items` for what they may hold.
    `timeout_s` is for the whole call, retries included, and for each page of a query or scan.
    `spent` is told how many capacity units the call consumed.
    """

    def __init__(
        self,
        routers: Sequence[str],
        config: ClientConfig | None = None,
        credentials: Credentials | None = None,
    ) -> None:
        """routers: `host:port` of each. Nothing is connected before the first call.
        credentials: the key that calls are signed with; None: KEYPLANE_KEY_ID and KEYPLANE_SECRET,
        if they are set.
        """
        self._config = config or ClientConfig()
        self._signer = CallSigner(credentials)
        client_id = secrets.token_bytes(CLIENT_ID_BYTES)
        self._core = ClientCore(routers, self._config, random.Random(), client_id, time.monotonic())
        self._lock = threading.Lock()
        self._options = channel_options(self._config)
        self._channels: dict[str, grpc.Channel] = {}
        self._methods: dict[tuple[str, str], grpc.UnaryUnaryMultiCallable[Any, Any]] = {}
        self._pid = os.getpid()
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Client {self._core.pool.routers}>"

    def close(self) -> None:
        """Closes the connections. Calls under way fail."""
        with self._lock:
            self._closed = True
            channels = list(self._channels.values())
        for channel in channels:
            channel.close()

    def get_item(
        self,
        table: str,
        key: Attributes,
        *,
        consistent: bool = False,
        timeout_s: float | None = None,
        spent: Spent | None = None,
    ) -> Item | None:
        """The item, or None if there is none."""
        found = self.get_versioned(
            table, key, consistent=consistent, timeout_s=timeout_s, spent=spent
        )
        return None if found is None else found.item

    def get_versioned(
        self,
        table: str,
        key: Attributes,
        *,
        consistent: bool = False,
        timeout_s: float | None = None,
        spent: Spent | None = None,
    ) -> VersionedItem | None:
        """The item and its version, for a later write with `if_version`."""
        with self._lock:
            call = self._core.get(time.monotonic(), table, key, consistent, timeout_s)
        return self._run(call, spent)

    def put_item(
        self,
        table: str,
        item: Attributes,
        *,
        if_exists: bool | None = None,
        if_version: int | None = None,
        timeout_s: float | None = None,
        spent: Spent | None = None,
    ) -> int:
        """Writes an item and returns its version.

        if_exists: write only if the item exists (True), or only if it does not (False).
        if_version: write only if the item has this version.
        """
        wanted = condition(if_exists, if_version)
        with self._lock:
            call = self._core.put(time.monotonic(), table, item, wanted, timeout_s)
        return self._run(call, spent)

    def delete_item(
        self,
        table: str,
        key: Attributes,
        *,
        if_exists: bool | None = None,
        if_version: int | None = None,
        timeout_s: float | None = None,
        spent: Spent | None = None,
    ) -> bool:
        """Deletes an item. Whether there was one. Conditions as for `put_item`."""
        wanted = condition(if_exists, if_version)
        with self._lock:
            call = self._core.delete(time.monotonic(), table, key, wanted, timeout_s)
        return self._run(call, spent)

    def batch_get(
        self,
        keys: Mapping[str, Iterable[Attributes]],
        *,
        consistent: bool = False,
        timeout_s: float | None = None,
        spent: Spent | None = None,
    ) -> dict[str, list[Item]]:
        """The items with the given keys, by table: up to 100 keys, in no particular order.

        Keys without an item are left out. Raises BatchIncomplete if some could not be read in time.
        """
        with self._lock:
            call = self._core.batch_get(time.monotonic(), keys, consistent, timeout_s)
        return self._run(call, spent)

    def batch_write(
        self,
        writes: Mapping[str, Iterable[Put | Delete]],
        *,
        timeout_s: float | None = None,
        spent: Spent | None = None,
    ) -> None:
        """Up to 25 puts and deletes, by table. Each is atomic, the batch is not.

        Raises BatchIncomplete if some could not be done in time; it says which.
        """
        with self._lock:
            call = self._core.batch_write(time.monotonic(), writes, timeout_s)
        self._run(call, spent)

    def query(
        self,
        table: str,
        partition_key: Any,
        *,
        begins_with: Any = None,
        gt: Any = None,
        gte: Any = None,
        lt: Any = None,
        lte: Any = None,
        backward: bool = False,
        limit: int = 0,
        consistent: bool = False,
        timeout_s: float | None = None,
        spent: Spent | None = None,
    ) -> Iterator[Item]:
        """Items of one partition key in the order of their sort keys, fetched as they are used.

        begins_with, gt, gte, lt, lte: bounds on the sort key.
        limit: most items; 0 for all.
        """
        bounds = sort_range(begins_with, gt, gte, lt, lte)
        request = query_request(table, partition_key, bounds, backward, limit, None, consistent)
        return self._items(self._core.query(request, timeout_s), spent)

    def query_pages(
        self,
        table: str,
        partition_key: Any,
        *,
        begins_with: Any = None,
        gt: Any = None,
        gte: Any = None,
        lt: Any = None,
        lte: Any = None,
        backward: bool = False,
        limit: int = 0,
        start_after: Attributes | None = None,
        consistent: bool = False,
        timeout_s: float | None = None,
        spent: Spent | None = None,
    ) -> Iterator[Page]:
        """As `query`, page by page of up to 1 MB. start_after: `next_key` of an earlier page."""
        bounds = sort_range(begins_with, gt, gte, lt, lte)
        request = query_request(
            table, partition_key, bounds, backward, limit, start_after, consistent
        )
        return self._pages(self._core.query(request, timeout_s), spent)

    def scan(
        self,
        table: str,
        *,
        segment: int = 0,
        total_segments: int = 1,
        limit: int = 0,
        consistent: bool = False,
        timeout_s: float | None = None,
        spent: Spent | None = None,
    ) -> Iterator[Item]:
        """All items of a table, or of one of its segments, in no useful order."""
        request = scan_request(table, segment, total_segments, limit, None, consistent)
        return self._items(self._core.scan(request, timeout_s), spent)

    def scan_pages(
        self,
        table: str,
        *,
        segment: int = 0,
        total_segments: int = 1,
        limit: int = 0,
        start_after: Attributes | None = None,
        consistent: bool = False,
        timeout_s: float | None = None,
        spent: Spent | None = None,
    ) -> Iterator[Page]:
        """As `scan`, page by page of up to 1 MB. start_after: `next_key` of an earlier page."""
        request = scan_request(table, segment, total_segments, limit, start_after, consistent)
        return self._pages(self._core.scan(request, timeout_s), spent)

    def explain(
        self, table: str, key: Attributes, *, timeout_s: float | None = None
    ) -> route.ExplainResponse:
        """Where a key lives, and how the router that answers knows."""
        with self._lock:
            call = self._core.explain(time.monotonic(), table, key, timeout_s)
        return self._run(call)

    def describe_router(self, *, timeout_s: float | None = None) -> route.DescribeRouterResponse:
        """The whole view of the router that answers."""
        with self._lock:
            call = self._core.describe_router(time.monotonic(), timeout_s)
        return self._run(call)

    def _items(self, cursor: PageCursor, spent: Spent | None) -> Iterator[Item]:
        for page in self._pages(cursor, spent):
            yield from page.items

    def _pages(self, cursor: PageCursor, spent: Spent | None) -> Iterator[Page]:
        while not cursor.exhausted:
            with self._lock:
                call = cursor.next_page(time.monotonic())
            yield self._run(call, spent)

    def _run(self, call: Call[T], spent: Spent | None = None) -> T:
        call.meter(spent)
        while True:
            with self._lock:
                self._check_usable()
                step = call.next(time.monotonic())
            if isinstance(step, Wait):
                time.sleep(step.seconds)
                continue
            for router in step.probes:
                self._probe(router)
            router = step.router
            try:
                method = self._method(router, call.method)
                message, metadata = self._signer.sign(call.method.path, call.request)
                if step.hedge_after_s is None:
                    response = method(message, timeout=step.timeout_s, metadata=metadata)
                else:
                    answer = method.future(message, timeout=step.timeout_s, metadata=metadata)
                    router, answer = self._hedged(call, router, answer, step.hedge_after_s)
                    response = answer.result()
            except grpc.RpcError as failure:
                error = read_error(router, failure)
            except BaseException:
                with self._lock:
                    call.abandoned(time.monotonic())
                raise
            else:
                with self._lock:
                    if call.answered(time.monotonic(), response):
                        return call.result
                continue
            with self._lock:
                call.failed(time.monotonic(), error)

    def _hedged(self, call: Call[T], router: str, answer: Any, after_s: float) -> tuple[str, Any]:
        """The attempt to go on with: this one, or one at a second router if it takes too long."""
        attempts = {router: answer}
        over: SimpleQueue[str] = SimpleQueue()
        answer.add_done_callback(lambda _: over.put(router))
        try:
            with suppress(Empty):
                over.get(timeout=after_s)
                return router, answer
            with self._lock:
                step = call.hedge(time.monotonic())
            if step is None:
                return router, answer
            method = self._method(step.router, call.method)
            message, metadata = self._signer.sign(call.method.path, call.request)
            second = method.future(message, timeout=step.timeout_s, metadata=metadata)
            attempts[step.router] = second
            second.add_done_callback(lambda _: over.put(step.router))
            ended = over.get()
            other = step.router if ended == router else router
            failure = attempts[ended].exception()
            with self._lock:
                if failure is None:
                    call.keep(ended, time.monotonic())
                else:
                    call.keep(other, time.monotonic(), read_error(ended, failure))
            if failure is not None:
                return other, attempts[other]
            attempts[other].cancel()
            return ended, attempts[ended]
        except BaseException:
            for each in attempts.values():
                each.cancel()
            raise

    def _check_usable(self) -> None:
        if self._closed:
            raise InvalidRequest(Reason.INVALID_ARGUMENT, "the client is closed")
        if os.getpid() != self._pid:
            # Two processes with one client id would give their writes the same tokens.
            message = "a client does not survive a fork; make one in the child process"
            raise InvalidRequest(Reason.INVALID_ARGUMENT, message)

    def _probe(self, router: str) -> None:
        method = self._method(router, HEALTH)
        answer = method.future(
            health_pb2.HealthCheckRequest(), timeout=self._config.probe_timeout_s
        )

        def done(answer: Any) -> None:
            healthy = answer.exception() is None and is_healthy(answer.result())
            with self._lock:
                self._core.pool.probed(router, healthy, time.monotonic())

        answer.add_done_callback(done)

    def _method(self, router: str, method: Method) -> grpc.UnaryUnaryMultiCallable[Any, Any]:
        found = self._methods.get((router, method.path))
        if found is None:
            with self._lock:
                channel = self._channels.get(router)
                if channel is None:
                    channel = grpc.insecure_channel(router, options=self._options)
                    self._channels[router] = channel
                found = self._methods[router, method.path] = channel.unary_unary(
                    method.path, serialize, method.response_type.FromString
                )
        return found
