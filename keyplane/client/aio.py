"""The asyncio client."""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeAlias

import grpc
import grpc.aio
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
from keyplane.model.errors import KeyplaneError, Reason
from keyplane.route.v1 import route_pb2 as route

_Answer: TypeAlias = grpc.aio.UnaryUnaryCall[Any, Any]


class AsyncClient:
    """`Client` for asyncio: the same methods, arguments and errors, to be awaited.

    Belongs to the event loop in which it is first used.
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
        self._options = channel_options(self._config)
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._methods: dict[tuple[str, str], grpc.aio.UnaryUnaryMultiCallable[Any, Any]] = {}
        # Held here because the event loop alone does not keep tasks alive.
        self._probes: set[asyncio.Task[None]] = set()
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<AsyncClient {self._core.pool.routers}>"

    async def close(self) -> None:
        """Closes the connections. Calls under way fail."""
        self._closed = True
        for probe in self._probes:
            probe.cancel()
        closing = [channel.close() for channel in self._channels.values()]
        await asyncio.gather(*closing, *self._probes, return_exceptions=True)

    async def get_item(
        self,
        table: str,
        key: Attributes,
        *,
        consistent: bool = False,
        timeout_s: float | None = None,
        spent: Spent | None = None,
    ) -> Item | None:
        """As `Client.get_item`."""
        found = await self.get_versioned(
            table, key, consistent=consistent, timeout_s=timeout_s, spent=spent
        )
        return None if found is None else found.item

    async def get_versioned(
        self,
        table: str,
        key: Attributes,
        *,
        consistent: bool = False,
        timeout_s: float | None = None,
        spent: Spent | None = None,
    ) -> VersionedItem | None:
        """As `Client.get_versioned`."""
        return await self._run(
            self._core.get(time.monotonic(), table, key, consistent, timeout_s), spent
        )

    async def put_item(
        self,
        table: str,
        item: Attributes,
        *,
        if_exists: bool | None = None,
        if_version: int | None = None,
        timeout_s: float | None = None,
        spent: Spent | None = None,
    ) -> int:
        """As `Client.put_item`."""
        wanted = condition(if_exists, if_version)
        return await self._run(
            self._core.put(time.monotonic(), table, item, wanted, timeout_s), spent
        )

    async def delete_item(
        self,
        table: str,
        key: Attributes,
        *,
        if_exists: bool | None = None,
        if_version: int | None = None,
        timeout_s: float | None = None,
        spent: Spent | None = None,
    ) -> bool:
        """As `Client.delete_item`."""
        wanted = condition(if_exists, if_version)
        return await self._run(
            self._core.delete(time.monotonic(), table, key, wanted, timeout_s), spent
        )

    async def batch_get(
        self,
        keys: Mapping[str, Iterable[Attributes]],
        *,
        consistent: bool = False,
        timeout_s: float | None = None,
        spent: Spent | None = None,
    ) -> dict[str, list[Item]]:
        """As `Client.batch_get`."""
        return await self._run(
            self._core.batch_get(time.monotonic(), keys, consistent, timeout_s), spent
        )

    async def batch_write(
        self,
        writes: Mapping[str, Iterable[Put | Delete]],
        *,
        timeout_s: float | None = None,
        spent: Spent | None = None,
    ) -> None:
        """As `Client.batch_write`."""
        await self._run(self._core.batch_write(time.monotonic(), writes, timeout_s), spent)

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
    ) -> AsyncIterator[Item]:
        """As `Client.query`, for `async for`."""
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
    ) -> AsyncIterator[Page]:
        """As `Client.query_pages`, for `async for`."""
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
    ) -> AsyncIterator[Item]:
        """As `Client.scan`, for `async for`."""
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
    ) -> AsyncIterator[Page]:
        """As `Client.scan_pages`, for `async for`."""
        request = scan_request(table, segment, total_segments, limit, start_after, consistent)
        return self._pages(self._core.scan(request, timeout_s), spent)

    async def explain(
        self, table: str, key: Attributes, *, timeout_s: float | None = None
    ) -> route.ExplainResponse:
        """As `Client.explain`."""
        return await self._run(self._core.explain(time.monotonic(), table, key, timeout_s))

    async def describe_router(
        self, *, timeout_s: float | None = None
    ) -> route.DescribeRouterResponse:
        """As `Client.describe_router`."""
        return await self._run(self._core.describe_router(time.monotonic(), timeout_s))

    async def _items(self, cursor: PageCursor, spent: Spent | None) -> AsyncIterator[Item]:
        async for page in self._pages(cursor, spent):
            for item in page.items:
                yield item

    async def _pages(self, cursor: PageCursor, spent: Spent | None) -> AsyncIterator[Page]:
        while not cursor.exhausted:
            yield await self._run(cursor.next_page(time.monotonic()), spent)

    async def _run(self, call: Call[T], spent: Spent | None = None) -> T:
        call.meter(spent)
        while True:
            if self._closed:
                raise InvalidRequest(Reason.INVALID_ARGUMENT, "the client is closed")
            step = call.next(time.monotonic())
            if isinstance(step, Wait):
                await asyncio.sleep(step.seconds)
                continue
            for router in step.probes:
                self._start_probe(router)
            router = step.router
            try:
                answer = self._send(router, call, step.timeout_s)
                if step.hedge_after_s is not None:
                    router, answer = await self._hedged(call, router, answer, step.hedge_after_s)
                response = await answer
            except grpc.aio.AioRpcError as failure:
                error = read_error(router, failure)
            except BaseException:
                call.abandoned(time.monotonic())
                raise
            else:
                if call.answered(time.monotonic(), response):
                    return call.result
                continue
            call.failed(time.monotonic(), error)

    async def _hedged(
        self, call: Call[T], router: str, answer: _Answer, after_s: float
    ) -> tuple[str, _Answer]:
        """The attempt to go on with: this one, or one at a second router if it takes too long."""
        attempts = {asyncio.ensure_future(answer.code()): (router, answer)}
        try:
            await asyncio.wait(attempts, timeout=after_s)
            step = None if answer.done() else call.hedge(time.monotonic())
            if step is None:
                return router, answer
            second = self._send(step.router, call, step.timeout_s)
            attempts[asyncio.ensure_future(second.code())] = (step.router, second)
            ended, waiting = await asyncio.wait(attempts, return_when=asyncio.FIRST_COMPLETED)
            if not waiting:
                ended, waiting = {ended.pop()}, ended
            (over,), (open_,) = ended, waiting
            if over.result() is grpc.StatusCode.OK:
                call.keep(attempts[over][0], time.monotonic())
                attempts[open_][1].cancel()
                return attempts[over]
            error = await self._error(*attempts[over])
            call.keep(attempts[open_][0], time.monotonic(), error)
            return attempts[open_]
        except BaseException:
            for _, each in attempts.values():
                each.cancel()
            raise

    def _send(self, router: str, call: Call[T], timeout_s: float) -> _Answer:
        """One attempt."""
        method = self._method(router, call.method)
        message, metadata = self._signer.sign(call.method.path, call.request)
        return method(message, timeout=timeout_s, metadata=metadata)

    async def _error(self, router: str, answer: _Answer) -> KeyplaneError:
        """Of an attempt that has failed."""
        try:
            await answer
        except grpc.aio.AioRpcError as failure:
            return read_error(router, failure)
        raise AssertionError("only of an attempt that has failed")

    def _start_probe(self, router: str) -> None:
        task = asyncio.get_running_loop().create_task(self._probe(router))
        self._probes.add(task)
        task.add_done_callback(self._probes.discard)

    async def _probe(self, router: str) -> None:
        method = self._method(router, HEALTH)
        try:
            answer = await method(
                health_pb2.HealthCheckRequest(), timeout=self._config.probe_timeout_s
            )
        except grpc.aio.AioRpcError:
            healthy = False
        else:
            healthy = is_healthy(answer)
        self._core.pool.probed(router, healthy, time.monotonic())

    def _method(self, router: str, method: Method) -> grpc.aio.UnaryUnaryMultiCallable[Any, Any]:
        found = self._methods.get((router, method.path))
        if found is None:
            channel = self._channels.get(router)
            if channel is None:
                channel = grpc.aio.insecure_channel(router, options=self._options)
                self._channels[router] = channel
            found = self._methods[router, method.path] = channel.unary_unary(
                method.path, serialize, method.response_type.FromString
            )
        return found
