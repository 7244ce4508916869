"""The planner: whether it acts, and how many partitions of a table it leaves alone.

Tables that are there keep as many partitions as they have: somebody has asked for each of them.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_COUNT = "(SELECT count(*) FROM partitions WHERE partitions.table_id = tables.table_id)"


def upgrade() -> None:
    op.add_column(
        "ledger",
        sa.Column("planner", sa.String(16), nullable=False, server_default=sa.text("'on'")),
    )
    op.add_column(
        "tables",
        sa.Column("partitions_min", sa.Integer(), nullable=False, server_default=sa.text("1")),
    )
    op.execute(f"UPDATE tables SET partitions_min = {_COUNT} WHERE {_COUNT} > 1")
