"""What a fault must say to be one, whoever is asked to do it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from keyplane.model.errors import KeyplaneError, Reason
from wire.faults import Direction, Fault, FaultKind

NETWORK_KINDS = frozenset(
    {FaultKind.PARTITION, FaultKind.LATENCY, FaultKind.DROP, FaultKind.DUPLICATE}
)
MEMDS_KINDS = frozenset(
    {
        *(FaultKind.MEMDS_FLUSH, FaultKind.MEMDS_DOWN, FaultKind.MEMDS_STALE),
        *(FaultKind.MEMDS_CORRUPT, FaultKind.MEMDS_SLOW),
    }
)
# Of these only a part of the messages, or of the values, may be touched.
_BY_CHANCE = frozenset({FaultKind.DROP, FaultKind.DUPLICATE, FaultKind.MEMDS_CORRUPT})

# Parameters by kind: those it needs, and those it may have.
PARAMETERS: Mapping[FaultKind, tuple[Sequence[str], Sequence[str]]] = {
    FaultKind.LATENCY: (("delay_s",), ("jitter_s",)),
    FaultKind.DUPLICATE: ((), ("delay_s",)),
    FaultKind.SLOW_DISK: (("delay_s",), ()),
    FaultKind.MEMDS_SLOW: (("delay_s",), ()),
    FaultKind.METADATA_LAG: (("delay_s",), ()),
    FaultKind.SKEW: (("rate",), ()),
}

# Longer than any deadline of a request, an operation or a test.
SECONDS_MAX = 3600.0

_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def check_fault(fault: Fault) -> None:
    """Raises KeyplaneError(INVALID_ARGUMENT) that says what is wrong with it and what is right."""
    kind = fault.kind.value
    if not _ID.fullmatch(fault.id):
        raise _refusal(
            f"{fault.id!r} is no id of a fault; use up to 64 letters, digits, '.', '_' and '-'"
        )
    if not fault.target:
        raise _refusal(f"{kind} needs a target: the name of a process, such as storage-1")
    if not 0.0 < fault.probability <= 1.0:
        raise _refusal(
            f"a probability is above 0 and at most 1, not {fault.probability:g}; 0.1 is one in ten"
        )
    if fault.probability < 1.0 and fault.kind not in _BY_CHANCE:
        raise _refusal(f"{kind} takes no probability; drop is what loses some of the messages")
    if fault.kind not in NETWORK_KINDS:
        if fault.peer:
            raise _refusal(f"{kind} takes no peer; name only its target")
        if fault.direction is not Direction.BOTH:
            raise _refusal(f"{kind} takes no direction; only faults of the network have one")
    elif fault.direction is not Direction.BOTH and not fault.peer:
        raise _refusal(f"{kind} in one direction needs a peer: the process at the other end")
    if bool(fault.point) != (fault.kind is FaultKind.CRASH_POINT):
        raise _refusal("crash-point, and no other kind, needs the name of a crash point")
    if fault.until is not None and not math.isfinite(fault.until):
        raise _refusal("a fault lasts for a number of seconds, or until it is healed")
    _check_parameters(fault)


def check_duration(seconds: float) -> None:
    """Raises KeyplaneError(INVALID_ARGUMENT)."""
    if not 0.0 < seconds <= SECONDS_MAX:
        raise _refusal(
            f"a fault lasts above 0 and up to {SECONDS_MAX:g} seconds, not {seconds:g}; leave the "
            "time out and it lasts until it is healed"
        )


def _check_parameters(fault: Fault) -> None:
    needed, allowed = PARAMETERS.get(fault.kind, ((), ()))
    kind = fault.kind.value
    for name in needed:
        if name not in fault.parameters:
            raise _refusal(f"{kind} needs the parameter {name}")
    for name, number in fault.parameters.items():
        if name not in (*needed, *allowed):
            known = ", ".join((*needed, *allowed)) or "none"
            raise _refusal(f"{kind} has no parameter {name!r}; it has: {known}")
        if not 0.0 <= number <= SECONDS_MAX:
            raise _refusal(f"{name} of {kind} is from 0 to {SECONDS_MAX:g}, not {number:g}")


def _refusal(message: str) -> KeyplaneError:
    return KeyplaneError(Reason.INVALID_ARGUMENT, message)
