"""What the scenarios of whole fleets are asked with in common, and the fleets made of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fleet.closed_caches import KeyClasses, ttl_for, zipf_classes
from fleet.cohort.beats import Beats
from fleet.cohort.lookups import Flush, Lookups, steady_hits
from fleet.parameters import parameter
from router.config import RouterConfig

PAPER = (
    "Amazon DynamoDB: A Scalable, Predictably Performant, and Fully Managed NoSQL Database Service"
    " (USENIX ATC 2022)"
)

# The names of the designs in plots and tables.
CONVENTIONAL = "conventional TTL cache"
CONSTANT_WORK = "MemDS, constant work"
DATA_PATH = "metadata on the data path"

# Partitions per page of a large map: 1,000,000 / 9,593 in docs/performance.md.
PARTITIONS_PER_PAGE = 1_000_000 / 9_593

CLASSES = 8


@dataclass(frozen=True, slots=True)
class FleetParameters:
    routers: int = parameter(
        1_000,
        "",
        "request routers",
        low=1,
        high=100_000,
        source="chosen: the size at which engineers ask",
    )
    requests_per_s: float = parameter(
        89.2e6,
        "1/s",
        "requests to all routers together",
        low=1e3,
        high=1e9,
        source=f"{PAPER}: peak of Amazon's own systems on Prime Day 2021",
    )
    hit_ratio: float = parameter(
        0.9975,
        "fraction",
        "share of requests that a warm conventional cache answers",
        low=0.5,
        high=0.9999,
        source=f"{PAPER}: about 99.75 percent",
    )
    tables: int = parameter(
        15_000,
        "",
        "tables that each router is asked for, each an entry of its conventional cache",
        low=10,
        high=1_000_000,
        source="chosen: with the hit ratio it gives entries a life of about a minute",
    )
    skew: float = parameter(
        0.8,
        "",
        "exponent of Zipf's law for requests by table; 0: all tables alike",
        low=0.0,
        high=1.5,
        source="chosen: web requests are Zipf-like (Breslau et al., Web Caching and Zipf-like"
        " Distributions, INFOCOM 1999); an exponent below 1 leaves room for tenants of all sizes",
    )
    headroom: float = parameter(
        2.0,
        "",
        "lookups that the Metadata Store can carry out, as a multiple of those of warm caches",
        low=1.0,
        high=1_000.0,
        source="chosen: a service that runs at half of what it can do",
    )
    queue_s: float = parameter(
        0.1,
        "s",
        "lookups that may wait at the Metadata Store, as time to carry them out",
        low=0.0,
        high=60.0,
        source="chosen: well below the timeout, so that what has waited is still wanted",
    )
    timeout_s: float = parameter(
        1.0,
        "s",
        "how long a router waits for a lookup",
        low=0.01,
        high=60.0,
        source="chosen: Keyplane's default for searches (search_timeout_s)",
    )
    retries: int = parameter(
        2, "", "tries of a lookup after the first", low=0, high=8, source="chosen: three in all"
    )
    backoff_s: float = parameter(
        0.1,
        "s",
        "mean wait before the first retry; doubles for each further one",
        low=0.001,
        high=60.0,
        source="chosen: a tenth of the timeout",
    )
    partitions: int = parameter(
        1_000_000,
        "",
        "partitions of the whole map",
        low=1,
        high=100_000_000,
        source="chosen: the largest map that Keyplane's own benchmarks load",
    )
    memds_nodes: int = parameter(
        9,
        "",
        "MemDS nodes, which all hold everything",
        low=1,
        high=1_000,
        source="chosen: three in each of three zones",
    )
    memds_per_s: float = parameter(
        10_000.0,
        "1/s",
        "requests that one MemDS node answers, of up to 32 pages each",
        low=100.0,
        high=1e7,
        source="chosen: 320,000 values a second, near the 300,000 requests a second that Facebook"
        " measured of one memcached (Scaling memcached at Facebook, 2008)",
    )
    search_ms: float = parameter(
        2.0,
        "ms",
        "a search at storage nodes for a route that the map does not have yet",
        low=0.1,
        high=1_000.0,
        source="chosen: two hops in a data centre with their queues",
    )
    step_ms: int = parameter(
        10, "ms", "time step of the cohort layer", low=1, high=10, source="chosen: the coarsest"
    )

    @property
    def step_s(self) -> float:
        return self.step_ms / 1_000

    @property
    def rate_per_router(self) -> float:
        return self.requests_per_s / self.routers

    @property
    def pages(self) -> float:
        return float(math.ceil(self.partitions / PARTITIONS_PER_PAGE))

    @property
    def delay_s(self) -> float:
        """From a lookup to its answer in the cohort layer without a queue: half a step."""
        return self.step_s / 2

    def classes(self) -> KeyClasses:
        return zipf_classes(self.tables, self.skew, CLASSES)

    def ttl_s(self) -> float:
        """The life of entries that gives the hit ratio. Raises INVALID_ARGUMENT if none does."""
        return ttl_for(self.classes(), self.rate_per_router, self.hit_ratio, self.delay_s)

    @property
    def warm_lookups_per_s(self) -> float:
        return self.requests_per_s * (1 - self.hit_ratio)

    def conventional(
        self,
        flushes: Sequence[Flush] = (),
        *,
        cohorts: Sequence[float] = (1.0,),
        headroom: float | None = None,
        queue_s: float | None = None,
    ) -> Lookups:
        """Warm TTL caches. cohorts: shares of the routers. The rest: where other than asked for."""
        keys, ttl_s = self.classes(), self.ttl_s()
        capacity = self.warm_lookups_per_s * (self.headroom if headroom is None else headroom)
        return Lookups(
            routers=[self.routers * share for share in cohorts],
            keys=keys,
            rate_per_s=self.rate_per_router,
            ttl_s=ttl_s,
            capacity_per_s=capacity,
            bound=capacity * (self.queue_s if queue_s is None else queue_s),
            timeout_s=self.timeout_s,
            retries=self.retries,
            backoff_s=self.backoff_s,
            hits=steady_hits(keys, self.rate_per_router, ttl_s, self.delay_s),
            flushes=flushes,
        )

    def constant_work(
        self,
        losses: Sequence[Flush] = (),
        *,
        cohorts: Sequence[float] = (1.0,),
        emptied_at_s: Sequence[float] = (),
    ) -> Beats:
        """Routers with the whole map that read MemDS on the beat."""
        capacity = self.memds_nodes * self.memds_per_s
        return Beats(
            routers=[self.routers * share for share in cohorts],
            rate_per_s=self.rate_per_router,
            pages=self.pages,
            capacity_per_s=capacity,
            bound=capacity * 0.05,
            memds_nodes=self.memds_nodes,
            detours_per_s=RouterConfig().searches_max / (self.search_ms / 1_000),
            covered=[1.0 for _ in cohorts],
            losses=losses,
            emptied_at_s=emptied_at_s,
        )
