"""The database fails: changes are refused with DATABASE_ERROR, and memory stays what it was."""

from __future__ import annotations

from pathlib import Path

import pytest
from database_faults import broken_after_commit, full_disk, locked
from metadata_world import World, describe, refused
from sqlalchemy import create_engine, select, text
from sqlalchemy.orm import Session

from keyplane.catalog.v1 import catalog_pb2 as catalog
from keyplane.metadata.v1 import metadata_pb2 as pb
from keyplane.model.errors import KeyplaneError, Reason
from metadata import migrate
from metadata.capacity_changes import CapacityChanges
from metadata.catalog import Catalog
from metadata.change import Change, Counters
from metadata.database import Database, parse_url
from metadata.records import OnDemand
from metadata.rows import table_from_row
from metadata.schema import Base, TableRow


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path)
    world.done(world.create())
    return world


def test_a_locked_database_changes_nothing_and_is_found_again(world: World, tmp_path: Path) -> None:
    """Refused while it is locked, at once the second time; works again when it is free."""
    before = describe(world.core.catalog)
    with locked(tmp_path / "metadata.db"):
        first = refused(lambda: world.create("more"))
        second = refused(lambda: world.split(1))
        assert (first.reason, second.reason) == (Reason.DATABASE_ERROR, Reason.DATABASE_ERROR)
        assert "locked" in first.message
        assert describe(world.core.catalog) == before
        assert world.core.ready
    world.run(2)
    world.done(world.create("more"))
    world.check()


def test_a_full_disk_changes_nothing(world: World) -> None:
    before = describe(world.core.catalog)
    with full_disk():
        assert refused(lambda: world.create("more")).reason is Reason.DATABASE_ERROR
        assert describe(world.core.catalog) == before
    world.run(2)
    world.done(world.create("more"))
    world.check()


def test_an_operation_under_way_waits_for_the_database(world: World, tmp_path: Path) -> None:
    """The storage node has split, the commit fails for longer than the operation's own patience:
    it is finished when the database is back, and the split was done once."""
    operation = world.split(1, 5)
    with locked(tmp_path / "metadata.db"):
        world.run(30)
        assert "DATABASE_ERROR" in world.operation(operation.operation_id).progress
    world.done(operation)
    world.check()


def test_a_commit_that_was_made_but_reported_as_failed_is_found(world: World) -> None:
    """The caller was told DATABASE_ERROR, which is indefinite: the operation turns out to be there,
    is taken into memory, and its request id still names it."""
    with broken_after_commit():
        error = refused(lambda: world.split(1, 5, request_id="once"))
    assert error.reason is Reason.DATABASE_ERROR
    assert not error.definite
    world.run(2)
    again = world.split(1, 5, request_id="once")
    world.done(again)
    assert len(world.partitions()) == 5
    world.check()


def test_two_stores_on_one_database(world: World) -> None:
    """The later one has it; the earlier one changes nothing any more and is not ready."""
    later = Database(world.url)
    catalog = later.open()
    error = refused(lambda: world.create("more"))
    assert error.reason is Reason.DATABASE_ERROR
    assert "another Metadata Store" in error.message
    assert not world.core.ready
    later.write(Change(catalog.counters))
    assert "another Metadata Store" in refused(lambda: world.create("more")).message


def test_reads_go_on_without_the_database(world: World, tmp_path: Path) -> None:
    """They are answered from memory."""
    with locked(tmp_path / "metadata.db"):
        refused(lambda: world.split(1))
        request = pb.DescribeTableRequest(table="orders")
        answer = world.ask("DescribeTable", request, pb.DescribeTableResponse)
        assert answer.partition_count == 4


# --- The schema --------------------------------------------------------------------------------


def test_the_migrations_make_the_schema_of_the_models(tmp_path: Path) -> None:
    """Alembic, asked to compare the two, finds nothing to change."""
    from alembic.autogenerate import compare_metadata
    from alembic.runtime.migration import MigrationContext

    url = f"sqlite:///{tmp_path}/new.db"
    Database(url).migrate()
    with create_engine(url).connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"version_table": migrate.VERSION_TABLE, "compare_type": True}
        )
        assert compare_metadata(context, Base.metadata) == []


def test_tables_of_the_first_schema_are_unlimited(tmp_path: Path) -> None:
    """And all else of them is as it was."""
    engine = create_engine(f"sqlite:///{tmp_path}/old.db")
    with engine.begin() as connection:
        migrate.upgrade(connection, "0001")
        connection.execute(
            text(
                "INSERT INTO tables (table_id, name, partition_key, partition_key_type, hash_seed,"
                " durability, state, map_version, created_at)"
                " VALUES (1, 'old', 'id', 1, -5, 2, 2, 7, 1.5)"
            )
        )
    with engine.begin() as connection:
        migrate.upgrade(connection)
    with Session(engine) as session:
        table = table_from_row(session.scalars(select(TableRow)).one())
    assert (table.name, table.durability, table.map_version) == ("old", 2, 7)
    assert table.capacity_mode == catalog.CAPACITY_MODE_UNLIMITED
    assert table.provisioned is None
    assert table.on_demand == OnDemand()
    assert table.changes == CapacityChanges()


def test_migrating_again_changes_nothing(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/new.db"
    Database(url).migrate()
    Database(url).migrate()
    assert describe(Database(url).open()) == describe(Catalog(counters=Counters()))


def test_a_database_of_a_newer_build_is_refused(tmp_path: Path) -> None:
    """With a sentence that says what to do, and without touching it."""
    url = f"sqlite:///{tmp_path}/new.db"
    Database(url).migrate()
    with create_engine(url).begin() as connection:
        connection.execute(text(f"UPDATE {migrate.VERSION_TABLE} SET version_num = '9999'"))
    error = refused(lambda: Database(url).migrate())
    assert error.reason is Reason.FOREIGN_FORMAT
    assert "newer Keyplane" in error.message
    with create_engine(url).connect() as connection:
        assert migrate.schema_version(connection) == "9999"


def test_a_database_of_another_program_is_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/other.db"
    with create_engine(url).begin() as connection:
        connection.execute(text("CREATE TABLE partitions (id INTEGER)"))
    error = refused(lambda: Database(url).migrate())
    assert error.reason is Reason.FOREIGN_FORMAT


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "junk.db").write_bytes(b"this is no database" * 1000)
    error = refused(lambda: Database(f"sqlite:///{tmp_path}/junk.db").migrate())
    assert error.reason is Reason.DATABASE_ERROR


@pytest.mark.parametrize("url", ["", "metadata.db", "mysql://x/y", "http://x", "sqlite"])
def test_a_url_that_names_no_database_is_refused(url: str) -> None:
    with pytest.raises(KeyplaneError) as caught:
        parse_url(url)
    assert caught.value.reason is Reason.INVALID_ARGUMENT


def test_the_schema_can_be_printed() -> None:
    """For both databases, without one."""
    assert "BIGINT" in migrate.upgrade_script("postgresql")
    assert "CREATE TABLE operations" in migrate.upgrade_script("sqlite")
