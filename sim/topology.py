"""What a world is made of: how many of each process, which tables, and their settings."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from cache.config import PublisherConfig, ReaderConfig
from cache.tenant_shards import SHARDS
from granter.config import GranterConfig
from keyplane.catalog.v1 import catalog_pb2 as catalog
from keyplane.model.limits import PARTITION_READ_UNITS, PARTITION_WRITE_UNITS
from metadata.config import MetadataConfig, PlannerConfig
from router.config import RouterConfig
from sim.network import Delay
from storage.config import MoveConfig, StorageConfig, WriteConfig

CLUSTER = "sim"
METADATA = "metadata"
GRANTER = "granter"
OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class TableSpec:
    """A table that the world starts with. A tenant's is named `tenant/table`.

    partitions: as created; splits and merges change that. keys: distinct items that clients use.
    power: whether acknowledged writes must survive a loss of power, or only the death of a process.
    sorted: whether items have a sort key besides, so that several share a partition key.
    units: that a PROVISIONED table may use a second, of each kind.
    """

    name: str
    partitions: int = 4
    keys: int = 20
    power: bool = False
    sorted: bool = False
    capacity: catalog.CapacityMode.ValueType = catalog.CAPACITY_MODE_UNLIMITED
    units: int = 0

    @property
    def called(self) -> str:
        """As its tenant's callers name it."""
        return self.name.rpartition("/")[2]

    @property
    def tenant(self) -> str:
        """Whose it is; empty: the cluster's own."""
        return self.name.rpartition("/")[0]

    @property
    def is_limited(self) -> bool:
        return self.capacity != catalog.CAPACITY_MODE_UNLIMITED

    @property
    def durability(self) -> catalog.Durability.ValueType:
        return catalog.DURABILITY_POWER if self.power else catalog.DURABILITY_PROCESS


@dataclass(frozen=True, slots=True)
class TenantSpec:
    """A tenant that the world starts with. requests: a second at one router; 0: any number."""

    name: str
    requests: int = 0


@dataclass(frozen=True, slots=True)
class Topology:
    """Processes are named as on a live cluster: `router-1`, `storage-1`, `memds-1`, `metadata`,
    `granter`.

    delay: of a message between two processes that no fault touches. skew: by how much clocks may
    run fast or slow, as a share. commit_s: of a storage node's disk. The configurations are those
    of the real services; what they leave at 0 or empty the world fills in.
    """

    routers: int = 2
    storage: int = 3
    memds: int = 3
    clients: int = 2
    tables: tuple[TableSpec, ...] = (TableSpec("orders"),)
    delay: Delay = field(default_factory=Delay)
    skew: float = 0.0
    commit_s: float = 0.0003
    router: RouterConfig = field(default_factory=RouterConfig)
    reader: ReaderConfig = field(default_factory=lambda: ReaderConfig(CLUSTER))
    writes: WriteConfig = field(default_factory=WriteConfig)
    moves: MoveConfig = field(default_factory=MoveConfig)
    metadata: MetadataConfig = field(default_factory=MetadataConfig)
    publisher: PublisherConfig = field(default_factory=lambda: PublisherConfig(CLUSTER))
    granter: GranterConfig = field(default_factory=GranterConfig)
    # Seconds between a storage node's reports to MemDS.
    report_s: float = 0.5
    # Capacity units a second that a partition admits, of tables with limits.
    read_units: float = PARTITION_READ_UNITS
    write_units: float = PARTITION_WRITE_UNITS
    # Where there are any, calls are signed and clients belong to them, taking turns.
    tenants: tuple[TenantSpec, ...] = ()
    # Seconds by which what clocks show at the start may differ.
    clocks_apart_s: float = 1_000_000.0
    # Whether seeds draw tables with limits, so low that the load of a world reaches them.
    limited: bool = False

    def router_names(self) -> list[str]:
        return [f"router-{number}" for number in range(1, self.routers + 1)]

    def storage_names(self) -> list[str]:
        return [f"storage-{number}" for number in range(1, self.storage + 1)]

    def memds_names(self) -> list[str]:
        return [f"memds-{number}" for number in range(1, self.memds + 1)]

    def client_names(self) -> list[str]:
        return [f"client-{number}" for number in range(1, self.clients + 1)]

    def tenant_of(self, client: str) -> str:
        """Whose client it is; empty: nobody's, as of all other processes."""
        kind, _, number = client.rpartition("-")
        if kind != "client" or not self.tenants:
            return ""
        return self.tenants[(int(number) - 1) % len(self.tenants)].name

    @property
    def tenants_heard_s(self) -> float:
        """Virtual seconds within which every router has heard of a change of tenants, where nothing
        is wrong: a beat of the publisher, and those in which a router reads all shards, two a beat.
        """
        beats_s = self.publisher.beat_s + SHARDS / 2 * self.reader.beat_s
        return beats_s / (1.0 - self.skew) + 0.5

    def describe(self) -> Mapping[str, object]:
        """What a report says of it."""
        return {
            "routers": self.routers,
            "storage": self.storage,
            "memds": self.memds,
            "clients": self.clients,
            "tables": [f"{spec.name} ({spec.partitions} partitions)" for spec in self.tables],
            **({"tenants": [spec.name for spec in self.tenants]} if self.tenants else {}),
        }


def draw_topology(rng: random.Random, base: Topology) -> Topology:
    """A topology of the size of `base`, with settings that a seed chooses.

    Bounds are drawn small often enough that queues, budgets and memories overflow in a minute of
    virtual time, which at their defaults takes a real load.
    """
    if base.limited:
        base = _draw_limits(rng, base)
    if base.tenants:
        base = _draw_tenants(rng, base)
    small = rng.random() < 0.3
    tables = tuple(
        TableSpec(
            spec.name,
            partitions=rng.randint(1, 3 if base.limited else 12),
            keys=rng.randint(6, 30),
            power=rng.random() < 0.5,
            sorted=rng.random() < 0.5,
            capacity=spec.capacity,
            units=spec.units,
        )
        for spec in base.tables
    )
    return Topology(
        routers=base.routers,
        storage=base.storage,
        memds=base.memds,
        clients=base.clients,
        tables=tables,
        delay=Delay(
            least_s=rng.choice([0.0001, 0.0005, 0.002]),
            spread_s=rng.choice([0.0003, 0.001, 0.004]),
            tail=rng.choice([0.0, 0.005, 0.02]),
            tail_s=rng.choice([0.02, 0.1]),
        ),
        skew=rng.choice([0.0, 0.0, 0.01, 0.05]),
        commit_s=rng.choice([0.0001, 0.001, 0.005, 0.02]),
        router=RouterConfig(
            inflight_max=rng.choice([4, 8]) if small else 4096,
            searches_max=rng.choice([1, 4]) if small else 256,
        ),
        reader=ReaderConfig(
            CLUSTER, beat_s=rng.choice([0.25, 0.5, 1.0]), page_slots=rng.choice([1, 2, 32])
        ),
        writes=WriteConfig(
            queue_writes_max=rng.choice([1, 4]) if small else 10_000,
            batch_writes_max=rng.choice([1, 8, 512]),
            tokens_max=rng.choice([1_000, 4_000]) if small else 200_000,
            probe_s_min=0.05,
        ),
        moves=MoveConfig(
            chunk_bytes=rng.choice([1, 200, 256 << 10]),
            rate_bytes_s=rng.choice([2_000.0, float(64 << 20)]),
            fence_lag_writes=rng.choice([1, 64]),
            fence_queue_max=rng.choice([1, 4]) if small else 1_000,
            incoming_idle_s=rng.choice([5.0, 60.0]),
        ),
        metadata=MetadataConfig(
            node_silence_s=rng.choice([2.0, 5.0]),
            give_up_s=rng.choice([1.0, 10.0]),
            operations_driven_max=rng.choice([1, 4, 32]),
            planner=base.metadata.planner,
        ),
        publisher=PublisherConfig(
            CLUSTER,
            beat_s=rng.choice([0.5, 1.0]),
            # The delay with which routers hear of tenants is one of beats.
            value_slots=max(rng.choice([2, 16]), 16 if base.tenants else 0),
            page_slots=rng.choice([2, 256]),
        ),
        report_s=rng.choice([0.5, 1.0, 3.0]),
        granter=base.granter,
        read_units=base.read_units,
        write_units=base.write_units,
        tenants=base.tenants,
        clocks_apart_s=base.clocks_apart_s,
    )


def _draw_tenants(rng: random.Random, base: Topology) -> Topology:
    """One of the tenants may be held to fewer requests than its clients make."""
    held = rng.randrange(len(base.tenants))
    requests = rng.choice([0, 2, 4])
    tenants = (
        replace(each, requests=requests if number == held else 0)
        for number, each in enumerate(base.tenants)
    )
    return replace(base, tenants=tuple(tenants))


def _draw_limits(rng: random.Random, base: Topology) -> Topology:
    """Partitions that a few clients make hot, a table with little throughput, and a planner in a
    hurry.
    """
    read_units, write_units = rng.choice([6.0, 16.0]), rng.choice([10.0, 14.0])
    first, *others = base.tables
    planner = PlannerConfig(
        read_units=read_units,
        write_units=write_units,
        throttled_per_s=0.5,
        hot_for_s=rng.choice([1.0, 3.0]),
        settle_s=rng.choice([1.0, 4.0]),
        cold_s=rng.choice([10.0, 14.0]),
        declined_s=10.0,
        unbalanced_for_s=3.0,
        operations_per_s=rng.choice([0.05, 1.0]),
        operations_burst=1.0,
        operations_max=rng.choice([1, 2]),
    )
    return replace(
        base,
        tables=(
            replace(first, capacity=catalog.CAPACITY_MODE_ON_DEMAND),
            *(
                replace(each, capacity=catalog.CAPACITY_MODE_PROVISIONED, units=rng.choice([5, 10]))
                for each in others
            ),
        ),
        metadata=replace(base.metadata, planner=planner),
        granter=replace(base.granter, burst_s=rng.choice([2.0, 4.0])),
        read_units=read_units,
        write_units=write_units,
    )


def storage_config(topology: Topology, name: str, address: str, metadata: str) -> StorageConfig:
    return StorageConfig(
        node_id=name,
        cluster=CLUSTER,
        address=address,
        zone=f"zone-{int(name.rpartition('-')[2]) % 3}",
        metadata_address=metadata,
        report_s=topology.report_s,
        writes=topology.writes,
        moves=topology.moves,
        read_units=topology.read_units,
        write_units=topology.write_units,
    )
