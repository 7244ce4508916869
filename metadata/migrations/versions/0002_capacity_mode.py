"""How much of a table may be used: until now, as much as the machines could do."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # 1 is CAPACITY_MODE_UNLIMITED.
    column = sa.Column("capacity_mode", sa.Integer(), nullable=False, server_default=sa.text("1"))
    op.add_column("tables", column)
