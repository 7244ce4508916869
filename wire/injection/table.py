"""The faults that are on in one process, and when they end."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from keyplane.model.errors import KeyplaneError, Reason
from wire.faults import Fault, FaultKind
from wire.injection.check import MEMDS_KINDS, NETWORK_KINDS, check_fault
from wire.ports import Clock, Timer

# Faults that may be on in one process at a time. Each is looked at for every message.
FAULTS_MAX = 64

_Hook = Callable[[Fault], None]


def _nothing(_: Fault) -> None:
    """For kinds that wrappers look up by themselves."""


@dataclass(frozen=True, slots=True)
class Installed:
    """addresses: where the peer, or the memcached node that is the target, is reached."""

    fault: Fault
    addresses: frozenset[str] = frozenset()

    def touches(self, address: str) -> bool:
        return not self.fault.peer or address in self.addresses


@dataclass(frozen=True, slots=True)
class _Ability:
    begin: _Hook
    end: _Hook


class FaultTable:
    """Wrappers of ports read it, FaultService changes it. `until` is on the process's own clock, so
    a fault ends in time even if whoever asked for it is gone.

    process: the name of this process, the target of all but the memcached kinds.
    """

    def __init__(self, clock: Clock, process: str) -> None:
        self.process = process
        self._clock = clock
        self._abilities: dict[FaultKind, _Ability] = {}
        self._memds: set[str] = set()
        self._on: dict[str, Installed] = {}
        self._timers: dict[str, Timer] = {}
        self._by_kind: Mapping[FaultKind, Sequence[Installed]] = {}
        # Those that touch messages, which is asked for every one of them.
        self.network: Sequence[Installed] = ()

    # --- What this process can do to itself

    def allow(self, kind: FaultKind, begin: _Hook = _nothing, end: _Hook = _nothing) -> None:
        """begin: called before a fault is on; may raise KeyplaneError to refuse it. end: once it is
        not on any more.
        """
        self._abilities[kind] = _Ability(begin, end)

    def allow_memds(self, address: str) -> None:
        """This process uses the memcached node at `address`."""
        self._memds.add(address)
        for kind in MEMDS_KINDS - {FaultKind.MEMDS_FLUSH}:
            self.allow(kind)

    # --- Changing

    def add(self, fault: Fault, addresses: Collection[str] = ()) -> None:
        """Begins a fault. Again, with the same id and the same words, changes nothing.

        Raises KeyplaneError: INVALID_ARGUMENT for one that makes no sense or that this process
        cannot do, OVERLOADED past FAULTS_MAX.
        """
        installed = Installed(fault, frozenset(addresses))
        self._check(installed)
        known = self._on.get(fault.id)
        if known is not None:
            if str(known.fault) == str(fault):
                return
            raise KeyplaneError(
                Reason.INVALID_ARGUMENT,
                f"another fault has the id {fault.id}: {known.fault}; heal it or take another id",
            )
        if len(self._on) >= FAULTS_MAX:
            raise KeyplaneError(
                Reason.OVERLOADED,
                f"{FAULTS_MAX} faults are on in {self.process}; heal some of them first",
            )
        self._abilities[fault.kind].begin(fault)
        self._on[fault.id] = installed
        self._index()
        if fault.until is not None:
            self._timers[fault.id] = self._clock.call_later(
                fault.until - self._clock.now(), lambda: self._expire(fault.id)
            )

    def heal(self, ids: Collection[str]) -> list[str]:
        """Ends these faults; returns the ids of those that were on."""
        healed = [self._on.pop(each).fault for each in ids if each in self._on]
        self._index()
        for fault in healed:
            timer = self._timers.pop(fault.id, None)
            if timer is not None:
                timer.cancel()
            self._abilities[fault.kind].end(fault)
        return [fault.id for fault in healed]

    def _expire(self, fault_id: str) -> None:
        self.heal([fault_id])

    def heal_all(self) -> list[str]:
        return self.heal(list(self._on))

    # --- Looking

    def faults(self) -> list[Fault]:
        return [installed.fault for installed in self._on.values()]

    def of(self, kind: FaultKind) -> Sequence[Installed]:
        return self._by_kind.get(kind, ())

    def delay_s(self, kind: FaultKind) -> float:
        """What all faults of a kind add up to."""
        return sum(installed.fault.parameters["delay_s"] for installed in self.of(kind))

    def _index(self) -> None:
        by_kind: dict[FaultKind, list[Installed]] = {}
        for installed in self._on.values():
            by_kind.setdefault(installed.fault.kind, []).append(installed)
        self._by_kind = by_kind
        self.network = [each for kind in NETWORK_KINDS for each in by_kind.get(kind, ())]

    def _check(self, installed: Installed) -> None:
        fault = installed.fault
        check_fault(fault)
        if fault.kind not in self._abilities:
            able = ", ".join(sorted(kind.value for kind in self._abilities))
            raise KeyplaneError(
                Reason.INVALID_ARGUMENT,
                f"{self.process} cannot do {fault.kind.value} to itself; it can do: {able}",
            )
        if fault.kind in MEMDS_KINDS:
            strangers = installed.addresses - self._memds
            if strangers or not installed.addresses:
                used = ", ".join(sorted(self._memds))
                raise KeyplaneError(
                    Reason.INVALID_ARGUMENT,
                    f"{fault.kind.value} needs the address of a memcached node that "
                    f"{self.process} uses; it uses: {used}",
                )
        elif fault.target != self.process:
            raise KeyplaneError(
                Reason.INVALID_ARGUMENT,
                f"this is {self.process}; ask {fault.target!r} itself, at its own address",
            )
        if fault.kind in NETWORK_KINDS and bool(fault.peer) != bool(installed.addresses):
            raise KeyplaneError(
                Reason.INVALID_ARGUMENT,
                f"{fault.kind.value} needs both the name of a peer and the addresses at which "
                f"{self.process} reaches it, or neither: then it is cut from everybody",
            )
