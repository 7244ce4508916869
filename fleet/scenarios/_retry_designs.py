"""What the retry storm is asked with, and its four designs."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from fleet.exact.retries import RetryStation, Trigger
from fleet.parameters import parameter

PLAIN = "retries"
BUDGET = "retry budget"
SHED = "shedding"
SHORT = "queue shorter than the timeout"

# Before the trigger.
WARM_S = 10

# Of the map.
RETRIES_MAX = 5

_SRE = "Site Reliability Engineering, chapter Handling Overload (Google, 2016)"


@dataclass(frozen=True, slots=True)
class Parameters:
    load: float = parameter(
        0.5,
        "fraction",
        "originals of the run that is shown over time, as a share of capacity",
        low=0.05,
        high=0.95,
        source="chosen: twice what is offered could be served",
    )
    servers: int = parameter(
        4,
        "",
        "servers of the station",
        low=4,
        high=16,
        source="chosen: few, since the tipping point does not depend on the number",
    )
    service_ms: float = parameter(
        20.0,
        "ms",
        "mean time to carry out an attempt, exponential",
        low=5.0,
        high=20.0,
        source="chosen: long, which makes few requests of an overload; the rest scales with it",
    )
    timeout_ms: float = parameter(
        1000.0,
        "ms",
        "how long a client waits for an attempt",
        low=100.0,
        high=5_000.0,
        source="chosen: many times the service time, as usual for clients",
    )
    queue_ms: float = parameter(
        3000.0,
        "ms",
        "time to carry out what the queue holds when it is full",
        low=50.0,
        high=20_000.0,
        source="chosen: longer than the timeout, as queues without a thought are",
    )
    retries: int = parameter(
        2,
        "",
        "retries of each original",
        low=0,
        high=RETRIES_MAX,
        source=f"up to three attempts: {_SRE}",
    )
    backoff_ms: float = parameter(
        100.0,
        "ms",
        "longest wait before the first retry, doubled with each; the wait is uniform up to it",
        low=0.0,
        high=5_000.0,
        source="chosen: a tenth of the timeout",
    )
    backoff_max_ms: float = parameter(
        1000.0,
        "ms",
        "longest wait before any retry",
        low=0.0,
        high=20_000.0,
        source="chosen: the timeout",
    )
    budget: float = parameter(
        0.1,
        "fraction",
        "retries that each original earns for all clients, in the design with a budget",
        low=0.0,
        high=5.0,
        source=f"retries below 10 % of requests: {_SRE}",
    )
    shed_ms: float = parameter(
        100.0,
        "ms",
        "what has less time left when its turn comes is dropped, in the design with shedding",
        low=0.0,
        high=5_000.0,
        source="chosen: five service times",
    )
    trigger_s: float = parameter(
        10.0,
        "s",
        "how long the trigger lasts",
        low=1.0,
        high=120.0,
        source="chosen: a failover",
    )
    capacity_left: float = parameter(
        0.0,
        "fraction",
        "capacity during the trigger",
        low=0.0,
        high=1.0,
        source="chosen: a stop",
    )
    surge: float = parameter(
        1.0,
        "x",
        "load during the trigger, as a multiple",
        low=1.0,
        high=10.0,
        source="chosen: as before, the stop is trigger enough",
    )
    observe_s: float = parameter(
        60.0,
        "s",
        "how long to look after the trigger",
        low=20.0,
        high=600.0,
        source="chosen: sixty timeouts",
    )

    def station(self, load: float, retries: int) -> RetryStation:
        capacity = self.servers / (self.service_ms / 1e3)
        return RetryStation(
            load=load,
            servers=self.servers,
            service_s=self.service_ms / 1e3,
            queue_max=round(capacity * self.queue_ms / 1e3),
            timeout_s=self.timeout_ms / 1e3,
            retries=retries,
            backoff_s=self.backoff_ms / 1e3,
            backoff_max_s=self.backoff_max_ms / 1e3,
        )

    def designs(self, load: float, retries: int) -> dict[str, RetryStation]:
        plain = self.station(load, retries)
        a_second = max(1.0, self.budget * plain.capacity_per_s)
        short = round(plain.capacity_per_s * plain.timeout_s / 2)
        return {
            PLAIN: plain,
            BUDGET: replace(plain, budget=self.budget, budget_burst=a_second),
            SHED: replace(plain, shed_s=self.shed_ms / 1e3),
            SHORT: replace(plain, queue_max=min(short, plain.queue_max)),
        }

    def trigger(self) -> Trigger:
        return Trigger(WARM_S, self.trigger_s, self.capacity_left, self.surge)

    def duration_s(self) -> int:
        """A little longer than what is measured, so that the end of arrivals changes nothing."""
        return math.ceil(WARM_S + self.trigger_s + self.observe_s)
