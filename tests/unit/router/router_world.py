"""A router in memory, with MemDS, storage nodes and a caller, all on one virtual clock."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from google.protobuf.message import Message
from storage_peer import StoragePeer

from cache import memds_keys
from cache.config import PublisherConfig, ReaderConfig
from cache.memory import MemoryMemdsNode
from cache.partition_map import PartitionMap
from cache.publisher import PublishedTenants, Publisher
from cache.tenant_shards import SHARDS, shard_of
from keyplane.catalog.v1 import catalog_pb2 as catalog
from keyplane.data.v1 import data_pb2 as data
from keyplane.model.credentials import Credentials
from keyplane.model.errors import KeyplaneError
from keyplane.model.items import from_item, to_item
from keyplane.model.keys import KeySchema, encode_key, key_hash
from keyplane.model.partition import Partition, even_ranges
from keyplane.model.signature import HEADER, Signer
from keyplane.model.vault import Vault
from keyplane.route.v1 import route_pb2 as route
from router.config import RouterConfig
from router.core import RouterCore
from wire.memory import MemoryDisk, MemoryNetwork, VirtualClock
from wire.memory_process import MemoryProcess
from wire.metrics import Counter, Metrics
from wire.ports import Reply, Transport

CLUSTER = "test"
DATA = "/keyplane.data.v1.DataService/"
ROUTE = "/keyplane.route.v1.RouteService/"

_R = TypeVar("_R", bound=Message)


def make_table(name: str = "music", table_id: int = 7, sort_key: bool = False) -> catalog.Table:
    text = catalog.SCALAR_TYPE_STRING
    return catalog.Table(
        table_id=table_id,
        name=name,
        partition_key=catalog.KeyAttribute(name="artist", type=text),
        sort_key=catalog.KeyAttribute(name="song", type=text) if sort_key else None,
        hash_seed=42,
        state=catalog.TABLE_STATE_ACTIVE,
    )


def hash_of(table: catalog.Table, **key: Any) -> int:
    schema = KeySchema.from_table(table)
    return key_hash(table.hash_seed, encode_key(schema, to_item(key).attributes).hash_input)


def artist_in(table: catalog.Table, partition: Partition, start: int = 0) -> str:
    """A partition key whose hash the partition covers."""
    number = start
    while not partition.covers(hash_of(table, artist=f"artist {number}", song="x")):
        number += 1
    return f"artist {number}"


@dataclass
class Source:
    """What the publisher publishes."""

    by_name: dict[str, PartitionMap] = field(default_factory=dict)
    deleted: list[catalog.MapRoot] = field(default_factory=list)
    nodes: catalog.NodeDirectory = field(default_factory=catalog.NodeDirectory)

    def maps(self) -> Iterable[PartitionMap]:
        return self.by_name.values()

    def tombstones(self) -> Iterable[catalog.MapRoot]:
        return self.deleted

    def directory(self) -> catalog.NodeDirectory:
        return self.nodes


@dataclass
class Pending:
    """A request on its way: `reply` once it is answered."""

    world: World
    response_type: type[Message]
    reply: Reply | None = None

    @property
    def done(self) -> bool:
        return self.reply is not None

    def wait(self, timeout_s: float = 70.0) -> Any:
        """The response. Raises the error it was answered with."""
        self.world.clock.run_until(lambda: self.done, timeout_s)
        assert self.reply is not None
        if self.reply.error is not None:
            raise self.reply.error
        return self.response_type.FromString(self.reply.payload)

    def error(self, timeout_s: float = 70.0) -> KeyplaneError:
        self.world.clock.run_until(lambda: self.done, timeout_s)
        assert self.reply is not None
        assert self.reply.error is not None, "it succeeded"
        return self.reply.error


class World:
    """Three storage nodes, two memcached nodes and their publisher, one router.

    Storage nodes are `StoragePeer`s; the table `music` has its partitions dealt round to them.
    """

    def __init__(
        self,
        partitions: int = 6,
        sort_key: bool = False,
        config: RouterConfig | None = None,
        seed: int = 1,
        watch: Callable[[Transport], Transport] = lambda transport: transport,
        vault: Vault | None = None,
    ) -> None:
        """watch: may look at the calls of the router, by wrapping its transport. vault: calls are
        signed, and `shards` are published.
        """
        self.vault = vault
        self.shards = [catalog.TenantShard() for _ in range(SHARDS)]
        self.clock = VirtualClock()
        self.network = MemoryNetwork(self.clock)
        self.disk = MemoryDisk(self.clock)
        self.metrics = Metrics()
        self._rng = random.Random(seed)
        self._config = config
        self._watch = watch
        marker = memds_keys.marker(CLUSTER)
        self.memds = [MemoryMemdsNode(self.clock, f"memds-{n}", marker) for n in (1, 2)]
        self.nodes = {
            name: StoragePeer(self.network, name)
            for name in ("storage-1", "storage-2", "storage-3")
        }
        self.table = make_table(sort_key=sort_key)
        names = list(self.nodes)
        self.partitions = [
            Partition(number + 1, self.table.table_id, start, end, 1, names[number % 3])
            for number, (start, end) in enumerate(even_ranges(partitions))
        ]
        for partition in self.partitions:
            self.nodes[partition.leader].open(self.table, partition)
        self.source = Source(
            {self.table.name: PartitionMap.build(self.table, 1, self.partitions)},
            nodes=catalog.NodeDirectory(
                version=1, nodes=[node.node for node in self.nodes.values()]
            ),
        )
        self.publisher = Publisher(
            PublisherConfig(CLUSTER),
            self.clock,
            self.memds,
            Metrics(),
            self.source,
            PublishedTenants(vault, lambda: self.shards) if vault is not None else None,
        )
        self.publisher.start()
        self.router: RouterCore | None = None
        self.process: MemoryProcess | None = None

    def start_router(self, seeds: Iterable[str] = (), boot_s: float = 1.0) -> RouterCore:
        """Starts the router, in the place of an earlier one, and lets it boot."""
        if self.process is not None:
            self.process.kill()
        self.process = process = MemoryProcess(self.network, "router-1:7000")
        config = self._config or RouterConfig(seeds=tuple(seeds))
        self.metrics = Metrics()
        self.router = RouterCore(
            config,
            ReaderConfig(CLUSTER),
            process.clock,
            self._watch(process.transport),
            process.server,
            self.memds,
            self.disk,
            self._rng,
            self.metrics,
            self.vault,
        )
        self.router.start()
        self.clock.run_for(boot_s)
        return self.router

    def lose_memds(self) -> None:
        for node in self.memds:
            node.down = True

    def seeds(self) -> list[str]:
        return [node.address for node in self.nodes.values()]

    def owner(self, key_hash: int) -> StoragePeer:
        """The node that serves a hash now."""
        for node in self.nodes.values():
            if any(partition.covers(key_hash) for partition in node.serving.values()):
                return node
        raise AssertionError("nobody serves it")

    def counter(self, name: str) -> Counter:
        found = next(metric for metric in self.metrics if metric.name == name)
        assert isinstance(found, Counter)
        return found

    # --- requests -------------------------------------------------------------------------------

    def call(
        self,
        method: str,
        request: Message | bytes,
        response_type: type[Message],
        timeout_s: float = 5.0,
        signer: Signer | None = None,
        header: str = "",
        peer: str = "client",
    ) -> Pending:
        """Sends a request to the router, as its client would. header: a signature made before."""
        pending = Pending(self, response_type)

        def on_reply(reply: Reply) -> None:
            pending.reply = reply

        payload = request if isinstance(request, bytes) else request.SerializeToString()
        deadline = self.clock.now() + timeout_s
        if signer is not None:
            header = signer.value(method, payload)
        self.network.transport(peer).call(
            "router-1:7000",
            method,
            payload,
            deadline,
            on_reply,
            [(HEADER, header)] if header else (),
        )
        return pending

    def start_get(self, artist: str, table: str = "music", timeout_s: float = 5.0) -> Pending:
        request = data.GetItemRequest(table=table, key=to_item({"artist": artist}))
        return self.call(DATA + "GetItem", request, data.GetItemResponse, timeout_s)

    def get(self, artist: str, table: str = "music") -> dict[str, Any] | None:
        response = self.start_get(artist, table).wait()
        return from_item(response.item) if response.HasField("item") else None

    def start_put(
        self,
        artist: str,
        token: data.WriteToken | None = None,
        condition: data.Condition | None = None,
        timeout_s: float = 5.0,
        **attributes: Any,
    ) -> Pending:
        item = to_item({"artist": artist, **attributes})
        request = data.PutItemRequest(table="music", item=item, token=token, condition=condition)
        return self.call(DATA + "PutItem", request, data.PutItemResponse, timeout_s)

    def put(self, artist: str, **attributes: Any) -> int:
        version: int = self.start_put(artist, **attributes).wait().version
        return version

    def explain(self, artist: str, table: str = "music") -> route.ExplainResponse:
        request = route.ExplainRequest(table=table, key=to_item({"artist": artist}))
        response = self.call(ROUTE + "Explain", request, route.ExplainResponse).wait()
        assert isinstance(response, route.ExplainResponse)
        return response

    # --- tenants --------------------------------------------------------------------------------

    def add_table(self, name: str, table_id: int) -> catalog.Table:
        """One more table, of one partition. `name` is that inside the cluster."""
        table = make_table(name, table_id)
        # Storage peers tell tables apart by their hashes alone.
        table.hash_seed = table_id
        partition = Partition(100 + table_id, table_id, 0, 2**64, 1, "storage-1")
        self.nodes["storage-1"].open(table, partition)
        self.source.by_name[name] = PartitionMap.build(table, 1, [partition])
        return table

    def set_tenant(
        self,
        tenant_id: str,
        users: Mapping[str, tuple[Credentials, int]],
        account: str = "123456789012",
        suspended: bool = False,
        **limits: int,
    ) -> None:
        """Publishes a tenant with its users: credentials and role of each."""
        number = shard_of(tenant_id)
        before = self.shards[number]
        shard = catalog.TenantShard(version=before.version + 1)
        shard.tenants.extend(each for each in before.tenants if each.tenant.tenant_id != tenant_id)
        state = catalog.TENANT_STATE_SUSPENDED if suspended else catalog.TENANT_STATE_ACTIVE
        access = shard.tenants.add(
            tenant=catalog.Tenant(
                tenant_id=tenant_id,
                account=account,
                state=state,
                limits=catalog.TenantLimits(**limits),
            )
        )
        for name, (credentials, role) in users.items():
            key = catalog.SigningKey(key_id=credentials.key_id, secret=credentials.secret_bytes)
            access.users.add(name=name, role=role, keys=[key])
        self.shards[number] = shard

    # --- what happens to partitions -------------------------------------------------------------

    def split(self, partition: Partition) -> list[Partition]:
        """Splits at the storage node. Nobody else is told."""
        middle = (partition.start + partition.end) // 2
        new_id = 1000 + 2 * partition.partition_id
        bounds = ((partition.start, middle), (middle, partition.end))
        children = [
            Partition(
                new_id + n, partition.table_id, start, end, partition.epoch + 1, partition.leader
            )
            for n, (start, end) in enumerate(bounds)
        ]
        self.nodes[partition.leader].retire(partition.partition_id, *children)
        return children

    def move(self, partition: Partition, target: str) -> Partition:
        """Moves, items and all. Only the two nodes know."""
        source = self.nodes[partition.leader]
        moved = Partition(
            partition.partition_id,
            partition.table_id,
            partition.start,
            partition.end,
            partition.epoch + 1,
            target,
        )
        source.retire(partition.partition_id, moved)
        source.known_nodes.append(self.nodes[target].node)
        self.nodes[target].open(self.table, moved)
        for key in [key for key in source.items if partition.covers(key[0])]:
            self.nodes[target].items[key] = source.items.pop(key)
            self.nodes[target].sizes[key] = source.sizes.pop(key)
        return moved
