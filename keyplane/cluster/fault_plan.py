"""Who has to be told what, for a fault to happen to a cluster.

A fault between two processes is done by those that call: only they know whom a message is for. Each
is told its own view of it, under the one id.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from keyplane.cluster.state import Kind, Member
from keyplane.model.errors import KeyplaneError, Reason
from wire.faults import Direction, Fault, FaultKind
from wire.injection.check import NETWORK_KINDS

# Who calls whom.
CALLS: Mapping[Kind, frozenset[Kind]] = {
    Kind.ROUTER: frozenset({Kind.STORAGE, Kind.MEMDS, Kind.GRANTER}),
    Kind.STORAGE: frozenset({Kind.STORAGE, Kind.MEMDS, Kind.METADATA}),
    Kind.METADATA: frozenset({Kind.STORAGE, Kind.MEMDS}),
    Kind.GRANTER: frozenset(),
    Kind.MEMDS: frozenset(),
}

# Done to a memcached node by everybody who uses it: memcached itself cannot be told.
SEEN_AT_MEMDS = frozenset({FaultKind.MEMDS_STALE, FaultKind.MEMDS_CORRUPT, FaultKind.MEMDS_SLOW})

_FLIPPED = {
    Direction.BOTH: Direction.BOTH,
    Direction.TO_PEER: Direction.FROM_PEER,
    Direction.FROM_PEER: Direction.TO_PEER,
}


@dataclass(frozen=True, slots=True)
class Order:
    """What one process is told: the fault as it looks from there, and where the other end is."""

    member: Member
    fault: Fault
    addresses: tuple[str, ...] = ()


def plan(
    fault: Fault, targets: Sequence[Member], peers: Sequence[Member], everybody: Sequence[Member]
) -> list[Order]:
    """The orders that make `fault` happen, at most one for each process.

    targets, peers: the members that the fault's target and peer stand for; no peers: all others.
    everybody: all members of the cluster.

    Raises KeyplaneError(INVALID_ARGUMENT) where there is nothing between the two.
    """
    if fault.kind in SEEN_AT_MEMDS:
        return _seen_at_memds(fault, targets, everybody)
    if fault.kind not in NETWORK_KINDS:
        return [Order(member, replace(fault, target=member.name)) for member in targets]
    if fault.peer:
        return _between(fault, targets, peers)
    orders = [
        Order(member, replace(fault, target=member.name))
        for member in targets
        if member.kind is not Kind.MEMDS
    ]
    memds = [member for member in targets if member.kind is Kind.MEMDS]
    if memds:
        others = [member for member in everybody if member not in targets]
        orders += _between(replace(fault, peer="everybody"), memds, others)
    return orders


def _seen_at_memds(
    fault: Fault, targets: Sequence[Member], everybody: Sequence[Member]
) -> list[Order]:
    strangers = [member.name for member in targets if member.kind is not Kind.MEMDS]
    if strangers:
        raise KeyplaneError(
            Reason.INVALID_ARGUMENT,
            f"{strangers[0]} is no memcached node; name memds-1 or another, or `all` of them",
        )
    addresses = tuple(member.address for member in targets)
    users = (member for member in everybody if Kind.MEMDS in CALLS[member.kind])
    return [Order(member, fault, addresses) for member in users]


def _between(fault: Fault, targets: Sequence[Member], peers: Sequence[Member]) -> list[Order]:
    both_ends = [member.name for member in targets if member in peers]
    if both_ends and fault.direction is not Direction.BOTH:
        raise KeyplaneError(
            Reason.INVALID_ARGUMENT,
            f"{both_ends[0]} is at both ends, so one direction is as good as the other; name two "
            "different ends",
        )
    flipped = replace(
        fault, target=fault.peer, peer=fault.target, direction=_FLIPPED[fault.direction]
    )
    orders: dict[str, Order] = {}
    for view, callers, called in ((fault, targets, peers), (flipped, peers, targets)):
        for caller in callers:
            addresses = tuple(
                member.address
                for member in called
                if member.kind in CALLS[caller.kind] and member is not caller
            )
            if addresses and caller.name not in orders:
                own = replace(view, target=caller.name)
                orders[caller.name] = Order(caller, own, addresses)
    if not orders:
        raise KeyplaneError(Reason.INVALID_ARGUMENT, _nothing_between(targets, peers))
    return list(orders.values())


def _nothing_between(targets: Sequence[Member], peers: Sequence[Member]) -> str:
    one, other = targets[0].name, peers[0].name
    if {targets[0].kind, peers[0].kind} == {Kind.ROUTER, Kind.METADATA}:
        return (
            f"no router ever calls the Metadata Store: there is nothing between {one} and {other}"
        )
    return (
        f"{one} and {other} never call each other; routers call storage nodes and the granter, "
        "storage nodes call each other and the Metadata Store, it calls them, and all of them but "
        "the granter call memcached"
    )
