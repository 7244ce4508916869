"""Faults done to a cluster of real processes, in the words of `wire.faults`.

A process does those of its network, its disk and its view of memcached to itself, and only if the
cluster was started with `enable_faults`. Killing, pausing and emptying are done from here.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import grpc
from pymemcache.client.base import Client as MemcacheClient
from pymemcache.exceptions import MemcacheError

from keyplane.client.channels import read_error
from keyplane.cluster.cluster import Cluster
from keyplane.cluster.fault_plan import Order, plan
from keyplane.cluster.fault_records import Record, changing, load
from keyplane.cluster.health import CHANNEL_OPTIONS
from keyplane.cluster.ports import port_of
from keyplane.cluster.state import Kind, Member, State
from keyplane.fault.v1 import fault_pb2 as pb
from keyplane.fault.v1 import fault_pb2_grpc as rpc
from keyplane.model.errors import KeyplaneError, Reason
from wire.faults import Fault, FaultKind
from wire.injection.check import check_duration, check_fault
from wire.injection.convert import fault_from_proto, fault_to_proto

# Done from here, and undone by starting the process again.
_DEADLY = frozenset({FaultKind.KILL, FaultKind.METADATA_DOWN, FaultKind.MEMDS_DOWN})
# Over as soon as they are done.
ONCE = frozenset({FaultKind.RESTART, FaultKind.MEMDS_FLUSH})
SUPERVISED = _DEADLY | ONCE | {FaultKind.PAUSE}
# Only the seeded world can do these.
_SIMULATED = frozenset({FaultKind.POWER_LOSS, FaultKind.SKEW, FaultKind.DATABASE_ERROR})

_TARGETS = {
    FaultKind.METADATA_DOWN: Kind.METADATA,
    FaultKind.METADATA_LAG: Kind.METADATA,
    FaultKind.MEMDS_DOWN: Kind.MEMDS,
    FaultKind.MEMDS_FLUSH: Kind.MEMDS,
    FaultKind.SLOW_DISK: Kind.STORAGE,
    FaultKind.FULL_DISK: Kind.STORAGE,
}

# A process that is well answers FaultService in a millisecond.
_CALL_S = 5.0
_MEMCACHED_S = 5.0


@dataclass(frozen=True, slots=True)
class ActiveFault:
    """A fault that is on, as it was asked for.

    members: processes that it is done to, or that do it.
    remaining_s: until it heals by itself; None: when it is healed. Below 0 for one whose command
        should have healed it and is gone.
    """

    fault: Fault
    members: tuple[str, ...]
    remaining_s: float | None = None


class Faults:
    """What is done to one cluster on purpose. Errors are those of `Cluster`, and:

    INVALID_ARGUMENT for a fault that makes no sense, FAULTS_DISABLED if the cluster was started
    without, FAULT_NOT_FOUND, NODE_UNAVAILABLE for a process that must be told and does not answer.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._path = cluster.paths.root / "faults.json"

    def next_id(self, kind: FaultKind) -> str:
        """An id for a fault that is to begin. Nobody else gets it."""
        with changing(self._path) as records:
            return records.next_id(kind)

    def inject(self, fault: Fault, for_s: float | None = None) -> str:
        """Begins a fault, and returns its id: its own, or one made up if that is empty.

        target, peer: of members, or of kinds, which stand for all their members.
        for_s: then it heals by itself. Killing and pausing do not: whoever asked heals them.
        """
        state = self._cluster.state()
        if for_s is not None:
            check_duration(for_s)
        with changing(self._path) as records:
            fault = replace(fault, id=fault.id or records.next_id(fault.kind))
            if fault.id in records.by_id:
                raise KeyplaneError(
                    Reason.INVALID_ARGUMENT,
                    f"a fault {fault.id} is on; heal it, or take another id",
                )
            check_fault(fault)
            targets = self._targets(state, fault)
            members = tuple(member.name for member in targets)
            if fault.kind not in SUPERVISED:
                peers = self._members(state, fault.peer) if fault.peer else []
                orders = plan(fault, targets, peers, list(state.members.values()))
                members = tuple(order.member.name for order in orders)
                self._tell(state, orders, for_s)
            if fault.kind not in ONCE:
                until = None if for_s is None else time.time() + for_s
                records.by_id[fault.id] = Record(fault, members, until)
        # Recorded first: a command that dies now leaves a record of what it may have done.
        self._supervise(fault, targets)
        return fault.id

    def heal(self, fault_id: str) -> None:
        record = load(self._path).by_id.get(fault_id)
        known = {active.fault.id for active in self.list()}
        if record is None and fault_id not in known:
            on = f"; on are: {', '.join(sorted(known))}" if known else "; none is on"
            raise KeyplaneError(Reason.FAULT_NOT_FOUND, f"no fault {fault_id} is on{on}")
        if record is not None:
            self._undo(record)
        if record is None or record.fault.kind not in SUPERVISED:
            self._heal_in_processes([fault_id])
        self._forget([fault_id])

    def heal_all(self) -> Sequence[str]:
        """Ends every fault that is on; returns their ids."""
        records = load(self._path).by_id
        # Paused processes first: nobody else can tell them anything.
        ordered = sorted(records.values(), key=lambda each: each.fault.kind is not FaultKind.PAUSE)
        for record in ordered:
            self._undo(record)
        healed = self._heal_in_processes(None)
        self._forget(list(records))
        return list(dict.fromkeys([*records, *healed]))

    def list(self) -> Sequence[ActiveFault]:
        """The faults that are on. What has ended by itself meanwhile is forgotten."""
        life = self._cluster.life()
        told = self._ask_all(life)
        with changing(self._path) as records:
            active: dict[str, ActiveFault] = {}
            for fault_id, record in list(records.by_id.items()):
                members = _still_on(record, told, life)
                if members:
                    active[fault_id] = ActiveFault(record.fault, members, _remaining_s(record))
                else:
                    del records.by_id[fault_id]
        for name, faults in told.items():
            for fault in faults:
                if fault.id not in active:
                    active[fault.id] = ActiveFault(replace(fault, until=None), (name,), fault.until)
        return list(active.values())

    # --- By the processes themselves

    def _tell(self, state: State, orders: Sequence[Order], for_s: float | None) -> None:
        """All of them, or none."""
        if not state.enable_faults:
            raise KeyplaneError(
                Reason.FAULTS_DISABLED,
                f"cluster {self._cluster.name!r} takes no faults but kill, pause and restart; "
                "start it anew for the others: `keyplane down`, `keyplane up --enable-faults`",
            )
        try:
            for order in orders:
                fault = replace(order.fault, until=for_s)
                request = pb.InjectFaultRequest(
                    fault=fault_to_proto(fault, now=0.0), addresses=order.addresses
                )
                _call(order.member, "InjectFault", request)
        except BaseException:
            self._heal_in_processes([orders[0].fault.id])
            raise

    def _heal_in_processes(self, ids: Sequence[str] | None) -> Sequence[str]:
        """In all that live, and an error of one only after all were asked. ids: None for all."""
        request = pb.HealFaultsRequest(ids=ids or (), all=ids is None)
        healed: dict[str, None] = {}
        failure: KeyplaneError | None = None
        for member in self._living(self._cluster.life()):
            try:
                answer = _call(member, "HealFaults", request)
            except KeyplaneError as error:
                failure = failure or error
            else:
                healed.update(dict.fromkeys(answer.healed_ids))
        if failure is not None:
            raise failure
        return list(healed)

    def _ask_all(self, life: Mapping[str, str]) -> Mapping[str, Sequence[Fault]]:
        """What each process that answers is doing to itself; `until` is the time left."""
        asked = [member for member in self._living(life) if life[member.name] != "paused"]

        def ask(member: Member) -> Sequence[Fault]:
            try:
                answer = _call(member, "ListFaults", pb.ListFaultsRequest())
            except KeyplaneError:
                return []
            return [fault_from_proto(message, now=0.0) for message in answer.faults]

        with ThreadPoolExecutor(max_workers=max(1, len(asked))) as pool:
            return dict(zip((m.name for m in asked), pool.map(ask, asked), strict=True))

    def _living(self, life: Mapping[str, str]) -> Sequence[Member]:
        """The servers that have a process and take faults; memcached takes no orders."""
        state = self._cluster.state()
        return [
            member
            for member in state.members.values()
            if state.enable_faults and member.kind is not Kind.MEMDS and life[member.name] != "dead"
        ]

    # --- From here

    def _supervise(self, fault: Fault, targets: Iterable[Member]) -> None:
        for member in targets:
            if fault.kind in _DEADLY:
                self._cluster.kill(member.name)
            elif fault.kind is FaultKind.PAUSE:
                self._cluster.pause(member.name)
            elif fault.kind is FaultKind.RESTART:
                self._cluster.kill(member.name)
                self._cluster.restart(member.name)
            elif fault.kind is FaultKind.MEMDS_FLUSH:
                _flush(member)

    def _undo(self, record: Record) -> None:
        if record.fault.kind not in SUPERVISED:
            return
        life = self._cluster.life()
        for name in record.members:
            if record.fault.kind in _DEADLY and life[name] == "dead":
                self._cluster.restart(name)
            elif record.fault.kind is FaultKind.PAUSE and life[name] == "paused":
                self._cluster.resume(name)

    def _forget(self, ids: Iterable[str]) -> None:
        with changing(self._path) as records:
            for fault_id in ids:
                records.by_id.pop(fault_id, None)

    def _targets(self, state: State, fault: Fault) -> Sequence[Member]:
        kind = fault.kind.value
        if fault.kind in _SIMULATED:
            raise KeyplaneError(
                Reason.INVALID_ARGUMENT,
                f"{kind} is for the seeded world; real processes can be killed, paused and cut off",
            )
        targets = self._members(state, fault.target)
        needed = _TARGETS.get(fault.kind)
        for member in targets:
            if needed is not None and member.kind is not needed:
                able = ", ".join(each.name for each in state.of_kind(needed))
                raise KeyplaneError(
                    Reason.INVALID_ARGUMENT, f"{kind} is nothing for {member.name}; name: {able}"
                )
        return targets

    def _members(self, state: State, name: str) -> Sequence[Member]:
        return [state.members[each] for each in self._cluster.match([name])]


def _call(member: Member, method: str, request: Any) -> Any:
    """One call of FaultService. Raises KeyplaneError."""
    with grpc.insecure_channel(member.address, options=CHANNEL_OPTIONS) as channel:
        try:
            return getattr(rpc.FaultServiceStub(channel), method)(request, timeout=_CALL_S)
        except grpc.RpcError as failure:
            error = read_error(member.address, failure)
    if error.reason in (Reason.NODE_UNREACHABLE, Reason.DEADLINE_EXCEEDED, Reason.CONNECTION_LOST):
        raise KeyplaneError(
            Reason.NODE_UNAVAILABLE,
            f"{member.name} does not answer; if it is paused or dead, `keyplane resume "
            f"{member.name}` or `keyplane restart {member.name}` and try again",
        )
    raise error


def _flush(member: Member) -> None:
    """Raises KeyplaneError(NODE_UNAVAILABLE)."""
    host = member.address.rpartition(":")[0]
    address = (host, port_of(member.address))
    client = MemcacheClient(address, connect_timeout=_MEMCACHED_S, timeout=_MEMCACHED_S)
    try:
        with closing(client):
            client.flush_all(noreply=False)
    except (OSError, MemcacheError) as error:
        raise KeyplaneError(
            Reason.NODE_UNAVAILABLE,
            f"{member.name} does not answer ({error}); `keyplane restart {member.name}` empties it "
            "too",
        ) from error


def _still_on(
    record: Record, told: Mapping[str, Sequence[Fault]], life: Mapping[str, str]
) -> tuple[str, ...]:
    """The members at which it has not ended."""
    kind = record.fault.kind
    if kind in _DEADLY:
        return tuple(name for name in record.members if life.get(name) == "dead")
    if kind is FaultKind.PAUSE:
        return tuple(name for name in record.members if life.get(name) == "paused")
    return tuple(
        name
        for name in record.members
        # One that is paused cannot say, and has not healed.
        if life.get(name) == "paused"
        or any(fault.id == record.fault.id for fault in told.get(name, ()))
    )


def _remaining_s(record: Record) -> float | None:
    return None if record.until is None else record.until - time.time()
