"""The retry station once more, in SimPy: other code, other random numbers, the same answers."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Generator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import simpy

from fleet.exact.retries import NO_TRIGGER, RetryStation, Trigger, run_retries

STATION = RetryStation(
    load=0.6,
    servers=2,
    service_s=0.08,
    queue_max=40,
    timeout_s=0.5,
    retries=2,
    backoff_s=0.2,
    backoff_max_s=0.3,
)
DURATION_S = 60
STOP = Trigger(20.0, 4.0)
SLOW = Trigger(20.0, 10.0, capacity=0.4, surge=1.5)
RUNS = 12

Process = Generator[simpy.Event, Any, None]


@dataclass
class Oracle:
    """The station as callers and servers that take turns, with nothing computed ahead."""

    station: RetryStation
    trigger: Trigger
    rng: random.Random
    env: simpy.Environment = field(default_factory=simpy.Environment)
    queue: deque[tuple[float, simpy.Event]] = field(default_factory=deque)
    idle: int = 0
    tokens: float = 0.0
    arrived: int = 0
    succeeded: int = 0
    attempts: int = 0

    def run(self) -> tuple[float, float]:
        """Share of originals that end well, and attempts for each."""
        self.idle, self.tokens = self.station.servers, self.station.budget_burst
        self.env.process(self.arrivals())
        self.env.run()
        return self.succeeded / self.arrived, self.attempts / self.arrived

    def inside(self) -> bool:
        return 0 <= self.env.now - self.trigger.start_s < self.trigger.duration_s

    def arrivals(self) -> Process:
        """Thinned from the highest rate."""
        rate = self.station.load * self.station.capacity_per_s
        while True:
            yield self.env.timeout(self.rng.expovariate(rate * self.trigger.surge))
            if self.env.now >= DURATION_S:
                return
            if self.inside() or self.rng.random() < 1 / self.trigger.surge:
                self.arrived += 1
                burst = self.station.budget_burst
                self.tokens = min(burst, self.tokens + self.station.budget)
                self.env.process(self.client())

    def client(self) -> Process:
        for attempt in range(1 + self.station.retries):
            if attempt > 0:
                longest = min(
                    self.station.backoff_max_s, self.station.backoff_s * 2 ** (attempt - 1)
                )
                yield self.env.timeout(self.rng.uniform(0, longest))
                if self.station.budget < float("inf"):
                    if self.tokens < 1:
                        return
                    self.tokens -= 1
            if self.env.now < DURATION_S:
                self.attempts += 1
            answer = self.env.event()
            if self.idle > 0:
                self.idle -= 1
                self.env.process(self.server(self.env.now, answer))
            elif len(self.queue) < self.station.queue_max:
                self.queue.append((self.env.now, answer))
            else:
                continue
            yield answer | self.env.timeout(self.station.timeout_s)
            if answer.triggered:
                self.succeeded += 1
                return

    def server(self, sent_at: float, answer: simpy.Event) -> Process:
        """Until nothing waits."""
        while True:
            shed_s = self.station.shed_s
            left_s = sent_at + self.station.timeout_s - self.env.now
            if shed_s is None or left_s >= shed_s:
                yield from self.work(self.rng.expovariate(1 / self.station.service_s))
                answer.succeed()
            if not self.queue:
                self.idle += 1
                return
            sent_at, answer = self.queue.popleft()

    def work(self, left_s: float) -> Process:
        """At full speed before and after the trigger, and slowly during it."""
        start, stop = self.trigger.start_s, self.trigger.start_s + self.trigger.duration_s
        if self.env.now < start:
            step = min(left_s, start - self.env.now)
            yield self.env.timeout(step)
            left_s -= step
            if left_s <= 0:
                return
        if self.env.now < stop:
            speed = self.trigger.capacity
            step = stop - self.env.now
            if speed > 0 and left_s / speed <= step:
                yield self.env.timeout(left_s / speed)
                return
            yield self.env.timeout(step)
            left_s -= speed * step
        yield self.env.timeout(left_s)


@pytest.mark.parametrize(
    ("station", "trigger"),
    [
        (replace(STATION, retries=0), NO_TRIGGER),
        (replace(STATION, load=0.85), NO_TRIGGER),
        (replace(STATION, load=1.3, queue_max=8), NO_TRIGGER),
        (STATION, STOP),
        (STATION, SLOW),
        (replace(STATION, budget=0.2, budget_burst=3.0), STOP),
        (replace(STATION, shed_s=0.1), SLOW),
        (replace(STATION, shed_s=0.0, load=0.9), STOP),
    ],
)
def test_kernel_and_oracle_agree(station: RetryStation, trigger: Trigger) -> None:
    """Means of success and of attempts, within four standard errors of their difference."""
    oracle = np.array([Oracle(station, trigger, random.Random(seed)).run() for seed in range(RUNS)])
    kernel = []
    for seed in range(10 * RUNS):
        run = run_retries(station, DURATION_S, seed, trigger)
        arrived = run.arrived.sum()
        kernel.append((run.succeeded.sum() / arrived, run.attempts.sum() / arrived))
    found = np.array(kernel)
    for column in range(2):
        error = np.hypot(
            oracle[:, column].std(ddof=1) / len(oracle) ** 0.5,
            found[:, column].std(ddof=1) / len(found) ** 0.5,
        )
        difference = abs(oracle[:, column].mean() - found[:, column].mean())
        # The floor is for what is nearly the same in all runs.
        assert difference < 4 * error + 0.002
        assert error < 0.1
