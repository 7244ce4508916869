"""A fault as a message, and back."""

from __future__ import annotations

from keyplane.fault.v1 import fault_pb2 as pb
from keyplane.model.errors import KeyplaneError, Reason
from wire.faults import Direction, Fault, FaultKind

_KINDS = {
    value.number: FaultKind(value.name.removeprefix("FAULT_KIND_").lower().replace("_", "-"))
    for value in pb.FaultKind.DESCRIPTOR.values
    if value.number
}
_KIND_NUMBERS = {kind: number for number, kind in _KINDS.items()}

_DIRECTIONS = {
    pb.DIRECTION_UNSPECIFIED: Direction.BOTH,
    pb.DIRECTION_BOTH: Direction.BOTH,
    pb.DIRECTION_TO_PEER: Direction.TO_PEER,
    pb.DIRECTION_FROM_PEER: Direction.FROM_PEER,
}
_DIRECTION_NUMBERS = {direction: number for number, direction in _DIRECTIONS.items()}


def fault_to_proto(fault: Fault, now: float) -> pb.Fault:
    """now: on the axis of `fault.until`. What ends this very moment has 1 ms left."""
    remaining_ms = 0 if fault.until is None else max(1, round((fault.until - now) * 1000))
    return pb.Fault(
        id=fault.id,
        kind=_KIND_NUMBERS[fault.kind],  # type: ignore[arg-type]
        target=fault.target,
        peer=fault.peer,
        direction=_DIRECTION_NUMBERS[fault.direction],
        probability=fault.probability,
        parameters=fault.parameters,
        point=fault.point,
        remaining_ms=remaining_ms,
    )


def fault_from_proto(message: pb.Fault, now: float) -> Fault:
    """Raises KeyplaneError(INVALID_ARGUMENT) on numbers that stand for no kind or direction."""
    kind = _KINDS.get(message.kind)
    if kind is None:
        known = ", ".join(sorted(each.value for each in FaultKind))
        raise KeyplaneError(
            Reason.INVALID_ARGUMENT,
            f"{message.kind} is no kind of fault that this process knows; it knows: {known}",
        )
    direction = _DIRECTIONS.get(message.direction)
    if direction is None:
        raise KeyplaneError(
            Reason.INVALID_ARGUMENT,
            f"{message.direction} is no direction; it is BOTH, TO_PEER or FROM_PEER",
        )
    return Fault(
        id=message.id,
        kind=kind,
        target=message.target,
        peer=message.peer,
        direction=direction,
        probability=message.probability or 1.0,
        parameters=dict(message.parameters),
        point=message.point,
        until=now + message.remaining_ms / 1000 if message.remaining_ms else None,
    )
