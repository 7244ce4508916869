"""Deleting a table: the storage nodes drop it, then a tombstone takes the place of its map."""

from __future__ import annotations

from dataclasses import replace

from keyplane.catalog.v1 import catalog_pb2 as catalog_pb
from keyplane.metadata.v1 import metadata_pb2 as pb
from keyplane.model.errors import KeyplaneError
from metadata.catalog import Catalog
from metadata.change import Change
from metadata.kinds.begin import counted, new_operation, once, require_table_free
from metadata.kinds.dropping import drop_everywhere
from metadata.kinds.script import Advance, OnOutcome, Script, World, fail, finish, never, start
from metadata.operations import Operation, State
from metadata.plans import DeletePlan, Kind
from metadata.writer import Decision


def begin(world: World, catalog: Catalog, request: pb.DeleteTableRequest) -> Decision[Operation]:
    def delete() -> Change:
        table = catalog.table(request.table)
        require_table_free(catalog, table)
        operation = new_operation(
            world,
            catalog,
            Kind.DELETE_TABLE,
            DeletePlan(),
            arguments=f"delete table {table.name}",
            table=table,
        )
        deleting = replace(table, state=catalog_pb.TABLE_STATE_DELETING)
        return Change(counted(catalog.counters), tables=(deleting,), operations=(operation,))

    return once(world, catalog, "", "", delete)


def _drop(world: World, operation: Operation, on_outcome: OnOutcome) -> None:
    def committed(catalog: Catalog, operation: Operation) -> Change:
        table = catalog.tables[operation.table_id]
        tombstone = replace(
            table, state=catalog_pb.TABLE_STATE_DELETED, map_version=table.map_version + 1
        )
        return Change(
            catalog.counters,
            tables=(tombstone,),
            operations=(operation.become_committed(world.now),),
            forgotten_tables=_oldest_tombstones(world, catalog),
        )

    table = world.catalog.tables[operation.table_id]
    drop_everywhere(world, table, Advance(committed), on_outcome)


def _oldest_tombstones(world: World, catalog: Catalog) -> tuple[int, ...]:
    """Table ids of tombstones past the bound, once one more has been added."""
    tombstones = sorted(
        table.table_id
        for table in catalog.tables.values()
        if table.deleted and not catalog.operations_on(table.table_id)
    )
    return tuple(tombstones[: max(0, len(tombstones) + 1 - world.config.tombstones_max)])


def _abort(world: World, catalog: Catalog, operation: Operation, error: KeyplaneError) -> Change:
    """Only while PENDING: the table is as it was."""
    table = replace(catalog.tables[operation.table_id], state=catalog_pb.TABLE_STATE_ACTIVE)
    return replace(fail(world, catalog, operation, error), tables=(table,))


SCRIPT = Script(
    steps={State.PENDING: start, State.RUNNING: _drop, State.COMMITTED: finish},
    abort=_abort,
    gives_up=never,
)
