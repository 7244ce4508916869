"""Telling storage nodes to drop a table."""

from __future__ import annotations

from keyplane.model.errors import KeyplaneError
from keyplane.storage.v1 import storage_pb2 as storage
from metadata.kinds.script import OnOutcome, Outcome, Retry, World
from metadata.operations import Operation, State
from metadata.peers import DROP_TABLE, Question
from metadata.plans import CreatePlan, DeletePlan
from metadata.records import TableRecord


def drop_question(node_id: str, table: TableRecord) -> Question:
    """The same call whoever makes it: dropping is named by the table, not by an operation."""
    request = storage.DropTableRequest(
        operation_id=f"drop-table-{table.table_id}", table_id=table.table_id, name=table.name
    )
    return Question(node_id, DROP_TABLE, request)


def drops_table(operation: Operation) -> bool:
    """Whether an operation is past the point from which its table only goes away."""
    if operation.state not in (State.RUNNING, State.COMMITTED):
        return False
    plan = operation.plan
    return isinstance(plan, DeletePlan) or (isinstance(plan, CreatePlan) and bool(plan.undo_reason))


def drop_everywhere(world: World, table: TableRecord, then: Outcome, on_outcome: OnOutcome) -> None:
    """Ends in `then` once every node that is not SUSPECT has dropped the table.

    A SUSPECT node is left out: it is told again when it is back.
    """

    def answered(error: KeyplaneError | None) -> None:
        on_outcome(Retry(error) if error else then)

    reachable = [each for each in world.catalog.nodes if not world.registry.is_suspect(each)]
    world.peers.ask_all([drop_question(node_id, table) for node_id in reachable], answered)
