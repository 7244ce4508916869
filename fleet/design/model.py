"""A design: fleets, caches, policies, and faults over time.

Values are kept in seconds, per second and shares of 1; names say which. In a TOML file the same
fields have names without the unit, and values with one: `timeout = "10 ms"` is `timeout_s=0.01`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any

from fleet.design.units import Dimension, written
from keyplane.model.errors import KeyplaneError, Reason

_KEY = "fleet.design"


class Cache(StrEnum):
    """What a router knows the way by."""

    NONE = "none"
    TTL = "ttl"
    MEMDS = "memds"
    MEMDS_PER_REQUEST = "memds per request"


class FaultKind(StrEnum):
    COLD_CACHES = "cold caches"
    METADATA_DOWN = "metadata down"
    MEMDS_NODE_SLOW = "memds node slow"
    MEMDS_DOWN = "memds down"
    RESTART_WAVE = "restart wave"


@dataclass(frozen=True, slots=True)
class Spec:
    """One number of a design. low, high: bounds, in the unit of the dimension."""

    attribute: str
    dimension: Dimension
    low: float
    high: float
    help: str

    @property
    def whole(self) -> bool:
        return self.dimension is Dimension.COUNT

    @property
    def key(self) -> str:
        """Its name in a file."""
        return self.attribute.removesuffix("_per_s").removesuffix("_s")

    def checked(self, value: float, where: str) -> float:
        """Raises INVALID_ARGUMENT out of bounds; NaN is that, too."""
        low, high = written(self.low, self.dimension), written(self.high, self.dimension)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise refusal(where, f"{self.attribute} is {value!r}, not a number")
        if not self.low <= value <= self.high:
            raise refusal(
                where,
                f"{self.key} is {written(value, self.dimension)}; give from {low} to {high}",
            )
        if self.whole and value != int(value):
            raise refusal(where, f"{self.key} is {value:g}; give a whole number")
        return value


def refusal(where: str, what: str) -> KeyplaneError:
    return KeyplaneError(Reason.INVALID_ARGUMENT, f"[{where}] {what}")


def _spec(default: float, dimension: Dimension, low: float, high: float, help: str) -> Any:
    return field(default=default, metadata={_KEY: (dimension, low, high, help)})


def _time(default: float, help: str, low: float = 0.0, high: float = 86_400.0) -> Any:
    return _spec(default, Dimension.TIME, low, high, help)


def _rate(default: float, help: str, high: float = 1e12) -> Any:
    return _spec(default, Dimension.RATE, 1e-3, high, help)


def _count(default: int, help: str, low: int = 1, high: float = 1e6) -> Any:
    return _spec(default, Dimension.COUNT, low, high, help)


def _share(default: float, help: str, high: float = 1.0) -> Any:
    return _spec(default, Dimension.SHARE, 0.0, high, help)


@dataclass(frozen=True, slots=True)
class Traffic:
    rate_per_s: float = _rate(100_000.0, "requests a second, of the whole fleet")
    keys: int = _count(10_000, "partitions that requests ask the way to, equally often", high=1e8)


@dataclass(frozen=True, slots=True)
class Routers:
    count: int = _count(100, "routers")
    cache: Cache = Cache.TTL
    ttl_s: float = _time(300.0, "life of an entry of a cache of kind ttl", low=0.02)
    capacity_per_s: float = _rate(10_000.0, "requests a second that one router can do")
    beat_s: float = _time(0.25, "time between two refreshes of a router from MemDS", low=0.001)
    detours_per_s: float = _rate(1_000.0, "requests a router can find the way for without a map")


@dataclass(frozen=True, slots=True)
class Memds:
    nodes: int = _count(3, "MemDS nodes")
    capacity_per_s: float = _rate(100_000.0, "requests a second that one node can do")


@dataclass(frozen=True, slots=True)
class Metadata:
    replicas: int = _count(3, "replicas of the Metadata Store, all of which can be read from")
    capacity_per_s: float = _rate(5_000.0, "lookups a second that one replica can do")
    publish_s: float = _time(0.5, "time between two writes of a map to a MemDS node", low=0.001)


@dataclass(frozen=True, slots=True)
class Storage:
    nodes: int = _count(100, "storage nodes")
    capacity_per_s: float = _rate(10_000.0, "requests a second that one node can do")


@dataclass(frozen=True, slots=True)
class Policies:
    timeout_s: float = _time(0.1, "how long a router waits for a lookup", low=0.02, high=60.0)
    retries: int = _count(2, "further tries of a lookup", low=0, high=10)
    backoff_s: float = _time(0.05, "mean wait before the first of them; doubles", low=0.01)
    retry_budget: float = _share(
        10.0, "retries for each first try, of the fleet, at the most", high=10.0
    )
    queue: int = _count(10_000, "lookups that may wait at what answers them", low=0, high=1e9)
    hedge_s: float = _time(0.0, "wait before a second MemDS node is asked; 0: it never is")


@dataclass(frozen=True, slots=True)
class Fault:
    """for_s: how long; of a restart wave, in what time all have been restarted."""

    kind: FaultKind
    at_s: float = _time(0.0, "when it begins, from the start of the run")
    for_s: float = _time(0.0, "how long it lasts; of a restart wave, until the last has restarted")
    share: float = _share(1.0, "of what routers hold that is lost")
    nodes: int = _count(1, "MemDS nodes that are slow")
    by_s: float = _time(0.1, "what a slow node takes longer", high=3600.0)

    @property
    def end_s(self) -> float:
        return self.at_s + self.for_s


@dataclass(frozen=True, slots=True)
class Design:
    """title: a few words for people. duration_s: of the run, in steps of step_s."""

    name: str
    title: str = ""
    duration_s: float = _time(600.0, "length of the run", low=1.0)
    step_s: float = _time(0.01, "of time in the model", low=0.0005, high=0.01)
    traffic: Traffic = Traffic()
    routers: Routers = Routers()
    memds: Memds = Memds()
    metadata: Metadata = Metadata()
    storage: Storage = Storage()
    policies: Policies = Policies()
    faults: Sequence[Fault] = ()

    @property
    def steps(self) -> int:
        return round(self.duration_s / self.step_s)


SECTIONS = {
    "traffic": Traffic,
    "routers": Routers,
    "memds": Memds,
    "metadata": Metadata,
    "storage": Storage,
    "policies": Policies,
}

# A run holds so many numbers at the most, for each of some twenty series.
STEPS_MAX = 5_000_000
FAULTS_MAX = 100

# What a fault cannot be told without, beside `at`.
WANTED: dict[FaultKind, tuple[str, ...]] = {
    FaultKind.COLD_CACHES: (),
    FaultKind.METADATA_DOWN: ("for_s",),
    FaultKind.MEMDS_NODE_SLOW: ("for_s",),
    FaultKind.MEMDS_DOWN: ("for_s",),
    FaultKind.RESTART_WAVE: ("for_s",),
}
USED: dict[FaultKind, tuple[str, ...]] = {
    FaultKind.COLD_CACHES: ("share",),
    FaultKind.METADATA_DOWN: ("for_s",),
    FaultKind.MEMDS_NODE_SLOW: ("for_s", "nodes", "by_s"),
    FaultKind.MEMDS_DOWN: ("for_s",),
    FaultKind.RESTART_WAVE: ("for_s", "share"),
}


def specs(kind: type) -> dict[str, Spec]:
    """The numbers of a part, by their names in a file."""
    found = [
        Spec(each.name, *each.metadata[_KEY]) for each in fields(kind) if _KEY in each.metadata
    ]
    return {spec.key: spec for spec in found}


def check(design: Design) -> Design:
    """The same. Raises INVALID_ARGUMENT on what is out of bounds, or makes no sense together."""
    _check_numbers(design, "design")
    for name in SECTIONS:
        _check_numbers(getattr(design, name), name)
    if design.steps > STEPS_MAX:
        raise refusal(
            "design",
            f"duration is {design.steps:,} steps; give a longer step, up to 10 ms, or less than"
            f" {written(STEPS_MAX * design.step_s, Dimension.TIME)}",
        )
    if not isinstance(design.routers.cache, Cache):
        kinds = ", ".join(repr(str(kind)) for kind in Cache)
        raise refusal("routers", f"cache is {design.routers.cache!r}; there are {kinds}")
    if design.routers.cache is Cache.TTL and design.routers.ttl_s < 2 * design.step_s:
        raise refusal("routers", "ttl is less than two steps; give a shorter step")
    for part, key, beat_s in (
        ("routers", "beat", design.routers.beat_s),
        ("metadata", "publish", design.metadata.publish_s),
    ):
        steps = beat_s / design.step_s
        if steps < 0.5 or not math.isclose(steps, round(steps)):
            raise refusal(part, f"{key} is no whole number of steps of {design.step_s:g} s")
    rate_per_s = design.traffic.rate_per_s
    for part, fleet, count in (
        ("routers", design.routers, design.routers.count),
        ("storage", design.storage, design.storage.nodes),
    ):
        if count * fleet.capacity_per_s < rate_per_s:
            able = written(count * fleet.capacity_per_s, Dimension.RATE)
            raise refusal(
                part,
                f"all together can do {able}, and traffic.rate is"
                f" {written(rate_per_s, Dimension.RATE)}; give more of them, or more capacity",
            )
    if design.policies.timeout_s < 2 * design.step_s:
        raise refusal("policies", "timeout is less than two steps; give a shorter step")
    if design.policies.hedge_s and design.memds.nodes < 2:
        raise refusal("policies", "hedge needs two MemDS nodes to ask; memds.nodes is 1")
    if len(design.faults) > FAULTS_MAX:
        raise refusal("faults", f"there are {len(design.faults)}; at most {FAULTS_MAX}")
    for number, fault in enumerate(design.faults, 1):
        _check_fault(design, fault, f"faults, number {number}")
    return design


def _check_numbers(part: Any, where: str) -> None:
    for spec in specs(type(part)).values():
        spec.checked(getattr(part, spec.attribute), where)


def _check_fault(design: Design, fault: Fault, where: str) -> None:
    _check_numbers(fault, where)
    for attribute in WANTED[fault.kind]:
        if not getattr(fault, attribute):
            raise refusal(where, f'{fault.kind}: say how long, as in for = "5 min"')
    if fault.end_s > design.duration_s:
        raise refusal(
            where,
            f"{fault.kind} goes on until {written(fault.end_s, Dimension.TIME)}, and the run ends"
            f" at {written(design.duration_s, Dimension.TIME)}; give a longer duration",
        )
    if fault.kind is FaultKind.MEMDS_NODE_SLOW and fault.nodes > design.memds.nodes:
        raise refusal(
            where, f"{fault.nodes} nodes are slow, and memds.nodes is {design.memds.nodes}"
        )


def describe(design: Design) -> list[tuple[str, str, str]]:
    """Part, what, value: everything, defaults too, as a person would write it."""
    rows = [("design", "name", design.name)]
    rows += _described(design, "design")
    for name in SECTIONS:
        part = getattr(design, name)
        if name == "routers":
            rows.append((name, "cache", str(part.cache)))
        rows += _described(part, name)
    for fault in design.faults:
        known = specs(Fault).values()
        told = [
            f"{each.key} {written(getattr(fault, each.attribute), each.dimension)}"
            for each in known
            if each.attribute == "at_s" or each.attribute in USED[fault.kind]
        ]
        rows.append(("faults", str(fault.kind), ", ".join(told)))
    return rows


def _described(part: Any, name: str) -> list[tuple[str, str, str]]:
    return [
        (name, key, written(getattr(part, spec.attribute), spec.dimension))
        for key, spec in specs(type(part)).items()
    ]
