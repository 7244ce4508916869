"""The operator: asks the Metadata Store for splits, merges, moves and the rest, as a script would.

What it asks for is drawn beforehand (an `Action`); which partition that means is decided when its
time comes, by the map as it is then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

from keyplane.catalog.v1 import catalog_pb2 as catalog
from keyplane.metadata.v1 import metadata_pb2 as pb
from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.partition import Partition
from keyplane.model.signature import HEADER, Signer
from metadata.operations import State
from sim.process import SimProcess, address_of
from sim.tenancy import Tenancy
from sim.topology import METADATA, OPERATOR, TableSpec
from sim.world import World
from wire.ports import Reply

_SERVICE = "/keyplane.metadata.v1.MetadataService/"

# Each attempt, and the pause between two, in virtual seconds.
_TIMEOUT_S = 2.0
_PAUSE_S = 0.5

# Merges past this share are of partitions that the operator only takes for neighbours.
_MISTAKEN = 0.85

# Cancels past the first share are of something that is asked for to be cancelled at once, as
# operations seldom last until somebody thinks of it. Past the second two do so without knowing of
# each other.
_REGRETTED = 0.3
_REGRETTED_TWICE = 0.6

# Moves past this share go back to where the partition of the last one came from.
_BACK = 0.6

# Partitions narrower than this are not split further: a few dozen splits of one hash get there.
_NARROW = 1 << 40


@dataclass(frozen=True, slots=True)
class Action:
    """kind: `split`, `merge`, `move`, `drain`, `cancel`, `recreate` (of a table of its own); where
    there are tenants also `rotate` (a key), `suspend` (a tenant, for a while).

    first, second: numbers of [0, 1) that choose the partition and the node.
    """

    at: float
    kind: str
    first: float
    second: float

    def __str__(self) -> str:
        return f"{self.kind} ({self.first:.3f}, {self.second:.3f})"


class Operator:
    """asked: actions the Metadata Store took. refused: those it did not, by reason."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._process = world.new_process(OPERATOR)
        self._transport = world.transport(self._process)
        self._signer = _signer(world, self._process)
        self.tenancy = Tenancy(world, self)
        self._requests = 0
        self._scratch = 0
        # The last partition to be moved, with its table and the node that it was on.
        self._moved: tuple[str, Partition, str] | None = None
        self.asked = 0
        self.refused: dict[str, int] = {}
        self._kinds: Mapping[str, Callable[[Action], None]] = {
            "split": self._split,
            "merge": self._merge,
            "move": self._move,
            "drain": self._drain,
            "cancel": self._cancel,
            "recreate": self._recreate,
            "rotate": lambda action: self.tenancy.rotate(action.first, action.second),
            "suspend": lambda action: self.tenancy.suspend(action.first, action.second),
        }

    def check(self, action: Action) -> None:
        """Raises KeyplaneError(INVALID_ARGUMENT) on an unknown kind."""
        if action.kind not in self._kinds:
            raise KeyplaneError(
                Reason.INVALID_ARGUMENT,
                f"an operator knows no {action.kind!r}; it knows: {', '.join(self._kinds)}",
            )

    def act(self, action: Action) -> None:
        """Does it now. Raises KeyplaneError(INVALID_ARGUMENT) as `check` does."""
        self.check(action)
        self._kinds[action.kind](action)

    def create(self, spec: TableSpec) -> None:
        """Raises nothing: asks until the Metadata Store has taken it."""
        request = pb.CreateTableRequest(
            table=spec.name,
            partition_key=catalog.KeyAttribute(name="id", type=catalog.SCALAR_TYPE_STRING),
            partitions=spec.partitions,
            durability=spec.durability,
            capacity_mode=_named(spec.capacity),
        )
        if spec.units:
            request.provisioned.read_capacity_units = spec.units
            request.provisioned.write_capacity_units = spec.units
        if spec.sorted:
            request.sort_key.name = "at"
            request.sort_key.type = catalog.SCALAR_TYPE_NUMBER
        self.ask("CreateTable", request)

    def split(self, table: str, at: float = 0.5) -> None:
        """Splits the partition that holds this share of the table's keyspace."""
        self._split(Action(self._world.now, "split", at, 0.5), table)

    def split_widest(self) -> str:
        """Halves the widest partition. Returns the request's id; empty if there are no tables."""
        maps = self._world.metadata.core.catalog.maps.values()
        partitions = [each for map in maps for each in map.partitions()]
        if not partitions:
            return ""
        widest = max(partitions, key=lambda each: (each.end - each.start, each.partition_id))
        request = pb.SplitPartitionRequest(
            table=self._table(widest),
            partition_id=widest.partition_id,
            split_hash=(widest.start + widest.end) // 2,
            request_id=self._request_id(),
        )
        self.ask("SplitPartition", request)
        return request.request_id

    def has_succeeded(self, request_id: str) -> bool:
        """Whether what was asked for under this id is done, as nothing always is."""
        if not request_id:
            return True
        operation = self._world.metadata.core.catalog.operation_of_request(request_id)
        return operation is not None and operation.state is State.SUCCEEDED

    def move(self, table: str, to: str, at: float = 0.5) -> None:
        """Moves the partition that holds this share of the table's keyspace to a storage node."""
        partition = self._choose(at, table)
        if partition is not None:
            self._ask_move(table, partition, to)

    def ask(
        self,
        method: str,
        request: Message,
        on_taken: Callable[[bytes], None] = lambda _: None,
        tries: int = 30,
        service: str = _SERVICE,
        on_refused: Callable[[], None] = lambda: None,
    ) -> None:
        """Asks again while nobody answers, or the answer says to come back.

        on_taken: gets the answer, once the Metadata Store has taken it. on_refused: called if it
        never does.
        """

        def on_reply(reply: Reply) -> None:
            error = reply.error
            if error is None:
                self.asked += 1
                on_taken(reply.payload)
            elif error.retryable and tries > 1:
                self._process.clock.call_later(
                    _PAUSE_S,
                    lambda: self.ask(method, request, on_taken, tries - 1, service, on_refused),
                )
            else:
                self.refused[error.reason.name] = self.refused.get(error.reason.name, 0) + 1
                on_refused()

        path, payload = service + method, request.SerializeToString()
        self._transport.call(
            address_of(METADATA),
            path,
            payload,
            self._process.clock.now() + _TIMEOUT_S,
            on_reply,
            () if self._signer is None else ((HEADER, self._signer.value(path, payload)),),
        )

    # --- kinds ----------------------------------------------------------------------------------

    def _split(self, action: Action, table: str = "") -> None:
        partition = self._choose(action.first, table) if table else self._choose_busy(action.first)
        if partition is None or partition.end - partition.start < _NARROW:
            return
        request = pb.SplitPartitionRequest(
            table=self._table(partition),
            partition_id=partition.partition_id,
            request_id=self._request_id(),
        )
        if action.second < 0.7:
            width = partition.end - partition.start
            request.split_hash = (
                partition.start + 1 + int((width - 1) * (0.2 + 0.8 * action.second))
            )
        self.ask("SplitPartition", request)

    def _merge(self, action: Action) -> None:
        """Of neighbours; seldom of two that are none, which must be refused."""
        left = self._choose(action.first)
        right = self._after(left)
        if left is not None and action.second > _MISTAKEN:
            right = self._choose((action.second - _MISTAKEN) / (1 - _MISTAKEN), self._table(left))
        if left is not None and right is not None:
            self._ask_merge(left, right)

    def _ask_merge(
        self,
        left: Partition,
        right: Partition,
        on_taken: Callable[[bytes], None] = lambda _: None,
    ) -> None:
        request = pb.MergePartitionsRequest(
            table=self._table(left),
            left_id=left.partition_id,
            right_id=right.partition_id,
            request_id=self._request_id(),
        )
        self.ask("MergePartitions", request, on_taken)

    def _move(self, action: Action) -> None:
        """Of any partition to any node; often back to where the last one came from, which is when
        what somebody remembers of its first stay there may be mistaken for the present.
        """
        if action.second > _BACK and self._moved is not None:
            table, moved, came_from = self._moved
            self._moved = None
            self._ask_move(table, moved, came_from)
            return
        chosen = self._choose_move(action)
        if chosen is not None:
            partition, target = chosen
            table = self._table(partition)
            self._moved = (table, partition, partition.leader)
            self._ask_move(table, partition, target)

    def _ask_move(
        self,
        table: str,
        partition: Partition,
        target: str,
        on_taken: Callable[[bytes], None] = lambda _: None,
    ) -> None:
        request = pb.MovePartitionRequest(
            table=table,
            partition_id=partition.partition_id,
            target_node_id=target,
            request_id=self._request_id(),
        )
        self.ask("MovePartition", request, on_taken)

    def _drain(self, action: Action) -> None:
        nodes = self._world.topology.storage_names()
        node = nodes[int(action.first * len(nodes))]
        request = pb.DrainNodeRequest(node_id=node, request_id=self._request_id())
        self.ask("DrainNode", request)

    def _cancel(self, action: Action) -> None:
        if action.second > _REGRETTED:
            self._regret(action)
            return
        active = list(self._world.metadata.core.catalog.active)
        if active:
            self._ask_cancel(active[int(action.first * len(active))])

    def _regret(self, action: Action) -> None:
        """Asks for a move or a merge, and takes it back once it has begun."""

        def taken(answer: bytes) -> None:
            # The responses of both have one shape.
            operation_id = pb.MovePartitionResponse.FromString(answer).operation.operation_id
            self._ask_cancel(operation_id)
            if action.second > _REGRETTED_TWICE:
                self._ask_cancel(operation_id)

        if _digits(action.second) % 2:
            left = self._choose(action.first)
            right = self._after(left)
            if left is not None and right is not None:
                self._ask_merge(left, right, taken)
            return
        chosen = self._choose_move(action)
        if chosen is not None:
            partition, target = chosen
            self._ask_move(self._table(partition), partition, target, taken)

    def _ask_cancel(self, operation_id: str) -> None:
        self.ask("CancelOperation", pb.CancelOperationRequest(operation_id=operation_id))

    def _recreate(self, action: Action) -> None:
        """Makes a table that nobody reads, or deletes the one made before."""
        if self._scratch % 2:
            self.ask("DeleteTable", pb.DeleteTableRequest(table="scratch"))
        else:
            self.create(TableSpec("scratch", partitions=1 + int(action.first * 4)))
        self._scratch += 1

    # --- choosing -------------------------------------------------------------------------------

    def _choose(self, number: float, table: str = "") -> Partition | None:
        """One of all partitions, or of one table's, by a number of [0, 1)."""
        maps: Any = self._world.metadata.core.catalog.maps.values()
        partitions = [
            partition
            for map in maps
            if table in ("", map.table.name)
            for partition in map.partitions()
        ]
        return partitions[int(number * len(partitions))] if partitions else None

    def _choose_move(self, action: Action) -> tuple[Partition, str] | None:
        """A partition, and another node than its own."""
        partition = self._choose_busy(action.first)
        nodes = self._world.topology.storage_names()
        others = [name for name in nodes if partition is not None and name != partition.leader]
        if partition is None or not others:
            return None
        return partition, others[_digits(action.second) % len(others)]

    def _choose_busy(self, number: float) -> Partition | None:
        """As `_choose` among all, half of the time; else the one with the most requests, which is
        what an operator splits and moves.
        """
        loads = [
            (shard.heat.reads_per_s + shard.heat.writes_per_s, shard.partition.partition_id)
            for name, member in self._world.storage_members().items()
            if self._world.has_booted(name)
            for shard in member.node.state.shards.values()
        ]
        if number < 0.5 or not loads:
            return self._choose(number * 2 % 1.0)
        _, busiest = max(loads)
        maps = self._world.metadata.core.catalog.maps.values()
        partitions = (each for map in maps for each in map.partitions())
        return next((each for each in partitions if each.partition_id == busiest), None)

    def _after(self, left: Partition | None) -> Partition | None:
        if left is None:
            return None
        map = self._world.metadata.core.catalog.maps[left.table_id]
        return next((each for each in map.partitions() if each.start == left.end), None)

    def _table(self, partition: Partition) -> str:
        map = self._world.metadata.core.catalog.maps[partition.table_id]
        return map.table.name

    def _request_id(self) -> str:
        self._requests += 1
        return f"operator-{self._requests}"


def _named(mode: catalog.CapacityMode.ValueType) -> catalog.CapacityMode.ValueType:
    """What everybody has who says nothing is not said."""
    unlimited = mode == catalog.CAPACITY_MODE_UNLIMITED
    return catalog.CAPACITY_MODE_UNSPECIFIED if unlimited else mode


def _signer(world: World, process: SimProcess) -> Signer | None:
    """With the operator's own key, where calls are signed."""
    vault = world.vault(OPERATOR)
    if vault is None:
        return None
    own = vault.operator
    return Signer(own.key_id, own.secret_bytes, process.clock.wall, vault.entropy)


def _digits(number: float) -> int:
    """The first six decimals of a number of [0, 1), for choices beside the one that it makes."""
    return int(number * 1_000_000)
