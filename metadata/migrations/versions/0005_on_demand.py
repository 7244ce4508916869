"""Maximum and warm throughput of on-demand tables, and when capacity was changed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_COLUMNS = ("max_read_units", "max_write_units", "warm_read_units", "warm_write_units")


def upgrade() -> None:
    for name in _COLUMNS:
        column = sa.Column(name, sa.Integer(), nullable=False, server_default=sa.text("0"))
        op.add_column("tables", column)
    changes = sa.Column(
        "capacity_changes", sa.JSON(), nullable=False, server_default=sa.text("'{}'")
    )
    op.add_column("tables", changes)
