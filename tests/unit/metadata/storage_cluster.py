"""The Metadata Store over real storage nodes, whose data outlives them."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import structlog
from metadata_world import ADDRESS, World

from keyplane.data.v1 import data_pb2 as data
from keyplane.model.errors import Reason
from keyplane.model.keys import KeySchema, encode_key, key_hash
from keyplane.model.partition import Partition
from keyplane.storage.v1 import storage_pb2 as storage
from storage.config import StorageConfig
from storage.memory import MemoryEngine
from storage.node import StorageNode
from wire import crashpoints
from wire.memory_process import MemoryProcess
from wire.metrics import Metrics
from wire.ports import Reply

_EXECUTE = "/keyplane.storage.v1.StorageService/Execute"
_DESCRIBE = "/keyplane.storage.v1.StorageService/DescribePartitions"


class StorageMember:
    """One node: its process comes and goes, its engine stays."""

    def __init__(self, cluster: StorageCluster, node_id: str) -> None:
        self.config = StorageConfig(
            node_id, "test", address=f"{node_id}:7000", metadata_address=ADDRESS
        )
        self._cluster = cluster
        self._engine = MemoryEngine(cluster.clock)
        self.start()

    def start(self) -> None:
        self.process = MemoryProcess(self._cluster.network, self.config.address)
        self._engine.use(self.process.clock)
        self.node = StorageNode(
            self.config,
            self.process.clock,
            self.process.transport,
            self.process.server,
            self._engine,
            self._cluster.memds,
            Metrics(),
            random.Random(self.config.node_id),
            structlog.testing.CapturingLogger(),
        )
        self.node.start()

    def kill(self) -> None:
        self.process.kill()
        self._engine.crash()


class StorageCluster(World):
    """restart_s: how long a storage node that died stays away."""

    restart_s = 1.0

    def __init__(self, directory: Path, nodes: tuple[str, ...] = ("a", "b", "c")) -> None:
        super().__init__(directory, nodes=())
        self.members = {node_id: StorageMember(self, node_id) for node_id in nodes}
        self.run_until(lambda: len(self.core.catalog.nodes) == len(nodes))
        self.done(self.create())
        schema = self.core.catalog.by_name["orders"].to_proto()
        self._schema = KeySchema.from_table(schema)
        self._seed = schema.hash_seed

    def kill_storage_at(self, point: str, node_id: str) -> None:
        """The storage node dies when it gets to this crash point, and comes back."""

        def die() -> None:
            crashpoints.disarm()
            member = self.members[node_id]
            member.kill()
            self.clock.call_later(self.restart_s, member.start)
            member.process.die()

        crashpoints.arm(point, die)

    # --- Items -----------------------------------------------------------------------------------

    def put_all(self, values: Mapping[str, str]) -> None:
        for name, value in values.items():
            write = storage.WriteOp(key=self._key(name), put=_item(name, value))
            self._execute(name, write=write)

    def get_all(self, names: Mapping[str, str]) -> dict[str, str]:
        found = {}
        for name in names:
            result = self._execute(name, get=storage.GetOp(key=self._key(name))).get
            if result.found:
                found[name] = data.Item.FromString(result.item).attributes["value"].s
        return found

    def serving(self) -> list[Partition]:
        """What the storage nodes say they serve, all of them."""
        found = []
        for member in self.members.values():
            request = storage.DescribePartitionsRequest()
            payload = self._call(member.config.address, _DESCRIBE, request.SerializeToString())
            answer = storage.DescribePartitionsResponse.FromString(payload)
            found += [Partition.from_proto(each) for each in answer.partitions]
        return sorted(found, key=lambda each: (each.table_id, each.start))

    def _execute(self, name: str, **op: Any) -> storage.ExecuteResponse:
        table_id = self.table_id()
        partition = self.core.catalog.maps[table_id].floor(self._key(name).hash)
        request = storage.ExecuteRequest(
            partition_id=partition.partition_id, epoch=partition.epoch, **op
        )
        address = self.members[partition.leader].config.address
        payload = self._call(address, _EXECUTE, request.SerializeToString())
        return storage.ExecuteResponse.FromString(payload)

    def _call(self, address: str, method: str, payload: bytes) -> bytes:
        while True:
            replies: list[Reply] = []
            deadline = self.clock.now() + 5
            self.network.transport("t").call(address, method, payload, deadline, replies.append)
            self.run_until(lambda replies=replies: bool(replies))
            error = replies[0].error
            if error is None:
                return replies[0].payload
            if error.reason not in (Reason.NODE_UNREACHABLE, Reason.NOT_SERVING):
                raise error
            self.run(0.2)

    def _key(self, name: str) -> storage.ItemKey:
        key = encode_key(
            self._schema, {"id": data.AttributeValue(s=name), "at": data.AttributeValue(n="1")}
        )
        return storage.ItemKey(hash=key_hash(self._seed, key.hash_input), encoded=key.encoded)


def _item(name: str, value: str) -> bytes:
    attributes = {
        "id": data.AttributeValue(s=name),
        "at": data.AttributeValue(n="1"),
        "value": data.AttributeValue(s=value),
    }
    return data.Item(attributes=attributes).SerializeToString()
