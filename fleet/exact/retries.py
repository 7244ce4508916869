"""Requests that time out and are tried again at one station, each simulated.

The station has `servers` equal ones, exponential service and one first-in-first-out queue with
room for `queue_max` attempts; what finds it full is refused at once. A client waits `timeout_s` for
each attempt, then waits a little longer and tries again, up to `retries` times. The station does
not see that its caller has gone: it carries out what is in the queue, unless it sheds.

When this sustains itself
-------------------------
Say that capacity is C attempts a second, the load L originals a second, and that the queue holds
more than C * timeout_s attempts. While it is longer than that, all that is carried out is late,
each original makes 1 + retries attempts, and the station gets L * (1 + retries) of them. If that is
more than C the queue stays as long as it is: no original ends well, for good, though L alone might
be far below C. So it tips at

    L* = C / (1 + retries)          with a budget: C / (1 + min(retries, budget))

where the budget is the retries that each original earns for all clients together. Below L* the
queue drains at C - L * (1 + retries), and all is well when it is short enough. Clients' waiting
before retries shifts attempts in time, and does not change their rate. With a queue that holds less
than C * timeout_s there is no such state: what gets in, is in time. Neither is there with shedding,
if it also leaves time to carry out what it keeps: all that is carried out is of use. This is the
mean: chance ends the state where the queue is longer than C * timeout_s by few attempts only.

N. Bronson, A. Aghayev, A. Charapko and T. Zhu, "Metastable Failures in Distributed Systems" (HotOS
2021) tell of many such states, retries first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from fleet.exact.heap import drop_first, push
from fleet.exact.random import exponential, seeded, uniform
from fleet.outcome import Array

# Tokens of a bucket that never runs dry.
UNLIMITED = math.inf


@dataclass(frozen=True, slots=True)
class RetryStation:
    """load: originals, as a share of capacity, which is servers / service_s.

    backoff_s: the longest wait before the first retry, doubled with each up to backoff_max_s; the
    wait is uniform from zero to it ("full jitter"). budget: retries earned by each original, of
    which burst are saved up, asked for when a retry is about to be sent. shed_s: None to carry out
    all; else what has less time left than that when its turn comes is dropped, at no cost.
    """

    load: float
    servers: int
    service_s: float
    queue_max: int
    timeout_s: float
    retries: int
    backoff_s: float = 0.0
    backoff_max_s: float = 0.0
    budget: float = UNLIMITED
    budget_burst: float = 0.0
    shed_s: float | None = None

    @property
    def capacity_per_s(self) -> float:
        return self.servers / self.service_s

    def tipping_load(self) -> float:
        """L* / C from above: the load from which it does not come back; 1 if there is no such
        state below capacity."""
        if self.shed_s is not None or self.queue_max <= self.capacity_per_s * self.timeout_s:
            return 1.0
        return 1.0 / (1.0 + min(self.retries, self.budget))


@dataclass(frozen=True, slots=True)
class Trigger:
    """From start_s for duration_s, capacity is times `capacity` and the load times `surge`."""

    start_s: float
    duration_s: float
    capacity: float = 0.0
    surge: float = 1.0


NO_TRIGGER = Trigger(0.0, 0.0)


@dataclass(frozen=True, slots=True)
class RetryRun:
    """By second. arrived: originals; succeeded: of the originals that arrived in it, those that
    ended well at any time; answered: attempts that ended well in it; attempts: sent in it; late:
    attempts sent in it that were carried out for nobody."""

    arrived: Array
    succeeded: Array
    answered: Array
    attempts: Array
    late: Array

    @property
    def requests(self) -> int:
        return int(self.attempts.sum())

    def success(self, first_s: int, last_s: int) -> float:
        """Share of the originals that arrived in these seconds; 1 where there are none."""
        arrived = self.arrived[first_s:last_s].sum()
        return float(self.succeeded[first_s:last_s].sum() / arrived) if arrived else 1.0


def run_retries(
    station: RetryStation, duration_s: int, seed: int, trigger: Trigger = NO_TRIGGER
) -> RetryRun:
    """Originals arrive for duration_s, and are followed to their end. seed: 64 bits."""
    counts = _run(
        np.uint64(seed),
        duration_s,
        station.load * station.capacity_per_s,
        station.servers,
        float(station.service_s),
        station.queue_max,
        float(station.timeout_s),
        station.retries,
        float(station.backoff_s),
        float(station.backoff_max_s),
        float(station.budget),
        float(station.budget_burst),
        math.inf if station.shed_s is None else station.timeout_s - station.shed_s,
        (
            float(trigger.start_s),
            float(trigger.start_s + trigger.duration_s),
            float(trigger.capacity),
            float(trigger.surge),
        ),
    )
    return RetryRun(*counts)


@njit(cache=True)
def _working_time(now: float, trigger: tuple[float, float, float, float]) -> float:
    """Seconds of full capacity until now: servers advance by this clock, callers by the other."""
    start, stop, left, _ = trigger
    if now <= start:
        return now
    if now < stop:
        return start + left * (now - start)
    return start + left * (stop - start) + now - stop


@njit(cache=True)
def _wall_time(work: float, trigger: tuple[float, float, float, float]) -> float:
    start, stop, left, _ = trigger
    if work <= start:
        return work
    done = start + left * (stop - start)
    if work < done:
        return start + (work - start) / left
    return stop + work - done


@njit(cache=True)
def _next_arrival(
    words: NDArray[np.uint64], now: float, rate: float, trigger: tuple[float, float, float, float]
) -> float:
    """A wait that goes past a change of the rate starts anew there: it has no memory."""
    start, stop, _, surge = trigger
    while True:
        inside = start <= now < stop
        change = stop if inside else (start if now < start else math.inf)
        moment = now + exponential(words, 1.0 / (rate * surge if inside else rate))
        if moment < change:
            return moment
        now = change


@njit(cache=True)
def _run(
    seed: np.uint64,
    duration_s: int,
    rate: float,
    servers: int,
    service_s: float,
    queue_max: int,
    timeout_s: float,
    retries: int,
    backoff_s: float,
    backoff_max_s: float,
    budget: float,
    budget_burst: float,
    wait_max_s: float,
    trigger: tuple[float, float, float, float],
) -> tuple[Array, Array, Array, Array, Array]:
    """In first-in-first-out order it is known on arrival when an attempt will be carried out, from
    when the servers get free (Kiefer and Wolfowitz, 1955): the only events are attempts."""
    words = seeded(seed)
    arrived = np.zeros(duration_s)
    succeeded = np.zeros(duration_s)
    answered = np.zeros(duration_s)
    attempts = np.zeros(duration_s)
    late = np.zeros(duration_s)

    # In working time: when each server gets free; when those in the queue leave it, a ring.
    free = np.zeros(servers)
    leave = np.zeros(max(queue_max, 1))
    head = 0
    waiting = 0
    tokens = budget_burst

    # Retries to be sent: when, and second of arrival * (retries + 1) + retries left after it.
    times = np.empty(1024)
    about = np.empty(1024, np.int64)
    size = 0

    fresh = _next_arrival(words, 0.0, rate, trigger)
    while True:
        if fresh < duration_s and (size == 0 or fresh <= times[0]):
            now = fresh
            second = int(now)
            left = retries
            arrived[second] += 1
            tokens = min(budget_burst, tokens + budget)
            fresh = _next_arrival(words, now, rate, trigger)
        elif size > 0:
            now = times[0]
            second, left = about[0] // (retries + 1), about[0] % (retries + 1)
            drop_first(times, about, size)
            size -= 1
            if budget < math.inf:
                if tokens < 1.0:
                    continue
                tokens -= 1.0
        else:
            break
        if now < duration_s:
            attempts[int(now)] += 1

        work = _working_time(now, trigger)
        while waiting > 0 and leave[head] <= work:
            head = (head + 1) % queue_max
            waiting -= 1
        first = 0
        for server in range(1, servers):
            if free[server] < free[first]:
                first = server
        begin = max(free[first], work)
        failed_at = now
        if begin <= work or waiting < queue_max:
            if begin > work:
                leave[(head + waiting) % queue_max] = begin
                waiting += 1
            failed_at = now + timeout_s
            if _wall_time(begin, trigger) - now <= wait_max_s:
                done = begin + exponential(words, service_s)
                free[first] = done
                done = _wall_time(done, trigger)
                if done <= failed_at:
                    succeeded[second] += 1
                    if done < duration_s:
                        answered[int(done)] += 1
                    continue
                if now < duration_s:
                    late[int(now)] += 1
        if left > 0:
            ceiling = min(backoff_max_s, backoff_s * 2.0 ** (retries - left))
            if size == len(times):
                times = np.concatenate((times, np.empty(size)))
                about = np.concatenate((about, np.empty(size, np.int64)))
            again = failed_at + ceiling * uniform(words)
            push(times, about, size, again, second * (retries + 1) + left - 1)
            size += 1
    return arrived, succeeded, answered, attempts, late
