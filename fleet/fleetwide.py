"""What the scenarios of whole fleets are asked with in common, and the fleets made of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from cache.config import PublisherConfig, ReaderConfig
from fleet.closed.caches import KeyClasses, held_shares, ttl_for, zipf_classes
from fleet.cohort.beats import PUBLISHER, READER, Beats
from fleet.cohort.lookups import Flush, Lookups
from fleet.map_sizes import PageSizes, page_sizes
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

CLASSES = 8

_OURS = "chosen: Keyplane's default"


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
        "tables, of equal size, that every router is asked for; an entry each of its TTL cache",
        low=10,
        high=100_000,
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
        low=1.05,
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
        "partitions of all tables together",
        low=10,
        high=10_000_000,
        source="chosen: the largest map that Keyplane's own benchmarks load",
    )
    beat_ms: int = parameter(
        round(READER.beat_s * 1_000),
        "ms",
        "a router's beat",
        low=10,
        high=60_000,
        source=_OURS,
    )
    root_slots: int = parameter(
        READER.root_slots,
        "",
        "roots that a router reads from a MemDS node in a beat",
        low=1,
        high=100_000,
        source=_OURS,
    )
    page_slots: int = parameter(
        READER.page_slots,
        "",
        "pages that a router reads from a MemDS node in a beat",
        low=1,
        high=100_000,
        source=_OURS,
    )
    publish_ms: int = parameter(
        round(PUBLISHER.beat_s * 1_000),
        "ms",
        "the publisher's beat",
        low=10,
        high=60_000,
        source=_OURS,
    )
    publish_roots: int = parameter(
        PUBLISHER.value_slots,
        "",
        "roots that the publisher writes to each MemDS node in a beat",
        low=1,
        high=100_000,
        source=_OURS,
    )
    publish_pages: int = parameter(
        PUBLISHER.page_slots,
        "",
        "pages that the publisher writes to each MemDS node in a beat",
        low=1,
        high=100_000,
        source=_OURS,
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
        measured="memds_requests_per_s",
    )
    search_ms: float = parameter(
        2.0,
        "ms",
        "a search at storage nodes for a route that the map does not have yet",
        low=0.001,
        high=1_000.0,
        source="chosen: two hops in a data centre with their queues",
        measured="search_ms",
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
    def page_sizes(self) -> PageSizes:
        return page_sizes(max(1, round(self.partitions / self.tables)))

    def classes(self) -> KeyClasses:
        return zipf_classes(self.tables, self.skew, CLASSES)

    def ttl_s(self) -> float:
        """The life of entries that gives the hit ratio. Raises INVALID_ARGUMENT if none does."""
        return ttl_for(self.classes(), self.rate_per_router, self.hit_ratio, self.step_s)

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
            hits=held_shares(keys, self.rate_per_router, ttl_s, self.step_s),
            flushes=flushes,
        )

    def uncached(self, capacity_per_s: float) -> Lookups:
        """Routers that look up each request: no key is ever asked for twice."""
        return replace(
            self.conventional(),
            keys=KeyClasses(np.array([1e15]), np.array([1e-15])),
            ttl_s=1.0,
            capacity_per_s=capacity_per_s,
            bound=capacity_per_s * self.queue_s,
            hits=np.zeros(1),
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
            tables=self.tables,
            pages=self.page_sizes.pages * self.tables,
            capacity_per_s=capacity,
            bound=capacity * 0.05,
            memds_nodes=self.memds_nodes,
            detours_per_s=RouterConfig().searches_max / (self.search_ms / 1_000),
            covered=[1.0 for _ in cohorts],
            reader=ReaderConfig(
                cluster="",
                beat_s=self.beat_ms / 1_000,
                root_slots=self.root_slots,
                page_slots=self.page_slots,
            ),
            publisher=PublisherConfig(
                cluster="",
                beat_s=self.publish_ms / 1_000,
                value_slots=self.publish_roots,
                page_slots=self.publish_pages,
            ),
            losses=losses,
            emptied_at_s=emptied_at_s,
        )
