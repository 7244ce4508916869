"""What the database holds about tables and nodes, as immutable values."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field, replace

from google.protobuf.timestamp_pb2 import Timestamp

from keyplane.catalog.v1 import catalog_pb2 as pb
from keyplane.metadata.v1.metadata_pb2 import CreateTableRequest, UpdateTableRequest
from keyplane.model.limits import WARM_READ_UNITS, WARM_WRITE_UNITS
from metadata.capacity_changes import CapacityChanges


@dataclass(frozen=True, slots=True)
class KeyAttribute:
    name: str
    type: pb.ScalarType.ValueType

    def to_proto(self) -> pb.KeyAttribute:
        return pb.KeyAttribute(name=self.name, type=self.type)


@dataclass(frozen=True, slots=True)
class Throughput:
    """Capacity units a second that a table may use in the long run."""

    read_units: int
    write_units: int

    @classmethod
    def of(cls, request: CreateTableRequest | UpdateTableRequest) -> Throughput | None:
        """What a request says of it, if it does."""
        if not request.HasField("provisioned"):
            return None
        provisioned = request.provisioned
        return cls(provisioned.read_capacity_units, provisioned.write_capacity_units)

    def to_proto(self) -> pb.ProvisionedThroughput:
        return pb.ProvisionedThroughput(
            read_capacity_units=self.read_units, write_capacity_units=self.write_units
        )


class PlannerMode(enum.StrEnum):
    """What the planner does with what it has planned. DRY_RUN: nothing but to show it."""

    ON = "on"
    DRY_RUN = "dry_run"
    OFF = "off"


@dataclass(frozen=True, slots=True)
class OnDemand:
    """What is set of a table for when it is on-demand, in capacity units a second.

    max_read_units, max_write_units: 0 for none. warm_read_units, warm_write_units: what it may use
    at once, which only rises; 0 for what a new table has.
    """

    max_read_units: int = 0
    max_write_units: int = 0
    warm_read_units: int = 0
    warm_write_units: int = 0

    def updated(self, asked: pb.OnDemandThroughput) -> OnDemand:
        """With what a request says of it; the rest as it is."""
        # What is set to 0 is listed, too: the fields have presence.
        named = {each.name: value for each, value in asked.ListFields()}
        return replace(self, **named)

    def warmed(self, provisioned: Throughput | None) -> OnDemand:
        """At least as warm as what was provisioned: DynamoDB raises warm throughput with that, and
        a table that is switched goes on with as much as it had. "Understanding DynamoDB warm
        throughput in different scenarios", https://docs.aws.amazon.com/amazondynamodb/latest/
        developerguide/warm-throughput-scenarios.html
        """
        if provisioned is None:
            return self
        reads, writes = self.warm_read_units, self.warm_write_units
        if provisioned.read_units > WARM_READ_UNITS:
            reads = max(reads, provisioned.read_units)
        if provisioned.write_units > WARM_WRITE_UNITS:
            writes = max(writes, provisioned.write_units)
        return replace(self, warm_read_units=reads, warm_write_units=writes)

    def to_proto(self) -> pb.OnDemandThroughput:
        """Without what is not set."""
        return pb.OnDemandThroughput(
            max_read_units=self.max_read_units or None,
            max_write_units=self.max_write_units or None,
            warm_read_units=self.warm_read_units or None,
            warm_write_units=self.warm_write_units or None,
        )


@dataclass(frozen=True, slots=True)
class TableRecord:
    """One table, or the tombstone of one.

    map_version rises with every change that routers must hear of, and goes on where a deleted
    table of the same name stopped: a router never accepts a lower version under one name.
    provisioned: of capacity mode PROVISIONED. on_demand: of ON_DEMAND, kept while it has another.
    changes: of its capacity, that limit further ones. created_at: seconds since 1970.
    partitions_min: as many as somebody has asked for, when the table was made and by splits since.
        The planner leaves it at that.
    """

    table_id: int
    name: str
    partition_key: KeyAttribute
    sort_key: KeyAttribute | None
    hash_seed: int
    durability: pb.Durability.ValueType
    capacity_mode: pb.CapacityMode.ValueType
    provisioned: Throughput | None
    state: pb.TableState.ValueType
    map_version: int
    created_at: float
    partitions_min: int = 1
    on_demand: OnDemand = OnDemand()
    changes: CapacityChanges = field(default_factory=CapacityChanges)

    @property
    def active(self) -> bool:
        return self.state == pb.TABLE_STATE_ACTIVE

    @property
    def deleted(self) -> bool:
        return self.state == pb.TABLE_STATE_DELETED

    def to_proto(self) -> pb.Table:
        table = pb.Table(
            table_id=self.table_id,
            name=self.name,
            partition_key=self.partition_key.to_proto(),
            hash_seed=self.hash_seed,
            durability=self.durability,
            capacity_mode=self.capacity_mode,
            state=self.state,
            created_at=timestamp(self.created_at),
        )
        if self.sort_key is not None:
            table.sort_key.CopyFrom(self.sort_key.to_proto())
        if self.provisioned is not None:
            table.provisioned.CopyFrom(self.provisioned.to_proto())
        is_on_demand = self.capacity_mode == pb.CAPACITY_MODE_ON_DEMAND
        if is_on_demand and self.on_demand != OnDemand():
            table.on_demand.CopyFrom(self.on_demand.to_proto())
        return table


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """A storage node that has registered.

    state: UP, DRAINING or DRAINED. SUSPECT is never recorded; it follows from missing heartbeats.
    """

    node_id: str
    address: str
    zone: str
    state: pb.NodeState.ValueType

    def to_proto(self) -> pb.Node:
        return pb.Node(node_id=self.node_id, address=self.address, zone=self.zone, state=self.state)


def timestamp(seconds: float) -> Timestamp:
    """Seconds since 1970 as a protobuf timestamp, to the microsecond."""
    stamp = Timestamp()
    stamp.FromMicroseconds(round(seconds * 1e6))
    return stamp
