"""What one seed means: topology, load, faults and operations, drawn before anything runs.

A plan is data, so that it can be written to a file, read again, and have parts left out.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import metadata.core  # noqa: F401
import storage.node  # noqa: F401 - both declare their crash points
from sim.operator import Action
from sim.profiles import PROFILES, Profile
from sim.topology import METADATA, OPERATOR, Topology, draw_topology
from sim.workload import WorkloadSpec
from wire import crashpoints
from wire.faults import Direction, Fault, FaultKind

# The share of crash points that is about a write which is done, and nobody has been told.
_TOLD_NOBODY = 0.35


@dataclass(frozen=True, slots=True)
class TimedFault:
    """A fault, when it begins, and for how long; None: to the end of all faults.

    Times are virtual seconds after the load has begun.
    """

    at: float
    seconds: float | None
    fault: Fault

    def __str__(self) -> str:
        span = "" if self.seconds is None else f" for {self.seconds:.2f} s"
        return f"{self.at:8.3f} s  {self.fault}{span}"


@dataclass(frozen=True, slots=True)
class Plan:
    """faults_s: how long faults go on. least_s: how long the whole run takes at least.

    left_out: lanes and requests that are not made; see `sim.workload.Load`.
    """

    seed: int
    profile: str
    topology: Topology
    workload: WorkloadSpec
    faults: tuple[TimedFault, ...]
    actions: tuple[Action, ...]
    faults_s: float
    least_s: float
    left_out: frozenset[str] = field(default_factory=frozenset)

    def without_control_plane_faults(self) -> Plan:
        """The same, with the Metadata Store well throughout: what an outage is compared with."""
        kept = [each for each in self.faults if each.fault.target != METADATA]
        return replace(self, faults=tuple(kept))


def draw_plan(seed: int, profile_name: str) -> Plan:
    """The plan of a seed. Raises KeyError on an unknown profile."""
    profile = PROFILES[profile_name]
    rng = random.Random(f"{seed}/{profile_name}/plan")
    topology = draw_topology(rng, profile.topology)
    faults = list(_draw_faults(rng, profile, topology))
    if profile.compared:
        faults.insert(0, _outage(profile))
    actions = tuple(_draw_actions(rng, profile))
    workload = replace(profile.workload, hot=rng.choice([0.0, 0.0, 0.2, 0.5]))
    if any(each.fault.kind in (FaultKind.FULL_DISK, FaultKind.CRASH_POINT) for each in faults):
        # Some clients do not wait until the node is well again, and are told how it stands.
        workload = replace(workload, timeout_s=rng.choice([1.0, 5.0]))
    return Plan(
        seed=seed,
        profile=profile_name,
        topology=topology,
        workload=workload,
        faults=tuple(faults),
        actions=actions,
        faults_s=profile.faults_s,
        least_s=profile.least_s,
    )


def _draw_faults(rng: random.Random, profile: Profile, topology: Topology) -> Iterator[TimedFault]:
    kinds = [kind for kind in profile.faults if rng.random() < profile.subset]
    kinds = kinds or [rng.choice(list(profile.faults))]
    weights = [profile.faults[kind] for kind in kinds]
    at = 0.5
    number = 0
    while True:
        at += rng.expovariate(1.0 / profile.fault_pause_s)
        if at >= profile.faults_s:
            return
        number += 1
        kind = rng.choices(kinds, weights)[0]
        seconds = rng.choice([0.05, 0.3, 1.0, 3.0, 8.0]) * (0.5 + rng.random())
        fault = _draw_fault(rng, kind, f"fault-{number}", topology)
        yield TimedFault(at, seconds, fault)
        if kind is FaultKind.FULL_DISK and rng.random() < 0.8:
            # What the disk has kept of writes that failed shows when the node starts on it again.
            restart = Fault(f"{fault.id}-restart", FaultKind.RESTART, fault.target)
            restart_at = at + seconds * (0.5 + 0.5 * rng.random())
            if restart_at < profile.faults_s:
                yield TimedFault(restart_at, None, restart)


def _draw_fault(rng: random.Random, kind: FaultKind, fault_id: str, topology: Topology) -> Fault:
    storage, memds = topology.storage_names(), topology.memds_names()
    servers = [*topology.router_names(), *storage, METADATA]
    callers = [*topology.router_names(), *storage, METADATA, *topology.client_names(), OPERATOR]
    parameters: dict[str, float] = {}
    target, peer, point = rng.choice(servers), "", ""
    direction, probability = Direction.BOTH, 1.0
    match kind:
        case FaultKind.POWER_LOSS | FaultKind.SLOW_DISK | FaultKind.FULL_DISK:
            target = rng.choice(storage)
        case FaultKind.PARTITION | FaultKind.LATENCY | FaultKind.DROP | FaultKind.DUPLICATE:
            target = rng.choice(callers)
            peer = rng.choice([*servers, *memds, ""])
            direction = rng.choice(list(Direction))
        case FaultKind.METADATA_DOWN | FaultKind.METADATA_LAG | FaultKind.DATABASE_ERROR:
            target = METADATA
        case FaultKind.CRASH_POINT:
            target, point = "", rng.choice(sorted(crashpoints.POINTS))
            if rng.random() < _TOLD_NOBODY:
                point = "storage.write.committed"
            parameters["down_s"] = rng.choice([0.0, 0.2, 2.0, 8.0])
        case _ if kind.value.startswith("memds-"):
            target = rng.choice(memds)
    match kind:
        case FaultKind.LATENCY:
            parameters["delay_s"] = rng.choice([0.005, 0.05, 0.5, 3.0])
            parameters["jitter_s"] = rng.choice([0.0, 0.05, 1.0])
        case FaultKind.DROP | FaultKind.DUPLICATE | FaultKind.MEMDS_CORRUPT:
            probability = rng.choice([0.05, 0.3, 0.9])
        case FaultKind.SLOW_DISK | FaultKind.MEMDS_SLOW | FaultKind.METADATA_LAG:
            parameters["delay_s"] = rng.choice([0.02, 0.2, 1.0])
        case FaultKind.FULL_DISK:
            # All, none, or the one that found it full.
            parameters["keeps"] = rng.choice([0.0, 1.0, 1.0, 1_000.0])
        case FaultKind.PAUSE:
            parameters["unnoticed"] = float(rng.random() < 0.5)
        case FaultKind.RESTART if target in topology.router_names():
            parameters["anew"] = float(rng.random() < 0.3)
        case FaultKind.SKEW:
            parameters["rate"] = rng.choice([0.8, 0.95, 1.05, 1.25])
        case _:
            pass
    return Fault(fault_id, kind, target, peer, direction, probability, parameters, point)


def _outage(profile: Profile) -> TimedFault:
    fault = Fault("outage", FaultKind.METADATA_DOWN, METADATA)
    return TimedFault(5.0, profile.faults_s - 10.0, fault)


def _draw_actions(rng: random.Random, profile: Profile) -> Iterator[Action]:
    kinds, weights = list(profile.actions), list(profile.actions.values())
    at = 0.0
    while True:
        at += rng.expovariate(1.0 / profile.action_pause_s)
        if at >= profile.faults_s:
            return
        yield Action(at, rng.choices(kinds, weights)[0], rng.random(), rng.random())
