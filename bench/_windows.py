"""Windows of load: a closed loop, a paced one, and the filling of a table.

A window warms up, counts, and then waits for what is under way. Only answers that come while it
counts are counted, and processor times are read at the two ends of that.
"""

from __future__ import annotations

import asyncio
import random
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import psutil

from bench._items import BATCH, Op
from bench._lanes import DEADLINE_S, Lane
from bench._samples import Sample, latencies

# Seconds without load after a failure, so that what is down is not asked in a busy loop.
PAUSE_S = 0.01

# Requests in flight in a paced window. Past it they are not sent, and counted as failures.
PACED_OUTSTANDING_MAX = 8192

# How often a batch that was not processed in full is sent again.
_FILL_ATTEMPTS_MAX = 50

NOT_SENT = "NOT_SENT"
NO_ANSWER = "NO_ANSWER"


@dataclass(frozen=True, slots=True)
class Closed:
    """`outstanding` requests in flight at any time, each followed by the next.

    write_share: of requests, 0 to 1. warm_up_s: seconds before it counts.
    """

    outstanding: int
    write_share: float
    seconds: float
    warm_up_s: float


@dataclass(frozen=True, slots=True)
class Paced:
    """`per_second` requests, evenly spaced, whether answers come or not.

    Latency counts from when a request was due: one that was sent late because the generator was
    busy has waited, too.
    """

    per_second: float
    write_share: float
    seconds: float
    warm_up_s: float


@dataclass(frozen=True, slots=True)
class Fill:
    """Writes every item once, BATCH at a time."""

    outstanding: int = 16


class _Worker:
    """A lane, and the request on it."""

    __slots__ = ("_window", "lane", "op", "sent_at")

    def __init__(self, window: Window, lane: Lane) -> None:
        self._window = window
        self.lane = lane
        self.op = Op.GET
        self.sent_at = 0.0
        lane.done = self.done

    def done(self, failure: str) -> None:
        self._window.answered(self, failure)


class Window:
    """What closed and paced windows share. `run` gives the sample."""

    def __init__(
        self,
        order: Closed | Paced,
        lanes: Sequence[Lane],
        items: int,
        loop: asyncio.AbstractEventLoop,
        processes: Mapping[str, Sequence[psutil.Process]],
    ) -> None:
        """processes: whose processor time is measured, by the name it is shown under."""
        self._loop = loop
        self._now = loop.time
        self._random = random.random
        self._items = items
        self._write_share = order.write_share
        self._warm_up_s = order.warm_up_s
        self._seconds = order.seconds
        self._processes = processes
        self.workers = [_Worker(self, lane) for lane in lanes]
        self._in_flight = 0
        self._counting = False
        self._open = True
        self._drained: asyncio.Future[None] = loop.create_future()
        self._reads = array("d")
        self._writes = array("d")
        self.failures: dict[str, int] = {}

    async def run(self) -> Sample:
        self._begin()
        await asyncio.sleep(self._warm_up_s)
        before, begun_at = self._cpu_s(), self._now()
        self._counting = True
        await asyncio.sleep(self._seconds)
        self._counting = self._open = False
        elapsed_s, after = self._now() - begun_at, self._cpu_s()
        if self._in_flight:
            try:
                await asyncio.wait_for(self._drained, DEADLINE_S + 1)
            except TimeoutError:
                self._fail(NO_ANSWER, self._in_flight)
        return Sample(
            elapsed_s,
            every=latencies([self._reads, self._writes]),
            reads=latencies([self._reads]),
            writes=latencies([self._writes]),
            failures=self.failures,
            cpu_s={name: after[name] - before[name] for name in after},
        )

    def answered(self, worker: _Worker, failure: str) -> None:
        if failure:
            self._fail(failure, 1)
        elif self._counting:
            latency_s = self._now() - worker.sent_at
            (self._reads if worker.op is Op.GET else self._writes).append(latency_s)
        self._in_flight -= 1
        if self._open:
            self._next(worker, failure)
        elif not self._in_flight and not self._drained.done():
            self._drained.set_result(None)

    def _send(self, worker: _Worker, due_at: float) -> None:
        random = self._random
        worker.op = op = Op.PUT if random() < self._write_share else Op.GET
        worker.sent_at = due_at
        self._in_flight += 1
        worker.lane.send(op, int(random() * self._items))

    def _fail(self, failure: str, count: int) -> None:
        self.failures[failure] = self.failures.get(failure, 0) + count

    def _cpu_s(self) -> dict[str, float]:
        return {
            name: sum(_cpu_s(process) for process in processes)
            for name, processes in self._processes.items()
        }

    def _begin(self) -> None:
        raise NotImplementedError

    def _next(self, worker: _Worker, failure: str) -> None:
        raise NotImplementedError


class ClosedWindow(Window):
    """One lane for each request in flight."""

    def _begin(self) -> None:
        for worker in self.workers:
            self._send(worker, self._now())

    def _next(self, worker: _Worker, failure: str) -> None:
        if failure:
            self._loop.call_later(PAUSE_S, self._go_on, worker)
        else:
            self._send(worker, self._now())

    def _go_on(self, worker: _Worker) -> None:
        if self._open:
            self._send(worker, self._now())


class PacedWindow(Window):
    """Lanes are taken as they are free. Wants an event loop that wakes up on time (see `_load`)."""

    def __init__(
        self,
        order: Paced,
        lanes: Sequence[Lane],
        items: int,
        loop: asyncio.AbstractEventLoop,
        processes: Mapping[str, Sequence[psutil.Process]],
    ) -> None:
        super().__init__(order, lanes, items, loop, processes)
        self._gap_s = 1 / order.per_second
        self._begun_at = 0.0
        self._issued = 0
        self._free = list(self.workers)

    def _begin(self) -> None:
        self._begun_at = self._now()
        self._send_due()

    def _send_due(self) -> None:
        if not self._open:
            return
        due = 1 + int((self._now() - self._begun_at) / self._gap_s)
        while self._issued < due:
            due_at = self._begun_at + self._issued * self._gap_s
            self._issued += 1
            if self._free:
                self._send(self._free.pop(), due_at)
            else:
                self._fail(NOT_SENT, 1)
        self._loop.call_at(self._begun_at + self._issued * self._gap_s, self._send_due)

    def _next(self, worker: _Worker, failure: str) -> None:
        self._free.append(worker)


async def fill(
    order: Fill,
    lanes: Sequence[Lane],
    items: int,
    loop: asyncio.AbstractEventLoop,
    progress: Callable[[int], None],
) -> None:
    """Writes items 0 to `items` - 1. `progress` hears how many are written, now and then.

    Raises RuntimeError naming what failed, once a batch has failed too often.
    """
    numbers = iter(range(0, items, BATCH))
    written = 0

    async def work(lane: Lane) -> None:
        nonlocal written
        for number in numbers:
            for attempt in range(1, _FILL_ATTEMPTS_MAX + 1):
                answered: asyncio.Future[str] = loop.create_future()
                lane.done = answered.set_result
                lane.send(Op.BATCH, number)
                failure = await answered
                if not failure:
                    break
                if attempt == _FILL_ATTEMPTS_MAX:
                    raise RuntimeError(f"items cannot be written: {failure}")
                await asyncio.sleep(PAUSE_S * attempt)
            written = min(items, written + BATCH)
            if written % (400 * BATCH) == 0:
                progress(written)

    async with asyncio.TaskGroup() as group:
        for lane in lanes[: order.outstanding]:
            group.create_task(work(lane))
    progress(items)


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
