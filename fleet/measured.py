"""Every value of a calibration: its name, which parameters give as `measured`, unit and meaning."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Measured:
    name: str
    unit: str
    meaning: str


def _of_kind(kind: str) -> tuple[Measured, ...]:
    """Those there are for gets and for puts alike."""
    found = [
        Measured(
            f"{kind}_idle_ms", "ms", f"median time of a {kind} that is alone, from call to answer"
        ),
        Measured(f"{kind}_busy_per_s", "1/s", f"{kind}s a second with 128 under way"),
        Measured(
            f"{kind}_hop_ms", "ms", f"what a {kind} waits between two processes, fitted; no work"
        ),
        Measured(
            f"{kind}_spread",
            "",
            f"standard deviation over mean of the work of one turn of a process on {kind}s, fitted",
        ),
        Measured(
            f"{kind}_looking",
            "",
            f"share that a process takes while it looks for more {kind}s before it sleeps, fitted",
        ),
    ]
    for process, what in (
        ("router", "the router"),
        ("storage", "the storage node"),
        ("generator", "the load generator"),
    ):
        found += [
            Measured(
                f"{process}_{kind}_ms",
                "ms",
                f"processor time of a {kind} in {what}, with 128 under way: its service time",
            ),
            Measured(f"{process}_{kind}_wake_ms", "ms", f"of which for a turn of {what}, fitted"),
            Measured(f"{process}_{kind}_each_ms", "ms", f"and for each {kind} of a turn, fitted"),
        ]
    return tuple(found)


MEASURED = (
    *_of_kind("get"),
    *_of_kind("put"),
    Measured("memds_get_ms", "ms", "processor time of one key of 1 kB in memcached, many at once"),
    Measured("memds_round_trip_ms", "ms", "median time of a lone get of 1 kB from MemDS"),
    Measured(
        "memds_gets_per_router_per_s",
        "1/s",
        "keys that one router asks all MemDS nodes for in a second, whatever happens",
    ),
    Measured("memds_gets_per_router_beat", "", "and in one beat"),
    Measured("memds_gets_background_per_s", "1/s", "keys that everybody else asks for in a second"),
    Measured(
        "router_beat_ms", "ms", "time between two refreshes of a router; not measured but set"
    ),
    Measured(
        "memds_requests_per_s",
        "1/s",
        "requests of a beat's pages, 32 of them, that one MemDS node answers on one processor",
    ),
    Measured(
        "route_lookup_ms",
        "ms",
        "median time of a lone lookup at a router: where a key lives",
    ),
    Measured("route_lookups_per_s", "1/s", "and how many a router answers on one processor"),
    Measured(
        "metadata_lookups_per_s",
        "1/s",
        "maps of a table that the Metadata Store answers on one processor",
    ),
    Measured(
        "search_ms",
        "ms",
        "median time in which a storage node answers a search: which partitions of a table it has",
    ),
    Measured("durable_ms", "ms", "mean time to write 4 kB and make them durable (fdatasync)"),
    Measured("lookup_us", "us", "one lookup in a map of 10,000 partitions"),
    Measured(
        "fresh_connection_ms", "ms", "what a lone get takes longer on a connection of its own"
    ),
)

NAMES = frozenset(each.name for each in MEASURED)
