"""Profiles: which faults and operations the seeds of a run may draw, and how often."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from sim.topology import TableSpec, TenantSpec, Topology
from sim.workload import WorkloadSpec
from wire.faults import FaultKind

_SMALL = Topology(routers=2, storage=3, memds=2, clients=2)
_LARGE = Topology(
    routers=5,
    storage=7,
    memds=3,
    clients=3,
    tables=(TableSpec("orders"), TableSpec("users")),
)

_PROCESSES = {
    FaultKind.KILL: 3.0,
    FaultKind.RESTART: 3.0,
    FaultKind.PAUSE: 3.0,
    FaultKind.POWER_LOSS: 1.0,
    FaultKind.CRASH_POINT: 6.0,
    FaultKind.SKEW: 0.5,
}
_NETWORK = {
    FaultKind.PARTITION: 3.0,
    FaultKind.LATENCY: 2.0,
    FaultKind.DROP: 2.0,
    FaultKind.DUPLICATE: 2.0,
}
_DISKS = {FaultKind.SLOW_DISK: 1.0, FaultKind.FULL_DISK: 2.5}
_MEMDS = {
    FaultKind.MEMDS_FLUSH: 1.0,
    FaultKind.MEMDS_DOWN: 1.0,
    FaultKind.MEMDS_STALE: 1.0,
    FaultKind.MEMDS_CORRUPT: 1.5,
    FaultKind.MEMDS_SLOW: 1.0,
}
_CONTROL = {
    FaultKind.METADATA_DOWN: 2.0,
    FaultKind.METADATA_LAG: 1.0,
    FaultKind.DATABASE_ERROR: 1.0,
}
_ACTIONS = {
    "split": 30.0,
    "merge": 25.0,
    "move": 35.0,
    "cancel": 8.0,
    "recreate": 4.0,
    "drain": 1.0,
}


@dataclass(frozen=True, slots=True)
class Profile:
    """faults, actions: kinds with relative frequencies. fault_pause_s, action_pause_s: mean times
    between two, in virtual seconds. subset: the share of fault kinds that one seed uses: runs in
    which some things never go wrong get further with the others (Groce et al., Swarm Testing, ISSTA
    2012). compared: whether each seed runs twice, with and without its faults of the control plane,
    and the two must not differ to clients (I6).
    """

    what: str
    topology: Topology
    faults: Mapping[FaultKind, float]
    actions: Mapping[str, float] = field(default_factory=lambda: _ACTIONS)
    workload: WorkloadSpec = field(default_factory=WorkloadSpec)
    fault_pause_s: float = 1.5
    action_pause_s: float = 1.5
    subset: float = 0.5
    faults_s: float = 40.0
    least_s: float = 60.0
    compared: bool = False


PROFILES: Mapping[str, Profile] = {
    "lite": Profile(
        "two routers, three storage nodes, few faults at a time: the first to try",
        _SMALL,
        {**_PROCESSES, **_NETWORK, **_DISKS, **_MEMDS, **_CONTROL},
        fault_pause_s=3.0,
        action_pause_s=2.0,
        subset=0.3,
        faults_s=15.0,
        least_s=20.0,
    ),
    "swarm": Profile(
        "five routers, seven storage nodes, three memcached; each seed draws which faults it knows",
        _LARGE,
        {**_PROCESSES, **_NETWORK, **_DISKS, **_MEMDS, **_CONTROL},
    ),
    "control-plane-outage": Profile(
        "the Metadata Store is gone for 30 s; each seed runs with and without, to compare",
        _LARGE,
        {FaultKind.RESTART: 1.0, FaultKind.MEMDS_FLUSH: 1.0},
        compared=True,
        fault_pause_s=8.0,
        subset=1.0,
    ),
    "cache-loss": Profile(
        "memcached nodes are flushed, lost, stale, corrupt and slow, several at once",
        _LARGE,
        {**dict.fromkeys(_MEMDS, 4.0), FaultKind.RESTART: 2.0, FaultKind.METADATA_DOWN: 1.0},
        fault_pause_s=0.8,
        subset=0.8,
    ),
    "split-storm": Profile(
        "splits, merges and moves without a pause, and crashes in the middle of them",
        _LARGE,
        {**_PROCESSES, FaultKind.FULL_DISK: 2.0, FaultKind.METADATA_DOWN: 1.0},
        fault_pause_s=1.5,
        action_pause_s=0.3,
        subset=0.7,
    ),
    "heat": Profile(
        "tables with limits that are reached, and a planner that splits, merges and moves by load;"
        " processes die",
        replace(_SMALL, tables=(TableSpec("orders"), TableSpec("users")), limited=True),
        {
            FaultKind.KILL: 3.0,
            FaultKind.RESTART: 3.0,
            FaultKind.CRASH_POINT: 3.0,
            FaultKind.METADATA_DOWN: 1.0,
        },
        actions={"split": 10.0, "merge": 10.0, "move": 5.0},
        workload=WorkloadSpec(lanes=9, think_s=0.3, surge_s=18.0),
        fault_pause_s=6.0,
        action_pause_s=6.0,
        subset=0.7,
        faults_s=40.0,
    ),
    "tenants": Profile(
        "two tenants with signed calls and tables of the same name, keys that are rotated, and"
        " somebody who replays, alters and forges calls",
        replace(
            _SMALL,
            clients=3,
            tables=(TableSpec("acme/orders"), TableSpec("globex/orders")),
            tenants=(TenantSpec("acme"), TenantSpec("globex")),
            clocks_apart_s=10.0,
        ),
        {
            FaultKind.KILL: 3.0,
            FaultKind.RESTART: 4.0,
            FaultKind.DUPLICATE: 4.0,
            FaultKind.METADATA_DOWN: 2.0,
            FaultKind.MEMDS_FLUSH: 1.0,
            FaultKind.MEMDS_STALE: 3.0,
            FaultKind.MEMDS_CORRUPT: 1.5,
        },
        actions={"split": 5.0, "merge": 3.0, "move": 5.0, "rotate": 25.0, "suspend": 10.0},
        fault_pause_s=2.0,
        action_pause_s=2.0,
        subset=0.7,
        faults_s=30.0,
        least_s=45.0,
    ),
    "gray": Profile(
        "nothing is down, but links, disks and processes are slow, late or one-way",
        _LARGE,
        {
            FaultKind.LATENCY: 4.0,
            FaultKind.DROP: 3.0,
            FaultKind.DUPLICATE: 2.0,
            FaultKind.PARTITION: 3.0,
            FaultKind.PAUSE: 4.0,
            FaultKind.SLOW_DISK: 3.0,
            FaultKind.MEMDS_SLOW: 2.0,
            FaultKind.MEMDS_STALE: 1.0,
            FaultKind.METADATA_LAG: 2.0,
            FaultKind.SKEW: 1.0,
        },
        fault_pause_s=1.0,
        subset=0.6,
    ),
}
