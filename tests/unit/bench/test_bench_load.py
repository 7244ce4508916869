"""The load generator: what it sends, what it counts, and what it takes for a failure."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from bench._echo import echo_server
from bench._fill import fill
from bench._http_lane import is_whole
from bench._items import (
    BATCH,
    BATCH_ITEMS,
    GET,
    ITEM_BYTES,
    PUT,
    DynamoRequests,
    KeyplaneRequests,
    Op,
    item_of,
    size_of,
)
from bench._load import Generator, GeneratorFailed, Target
from bench._orders import Closed, Fill, Paced
from bench._windows import NOT_SENT, ClosedWindow, PacedWindow, Window
from keyplane.data.v1 import data_pb2 as data
from keyplane.model.items import from_item, to_item
from wire.transports import TransportKind

ITEMS = 60


class Lane:
    """Answers on the next turn of the loop, with what `answer` says of each request."""

    def __init__(self, answer: Callable[[Op, int], str]) -> None:
        self.done: Callable[[str], None] = lambda failure: None
        self._answer = answer

    def send(self, op: Op, number: int) -> None:
        loop = asyncio.get_running_loop()
        loop.call_soon(lambda: self.done(self._answer(op, number)))

    def close(self) -> None:
        pass


class SilentLane(Lane):
    def send(self, op: Op, number: int) -> None:
        pass


def in_loop(work: Callable[[asyncio.AbstractEventLoop], Coroutine[Any, Any, Any]]) -> Any:
    async def main() -> Any:
        return await work(asyncio.get_running_loop())

    return asyncio.run(main())


def right(_op: Op, _number: int) -> str:
    return ""


def test_requests_are_what_the_sdk_would_send() -> None:
    requests = KeyplaneRequests("a-table", ITEMS)
    get = data.GetItemRequest.FromString(requests.encode(GET, 7))
    assert (get.table, from_item(get.key)) == ("a-table", {"id": "item-00000007"})
    puts = [data.PutItemRequest.FromString(requests.encode(PUT, 8)) for _ in range(2)]
    assert from_item(puts[0].item) == item_of(8)
    assert size_of(8) == ITEM_BYTES
    assert puts[0].token.client_id == puts[1].token.client_id
    batch = data.BatchWriteItemRequest.FromString(requests.encode(BATCH, ITEMS - 2))
    written = [from_item(write.put) for write in batch.requests["a-table"].writes]
    assert written == [item_of(ITEMS - 2), item_of(ITEMS - 1)]
    last = data.PutItemRequest.FromString(requests.encode(PUT, 0))
    sequences = [puts[0].token.sequence, puts[1].token.sequence, batch.token.sequence]
    assert [*sequences, last.token.sequence] == [1, 2, 3, 5]


def test_an_answer_with_another_item_or_none_is_a_failure() -> None:
    requests = KeyplaneRequests("a-table", ITEMS)
    answer = data.GetItemResponse(item=to_item(item_of(3)), version=9).SerializeToString()
    assert requests.fault(GET, 3, answer) == ""
    assert requests.fault(GET, 4, answer) == "WRONG_ITEM"
    assert requests.fault(GET, 4, b"") == "MISSING_ITEM"
    assert requests.fault(PUT, 4, b"") == "NO_VERSION"


def test_http_requests_state_their_length_and_answers_are_waited_for_in_full() -> None:
    requests = DynamoRequests("a-table", ITEMS, "127.0.0.1:1")
    for op in (GET, PUT, BATCH):
        head, _, body = requests.encode(op, 5).partition(b"\r\n\r\n")
        assert head.endswith(b"Content-Length: %d" % len(body))
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX: y\r\n\r\n{}"
    assert [is_whole(answer[:end]) for end in (10, len(answer) - 1, len(answer))] == [
        False,
        False,
        True,
    ]
    assert requests.fault(GET, 5, answer) == "MISSING_ITEM"
    assert requests.fault(PUT, 5, b"HTTP/1.1 400 Bad Request\r\n") == "HTTP_400"


def test_a_closed_window_counts_reads_and_writes_apart() -> None:
    def work(loop: asyncio.AbstractEventLoop) -> Coroutine[Any, Any, Any]:
        lanes = [Lane(right) for _ in range(4)]
        return ClosedWindow(Closed(4, 0.5, 0.05, 0.0), lanes, ITEMS, loop, {}).run()

    found = in_loop(work)
    assert found.reads.count > 0
    assert found.writes.count > 0
    assert found.every.count == found.reads.count + found.writes.count
    assert not found.failures


def test_failures_are_counted_by_name_and_are_no_answers() -> None:
    def work(loop: asyncio.AbstractEventLoop) -> Coroutine[Any, Any, Any]:
        lanes = [Lane(lambda op, number: "WRONG_ITEM")]
        return ClosedWindow(Closed(1, 0.0, 0.05, 0.0), lanes, ITEMS, loop, {}).run()

    found = in_loop(work)
    assert found.every.count == 0
    assert found.failures["WRONG_ITEM"] >= 1


def test_a_paced_window_sends_at_its_rate_and_not_beyond_its_lanes() -> None:
    """What is due is sent once, also where a turn of the loop was late."""
    sent: list[int] = []

    def counted(_op: Op, number: int) -> str:
        sent.append(number)
        return ""

    def window(loop: asyncio.AbstractEventLoop, lane: Lane) -> Window:
        return PacedWindow(Paced(200.0, 0.0, 0.2, 0.0), [lane], ITEMS, loop, {})

    in_loop(lambda loop: window(loop, Lane(counted)).run())
    assert sent

    async def stuck(loop: asyncio.AbstractEventLoop) -> Any:
        stuck_window = window(loop, SilentLane(right))
        # Let go of the one request that nobody answers, once the window is over.
        loop.call_later(0.5, lambda: stuck_window.answered(stuck_window.workers[0], "LATE"))
        return await stuck_window.run()

    assert in_loop(stuck).failures[NOT_SENT] >= 1


def test_filling_writes_every_item_and_repeats_what_was_not_processed() -> None:
    written: list[int] = []
    refused = {0}

    def answer(op: Op, number: int) -> str:
        assert op == BATCH
        if number in refused:
            refused.discard(number)
            return "UNPROCESSED"
        written.append(number)
        return ""

    progress: list[int] = []
    lanes = [Lane(answer) for _ in range(3)]
    in_loop(lambda loop: fill(Fill(3), lanes, ITEMS, loop, progress.append))
    assert sorted(written) == list(range(0, ITEMS, BATCH_ITEMS))
    assert progress[-1] == ITEMS


def test_a_generator_loads_a_server_from_a_process_of_its_own() -> None:
    with echo_server(TransportKind.HTTP2) as (address, pid):
        target = Target("echo", address, "", ITEMS, processes={"echo": [pid]}, precise=True)
        with Generator(target) as generator:
            closed = generator.run(Closed(4, 1.0, 0.2, 0.05))
            paced = generator.run(Paced(100.0, 1.0, 0.3, 0.05))
    assert closed.every.count > 0
    assert paced.every.count > 0
    assert not closed.failures
    assert not paced.failures
    assert closed.cpu_s.keys() == {"echo", "generator"}


def test_a_generator_that_dies_is_noticed() -> None:
    with Generator(Target("echo", "127.0.0.1:1", "", ITEMS)) as generator:
        generator.kill()
        with pytest.raises(GeneratorFailed, match="died"):
            generator.run(Closed(1, 1.0, 0.1, 0.0))
