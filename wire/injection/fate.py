"""What becomes of one message."""

from __future__ import annotations

from dataclasses import dataclass

from wire.faults import Direction, FaultKind
from wire.injection.table import FaultTable
from wire.ports import Rng


@dataclass(slots=True)
class Fate:
    """lost: it never arrives. delay_s: how late it is. copy_after_s: when a second one follows."""

    lost: bool = False
    delay_s: float = 0.0
    copy_after_s: float | None = None


# Of the messages that no fault touches. Never changed.
UNTOUCHED = Fate()


def fate_of(table: FaultTable, rng: Rng, address: str | None, direction: Direction) -> Fate:
    """address: of the other end; None if it is not known, as of callers: then only faults with
    everybody for a peer touch the message. direction: TO_PEER or FROM_PEER.
    """
    if not table.network:
        return UNTOUCHED
    fate = Fate()
    for installed in table.network:
        fault = installed.fault
        if fault.direction not in (Direction.BOTH, direction):
            continue
        if fault.peer and (address is None or not installed.touches(address)):
            continue
        if fault.kind is FaultKind.LATENCY:
            fate.delay_s += fault.parameters["delay_s"]
            jitter_s = fault.parameters.get("jitter_s", 0.0)
            if jitter_s:
                fate.delay_s += rng.random() * jitter_s
        elif fault.probability >= 1.0 or rng.random() < fault.probability:
            if fault.kind is FaultKind.DUPLICATE:
                fate.copy_after_s = rng.random() * fault.parameters.get("delay_s", 0.0)
            else:
                fate.lost = True
    return fate
