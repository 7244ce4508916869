"""Batches: calls that go on with what an answer leaves over."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from google.protobuf.message import Message

from keyplane.client.call import Call, CallContext, Method, T
from keyplane.client.errors import BatchIncomplete
from keyplane.data.v1 import data_pb2 as data
from keyplane.model.errors import KeyplaneError, Reason

BATCH_GET = Method("/keyplane.data.v1.DataService/BatchGetItem", data.BatchGetItemResponse)
BATCH_WRITE = Method(
    "/keyplane.data.v1.DataService/BatchWriteItem", data.BatchWriteItemResponse, writes=True
)


class _Batch(Call[T]):
    """A batch that was partly done ends with BatchIncomplete, whatever the last failure was."""

    __slots__ = ("_partly_done",)

    def __init__(
        self,
        context: CallContext,
        method: Method,
        request: Message,
        finish: Any,
        now: float,
        timeout_s: float | None = None,
    ) -> None:
        super().__init__(context, method, request, finish, now, timeout_s)
        self._partly_done = False

    def _go_on(self, now: float, left: int, definite: bool) -> None:
        """Plans to send what was left over."""
        self._partly_done = True
        reason = Reason.NO_ROUTE if definite else Reason.CONNECTION_LOST
        self._last_error = KeyplaneError(reason, f"{left} of the batch could not be done in time")
        self._back_off(now, self._last_error)


class BatchGetCall(_Batch[T]):
    """Asks again for keys that came back unprocessed. `finish` gets all items found, by table."""

    __slots__ = ("_items",)

    request: data.BatchGetItemRequest

    def __init__(
        self,
        context: CallContext,
        request: data.BatchGetItemRequest,
        finish: Any,
        now: float,
        timeout_s: float | None = None,
    ) -> None:
        super().__init__(context, BATCH_GET, request, finish, now, timeout_s)
        self._items: dict[str, list[data.Item]] = {table: [] for table in request.requests}

    def answered(self, now: float, response: Message) -> bool:
        assert isinstance(response, data.BatchGetItemResponse)
        self._take(now, response)
        for table, found in response.items.items():
            self._items[table].extend(found.items)
        left = response.unprocessed_keys
        if not left:
            self._result = self._finish(self._items)
            return True
        self.request = data.BatchGetItemRequest(
            requests=left, return_consumed_capacity=self.request.return_consumed_capacity
        )
        self._go_on(now, sum(len(keys.keys) for keys in left.values()), definite=True)
        return False

    def _final(self, error: KeyplaneError) -> KeyplaneError:
        if not self._partly_done:
            return super()._final(error)
        return BatchIncomplete(error.reason, error.message, unprocessed_keys=self.request.requests)


class BatchWriteCall(_Batch[None]):
    """Sends writes that came back unprocessed again, under their first sequence numbers.

    `token.attempt` is for writes marked `indefinite`; the others have not been done, and count as
    sent for the first time.
    """

    __slots__ = ()

    request: data.BatchWriteItemRequest

    def __init__(
        self,
        context: CallContext,
        request: data.BatchWriteItemRequest,
        now: float,
        timeout_s: float | None = None,
    ) -> None:
        super().__init__(context, BATCH_WRITE, request, lambda _: None, now, timeout_s)

    def answered(self, now: float, response: Message) -> bool:
        assert isinstance(response, data.BatchWriteItemResponse)
        self._take(now, response)
        left = list(_writes(response.unprocessed))
        if not left:
            return True
        doubtful = any(write.indefinite for write in left)
        token = self.request.token
        attempt = token.attempt + 1 if doubtful else 0
        self.request = data.BatchWriteItemRequest(
            requests=response.unprocessed,
            token=token,
            return_consumed_capacity=self.request.return_consumed_capacity,
        )
        self.request.token.attempt = attempt
        self._doubt = None  # the marks say it, write by write
        self._go_on(now, len(left), definite=not doubtful)
        return False

    def _mark_doubtful(self) -> bool:
        for write in _writes(self.request.requests):
            write.indefinite = True
        return super()._mark_doubtful()

    def _final(self, error: KeyplaneError) -> KeyplaneError:
        if not self._partly_done:
            return super()._final(error)
        doubtful = any(write.indefinite for write in _writes(self.request.requests))
        reason = Reason.CONNECTION_LOST if doubtful and error.definite else error.reason
        return BatchIncomplete(reason, error.message, unprocessed_writes=self.request.requests)


def _writes(requests: Mapping[str, data.TableWrites]) -> Iterable[data.WriteRequest]:
    for table_writes in requests.values():
        yield from table_writes.writes
