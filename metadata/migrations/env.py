"""Alembic's entry point. Run by `metadata.migrate`, which hands over the connection."""

from __future__ import annotations

from alembic import context

from metadata.migrate import VERSION_TABLE
from metadata.schema import Base

connection = context.config.attributes.get("connection")

if context.is_offline_mode():
    context.configure(
        dialect_name=context.config.attributes["dialect_name"],
        target_metadata=Base.metadata,
        version_table=VERSION_TABLE,
        literal_binds=True,
    )
else:
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        version_table=VERSION_TABLE,
        render_as_batch=True,
    )

with context.begin_transaction():
    context.run_migrations()
