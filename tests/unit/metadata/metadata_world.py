"""A Metadata Store over virtual time and a real SQLite file, which can be killed at any moment."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from google.protobuf.message import Message
from ownership_peer import Fleet

from cache import memds_keys
from cache.config import PublisherConfig
from cache.memory import MemoryMemdsNode
from keyplane.catalog.v1 import catalog_pb2 as catalog
from keyplane.metadata.v1 import metadata_pb2 as pb
from keyplane.model.credentials import Credentials
from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.partition import Partition
from keyplane.model.signature import HEADER, Signer
from keyplane.model.vault import Vault
from metadata.catalog import Catalog
from metadata.change import Change
from metadata.config import MetadataConfig
from metadata.core import MetadataCore
from metadata.database import Database
from metadata.inline import InlineLedger
from wire import crashpoints
from wire.memory import MemoryNetwork, VirtualClock
from wire.memory_process import MemoryProcess, step_through_deaths
from wire.metrics import Metrics
from wire.ports import Clock, Reply

_M = TypeVar("_M", bound=Message)

ADDRESS = "metadata:7000"
CLUSTER = "test"


class DyingLedger(InlineLedger):
    """Dies at one of its commits, counted from 1: before it is made, or after, untold."""

    def __init__(self, clock: Clock, database: Database, world: World) -> None:
        super().__init__(clock, database)
        self._world = world

    def commit(self, change: Change, on_done: Callable[[KeyplaneError | None], None]) -> None:
        self._world.commits += 1
        due = self._world.commits == self._world.die_at_commit
        if due and self._world.die_before:
            self._world.process.die()
        super().commit(change, on_done)
        if due:
            self._world.process.die()


class World:
    """nodes: ids of the storage nodes that register and send heartbeats while they are alive."""

    def __init__(
        self,
        directory: Path,
        nodes: Sequence[str] = ("a", "b", "c"),
        config: MetadataConfig | None = None,
        url: str = "",
        vault: Vault | None = None,
        signed: bool = False,
    ) -> None:
        self.config = config or MetadataConfig()
        self.vault = vault
        self.signed = signed
        # Who signs the calls that name nobody else.
        self.signer: Signer | None = None
        self.url = url or f"sqlite:///{directory}/metadata.db"
        self.clock = VirtualClock()
        if signed and vault is not None:
            self.signer = self.signs(vault.operator)
        self.network = MemoryNetwork(self.clock)
        self.fleet = Fleet(self.network)
        marker = memds_keys.marker(CLUSTER)
        self.memds = [MemoryMemdsNode(self.clock, f"m{i}", marker) for i in range(2)]
        self.metrics = Metrics()
        # What a node's heartbeats say of the partitions it serves.
        self.loads: Callable[[str], Sequence[pb.PartitionLoad]] = lambda _: ()
        self.starts = 0
        self.commits = 0
        self.die_at_commit = 0
        self.die_before = False
        self.start()
        self.run_until(lambda: self.core.ready)
        for node_id in nodes:
            self.fleet.add(node_id)
            self.register(node_id)
        self.clock.call_later(1.0, self._beat)

    # --- The process -----------------------------------------------------------------------------

    def start(self) -> None:
        self.starts += 1
        self.process = MemoryProcess(self.network, ADDRESS)
        self.database = Database(self.url, wait_s=0.05)
        self.database.migrate()
        self.core = MetadataCore(
            self.config,
            PublisherConfig(CLUSTER),
            self.process.clock,
            self.process.transport,
            self.process.server,
            DyingLedger(self.process.clock, self.database, self),
            self.memds,
            random.Random(self.starts),
            self.metrics,
            self.vault,
            self.signed,
        )
        self.core.start()

    def restart(self) -> None:
        self.process.kill()
        self._revive()
        self.run_until(lambda: self.core.ready)

    def crash_at(self, point: str) -> None:
        """The process dies at this crash point, the next time it gets there."""

        def die() -> None:
            crashpoints.disarm()
            self.process.die()

        crashpoints.arm(point, die)

    def run(self, seconds: float) -> None:
        """Runs virtual time. A process that dies is started again at once."""
        end = self.clock.now() + seconds
        passed: list[bool] = []
        self.clock.call_later(end - self.clock.now(), lambda: passed.append(True))
        self.run_until(lambda: bool(passed), seconds + 1)

    def run_until(self, done: Callable[[], bool], timeout_s: float = 60.0) -> None:
        end = self.clock.now() + timeout_s
        while not done():
            if self.clock.now() > end or not step_through_deaths(self.clock):
                raise TimeoutError(f"not done after {timeout_s} virtual seconds")
            if not self.process.alive:
                self._revive()

    def _revive(self) -> None:
        self.database.close()
        self.start()

    # --- Its callers -----------------------------------------------------------------------------

    def signs(self, credentials: Credentials, skew_s: float = 0.0) -> Signer:
        """skew_s: how far that caller's clock is ahead."""
        wall = lambda: self.clock.wall() + skew_s  # noqa: E731
        return Signer(credentials.key_id, credentials.secret_bytes, wall)

    def ask(
        self,
        method: str,
        request: Message,
        answer: type[_M],
        signer: Signer | None = None,
        header: str | None = None,
    ) -> _M:
        """Calls the Metadata Store. Raises the KeyplaneError it answers with.

        header: in the place of what `signer` would sign.
        """
        replies: list[Reply] = []
        service = pb.DESCRIPTOR.services_by_name["TenantService"]
        name = "TenantService" if method in service.methods_by_name else "MetadataService"
        path = f"/keyplane.metadata.v1.{name}/{method}"
        payload = request.SerializeToString()
        signer = signer or self.signer
        if header is None and signer is not None:
            header = signer.value(path, payload)
        self.network.transport("test").call(
            ADDRESS,
            path,
            payload,
            self.clock.now() + 5.0,
            replies.append,
            [(HEADER, header)] if header else (),
        )
        self.run_until(lambda: bool(replies))
        if replies[0].error is not None:
            raise replies[0].error
        return answer.FromString(replies[0].payload)

    def register(self, node_id: str) -> None:
        node = catalog.Node(node_id=node_id, address=self.fleet.nodes[node_id].address, zone="z")
        self.ask("RegisterNode", pb.RegisterNodeRequest(node=node), pb.RegisterNodeResponse)

    def create(self, table: str = "orders", partitions: int = 4) -> pb.Operation:
        request = new_table(table, partitions)
        return self.ask("CreateTable", request, pb.CreateTableResponse).operation

    def split(
        self, partition_id: int, split_hash: int | None = None, table: str = "orders", **more: Any
    ) -> pb.Operation:
        request = pb.SplitPartitionRequest(
            table=table, partition_id=partition_id, split_hash=split_hash, **more
        )
        return self.ask("SplitPartition", request, pb.SplitPartitionResponse).operation

    def merge(
        self, left_id: int, right_id: int, table: str = "orders", **more: Any
    ) -> pb.Operation:
        request = pb.MergePartitionsRequest(table=table, left_id=left_id, right_id=right_id, **more)
        return self.ask("MergePartitions", request, pb.MergePartitionsResponse).operation

    def move(
        self, partition_id: int, target: str, table: str = "orders", **more: Any
    ) -> pb.Operation:
        request = pb.MovePartitionRequest(
            table=table, partition_id=partition_id, target_node_id=target, **more
        )
        return self.ask("MovePartition", request, pb.MovePartitionResponse).operation

    def drain(self, node_id: str, **more: Any) -> pb.Operation:
        request = pb.DrainNodeRequest(node_id=node_id, **more)
        return self.ask("DrainNode", request, pb.DrainNodeResponse).operation

    def delete(self, table: str = "orders") -> pb.Operation:
        request = pb.DeleteTableRequest(table=table)
        return self.ask("DeleteTable", request, pb.DeleteTableResponse).operation

    def update(
        self,
        durability: int = 0,
        table: str = "orders",
        capacity_mode: int = 0,
        provisioned: catalog.ProvisionedThroughput | None = None,
        on_demand: catalog.OnDemandThroughput | None = None,
    ) -> pb.Operation:
        request = pb.UpdateTableRequest(
            table=table,
            durability=durability,
            capacity_mode=capacity_mode,
            provisioned=provisioned,
            on_demand=on_demand,
        )
        return self.ask("UpdateTable", request, pb.UpdateTableResponse).operation

    def cancel(self, operation_id: str) -> pb.Operation:
        request = pb.CancelOperationRequest(operation_id=operation_id)
        return self.ask("CancelOperation", request, pb.CancelOperationResponse).operation

    def operation(self, operation_id: str) -> pb.Operation:
        request = pb.GetOperationRequest(operation_id=operation_id)
        return self.ask("GetOperation", request, pb.GetOperationResponse).operation

    def finish(self, operation: pb.Operation, timeout_s: float = 120.0) -> pb.Operation:
        """Waits, in virtual time, until an operation has ended."""

        def ended() -> bool:
            held = self.core.catalog.operations.get(operation.operation_id)
            return self.core.ready and (held is None or held.state.ended)

        self.run_until(ended, timeout_s)
        return self.operation(operation.operation_id)

    def settle(self, timeout_s: float = 120.0) -> None:
        """Waits, in virtual time, until every operation has ended."""
        self.run_until(lambda: self.core.ready and not self.core.catalog.active, timeout_s)

    def done(self, operation: pb.Operation) -> pb.Operation:
        """As finish, and it must have succeeded."""
        ended = self.finish(operation)
        assert ended.state == pb.OPERATION_STATE_SUCCEEDED, ended
        return ended

    # --- What is true ----------------------------------------------------------------------------

    def partitions(self, table: str = "orders") -> list[Partition]:
        return list(self.core.catalog.maps[self.table_id(table)].partitions())

    def table_id(self, table: str = "orders") -> int:
        return self.core.catalog.by_name[table].table_id

    def rejected(self, reason: Reason) -> float:
        """Requests refused for a reason so far."""
        return self.metrics.counter("metadata_rejected", "", "reason").value(reason.name)

    def version(self, table: str = "orders") -> int:
        return self.core.catalog.by_name[table].map_version

    def check(self) -> None:
        """The storage nodes serve what the map says, and the database holds what memory does."""
        in_maps = [each for map_ in self.core.catalog.maps.values() for each in map_.partitions()]
        in_maps.sort(key=lambda each: (each.table_id, each.start))
        assert self.fleet.serving() == in_maps, (self.fleet.serving(), in_maps)
        assert all(count == 1 for count in self.fleet.deeds.values()), self.fleet.deeds
        in_memory, in_database = describe(self.core.catalog), describe(self.reread())
        for what, held in in_memory.items():
            assert held == in_database[what], what

    def reread(self) -> Catalog:
        """What a store that started now would know. Takes the database over to find out."""
        database = Database(self.url)
        reread = database.open()
        database.close()
        self.restart()
        return reread

    def _beat(self) -> None:
        self.clock.call_later(1.0, self._beat)
        for node_id, peer in self.fleet.nodes.items():
            if peer.alive:
                request = pb.HeartbeatRequest(node_id=node_id, loads=self.loads(node_id))
                self.network.transport(node_id).call(
                    ADDRESS,
                    "/keyplane.metadata.v1.MetadataService/Heartbeat",
                    request.SerializeToString(),
                    self.clock.now() + 1.0,
                    lambda _: None,
                )


def new_table(table: str = "orders", partitions: int = 4) -> pb.CreateTableRequest:
    return pb.CreateTableRequest(
        table=table,
        partition_key=catalog.KeyAttribute(name="id", type=catalog.SCALAR_TYPE_STRING),
        sort_key=catalog.KeyAttribute(name="at", type=catalog.SCALAR_TYPE_NUMBER),
        partitions=partitions,
    )


def describe(catalog_: Catalog) -> dict[str, Any]:
    """Everything a catalog knows, apart from what a restart changes."""
    return {
        "counters": catalog_.counters,
        "tables": catalog_.tables,
        "maps": {
            key: (map_.version, map_.table.SerializeToString(), list(map_.partitions()))
            for key, map_ in catalog_.maps.items()
        },
        "nodes": catalog_.nodes,
        "tenants": catalog_.tenants,
        "operations": {
            key: each.to_proto().SerializeToString()
            for key, each in catalog_.operations.items()
            if each.state.ended
        },
    }


def refused(call: Callable[[], object]) -> KeyplaneError:
    """The error a call ends in. Fails if it does not."""
    try:
        call()
    except KeyplaneError as error:
        return error
    raise AssertionError("nothing was refused")
