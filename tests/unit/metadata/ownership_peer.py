"""Storage nodes as the Metadata Store sees them: OwnershipService over memory, no items.

For tests of what the Metadata Store does; what storage nodes do has its own. Every node keeps what
it holds over `restart`, as a real one does on disk, and counts what it really carried out, so that
a test can tell a repeated call from a repeated deed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from keyplane.catalog.v1 import catalog_pb2 as catalog
from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.partition import Partition
from keyplane.storage.v1 import storage_pb2 as pb
from wire.memory import MemoryNetwork
from wire.ports import Reply, ReplyFn, Request

_SERVICE = "/keyplane.storage.v1.OwnershipService/"


@dataclass
class Move:
    partition: Partition
    target: catalog.Node
    polls: int = 0
    phase: int = pb.MOVE_PHASE_PREPARING
    moved: Partition | None = None


@dataclass
class Fleet:
    """The nodes of a test, by id.

    polls_per_move: calls until a move is done.
    deeds: how often each (operation id, what) was really carried out, over all nodes.
    """

    network: MemoryNetwork
    polls_per_move: int = 3
    nodes: dict[str, OwnershipPeer] = field(default_factory=dict)
    deeds: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, node_id: str) -> OwnershipPeer:
        peer = OwnershipPeer(self, node_id, f"{node_id}:7000")
        self.nodes[node_id] = peer
        peer.start()
        return peer

    def serving(self) -> list[Partition]:
        """Everything served anywhere, by table and start."""
        every = [each for peer in self.nodes.values() for each in peer.serving.values()]
        return sorted(every, key=lambda each: (each.table_id, each.start))


class OwnershipPeer:
    """One node. `refuse` makes a method fail with an error, before or after it did its work."""

    def __init__(self, fleet: Fleet, node_id: str, address: str) -> None:
        self.fleet = fleet
        self.node_id = node_id
        self.address = address
        self.serving: dict[int, Partition] = {}
        self.tables: dict[int, catalog.Table] = {}
        self.dropped: set[int] = set()
        self.moves: dict[str, Move] = {}
        self.released: set[str] = set()
        self.answers: dict[str, Any] = {}
        self.refuse: dict[str, KeyplaneError] = {}
        self.forget_reply: set[str] = set()
        self.calls: Counter[str] = Counter()

    @property
    def alive(self) -> bool:
        return self.fleet.network.find(self.address) is not None

    def start(self) -> None:
        server = self.fleet.network.server(self.address)
        for method, request_type, act in (
            ("OpenPartitions", pb.OpenPartitionsRequest, self._open),
            ("SplitPartition", pb.SplitPartitionRequest, self._split),
            ("MergePartitions", pb.MergePartitionsRequest, self._merge),
            ("MovePartition", pb.MovePartitionRequest, self._move),
            ("CancelMove", pb.CancelMoveRequest, self._cancel),
            ("ReleaseMoved", pb.ReleaseMovedRequest, self._release),
            ("UpdateTable", pb.UpdateTableRequest, self._update),
            ("DropTable", pb.DropTableRequest, self._drop),
            ("SuggestSplit", pb.SuggestSplitRequest, self._suggest),
        ):
            server.register(_SERVICE + method, self._handler(method, request_type, act))

    def kill(self) -> None:
        self.fleet.network.remove(self.address)

    def _handler(
        self, method: str, request_type: Any, act: Callable[[Any], Any]
    ) -> Callable[[Request, ReplyFn], None]:
        def handle(request: Request, reply: ReplyFn) -> None:
            self.calls[method] += 1
            error = self.refuse.get(method)
            try:
                if error is not None:
                    raise error
                answer = act(request_type.FromString(request.payload))
            except KeyplaneError as refused:
                reply(Reply(error=refused))
                return
            if method in self.forget_reply:
                lost = KeyplaneError(Reason.CONNECTION_LOST, "the answer was lost")
                reply(Reply(error=lost))
                return
            reply(Reply(answer.SerializeToString()))

        return handle

    def _once(self, operation_id: str, what: str, act: Callable[[], Any]) -> Any:
        key = f"{operation_id}/{what}"
        if key not in self.answers:
            self.answers[key] = act()
            self.fleet.deeds[operation_id, what] += 1
        return self.answers[key]

    def _mine(self, partition_id: int, epoch: int) -> Partition:
        held = self.serving.get(partition_id)
        if held is None or held.epoch != epoch:
            raise KeyplaneError(Reason.STALE_ROUTE, f"{partition_id}@{epoch} is not served here")
        return held

    def _open(self, request: pb.OpenPartitionsRequest) -> pb.OpenPartitionsResponse:
        if request.table.table_id in self.dropped:
            raise KeyplaneError(Reason.TABLE_NOT_FOUND, "dropped")
        self.tables[request.table.table_id] = request.table
        for message in request.partitions:
            partition = Partition.from_proto(message)
            assert partition.leader == self.node_id
            if f"{request.operation_id}/{partition.partition_id}" not in self.answers:
                self._once(request.operation_id, str(partition.partition_id), lambda: True)
                self.serving[partition.partition_id] = partition
        return pb.OpenPartitionsResponse()

    def _split(self, request: pb.SplitPartitionRequest) -> pb.SplitPartitionResponse:
        def split() -> pb.SplitPartitionResponse:
            parent = self._mine(request.partition_id, request.epoch)
            epoch, at = parent.epoch + 1, request.split_hash
            left = replace(parent, partition_id=request.left_id, end=at, epoch=epoch)
            right = replace(parent, partition_id=request.right_id, start=at, epoch=epoch)
            del self.serving[parent.partition_id]
            self.serving |= {left.partition_id: left, right.partition_id: right}
            return pb.SplitPartitionResponse(left=left.to_proto(), right=right.to_proto())

        return self._once(request.operation_id, "split", split)

    def _merge(self, request: pb.MergePartitionsRequest) -> pb.MergePartitionsResponse:
        def merge() -> pb.MergePartitionsResponse:
            left = self._mine(request.left_id, request.left_epoch)
            right = self._mine(request.right_id, request.right_epoch)
            assert left.end == right.start
            epoch = max(left.epoch, right.epoch) + 1
            merged = replace(left, partition_id=request.merged_id, end=right.end, epoch=epoch)
            del self.serving[left.partition_id], self.serving[right.partition_id]
            self.serving[merged.partition_id] = merged
            return pb.MergePartitionsResponse(merged=merged.to_proto())

        return self._once(request.operation_id, "merge", merge)

    def _move(self, request: pb.MovePartitionRequest) -> pb.MovePartitionResponse:
        move = self.moves.get(request.operation_id)
        if move is None:
            partition = self._mine(request.partition_id, request.epoch)
            move = self.moves[request.operation_id] = Move(partition, request.target)
        move.polls += 1
        if move.phase not in (pb.MOVE_PHASE_DONE, pb.MOVE_PHASE_ABORTED):
            self._go_on(request.operation_id, move)
        if move.phase == pb.MOVE_PHASE_ABORTED:
            return pb.MovePartitionResponse(
                phase=move.phase, reason="NODE_UNREACHABLE", message="the target is gone"
            )
        answer = pb.MovePartitionResponse(phase=move.phase, items_sent=7, fence_ms=1.5)
        if move.moved is not None:
            answer.moved.CopyFrom(move.moved.to_proto())
        return answer

    def _go_on(self, operation_id: str, move: Move) -> None:
        target = self.fleet.nodes[move.target.node_id]
        move.phase = pb.MOVE_PHASE_SNAPSHOT
        if not target.alive:
            move.phase = pb.MOVE_PHASE_ABORTED
        elif move.polls >= self.fleet.polls_per_move:
            node_id = target.node_id
            moved = replace(
                move.partition, leader=node_id, replicas=(node_id,), epoch=move.partition.epoch + 1
            )
            del self.serving[moved.partition_id]
            target.serving[moved.partition_id] = moved
            target.tables.setdefault(moved.table_id, self.tables[moved.table_id])
            move.moved, move.phase = moved, pb.MOVE_PHASE_DONE
            self.fleet.deeds[operation_id, "move"] += 1

    def _cancel(self, request: pb.CancelMoveRequest) -> pb.CancelMoveResponse:
        move = self.moves.get(request.operation_id)
        if move is None or move.phase == pb.MOVE_PHASE_DONE:
            return pb.CancelMoveResponse(phase=pb.MOVE_PHASE_DONE)
        move.phase = pb.MOVE_PHASE_ABORTED
        return pb.CancelMoveResponse(phase=move.phase)

    def _release(self, request: pb.ReleaseMovedRequest) -> pb.ReleaseMovedResponse:
        self.released.add(request.operation_id)
        return pb.ReleaseMovedResponse()

    def _update(self, request: pb.UpdateTableRequest) -> pb.UpdateTableResponse:
        if request.table.table_id not in self.tables:
            raise KeyplaneError(Reason.TABLE_NOT_FOUND, "nothing of it here")
        self.tables[request.table.table_id] = request.table
        return pb.UpdateTableResponse()

    def _drop(self, request: pb.DropTableRequest) -> pb.DropTableResponse:
        self.dropped.add(request.table_id)
        self.tables.pop(request.table_id, None)
        for partition in list(self.serving.values()):
            if partition.table_id == request.table_id:
                del self.serving[partition.partition_id]
        return pb.DropTableResponse()

    def _suggest(self, request: pb.SuggestSplitRequest) -> pb.SuggestSplitResponse:
        held = self._mine(request.partition_id, request.epoch)
        return pb.SuggestSplitResponse(split_hash=(held.start + held.end) // 2, basis="RANGE")
