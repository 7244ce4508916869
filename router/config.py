"""Settings of a router."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RouterConfig:
    """How a router routes. The defaults suit a cluster on one machine and a fleet."""

    # Addresses of storage nodes to ask when nobody else can say where a key lives. A few are
    # enough: each knows where partitions that left it went, and the directory names the others.
    seeds: Sequence[str] = ()

    # Address of the granter. Without one, provisioned tables have the limits of partitions alone.
    granter: str = ""
    # Seconds from one grant of a table to the next while enough is left, and between two calls to
    # the granter at least, for tables that have run out.
    refill_s: float = 1.0
    refill_beat_s: float = 0.1
    # Seconds it has to answer, and tables in one call.
    refill_timeout_s: float = 1.0
    refill_tables_max: int = 1_000

    # Seconds a request may take when its caller set no deadline, and at most.
    timeout_s: float = 5.0
    timeout_s_max: float = 60.0

    # Requests in flight; more are refused with OVERLOADED. At the 10 ms of a slow request this is
    # some 400,000 requests a second, far above what one process routes: past it something hangs.
    inflight_max: int = 4096
    # Part of that for tenants to share, where there are any: once as much is in flight, each may
    # hold this divided by the tenants that have requests in flight, and the rest is for those that
    # hold less.
    inflight_shared: float = 0.75
    # Seconds after which a refused caller should come back.
    overload_retry_after_s: float = 0.05

    # Redirects of one request at once; further ones wait, since two nodes that name each other
    # would otherwise be asked in a tight loop.
    redirects_max: int = 8
    # Times in a row that a node cannot be reached before other nodes are asked for the route.
    unreachable_max: int = 2

    # Retries earned by each request, by time alone, and saved up at most: what retrying may add
    # to the load of storage nodes. Redirects are not retries.
    retry_ratio: float = 0.1
    retry_floor_per_s: float = 20.0
    retry_burst: float = 500.0

    # Searches under way for tables and routes that are not known; more are refused with OVERLOADED.
    searches_max: int = 256
    # Storage nodes asked in one search, and seconds they have to answer.
    search_nodes_max: int = 32
    search_timeout_s: float = 1.0
    # Seconds for which the result of a search stands before the same is searched for again.
    search_reuse_s: float = 0.1
    # The same for a table that does not exist, and how many such names are kept.
    absent_reuse_s: float = 0.5
    absent_max: int = 1024

    # Share of a batch's time that its parts may use; the rest is for the answer that says which
    # parts were not done.
    batch_time_share: float = 0.9
    # Partitions that one page of a scan visits: bounds the work of scanning empty ones.
    scan_partitions_max: int = 256

    # Seconds between two snapshots at least, and their share of the process's time at most.
    snapshot_interval_s: float = 1.0
    snapshot_time_share: float = 0.05

    # Seconds after the start until storage nodes are asked, if neither the snapshot nor MemDS had
    # anything; then again after as long.
    boot_patience_s: float = 0.5
