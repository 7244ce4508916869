"""The database, one call at a time: SQLite or PostgreSQL, written as one transaction per change.

Blocking code. The ledgers run it: `metadata.live` on a thread of its own.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from itertools import groupby, islice
from operator import attrgetter
from pathlib import Path
from typing import Any

from sqlalchemy import (
    Connection,
    Engine,
    bindparam,
    create_engine,
    delete,
    event,
    insert,
    make_url,
    select,
    update,
)
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.orm import Session
from sqlalchemy.pool import QueuePool, StaticPool

from cache.partition_map import PartitionMap
from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.partition import Partition
from metadata import migrate, rows
from metadata.catalog import Catalog
from metadata.change import Change, Counters
from metadata.operations import State
from metadata.records import PlannerMode, TableRecord
from metadata.schema import LedgerRow, NodeRow, OperationRow, PartitionRow, TableRow, TenantRow
from metadata.upsert import upsert

# For how long SQLite waits for another process's lock, and PostgreSQL for a connection. Seconds.
WAIT_S = 2.0

# Rows written or fetched at once.
_CHUNK = 10_000

_LEDGER_ID = 1

# Goes on only if nobody else has written since, or taken the database over.
_CLAIM = (
    update(LedgerRow)
    .where(
        LedgerRow.term == bindparam("term_held"), LedgerRow.position == bindparam("position_held")
    )
    .values(
        position=bindparam("position"),
        next_table_id=bindparam("next_table_id"),
        next_partition_id=bindparam("next_partition_id"),
        next_operation=bindparam("next_operation"),
        tenants_version=bindparam("tenants_version"),
    )
)


class Database:
    """One Metadata Store's hold on one database.

    Every method raises KeyplaneError: DATABASE_ERROR when the database cannot be used, after which
    it is open whether the change was made; FOREIGN_FORMAT when it holds something else.
    """

    def __init__(self, url: str, wait_s: float = WAIT_S, engine: Engine | None = None) -> None:
        """engine: to use instead of one made from the URL, for a database kept by somebody else."""
        self._keeps_engine = engine is not None
        self._engine = engine or make_engine(url, wait_s)
        self._term = 0
        self._position = 0

    def migrate(self) -> None:
        """Makes or upgrades the schema."""
        try:
            with self._engine.begin() as connection:
                migrate.upgrade(connection)
        except SQLAlchemyError as error:
            raise _database_error(error) from error

    def open(self) -> Catalog:
        """Takes the database up: begins a term, counts unfinished operations as resumed, loads all.

        A store that held the database before can change nothing from here on.
        """
        try:
            with self._engine.begin() as connection:
                ended = [state.value for state in State if state.ended]
                if connection.execute(select(LedgerRow.id)).first() is None:
                    connection.execute(insert(LedgerRow), _first_ledger_row())
                connection.execute(update(LedgerRow).values(term=LedgerRow.term + 1))
                connection.execute(
                    update(OperationRow)
                    .where(OperationRow.state.not_in(ended))
                    .values(resumed_count=OperationRow.resumed_count + 1)
                )
                catalog, position = _load(connection)
        except SQLAlchemyError as error:
            raise _database_error(error) from error
        self._term, self._position = catalog.term, position
        return catalog

    def settle(self) -> Catalog | None:
        """After a failed write: None if it was not made, or everything anew if it was."""
        try:
            with self._engine.begin() as connection:
                ledger = connection.execute(select(LedgerRow.term, LedgerRow.position)).one()
                if ledger.term != self._term:
                    raise _superseded()
                if ledger.position == self._position:
                    return None
                catalog, self._position = _load(connection)
                return catalog
        except SQLAlchemyError as error:
            raise _database_error(error) from error

    def write(self, change: Change) -> None:
        """Makes a change, whole or not at all, and synced."""
        try:
            with self._engine.begin() as connection:
                self._write(connection, change)
        except SQLAlchemyError as error:
            raise _database_error(error) from error
        self._position += 1

    def close(self) -> None:
        if not self._keeps_engine:
            self._engine.dispose()

    def _write(self, connection: Connection, change: Change) -> None:
        claimed = connection.execute(
            _CLAIM,
            {
                "term_held": self._term,
                "position_held": self._position,
                "position": self._position + 1,
                "next_table_id": change.counters.table_id,
                "next_partition_id": change.counters.partition_id,
                "next_operation": change.counters.operation,
                "tenants_version": change.counters.tenants,
            },
        )
        if claimed.rowcount != 1:
            raise _superseded()
        if change.planner is not None:
            connection.execute(update(LedgerRow).values(planner=change.planner.value))
        upsert(connection, [rows.table_to_row(table) for table in change.tables])
        upsert(connection, [rows.node_to_row(node) for node in change.nodes])
        upsert(connection, [rows.operation_to_row(each) for each in change.operations])
        upsert(connection, [rows.tenant_to_row(tenant) for tenant in change.tenants])
        _write_partitions(connection, change)
        _forget(connection, change)


def _write_partitions(connection: Connection, change: Change) -> None:
    for table in change.tables:
        if table.deleted:
            connection.execute(delete(PartitionRow).where(PartitionRow.table_id == table.table_id))
    if change.map is None:
        return
    gone = [partition.partition_id for partition in change.map.removed]
    for ids in _chunks(gone):
        connection.execute(delete(PartitionRow).where(PartitionRow.partition_id.in_(ids)))
    for added in _chunks(change.map.added):
        connection.execute(insert(PartitionRow), [rows.partition_to_row(each) for each in added])


def _forget(connection: Connection, change: Change) -> None:
    for ids in _chunks(change.forgotten_operations):
        connection.execute(delete(OperationRow).where(OperationRow.operation_id.in_(ids)))
    for table_ids in _chunks(change.forgotten_tables):
        connection.execute(delete(TableRow).where(TableRow.table_id.in_(table_ids)))
    for tenant_ids in _chunks(change.forgotten_tenants):
        connection.execute(delete(TenantRow).where(TenantRow.tenant_id.in_(tenant_ids)))


def _load(connection: Connection) -> tuple[Catalog, int]:
    session = Session(connection)
    ledger = session.scalars(select(LedgerRow)).one()
    tables = [
        rows.table_from_row(row)
        for row in session.scalars(select(TableRow).order_by(TableRow.table_id))
    ]
    operations = session.scalars(select(OperationRow).order_by(OperationRow.sequence))
    catalog = Catalog.load(
        term=ledger.term,
        counters=Counters(
            ledger.next_table_id,
            ledger.next_partition_id,
            ledger.next_operation,
            ledger.tenants_version,
        ),
        tables=tables,
        maps=_load_maps(connection, {table.table_id: table for table in tables}),
        nodes=[rows.node_from_row(row) for row in session.scalars(select(NodeRow))],
        operations=[rows.operation_from_row(row) for row in operations],
        planner=PlannerMode(ledger.planner),
        tenants=[rows.tenant_from_row(row) for row in session.scalars(select(TenantRow))],
    )
    return catalog, ledger.position


def _load_maps(connection: Connection, tables: dict[int, TableRecord]) -> Iterator[PartitionMap]:
    columns = select(PartitionRow.__table__).order_by(
        PartitionRow.table_id, PartitionRow.first_hash
    )
    result = connection.execution_options(yield_per=_CHUNK).execute(columns)
    replica_sets: dict[str, tuple[str, ...]] = {}

    def partitions() -> Iterator[Partition]:
        for partition_id, table_id, first, last, epoch, _, text in result:
            replicas = replica_sets.get(text)
            if replicas is None:
                replicas = replica_sets[text] = tuple(text.split(","))
            yield Partition(partition_id, table_id, first, last + 1, epoch, replicas[0], replicas)

    for table_id, run in groupby(partitions(), attrgetter("table_id")):
        table = tables[table_id]
        yield PartitionMap.build(table.to_proto(), table.map_version, run)


def _chunks(values: Sequence[Any]) -> Iterator[list[Any]]:
    source = iter(values)
    while chunk := list(islice(source, _CHUNK)):
        yield chunk


def _first_ledger_row() -> dict[str, int]:
    first = Counters()
    return {
        "id": _LEDGER_ID,
        "term": 0,
        "position": 0,
        "next_table_id": first.table_id,
        "next_partition_id": first.partition_id,
        "next_operation": first.operation,
        "tenants_version": first.tenants,
    }


# --- Engines -----------------------------------------------------------------------------------


def parse_url(url: str) -> URL:
    """Raises KeyplaneError(INVALID_ARGUMENT) on a URL that names no SQLite or PostgreSQL."""
    try:
        parsed = make_url(url)
        backend = parsed.get_backend_name()
    except ArgumentError:
        backend = ""
    if backend in ("postgresql", "postgres"):
        return parsed.set(drivername="postgresql+psycopg")
    if backend == "sqlite":
        return parsed.set(drivername="sqlite+pysqlite")
    raise KeyplaneError(
        Reason.INVALID_ARGUMENT,
        "the database URL must be like sqlite:///path/to/file.db or "
        "postgresql://user@host/database",
    )


def make_engine(url: str, wait_s: float = WAIT_S) -> Engine:
    parsed = parse_url(url)
    if parsed.get_backend_name() == "sqlite":
        return _make_sqlite(parsed, wait_s)
    return create_engine(
        parsed,
        # One connection is all that is ever used; it is looked at before use, since the server may
        # have been restarted in between.
        poolclass=QueuePool,
        pool_size=1,
        max_overflow=0,
        pool_pre_ping=True,
        connect_args={
            "connect_timeout": max(2, round(wait_s)),
            # A server that vanished is noticed instead of waited for.
            "keepalives_idle": 5,
            "keepalives_interval": 2,
            "keepalives_count": 3,
            "tcp_user_timeout": 10_000,
            "options": f"-c synchronous_commit=on -c lock_timeout={round(wait_s * 1000)}",
        },
    )


def _make_sqlite(url: URL, wait_s: float) -> Engine:
    in_memory = url.database in (None, "", ":memory:")
    if not in_memory:
        Path(str(url.database)).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(
        url,
        poolclass=StaticPool if in_memory else QueuePool,
        # No isolation level: transactions begin where SQLAlchemy says, not where sqlite3 guesses.
        connect_args={"check_same_thread": False, "timeout": wait_s, "isolation_level": None},
    )

    @event.listens_for(engine, "connect")
    def configure(connection: sqlite3.Connection, _: object) -> None:
        # FULL: in WAL mode every commit is synced before it returns.
        # https://www.sqlite.org/pragma.html#pragma_synchronous
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}").close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # Takes the write lock at once: a transaction fails before it has done anything, or not.
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def _database_error(error: SQLAlchemyError) -> KeyplaneError:
    cause = str(getattr(error, "orig", None) or error).strip().splitlines()
    return KeyplaneError(
        Reason.DATABASE_ERROR,
        f"the database failed ({cause[0] if cause else type(error).__name__}); "
        "changes are refused until it works again",
        retry_after_s=1.0,
    )


def _superseded() -> KeyplaneError:
    return KeyplaneError(
        Reason.DATABASE_ERROR,
        "another Metadata Store has taken this database over; stop one of the two",
        metadata={"superseded": "true"},
    )
