"""What provisioned tables may use in the long run; until now there were none."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("tables", sa.Column("read_units", sa.Integer(), nullable=True))
    op.add_column("tables", sa.Column("write_units", sa.Integer(), nullable=True))
