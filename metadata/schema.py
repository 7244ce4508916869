"""The tables of the database. Changed only together with a migration."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    String,
    Text,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

_HALF = 1 << 63


class UInt64(TypeDecorator[int]):
    """An unsigned 64-bit integer in a signed column, shifted by 2**63 so that order is kept."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: int | None, dialect: Dialect) -> int | None:
        return None if value is None else value - _HALF

    def process_result_value(self, value: int | None, dialect: Dialect) -> int | None:
        return None if value is None else value + _HALF


# SQLite gives only INTEGER PRIMARY KEY the place of the row id, without an index of its own.
Id = BigInteger().with_variant(Integer, "sqlite")


# Of a table, with its tenant. SQLite does not look at the length of a text, and so was not told.
TableName = String(255).with_variant(String(32 + 1 + 255), "postgresql")


class Base(DeclarativeBase):
    pass


class LedgerRow(Base):
    """The one row that every transaction changes.

    term: rises whenever a Metadata Store takes the database up; a store whose term is past may
        change nothing any more.
    position: rises by one with every transaction; tells whether one that broke off was carried out.
    """

    __tablename__ = "ledger"

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    term: Mapped[int] = mapped_column(BigInteger)
    position: Mapped[int] = mapped_column(BigInteger)
    next_table_id: Mapped[int] = mapped_column(BigInteger)
    next_partition_id: Mapped[int] = mapped_column(BigInteger)
    next_operation: Mapped[int] = mapped_column(BigInteger)
    planner: Mapped[str] = mapped_column(String(16), server_default=text("'on'"))
    # How often tenants have changed.
    tenants_version: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))


class TableRow(Base):
    __tablename__ = "tables"

    table_id: Mapped[int] = mapped_column(Id, primary_key=True, autoincrement=False)
    # A tenant's id and a slash before the name, but for the tenant `local`.
    name: Mapped[str] = mapped_column(TableName)
    # Types, durability, capacity mode and state hold the numbers of the enums in catalog.proto.
    partition_key: Mapped[str] = mapped_column(String(255))
    partition_key_type: Mapped[int] = mapped_column(Integer)
    sort_key: Mapped[str | None] = mapped_column(String(255))
    sort_key_type: Mapped[int | None] = mapped_column(Integer)
    hash_seed: Mapped[int] = mapped_column(UInt64)
    durability: Mapped[int] = mapped_column(Integer)
    # 1 is CAPACITY_MODE_UNLIMITED, which all tables had before the column.
    capacity_mode: Mapped[int] = mapped_column(Integer, server_default=text("1"))
    # Capacity units a second, of PROVISIONED tables.
    read_units: Mapped[int | None] = mapped_column(Integer)
    write_units: Mapped[int | None] = mapped_column(Integer)
    # Of ON_DEMAND tables; 0 is what DynamoDB has where nothing is set.
    max_read_units: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    max_write_units: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    warm_read_units: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    warm_write_units: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    # As `CapacityChanges.to_json`.
    capacity_changes: Mapped[dict[str, Any]] = mapped_column(JSON, server_default=text("'{}'"))
    state: Mapped[int] = mapped_column(Integer)
    map_version: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[float] = mapped_column(Float(53))
    partitions_min: Mapped[int] = mapped_column(Integer, server_default=text("1"))

    # 4 is TABLE_STATE_DELETED: tombstones may share a name with each other and a live table.
    __table_args__ = (
        Index(
            "tables_live_name",
            "name",
            unique=True,
            sqlite_where=text("state <> 4"),
            postgresql_where=text("state <> 4"),
        ),
    )


class PartitionRow(Base):
    """Hashes from `first_hash` to `last_hash`, both included: 2**64 would not fit the column."""

    __tablename__ = "partitions"

    partition_id: Mapped[int] = mapped_column(Id, primary_key=True, autoincrement=False)
    table_id: Mapped[int] = mapped_column(ForeignKey("tables.table_id"))
    first_hash: Mapped[int] = mapped_column(UInt64)
    last_hash: Mapped[int] = mapped_column(UInt64)
    epoch: Mapped[int] = mapped_column(BigInteger)
    leader: Mapped[str] = mapped_column(String(64))
    # Node ids of all replicas, comma-separated, the leader first.
    replicas: Mapped[str] = mapped_column(Text)

    __table_args__ = (Index("partitions_range", "table_id", "first_hash", unique=True),)


class NodeRow(Base):
    __tablename__ = "nodes"

    node_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    address: Mapped[str] = mapped_column(String(255))
    zone: Mapped[str] = mapped_column(String(64))
    state: Mapped[int] = mapped_column(Integer)


class TenantRow(Base):
    """users: with their keys, whose secrets are sealed; a tenant changes as a whole."""

    __tablename__ = "tenants"

    tenant_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    account: Mapped[str] = mapped_column(String(12), unique=True)
    state: Mapped[int] = mapped_column(Integer)
    limits: Mapped[dict[str, int]] = mapped_column(JSON)
    created_at: Mapped[float] = mapped_column(Float(53))
    users: Mapped[list[dict[str, Any]]] = mapped_column(JSON)


class OperationRow(Base):
    __tablename__ = "operations"

    operation_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    sequence: Mapped[int] = mapped_column(BigInteger, unique=True)
    kind: Mapped[str] = mapped_column(String(32))
    state: Mapped[str] = mapped_column(String(32))
    arguments: Mapped[str] = mapped_column(Text)
    # Null when the caller gave none; many may have none.
    request_id: Mapped[str | None] = mapped_column(String(64), unique=True)
    table_name: Mapped[str] = mapped_column(TableName)
    table_id: Mapped[int] = mapped_column(BigInteger)
    partition_ids: Mapped[list[int]] = mapped_column(JSON)
    result_ids: Mapped[list[int]] = mapped_column(JSON)
    node_id: Mapped[str] = mapped_column(String(64))
    plan: Mapped[dict[str, Any]] = mapped_column(JSON)
    reason: Mapped[str] = mapped_column(String(64))
    message: Mapped[str] = mapped_column(Text)
    progress: Mapped[str] = mapped_column(Text)
    fence_ms: Mapped[float] = mapped_column(Float(53))
    created_at: Mapped[float] = mapped_column(Float(53))
    updated_at: Mapped[float] = mapped_column(Float(53))
    resumed_count: Mapped[int] = mapped_column(Integer)

    __table_args__ = (Index("operations_state", "state"),)
