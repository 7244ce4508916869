"""Waiting lines with Poisson arrivals, and the earlier of two answers, in closed form.

The formulas of Erlang are those of L. Kleinrock, "Queueing Systems, Volume 1: Theory" (1975), the
mean wait with other than exponential service that of Pollaczek and Khinchine, there too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fleet.bisection import bisect
from keyplane.model.errors import KeyplaneError, Reason

# Time to the probability that it is exceeded: from 1 down to 0.
Survival = Callable[[float], float]


def erlang_b(servers: int, offered: float) -> float:
    """The probability that an arrival finds all servers busy when there is no queue (M/M/c/c).

    offered: arrival rate times service time, in erlangs. By the recursion over servers, in which
    nothing overflows. Raises INVALID_ARGUMENT unless servers >= 1 and offered >= 0.
    """
    if servers < 1 or not 0 <= offered < math.inf:
        raise KeyplaneError(
            Reason.INVALID_ARGUMENT,
            f"{servers} servers with {offered:g} erlangs; give one server or more and no"
            " negative load",
        )
    blocked = 1.0
    for busy in range(1, servers + 1):
        blocked = offered * blocked / (busy + offered * blocked)
    return blocked


def erlang_c(servers: int, offered: float) -> float:
    """The probability that an arrival has to wait when there is a queue (M/M/c).

    1 from the load on with which the queue grows for ever. Raises like `erlang_b`.
    """
    blocked = erlang_b(servers, offered)
    if offered >= servers:
        return 1.0
    return servers * blocked / (servers - offered * (1.0 - blocked))


@dataclass(frozen=True, slots=True)
class Queue:
    """M/M/c, first come, first served. Raises INVALID_ARGUMENT unless the load is below 1.

    Times are in the unit of service_time, rates per that unit.
    """

    servers: int
    arrival_rate: float
    service_time: float

    def __post_init__(self) -> None:
        if self.servers < 1 or not self.arrival_rate > 0 or not self.service_time > 0:
            raise KeyplaneError(
                Reason.INVALID_ARGUMENT, f"{self} is no queue; give numbers above zero"
            )
        if self.load >= 1:
            raise KeyplaneError(
                Reason.INVALID_ARGUMENT,
                f"the load is {self.load:.3g}, so that the queue grows for ever; give more than"
                f" {self.offered:.4g} servers, or fewer requests",
            )

    @property
    def offered(self) -> float:
        return self.arrival_rate * self.service_time

    @property
    def load(self) -> float:
        """The share of time that a server is busy."""
        return self.offered / self.servers

    @property
    def waits(self) -> float:
        """The probability of having to wait."""
        return erlang_c(self.servers, self.offered)

    @property
    def _drain(self) -> float:
        """The rate of the exponential time that those wait who have to."""
        return self.servers / self.service_time - self.arrival_rate

    @property
    def mean_wait(self) -> float:
        return self.waits / self._drain

    @property
    def mean_response(self) -> float:
        return self.mean_wait + self.service_time

    def wait_survival(self) -> Survival:
        waits, drain = self.waits, self._drain
        return lambda time: waits * math.exp(-drain * time) if time >= 0 else 1.0

    def response_survival(self) -> Survival:
        """Of waiting and service together: the sum of two independent exponential times, of which
        the first is zero for those who need not wait."""
        waits, drain, serve = self.waits, self._drain, 1 / self.service_time
        apart, slower = abs(drain - serve), min(drain, serve)

        def survival(time: float) -> float:
            if time < 0:
                return 1.0
            # (exp(-slower t) - exp(-faster t)) / apart, without cancellation where they are near.
            both = -math.expm1(-apart * time) / apart if apart * time > 1e-12 else time
            sum_ = math.exp(-serve * time) + waits * serve * math.exp(-slower * time) * both
            return min(sum_, 1.0)

        return survival

    def wait_percentile(self, part: float) -> float:
        """part: from 0 to below 1, as in 0.99."""
        _check_part(part)
        if self.waits <= 1 - part:
            return 0.0
        return math.log(self.waits / (1 - part)) / self._drain

    def response_percentile(self, part: float) -> float:
        """part: from 0 to below 1, as in 0.99."""
        return percentile(self.response_survival(), part, self.service_time)


def mean_wait_deterministic(arrival_rate: float, service_time: float) -> float:
    """Of M/D/1: half of that of M/M/1. Raises INVALID_ARGUMENT unless the load is below 1."""
    return Queue(1, arrival_rate, service_time).mean_wait / 2


def percentile(survival: Survival, part: float, guess: float = 1.0) -> float:
    """The least time that is exceeded with a probability of at most 1 - part, by bisection.

    part: from 0 to below 1; guess: above zero, of the size of the answer. Raises INVALID_ARGUMENT.
    """
    _check_part(part)
    rest = 1 - part
    if survival(0.0) <= rest:
        return 0.0
    low, high = 0.0, guess
    while survival(high) > rest:
        low, high = high, 2 * high
        if not high < math.inf:
            raise KeyplaneError(
                Reason.INVALID_ARGUMENT,
                f"no time is exceeded as seldom as {rest:g}; give a survival function that ends"
                " at zero",
            )
    return bisect(lambda time: survival(time) <= rest, low, high)[1]


def later(survival: Survival, by: float) -> Survival:
    """Of the time plus a constant."""
    return lambda time: survival(time - by)


def mixture(parts: Sequence[tuple[float, Survival]]) -> Survival:
    """Of a time that is one of several, each with its probability; these add up to 1."""
    return lambda time: sum(weight * survival(time) for weight, survival in parts)


def hedged(first: Survival, second: Survival, delay: float) -> Survival:
    """Of min(T1, delay + T2), with T1 and T2 independent: of an answer when a second server is
    asked where the first has not answered within the delay. As in J. Dean and L. A. Barroso, "The
    Tail at Scale" (2013); the formula is that of the minimum of independent times."""
    return lambda time: first(time) * (second(time - delay) if time >= delay else 1.0)


def _check_part(part: float) -> None:
    if not 0 <= part < 1:
        raise KeyplaneError(
            Reason.INVALID_ARGUMENT, f"no percentile {part:g}; give from 0 to below 1, as in 0.99"
        )
