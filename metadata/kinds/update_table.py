"""Changing a table's settings: committed first, then told to every storage node.

Settings are the Metadata Store's to decide, so no node can refuse them, and the operation ends when
every node that is not SUSPECT has heard. One that is away is told when it is back.
"""

from __future__ import annotations

from dataclasses import replace

from keyplane.catalog.v1 import catalog_pb2 as catalog_pb
from keyplane.metadata.v1 import metadata_pb2 as pb
from keyplane.model.errors import KeyplaneError, Reason
from keyplane.storage.v1 import storage_pb2 as storage
from metadata.capacity_changes import CapacityChanges
from metadata.catalog import Catalog
from metadata.change import Change
from metadata.kinds.begin import counted, new_operation, once, require_table_free
from metadata.kinds.script import Advance, OnOutcome, Retry, Script, World, start, succeed
from metadata.operations import Operation, State
from metadata.peers import UPDATE_TABLE, Question
from metadata.plans import Kind, UpdatePlan
from metadata.records import OnDemand, TableRecord, Throughput
from metadata.writer import Decision

# A node that holds nothing of the table has nothing to change.
TOLERATED = frozenset({Reason.TABLE_NOT_FOUND})


def begin(world: World, catalog: Catalog, request: pb.UpdateTableRequest) -> Decision[Operation]:
    def update() -> Change:
        table = catalog.table(request.table)
        require_table_free(catalog, table)
        provisioned = Throughput.of(request)
        mode = request.capacity_mode or table.capacity_mode
        if provisioned is not None and mode != catalog_pb.CAPACITY_MODE_PROVISIONED:
            raise KeyplaneError(
                Reason.INVALID_ARGUMENT,
                f"{table.name!r} is not PROVISIONED; name that capacity mode to make it so",
            )
        on_demand = None
        if request.HasField("on_demand"):
            if mode != catalog_pb.CAPACITY_MODE_ON_DEMAND:
                raise KeyplaneError(
                    Reason.INVALID_ARGUMENT,
                    f"{table.name!r} is not ON_DEMAND; name that capacity mode to make it so",
                )
            on_demand = table.on_demand.updated(request.on_demand)
            _check_warm(table, on_demand, request.on_demand)
        changes = _changes(world, table, mode, provisioned)
        operation = new_operation(
            world,
            catalog,
            Kind.UPDATE_TABLE,
            UpdatePlan(request.durability, request.capacity_mode, provisioned, on_demand, changes),
            arguments=f"update table {table.name}",
            table=table,
        )
        return Change(counted(catalog.counters), operations=(operation,))

    return once(world, catalog, "", "", update)


def _changes(
    world: World,
    table: TableRecord,
    mode: catalog_pb.CapacityMode.ValueType,
    provisioned: Throughput | None,
) -> CapacityChanges | None:
    """Those of the table with this one, if it counts. Raises KeyplaneError(LIMIT_EXCEEDED)."""
    before = table.provisioned
    if before is None:
        return None
    if mode == catalog_pb.CAPACITY_MODE_ON_DEMAND:
        return table.changes.switched(table.name, world.now)
    if provisioned is not None and (
        provisioned.read_units < before.read_units or provisioned.write_units < before.write_units
    ):
        return table.changes.decreased(table.name, world.now)
    return None


def _check_warm(table: TableRecord, after: OnDemand, asked: catalog_pb.OnDemandThroughput) -> None:
    """Raises KeyplaneError(INVALID_ARGUMENT) on warm throughput that falls, or is asked for beyond
    the maximum. One that a maximum is set below later stays as it is.
    """
    before = table.on_demand
    if asked.HasField("warm_read_units"):
        reads = before.warm_read_units, after.warm_read_units, after.max_read_units
        _check_warm_units(table.name, "read", *reads)
    if asked.HasField("warm_write_units"):
        writes = before.warm_write_units, after.warm_write_units, after.max_write_units
        _check_warm_units(table.name, "write", *writes)


def _check_warm_units(name: str, kind: str, before: int, wanted: int, most: int) -> None:
    if wanted < before:
        raise KeyplaneError(
            Reason.INVALID_ARGUMENT,
            f"{name!r} has {before:,} warm {kind} units a second already, and warm throughput only"
            " rises; to let less in, set a maximum",
        )
    if 0 < most < wanted:
        raise KeyplaneError(
            Reason.INVALID_ARGUMENT,
            f"{wanted:,} warm {kind} units a second are of no use to {name!r}, whose maximum is"
            f" {most:,}; raise that, too, or take it away with 0",
        )


def update_question(node_id: str, table: TableRecord) -> Question:
    return Question(node_id, UPDATE_TABLE, storage.UpdateTableRequest(table=table.to_proto()))


def _commit(world: World, operation: Operation, on_outcome: OnOutcome) -> None:
    def committed(catalog: Catalog, operation: Operation) -> Change:
        plan = operation.plan
        assert isinstance(plan, UpdatePlan)
        table = catalog.tables[operation.table_id]
        mode = plan.capacity_mode or table.capacity_mode
        is_provisioned = mode == catalog_pb.CAPACITY_MODE_PROVISIONED
        # What it was provisioned with may be of before it was kept how warm that had made it.
        warmed = (plan.on_demand or table.on_demand).warmed(table.provisioned)
        updated = replace(
            table,
            durability=plan.durability or table.durability,
            capacity_mode=mode,
            provisioned=(plan.provisioned or table.provisioned) if is_provisioned else None,
            on_demand=warmed.warmed(plan.provisioned),
            changes=plan.changes or table.changes,
            map_version=table.map_version + 1,
        )
        return Change(
            catalog.counters,
            tables=(updated,),
            operations=(operation.become_committed(world.now),),
        )

    on_outcome(Advance(committed))


def _tell(world: World, operation: Operation, on_outcome: OnOutcome) -> None:
    def answered(error: KeyplaneError | None) -> None:
        on_outcome(Retry(error) if error else Advance(succeed(world)))

    table = world.catalog.tables[operation.table_id]
    questions = [
        update_question(node_id, table)
        for node_id in world.catalog.nodes
        if not world.registry.is_suspect(node_id)
    ]
    world.peers.ask_all(questions, answered, TOLERATED)


SCRIPT = Script(steps={State.PENDING: start, State.RUNNING: _commit, State.COMMITTED: _tell})
