"""Brings a database to the schema of this build, and refuses one that is ahead of it."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect

from keyplane.model.errors import KeyplaneError, Reason

# A name of our own: the database may be shared with programs that use Alembic too.
VERSION_TABLE = "keyplane_schema_version"


def upgrade(connection: Connection, to: str = "head") -> None:
    """Runs the migrations that are missing, up to the revision `to`, inside the connection's
    transaction.

    Raises KeyplaneError(FOREIGN_FORMAT) on a schema that this build does not know: one from a newer
    build, or tables of some other program. The database is left as it is then.
    """
    config = _config()
    scripts = ScriptDirectory.from_config(config)
    current = schema_version(connection)
    if current is None and inspect(connection).has_table("partitions"):
        raise KeyplaneError(
            Reason.FOREIGN_FORMAT,
            "the database has tables that Keyplane did not make; give Keyplane an empty database",
        )
    known = {script.revision for script in scripts.walk_revisions()}
    if current is not None and current not in known:
        raise KeyplaneError(
            Reason.FOREIGN_FORMAT,
            f"the database has schema {current!r}, which this build does not know: it was written "
            "by a newer Keyplane; run that one, or give this one another database",
        )
    config.attributes["connection"] = connection
    command.upgrade(config, to)


def schema_version(connection: Connection) -> str | None:
    """The revision a database is at; None if Keyplane never used it."""
    context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
    return context.get_current_revision()


def upgrade_script(dialect_name: str) -> str:
    """The SQL that makes the schema from nothing, for people who run it themselves."""
    config = _config()
    config.output_buffer = StringIO()
    config.attributes["dialect_name"] = dialect_name
    command.upgrade(config, "head", sql=True)
    return config.output_buffer.getvalue()


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    return config
