"""The invariants, each watched from outside by an observer of its own.

Observers see every message (`sim.network.Tap`) and look at the state of living processes on a beat.
They change nothing. What they find ends the run.
"""

from __future__ import annotations

from collections.abc import Callable

from sim.observers.admission import Admission
from sim.observers.authority import Authority
from sim.observers.base import Observer
from sim.observers.bounds import Bounds
from sim.observers.constant_work import ConstantWork
from sim.observers.fences import Fences
from sim.observers.forward_only import ForwardOnly
from sim.observers.no_backdoor import NoBackdoor
from sim.observers.once import Once
from sim.observers.one_owner import OneOwner
from sim.observers.operations import Operations
from sim.observers.planning import Planning
from sim.observers.tenants import Tenants
from sim.observers.truth import Truth
from sim.observers.whole_maps import WholeMaps
from sim.world import World

__all__ = ["ALL", "Observer"]

ALL: tuple[Callable[[World], Observer], ...] = (
    OneOwner,
    Authority,
    Once,
    Truth,
    Fences,
    ForwardOnly,
    NoBackdoor,
    ConstantWork,
    Operations,
    Bounds,
    WholeMaps,
    Admission,
    Planning,
    Tenants,
)
