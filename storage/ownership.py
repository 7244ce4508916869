"""What a node serves, what it has served, and what is on its way to it.

A `Holding` is this node's relation to one partition. Holdings are immutable; the `become_*` methods
are the only transitions, and one that is not allowed raises. The table keeps the structural part of
I1: no two live holdings of a table overlap, so no key can be written under two partitions here.

    (nothing) ──opened──────────────► SERVING ──► RETIRED          split, merge, drop
                                       │  ▲
                                       ▼  │ (abort: it never left SERVING)
                                    HANDOVER ──► RETIRED           source of a move
    (nothing) ──► INCOMING ──► CONFIRMED ──► SERVING               target of a move
     or RETIRED       └────────────┴──► back to what it was        abandoned
"""

from __future__ import annotations

import enum
from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from keyplane.catalog.v1 import catalog_pb2 as catalog
from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.partition import Partition
from keyplane.route.v1.route_pb2 import RouteHint


class State(enum.Enum):
    """Only SERVING carries requests out. RETIRED is the only state that is not live."""

    SERVING = "serving"
    # Source of a move past the point of no return: may not serve, must not forget.
    HANDOVER = "handover"
    # Replaced; kept to redirect late callers.
    RETIRED = "retired"
    # Target of a move: items are arriving. Safe to drop at any time.
    INCOMING = "incoming"
    # Target of a move: all is here and synced. Only the source knows whether it is needed.
    CONFIRMED = "confirmed"


@dataclass(frozen=True, slots=True)
class NodeRef:
    """Who and where a storage node is."""

    node_id: str
    address: str
    zone: str = ""

    def to_proto(self) -> catalog.Node:
        return catalog.Node(
            node_id=self.node_id,
            address=self.address,
            zone=self.zone,
            state=catalog.NODE_STATE_UP,
        )

    @classmethod
    def from_proto(cls, message: catalog.Node) -> NodeRef:
        """Raises KeyplaneError(MALFORMED_REQUEST) without an id or address."""
        if not message.node_id or not message.address:
            raise KeyplaneError(
                Reason.MALFORMED_REQUEST, "malformed node: it needs an id and an address"
            )
        return cls(message.node_id, message.address, message.zone)


@dataclass(frozen=True, slots=True)
class Move:
    """The last move of a partition, as one of its ends knows it.

    run: counts the attempts to move the partition; what belongs to an older one is refused.
    peer: the other end. error: why it was given up.
    """

    operation_id: str
    run: int
    peer: NodeRef
    error: KeyplaneError | None = None
    fence_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Holding:
    """This node's relation to one partition.

    operation_id: which operation brought it into this state.
    successors, nodes: of RETIRED, who serves its hashes since, and where those nodes are.
    before: of INCOMING and CONFIRMED, the tombstone to return to if the move is abandoned.
    released: of RETIRED, that it has no data here: deleted after a move, or its successors' own.
    remembers_since: the running time (see `storage.token_log`) since when the remembered write
        tokens of its hashes are complete, but for those that this node has forgotten.
    """

    partition: Partition
    state: State
    operation_id: str
    successors: tuple[Partition, ...] = ()
    nodes: tuple[NodeRef, ...] = ()
    move: Move | None = None
    before: Holding | None = None
    released: bool = False
    remembers_since: float = float("-inf")

    @property
    def live(self) -> bool:
        return self.state is not State.RETIRED

    @property
    def receiving(self) -> bool:
        return self.state in (State.INCOMING, State.CONFIRMED)

    @classmethod
    def opened(
        cls,
        partition: Partition,
        operation_id: str,
        remembers_since: float = float("-inf"),
    ) -> Holding:
        """A new partition, which starts empty, or with the items of those it replaces."""
        return cls(partition, State.SERVING, operation_id, remembers_since=remembers_since)

    @classmethod
    def incoming(cls, partition: Partition, move: Move, before: Holding | None) -> Holding:
        if before is not None and before.live:
            raise _illegal(before, "receive again")
        return cls(partition, State.INCOMING, move.operation_id, move=move, before=before)

    def become_moving(self, move: Move) -> Holding:
        """Notes an attempt to move, begun or given up. It goes on serving."""
        self._require(State.SERVING, into="move")
        if self.move is not None and move.run < self.move.run:
            raise _illegal(self, f"return to run {move.run}")
        return replace(self, move=move)

    def become_handover(self) -> Holding:
        self._require(State.SERVING, into="hand over")
        if self.move is None or self.move.error is not None:
            raise _illegal(self, "hand over without a move")
        return replace(self, state=State.HANDOVER)

    def become_retired(
        self,
        operation_id: str,
        successors: tuple[Partition, ...],
        nodes: tuple[NodeRef, ...] = (),
        move: Move | None = None,
    ) -> Holding:
        """move: of a partition that has moved away, and whose data is still here."""
        self._require(State.SERVING, State.HANDOVER, into="retire")
        return Holding(
            self.partition,
            State.RETIRED,
            operation_id,
            successors,
            nodes,
            move,
            released=move is None,
        )

    def become_confirmed(self, remembers_since: float) -> Holding:
        self._require(State.INCOMING, into="be confirmed")
        return replace(self, state=State.CONFIRMED, remembers_since=remembers_since)

    def become_serving(self) -> Holding:
        self._require(State.CONFIRMED, into="serve")
        return replace(self, state=State.SERVING, before=None)

    def become_abandoned(self) -> Holding | None:
        """The tombstone it was before, or None when nothing needs to be remembered."""
        self._require(State.INCOMING, State.CONFIRMED, into="be abandoned")
        return self.before

    def become_dropped(self, operation_id: str) -> Holding:
        """Its table is deleted. Allowed from everywhere; nobody serves its hashes any more."""
        return Holding(self.partition, State.RETIRED, operation_id, released=True)

    def become_released(self) -> Holding:
        self._require(State.RETIRED, into="be released")
        return replace(self, released=True)

    def _require(self, *states: State, into: str) -> None:
        if self.state not in states:
            raise _illegal(self, into)


class OwnershipTable:
    """All holdings of one node, by partition id."""

    def __init__(self, node: NodeRef) -> None:
        self.node = node
        self._holdings: dict[int, Holding] = {}
        # Per table, (start, partition id) of the live holdings in order.
        self._live: dict[int, list[tuple[int, int]]] = {}
        # Ids of the retired ones, longest retired first.
        self._retired: dict[int, None] = {}

    def __iter__(self) -> Iterator[Holding]:
        return iter(self._holdings.values())

    def __len__(self) -> int:
        return len(self._holdings)

    def get(self, partition_id: int) -> Holding | None:
        return self._holdings.get(partition_id)

    def serving(self, partition_id: int) -> Holding:
        """Raises KeyplaneError: PARTITION_NOT_FOUND, or PARTITION_BUSY for one that is moving in
        or out.
        """
        holding = self._holdings.get(partition_id)
        if holding is None or holding.state is State.RETIRED:
            known = "has retired" if holding is not None else "is not known"
            raise KeyplaneError(
                Reason.PARTITION_NOT_FOUND,
                f"partition {partition_id} {known} on node {self.node.node_id};"
                " list the partitions for the current ids",
            )
        if holding.state is not State.SERVING:
            raise KeyplaneError(
                Reason.PARTITION_BUSY,
                f"partition {partition_id} is being moved; try again when the move has ended",
            )
        return holding

    def check(self, changed: Iterable[Holding], removed: Iterable[int] = ()) -> None:
        """Raises KeyplaneError(ILLEGAL_TRANSITION) if `install` would make live ones overlap."""
        changed = list(changed)
        gone = {*removed, *(holding.partition.partition_id for holding in changed)}
        arriving = [holding.partition for holding in changed if holding.live]
        for index, partition in enumerate(arriving):
            others = [
                other.partition
                for other in self.live_within(partition.table_id, partition.start, partition.end)
                if other.partition.partition_id not in gone
            ]
            others += [other for other in arriving[:index] if _clash(other, partition)]
            if others:
                raise KeyplaneError(
                    Reason.ILLEGAL_TRANSITION,
                    f"partition {partition.partition_id} would overlap partition"
                    f" {others[0].partition_id} on node {self.node.node_id}",
                )

    def install(self, changed: Iterable[Holding], removed: Iterable[int] = ()) -> None:
        """Replaces holdings by id. Changes nothing if `check` refuses."""
        changed, removed = list(changed), list(removed)
        self.check(changed, removed)
        for partition_id in [*removed, *(each.partition.partition_id for each in changed)]:
            self._drop(partition_id)
        for holding in changed:
            partition = holding.partition
            self._holdings[partition.partition_id] = holding
            if holding.live:
                entry = (partition.start, partition.partition_id)
                insort(self._live.setdefault(partition.table_id, []), entry)
            else:
                self._retired[partition.partition_id] = None

    def live_within(self, table_id: int, start: int, end: int) -> list[Holding]:
        """Live holdings that overlap a range of hashes, in order."""
        entries = self._live.get(table_id, [])
        first = bisect_left(entries, (start, 0))
        found = []
        for _, partition_id in entries[max(0, first - 1) :]:
            holding = self._holdings[partition_id]
            if holding.partition.start >= end:
                break
            if holding.partition.end > start:
                found.append(holding)
        return found

    def gaps(
        self, table_id: int, start: int, end: int, without: Sequence[int] = ()
    ) -> list[tuple[int, int]]:
        """The parts of a range of hashes that no live holding covers: what may be deleted.

        without: ids of live holdings to overlook.
        """
        found = []
        position = start
        for holding in self.live_within(table_id, start, end):
            if holding.partition.partition_id in without:
                continue
            if holding.partition.start > position:
                found.append((position, holding.partition.start))
            position = holding.partition.end
        if position < end:
            found.append((position, end))
        return found

    def surplus_tombstones(self, most: int, arriving: int) -> list[int]:
        """Ids of the longest retired partitions that may be forgotten, so that with as many more as
        are `arriving` there are no more than `most`.
        """
        surplus = len(self._retired) + arriving - most
        oldest = list(self._retired)[: max(0, surplus)]
        return [each for each in oldest if self._holdings[each].released]

    def hint(self, holding: Holding) -> RouteHint:
        """Who serves the hashes of a partition now, as far as this node knows.

        Follows successors through partitions that have retired here too, so what comes back covers
        the whole range (of a dropped one: nothing).
        """
        nodes = {self.node.node_id: self.node}
        found: set[Partition] = set()
        self._follow(holding, holding.partition, found, nodes)
        partitions = sorted(found, key=lambda partition: partition.start)
        leaders = {partition.leader for partition in partitions}
        return RouteHint(
            partitions=[partition.to_proto() for partition in partitions],
            nodes=[nodes[node_id].to_proto() for node_id in sorted(leaders & nodes.keys())],
        )

    def _follow(
        self, holding: Holding, wanted: Partition, found: set[Partition], nodes: dict[str, NodeRef]
    ) -> None:
        """Adds to `found` what serves the hashes of `wanted` since, starting at a holding."""
        own = self.node
        if holding.receiving:
            if holding.before is not None:
                self._follow(holding.before, wanted, found, nodes)
        elif holding.live:
            found.add(holding.partition)
        else:
            # What this node noted long ago says less about it than what it knows now.
            nodes.update({node.node_id: node for node in holding.nodes} | {own.node_id: own})
            for successor in filter(wanted.overlaps, holding.successors):
                known = self._holdings.get(successor.partition_id)
                if known is not None and known.receiving:
                    known = known.before
                if known is None or known.partition.epoch < successor.epoch:
                    found.add(successor)
                else:
                    self._follow(known, wanted, found, nodes)

    def _drop(self, partition_id: int) -> None:
        holding = self._holdings.pop(partition_id, None)
        self._retired.pop(partition_id, None)
        if holding is not None and holding.live:
            partition = holding.partition
            entries = self._live[partition.table_id]
            del entries[bisect_left(entries, (partition.start, partition_id))]


def _clash(one: Partition, other: Partition) -> bool:
    return one.table_id == other.table_id and one.overlaps(other)


def _illegal(holding: Holding, into: str) -> KeyplaneError:
    partition_id, state = holding.partition.partition_id, holding.state.value
    return KeyplaneError(
        Reason.ILLEGAL_TRANSITION, f"partition {partition_id} is {state} and cannot {into}"
    )
