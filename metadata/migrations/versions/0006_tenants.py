"""Tenants, and names of their tables: a tenant's id, a slash, and the table's own name."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "tenants",
        sa.Column("tenant_id", sa.String(32), primary_key=True),
        sa.Column("account", sa.String(12), nullable=False, unique=True),
        sa.Column("state", sa.Integer(), nullable=False),
        sa.Column("limits", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.Float(53), nullable=False),
        sa.Column("users", sa.JSON(), nullable=False),
    )
    version = sa.Column(
        "tenants_version", sa.BigInteger(), nullable=False, server_default=sa.text("0")
    )
    op.add_column("ledger", version)
    if op.get_context().dialect.name == "postgresql":
        # SQLite does not look at the length of a text.
        op.alter_column("tables", "name", type_=sa.String(288))
        op.alter_column("operations", "table_name", type_=sa.String(288))
