"""PostgreSQL holds the control plane's state as SQLite does, through the same faults."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from database_faults import broken_after_commit
from metadata_world import World, describe, refused
from postgres_server import PostgresServer, find_binaries
from sqlalchemy import create_engine
from test_metadata_crashes import BEGIN, DONE, begin_despite_a_crash

from keyplane.model.errors import Reason
from metadata import migrate
from metadata.database import Database, parse_url
from metadata.plans import Kind
from metadata.schema import Base

pytestmark = pytest.mark.postgres


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    binaries = find_binaries()
    if binaries is None:
        pytest.skip("PostgreSQL is not installed; scripts/test installs it")
    server = PostgresServer(binaries)
    try:
        server.start()
        yield server
    finally:
        server.remove()


def make_world(server: PostgresServer, tmp_path: Path) -> World:
    world = World(tmp_path, url=server.new_database())
    world.done(world.create())
    return world


@pytest.fixture
def world(server: PostgresServer, tmp_path: Path) -> World:
    return make_world(server, tmp_path)


@pytest.mark.parametrize("kind", list(Kind))
def test_every_operation(world: World, kind: Kind) -> None:
    """Done, persisted, and read back as it was."""
    world.done(BEGIN[kind](world))
    assert DONE[kind](world)
    world.check()


def test_hashes_above_the_signed_range_are_kept(world: World) -> None:
    """Key hashes and seeds are unsigned 64-bit, PostgreSQL's widest integer is signed."""
    world.done(world.split(4, (1 << 64) - 1))
    assert world.partitions()[-1].start == (1 << 64) - 1
    world.check()


@pytest.mark.parametrize("kind", [Kind.CREATE_TABLE, Kind.MERGE])
def test_a_crash_before_and_after_every_commit(
    server: PostgresServer, tmp_path: Path, kind: Kind
) -> None:
    for before in (True, False):
        number, survived = 1, False
        while not survived:
            world = make_world(server, tmp_path)
            world.commits, world.die_at_commit, world.die_before = 0, number, before
            starts = world.starts
            begin_despite_a_crash(world, kind)
            world.settle()
            survived = world.starts == starts
            assert (before and number == 1) or DONE[kind](world)
            world.check()
            number += 1


def test_a_server_that_is_gone_changes_nothing_and_is_found_again(
    server: PostgresServer, world: World
) -> None:
    """While it is down changes are refused and reads answered; afterwards all goes on."""
    before = describe(world.core.catalog)
    server.kill()
    try:
        assert refused(lambda: world.create("more")).reason is Reason.DATABASE_ERROR
        assert refused(lambda: world.split(1)).reason is Reason.DATABASE_ERROR
        assert describe(world.core.catalog) == before
    finally:
        server.start()
    world.run(2)
    world.done(world.create("more"))
    world.check()


def test_an_operation_outlives_a_restart_of_the_server(
    server: PostgresServer, world: World
) -> None:
    """The connection that broke is replaced, and the step repeated."""
    operation = world.move(1, "c")
    server.stop()
    server.start()
    world.done(operation)
    world.check()


def test_a_commit_that_was_made_but_reported_as_failed_is_found(world: World) -> None:
    with broken_after_commit():
        error = refused(lambda: world.split(1, 5, request_id="once"))
    assert error.reason is Reason.DATABASE_ERROR
    world.run(2)
    world.done(world.split(1, 5, request_id="once"))
    assert len(world.partitions()) == 5
    world.check()


def test_a_lock_that_is_not_given_up(world: World) -> None:
    """Another session holds the row that every change needs: refused after a bounded wait."""
    url = parse_url(world.url).set(drivername="postgresql")
    with psycopg.connect(url.render_as_string(hide_password=False)) as other:
        other.execute("SELECT * FROM ledger FOR UPDATE")
        error = refused(lambda: world.create("more"))
        assert error.reason is Reason.DATABASE_ERROR
        assert "lock timeout" in error.message
    world.run(2)
    world.done(world.create("more"))
    world.check()


def test_two_stores_on_one_database(world: World) -> None:
    Database(world.url).open()
    assert "another Metadata Store" in refused(lambda: world.create("more")).message
    assert not world.core.ready


def test_the_migrations_make_the_schema_of_the_models(server: PostgresServer) -> None:
    url = server.new_database()
    Database(url).migrate()
    Database(url).migrate()
    with create_engine(parse_url(url)).connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"version_table": migrate.VERSION_TABLE, "compare_type": True}
        )
        assert compare_metadata(context, Base.metadata) == []


def test_a_server_that_cannot_be_reached_is_an_error(tmp_path: Path) -> None:
    error = refused(lambda: Database(f"postgresql://nobody@/none?host={tmp_path}").migrate())
    assert error.reason is Reason.DATABASE_ERROR
