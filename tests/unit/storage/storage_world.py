"""Storage nodes on the in-memory network, in virtual time, with engines that outlive them."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import structlog

from keyplane.catalog.v1 import catalog_pb2 as catalog
from keyplane.data.v1 import data_pb2 as data
from keyplane.model.errors import KeyplaneError
from keyplane.model.keys import EncodedKey, KeySchema, encode_key, key_hash
from keyplane.model.partition import KEYSPACE_END, Partition, even_ranges
from keyplane.storage.v1 import storage_pb2 as pb
from storage.config import StorageConfig
from storage.memory import MemoryEngine
from storage.node import StorageNode
from wire import crashpoints
from wire.memory import MemoryNetwork, VirtualClock
from wire.memory_process import MemoryProcess, step_through_deaths
from wire.metrics import Metrics
from wire.ports import MemdsNode, Reply

TABLE = catalog.Table(
    table_id=7,
    name="users",
    partition_key=catalog.KeyAttribute(name="id", type=catalog.SCALAR_TYPE_STRING),
    sort_key=catalog.KeyAttribute(name="at", type=catalog.SCALAR_TYPE_STRING),
    hash_seed=42,
    durability=catalog.DURABILITY_PROCESS,
    state=catalog.TABLE_STATE_ACTIVE,
)
SCHEMA = KeySchema.from_table(TABLE)
CLIENT_ID = bytes(range(16))

_SERVICES = {
    method.name: service.full_name
    for service in pb.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}


def item_key(id: str, at: str = "-") -> pb.ItemKey:
    encoded = encode_key(SCHEMA, {"id": data.AttributeValue(s=id), "at": data.AttributeValue(s=at)})
    return to_item_key(encoded)


def to_item_key(key: EncodedKey) -> pb.ItemKey:
    return pb.ItemKey(hash=key_hash(TABLE.hash_seed, key.hash_input), encoded=key.encoded)


def item(id: str, value: str, at: str = "-") -> bytes:
    attributes = {"id": id, "at": at, "value": value}
    return data.Item(
        attributes={name: data.AttributeValue(s=text) for name, text in attributes.items()}
    ).SerializeToString(deterministic=True)


def value_of(raw: bytes) -> str:
    return data.Item.FromString(raw).attributes["value"].s


def token(sequence: int, attempt: int = 0, age_ms: int = 0) -> data.WriteToken:
    return data.WriteToken(client_id=CLIENT_ID, sequence=sequence, attempt=attempt, age_ms=age_ms)


@dataclass
class Member:
    """A node's place in the world: what stays when its process dies."""

    config: StorageConfig
    engine: MemoryEngine
    process: MemoryProcess | None = None
    node: StorageNode | None = None
    metrics: Metrics = field(default_factory=Metrics)

    @property
    def up(self) -> bool:
        return self.process is not None and self.process.alive


class StorageWorld:
    def __init__(self, seed: int = 1) -> None:
        self.clock = VirtualClock()
        self.network = MemoryNetwork(self.clock)
        self.rng = random.Random(seed)
        self.members: dict[str, Member] = {}
        # Memcached nodes of nodes that are started from here on.
        self.memds: list[MemdsNode] = []
        self._transport = self.network.transport("test")

    # --- Nodes ---------------------------------------------------------------------------------

    def start(self, name: str, **settings: Any) -> Member:
        """Starts a node, on the engine that it had before if it was here before."""
        member = self.members.get(name)
        if member is None:
            config = StorageConfig(node_id=name, cluster="test", address=f"{name}:1")
            member = self.members[name] = Member(
                replace(config, **settings), MemoryEngine(self.clock)
            )
        process = MemoryProcess(self.network, member.config.address)
        member.metrics = Metrics()
        member.process = process
        member.engine.use(process.clock)
        member.node = StorageNode(
            member.config,
            process.clock,
            process.transport,
            process.server,
            member.engine,
            self.memds,
            member.metrics,
            random.Random(self.rng.getrandbits(32)),
            structlog.testing.CapturingLogger(),
        )
        member.node.start()
        return member

    def node(self, name: str) -> StorageNode:
        node = self.members[name].node
        assert node is not None
        return node

    def kill(self, name: str) -> None:
        """As kill -9: what was committed stays."""
        member = self.members[name]
        assert member.process is not None
        member.process.kill()
        member.engine.crash()

    def power_loss(self, name: str) -> None:
        """Only what was synced stays."""
        self.kill(name)
        self.members[name].engine.power_loss()

    def kill_at(self, point: str, name: str, by: str) -> None:
        """Kills `name` when node `by` reaches a crash point. Once."""

        def act() -> None:
            crashpoints.disarm()
            self.kill(name)
            if name == by:
                process = self.members[name].process
                assert process is not None
                process.die()

        crashpoints.arm(point, act)

    # --- Time ----------------------------------------------------------------------------------

    def run_until(self, done: Callable[[], bool], timeout_s: float = 60.0) -> None:
        end = self.clock.now() + timeout_s
        while not done():
            if self.clock.now() > end or not step_through_deaths(self.clock):
                raise TimeoutError(f"not done after {timeout_s} virtual seconds")

    def run_for(self, seconds: float) -> None:
        passed = False

        def ring() -> None:
            nonlocal passed
            passed = True

        self.clock.call_later(seconds, ring)
        self.run_until(lambda: passed, seconds + 1)

    # --- Calls ---------------------------------------------------------------------------------

    def send(
        self, name: str, method: str, request: Any, on_reply: Callable[[Reply], None], s: float = 5
    ) -> None:
        self._transport.call(
            self.members[name].config.address,
            f"/{_SERVICES[method]}/{method}",
            request.SerializeToString(),
            self.clock.now() + s,
            on_reply,
        )

    def call(self, name: str, method: str, request: Any, timeout_s: float = 5) -> Any:
        """The response message. Raises KeyplaneError for an error answer."""
        replies: list[Reply] = []
        self.send(name, method, request, replies.append, timeout_s)
        self.run_until(lambda: bool(replies))
        error = replies[0].error
        if error is not None:
            raise error
        return getattr(pb, f"{method}Response").FromString(replies[0].payload)

    def open(self, name: str, count: int = 1, table: catalog.Table = TABLE) -> list[Partition]:
        """Opens partitions 1 to `count` over the whole keyspace on one node."""
        partitions = [
            Partition(number, table.table_id, start, end, 1, name)
            for number, (start, end) in enumerate(even_ranges(count), 1)
        ]
        self.call(
            name,
            "OpenPartitions",
            pb.OpenPartitionsRequest(
                operation_id="create",
                table=table,
                partitions=[each.to_proto() for each in partitions],
            ),
        )
        return partitions

    def execute(self, name: str, partition_id: int, epoch: int, **op: Any) -> pb.ExecuteResponse:
        request = pb.ExecuteRequest(partition_id=partition_id, epoch=epoch, **op)
        return self.call(name, "Execute", request)

    def put(
        self, name: str, where: tuple[int, int], id: str, value: str, **options: Any
    ) -> pb.WriteResult:
        """where: partition id and epoch."""
        at = options.pop("at", "-")
        write = pb.WriteOp(key=item_key(id, at), put=item(id, value, at), **options)
        return self.execute(name, *where, write=write).write

    def delete(self, name: str, where: tuple[int, int], id: str, **options: Any) -> pb.WriteResult:
        write = pb.WriteOp(key=item_key(id, options.pop("at", "-")), delete=True, **options)
        return self.execute(name, *where, write=write).write

    def get(self, name: str, where: tuple[int, int], id: str, at: str = "-") -> str | None:
        result = self.execute(name, *where, get=pb.GetOp(key=item_key(id, at))).get
        return value_of(result.item) if result.found else None

    def move(
        self, source: str, where: tuple[int, int], target: str, operation_id: str = "move"
    ) -> pb.MovePartitionResponse:
        """Starts a move or asks how far it is."""
        config = self.members[target].config
        return self.call(
            source,
            "MovePartition",
            pb.MovePartitionRequest(
                operation_id=operation_id,
                partition_id=where[0],
                epoch=where[1],
                target=catalog.Node(node_id=target, address=config.address),
            ),
        )

    def split(
        self, name: str, where: tuple[int, int], cut: int, left: int, right: int, op: str = "split"
    ) -> list[Partition]:
        response = self.call(
            name,
            "SplitPartition",
            pb.SplitPartitionRequest(
                operation_id=op,
                partition_id=where[0],
                epoch=where[1],
                split_hash=cut,
                left_id=left,
                right_id=right,
            ),
        )
        return [Partition.from_proto(each) for each in (response.left, response.right)]

    def served(self) -> list[tuple[str, Partition]]:
        """What each live node says it serves."""
        found = []
        for name, member in self.members.items():
            if member.up:
                response = self.call(name, "DescribePartitions", pb.DescribePartitionsRequest())
                found += [(name, Partition.from_proto(each)) for each in response.partitions]
        return sorted(found, key=lambda entry: entry[1].start)

    def errors(self, name: str, reason: str) -> float:
        """How often a node has answered with a reason since it started."""
        return self.members[name].metrics.counter("storage_errors", "", "reason").value(reason)


def reason_of(action: Callable[[], object]) -> KeyplaneError:
    """The error that an action ends with."""
    try:
        action()
    except KeyplaneError as error:
        return error
    raise AssertionError("it succeeded")


MIDDLE = KEYSPACE_END // 2
