"""A cluster under load, and what a scenario can do to it."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property

import grpc
from fault_load import Load

from keyplane import AdminClient, Client, KeyplaneError, OutcomeUnknown, Unavailable
from keyplane.catalog.v1 import catalog_pb2 as catalog
from keyplane.cluster import Cluster, Faults, Kind
from keyplane.metadata.v1 import metadata_pb2 as pb
from keyplane.model.partition import KEYSPACE_END, Partition
from keyplane.storage.v1 import storage_pb2, storage_pb2_grpc
from wire.faults import Direction, Fault, FaultKind

TABLE = "items"
PARTITIONS = 6
KEYS = 30

# For anything to become true. Only a failure ever waits for so long.
PATIENCE_S = 40.0

_POLL_S = 0.03


def wait_until(true: Callable[[], bool], what: str) -> None:
    """Asks again and again; an answer that may be another one later is none."""
    limit = time.monotonic() + PATIENCE_S
    while True:
        with contextlib.suppress(Unavailable, OutcomeUnknown):
            if true():
                return
        assert time.monotonic() < limit, f"waited in vain until {what}"
        time.sleep(_POLL_S)


def create_table(cluster: Cluster) -> None:
    key = catalog.KeyAttribute(name="id", type=catalog.SCALAR_TYPE_STRING)
    with AdminClient(cluster.addresses(Kind.METADATA)[0]) as admin:
        admin.run(pb.CreateTableRequest(table=TABLE, partition_key=key, partitions=PARTITIONS))


@dataclass
class Scene:
    """One run of one scenario.

    long: the long form. name: prefix of its keys, which no other run uses.
    """

    cluster: Cluster
    name: str
    seed: int
    long: bool
    rng: random.Random = field(init=False)
    faults: Faults = field(init=False)
    load: Load = field(init=False)
    healed_at: float = 0.0
    # What scenarios want to have shown beside the figures.
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.faults = Faults(self.cluster)
        routers = self.cluster.addresses(Kind.ROUTER)
        self.load = Load(routers, TABLE, self.keys, self.seed)

    # --- Who is who

    @cached_property
    def keys(self) -> list[str]:
        return [f"{self.name}/{number}" for number in range(KEYS)]

    @cached_property
    def owners(self) -> Mapping[str, str]:
        """The node of each key when the scenario began."""
        with Client(self.cluster.addresses(Kind.ROUTER)) as client:
            return {key: client.explain(TABLE, {"id": key}).node.node_id for key in self.keys}

    @cached_property
    def victim(self) -> str:
        """The storage node with the most of the keys."""
        owners = list(self.owners.values())
        return max(sorted(set(owners)), key=owners.count)

    @cached_property
    def other(self) -> str:
        """The storage node with the most of the keys but the victim; it may have none."""
        owners = list(self.owners.values())
        others = (name for name in self.members(Kind.STORAGE) if name != self.victim)
        return max(others, key=owners.count)

    def members(self, kind: Kind) -> list[str]:
        return [member.name for member in self.cluster.state().of_kind(kind)]

    # --- Time

    def wait(self, short_s: float, long_s: float | None = None) -> None:
        """Lets the load run, for longer in the long form."""
        time.sleep(long_s if self.long and long_s is not None else short_s)

    @contextmanager
    def lasting(self, short_s: float, long_s: float) -> Iterator[Callable[[], bool]]:
        """Gives a function that is true until the time is over."""
        end = time.monotonic() + (long_s if self.long else short_s)
        yield lambda: time.monotonic() < end

    # --- Breaking and healing

    def inject(
        self,
        kind: FaultKind,
        target: str,
        peer: str = "",
        direction: Direction = Direction.BOTH,
        probability: float = 1.0,
        point: str = "",
        **parameters: float,
    ) -> str:
        return self.faults.inject(
            Fault("", kind, target, peer, direction, probability, parameters, point)
        )

    def heal(self, *ids: str) -> None:
        """These faults, or all. The last healing is where recovery is counted from."""
        self.healed_at = time.monotonic()
        for fault_id in ids:
            self.faults.heal(fault_id)
        if not ids:
            self.faults.heal_all()

    def revive(self) -> None:
        """Starts whoever is dead."""
        for name, condition in self.cluster.life().items():
            if condition == "dead":
                self.healed_at = time.monotonic()
                self.cluster.restart(name)

    # --- Operations of the control plane

    @cached_property
    def admin(self) -> AdminClient:
        return AdminClient(self.cluster.addresses(Kind.METADATA)[0])

    def partitions(self) -> list[Partition]:
        answer = self.admin.call(pb.ListPartitionsRequest(table=TABLE), pb.ListPartitionsResponse)
        return [Partition.from_proto(message) for message in answer.partitions]

    def partition_of_victim(self) -> Partition:
        """One with some of the keys."""
        key = next(key for key, owner in self.owners.items() if owner == self.victim)
        with Client(self.cluster.addresses(Kind.ROUTER)) as client:
            return Partition.from_proto(client.explain(TABLE, {"id": key}).partition)

    def split(self, partition: Partition) -> str:
        """Starts it; returns the operation's id."""
        request = pb.SplitPartitionRequest(
            table=TABLE,
            partition_id=partition.partition_id,
            split_hash=(partition.start + partition.end) // 2,
        )
        return self.admin.call(request, pb.SplitPartitionResponse).operation.operation_id

    def merge(self, left: Partition, right: Partition) -> str:
        request = pb.MergePartitionsRequest(
            table=TABLE, left_id=left.partition_id, right_id=right.partition_id
        )
        return self.admin.call(request, pb.MergePartitionsResponse).operation.operation_id

    def move(self, partition: Partition, target: str) -> str:
        request = pb.MovePartitionRequest(
            table=TABLE, partition_id=partition.partition_id, target_node_id=target
        )
        return self.admin.call(request, pb.MovePartitionResponse).operation.operation_id

    def end_of(self, operation_id: str) -> str:
        """I8: an operation ends. `succeeded`, or the reason why it failed."""
        try:
            self.admin.wait_operation(operation_id, PATIENCE_S)
        except KeyplaneError as error:
            return error.reason.name
        return "succeeded"

    # --- Afterwards

    def settle(self) -> None:
        """I8, I1, I3: no operation is stuck, every hash has one owner, the Metadata Store knows the
        same, and so does every router in the end.
        """
        wait_until(lambda: not self._active_operations(), "every operation has ended")
        wait_until(self._agreed, "nodes and Metadata Store agree on who owns what")
        request = pb.DescribeTableRequest(table=TABLE)
        version = self.admin.call(request, pb.DescribeTableResponse).map_version
        for address in self._living_routers():
            wait_until(lambda a=address: _router_version(a) >= version, f"{address} has the map")

    def _active_operations(self) -> bool:
        request = pb.ListOperationsRequest(active_only=True)
        return bool(self.admin.call(request, pb.ListOperationsResponse).operations)

    def _agreed(self) -> bool:
        served = sorted(
            (each for name in self.members(Kind.STORAGE) for each in self._served_by(name)),
            key=lambda each: each.start,
        )
        position = 0
        for partition in served:
            assert partition.start >= position, f"two nodes serve {partition}"
            if partition.start > position:
                return False
            position = partition.end
        return position == KEYSPACE_END and served == self.partitions()

    def _served_by(self, name: str) -> list[Partition]:
        with grpc.insecure_channel(self.cluster.state().members[name].address) as channel:
            answer = storage_pb2_grpc.StorageServiceStub(channel).DescribePartitions(
                storage_pb2.DescribePartitionsRequest(table=TABLE), timeout=10
            )
        return [Partition.from_proto(message) for message in answer.partitions]

    def _living_routers(self) -> list[str]:
        life = self.cluster.life()
        routers = self.cluster.state().of_kind(Kind.ROUTER)
        return [member.address for member in routers if life[member.name] == "running"]


def _router_version(address: str) -> int:
    with Client([address]) as client:
        views = client.describe_router().tables
    return next((view.map_version for view in views if view.table.name == TABLE), 0)
