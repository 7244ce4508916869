"""Ledger, tables, partitions, nodes and operations.

Unsigned 64-bit columns (hash_seed, first_hash, last_hash) hold their value minus 2**63.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# SQLite makes only INTEGER PRIMARY KEY the row id itself.
_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_LIVE = sa.text("state <> 4")


def upgrade() -> None:
    op.create_table(
        "ledger",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("term", sa.BigInteger(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("next_table_id", sa.BigInteger(), nullable=False),
        sa.Column("next_partition_id", sa.BigInteger(), nullable=False),
        sa.Column("next_operation", sa.BigInteger(), nullable=False),
    )
    op.create_table(
        "tables",
        sa.Column("table_id", _ID, primary_key=True, autoincrement=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("partition_key", sa.String(255), nullable=False),
        sa.Column("partition_key_type", sa.Integer(), nullable=False),
        sa.Column("sort_key", sa.String(255)),
        sa.Column("sort_key_type", sa.Integer()),
        sa.Column("hash_seed", sa.BigInteger(), nullable=False),
        sa.Column("durability", sa.Integer(), nullable=False),
        sa.Column("state", sa.Integer(), nullable=False),
        sa.Column("map_version", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.Float(53), nullable=False),
    )
    op.create_index(
        "tables_live_name",
        "tables",
        ["name"],
        unique=True,
        sqlite_where=_LIVE,
        postgresql_where=_LIVE,
    )
    op.create_table(
        "partitions",
        sa.Column("partition_id", _ID, primary_key=True, autoincrement=False),
        sa.Column("table_id", _ID, sa.ForeignKey("tables.table_id"), nullable=False),
        sa.Column("first_hash", sa.BigInteger(), nullable=False),
        sa.Column("last_hash", sa.BigInteger(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("leader", sa.String(64), nullable=False),
        sa.Column("replicas", sa.Text(), nullable=False),
    )
    op.create_index("partitions_range", "partitions", ["table_id", "first_hash"], unique=True)
    op.create_table(
        "nodes",
        sa.Column("node_id", sa.String(64), primary_key=True),
        sa.Column("address", sa.String(255), nullable=False),
        sa.Column("zone", sa.String(64), nullable=False),
        sa.Column("state", sa.Integer(), nullable=False),
    )
    op.create_table(
        "operations",
        sa.Column("operation_id", sa.String(64), primary_key=True),
        sa.Column("sequence", sa.BigInteger(), nullable=False, unique=True),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("arguments", sa.Text(), nullable=False),
        sa.Column("request_id", sa.String(64), unique=True),
        sa.Column("table_name", sa.String(255), nullable=False),
        sa.Column("table_id", sa.BigInteger(), nullable=False),
        sa.Column("partition_ids", sa.JSON(), nullable=False),
        sa.Column("result_ids", sa.JSON(), nullable=False),
        sa.Column("node_id", sa.String(64), nullable=False),
        sa.Column("plan", sa.JSON(), nullable=False),
        sa.Column("reason", sa.String(64), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("progress", sa.Text(), nullable=False),
        sa.Column("fence_ms", sa.Float(53), nullable=False),
        sa.Column("created_at", sa.Float(53), nullable=False),
        sa.Column("updated_at", sa.Float(53), nullable=False),
        sa.Column("resumed_count", sa.Integer(), nullable=False),
    )
    op.create_index("operations_state", "operations", ["state"])


def downgrade() -> None:
    for table in ("operations", "nodes", "partitions", "tables", "ledger"):
        op.drop_table(table)
