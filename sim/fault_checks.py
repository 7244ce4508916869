"""What a fault must say so that it can be done to a world."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from keyplane.model.errors import KeyplaneError, Reason
from sim.topology import METADATA, OPERATOR
from sim.world import World
from wire import crashpoints
from wire.faults import Fault, FaultKind

# Kinds that act on messages, which the network asks about.
NETWORK_KINDS = frozenset(
    {FaultKind.PARTITION, FaultKind.LATENCY, FaultKind.DROP, FaultKind.DUPLICATE}
)

# Parameters by kind: those it needs, and those it may have.
_PARAMETERS: Mapping[FaultKind, tuple[Sequence[str], Sequence[str]]] = {
    FaultKind.RESTART: ((), ("anew",)),
    FaultKind.LATENCY: ((), ("delay_s", "jitter_s")),
    FaultKind.PAUSE: ((), ("unnoticed",)),
    FaultKind.SKEW: (("rate",), ()),
    FaultKind.CRASH_POINT: ((), ("down_s",)),
    FaultKind.SLOW_DISK: (("delay_s",), ()),
    FaultKind.FULL_DISK: ((), ("keeps",)),
    FaultKind.MEMDS_SLOW: (("delay_s",), ()),
    FaultKind.METADATA_LAG: (("delay_s",), ()),
}


def kind_of(name: str) -> FaultKind:
    """Raises KeyplaneError(INVALID_ARGUMENT) on an unknown name."""
    try:
        return FaultKind(name)
    except ValueError:
        known = ", ".join(kind.value for kind in FaultKind)
        raise _refusal(f"no kind of fault is called {name!r}; there are: {known}") from None


def check_fault(fault: Fault, world: World) -> None:
    """Raises KeyplaneError(INVALID_ARGUMENT) that says what is wrong with it and what is right."""
    kind, targets = fault.kind, _targets(fault.kind, world)
    anybody = kind is FaultKind.CRASH_POINT and not fault.target
    if fault.target not in targets and not anybody:
        raise _refusal(
            f"{kind.value} cannot be done to {fault.target!r}; it can to: {', '.join(targets)}"
        )
    if fault.peer and kind not in NETWORK_KINDS:
        raise _refusal(f"{kind.value} takes no peer; name only its target")
    if fault.peer and fault.peer not in world.names():
        raise _refusal(
            f"no process {fault.peer!r} in this world; there are: {', '.join(world.names())}"
        )
    if kind is FaultKind.CRASH_POINT and fault.point not in crashpoints.POINTS:
        raise _refusal(
            f"no crash point {fault.point!r}; there are: {', '.join(sorted(crashpoints.POINTS))}"
        )
    if not 0.0 < fault.probability <= 1.0:
        raise _refusal(f"a probability is above 0 and at most 1, not {fault.probability:g}")
    _check_parameters(fault)
    if fault.parameters.get("anew") and fault.target not in world.routers:
        raise _refusal(f"only a router can start anew, without what it had; not {fault.target!r}")


def _targets(kind: FaultKind, world: World) -> Sequence[str]:
    """What a fault of the kind can be done to."""
    if kind in NETWORK_KINDS:
        return world.names()
    match kind:
        case FaultKind.SLOW_DISK | FaultKind.FULL_DISK:
            return world.topology.storage_names()
        case FaultKind.METADATA_DOWN | FaultKind.METADATA_LAG | FaultKind.DATABASE_ERROR:
            return [METADATA]
        case FaultKind.PAUSE | FaultKind.SKEW:
            return [*world.member_names(), *world.topology.client_names(), OPERATOR]
        case _ if kind.value.startswith("memds-"):
            return world.topology.memds_names()
        case _:
            return world.member_names()


def _check_parameters(fault: Fault) -> None:
    needed, allowed = _PARAMETERS.get(fault.kind, ((), ()))
    kind = fault.kind.value
    for name in needed:
        if name not in fault.parameters:
            raise _refusal(f"{kind} needs the parameter {name}")
    for name, number in fault.parameters.items():
        if name not in (*needed, *allowed):
            known = ", ".join((*needed, *allowed)) or "none"
            raise _refusal(f"{kind} has no parameter {name!r}; it has: {known}")
        if not 0.0 <= number < math.inf:
            raise _refusal(f"{name} of {kind} is a number from 0 on, not {number:g}")
    if fault.parameters.get("rate") == 0.0:
        raise _refusal("rate of skew is above 0; a clock that stands still is a pause, unnoticed")


def _refusal(message: str) -> KeyplaneError:
    return KeyplaneError(Reason.INVALID_ARGUMENT, message)
