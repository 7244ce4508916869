"""Windows of load: a closed loop, and a paced one.

A window warms up, counts, and then waits for what is under way. Only answers that come while it
counts are counted, and processor times are read at the two ends of that.
"""

from __future__ import annotations

import asyncio
import random
from array import array
from collections.abc import Mapping, Sequence
from typing import Final

import psutil

from bench._items import GET, PUT, Op
from bench._lanes import DEADLINE_S, Lane
from bench._orders import Closed, Paced
from bench._samples import Sample, latencies

# Seconds without load after a failure, so that what is down is not asked in a busy loop.
PAUSE_S: Final = 0.01

# Requests in flight in a paced window. Past it they are not sent, and counted as failures.
PACED_OUTSTANDING_MAX: Final = 8192

# Between two looks at what is due. Waking up for every request took a third of the machine that the
# generator shares; what waits for the next look is stamped when it was due all the same.
_LOOK_S: Final = 0.000_25

NOT_SENT: Final = "NOT_SENT"
NO_ANSWER: Final = "NO_ANSWER"


class _Worker:
    """A lane, and the request on it."""

    __slots__ = ("_window", "lane", "op", "sent_at")

    def __init__(self, window: Window, lane: Lane) -> None:
        self._window = window
        self.lane = lane
        self.op: Op = GET
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
            (self._reads if worker.op == GET else self._writes).append(latency_s)
        self._in_flight -= 1
        if self._open:
            self._next(worker, failure)
        elif not self._in_flight and not self._drained.done():
            self._drained.set_result(None)

    def _send(self, worker: _Worker, due_at: float) -> None:
        random = self._random
        worker.op = op = PUT if random() < self._write_share else GET
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
        now = self._now()
        due = 1 + int((now - self._begun_at) / self._gap_s)
        while self._issued < due:
            due_at = self._begun_at + self._issued * self._gap_s
            self._issued += 1
            if self._free:
                self._send(self._free.pop(), due_at)
            else:
                self._fail(NOT_SENT, 1)
        next_at = self._begun_at + self._issued * self._gap_s
        self._loop.call_at(max(next_at, now + _LOOK_S), self._send_due)

    def _next(self, worker: _Worker, failure: str) -> None:
        self._free.append(worker)


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
