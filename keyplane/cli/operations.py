"""Commands that split, merge, move and drain, and those that show such operations."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Annotated, Any, TypeVar

import typer
from google.protobuf.message import Message
from rich.markup import escape
from rich.status import Status

from keyplane.catalog.v1 import catalog_pb2 as catalog
from keyplane.cli.items import TableName
from keyplane.cli.listing import all_partitions, recent_operations
from keyplane.cli.output import EXIT_NO, EXIT_OK
from keyplane.cli.render import operation_facts
from keyplane.cli.session import Session, command
from keyplane.client.admin import AdminClient, has_ended
from keyplane.metadata.v1 import metadata_pb2 as pb
from keyplane.model.errors import KeyplaneError, Reason
from keyplane.workload.table import find_table

_POLL_S = 0.1

_R = TypeVar("_R", bound=Message)

Wait = Annotated[bool, typer.Option(help="Return when it has ended.")]


def register(app: typer.Typer) -> None:
    command(app, "split", _SPLIT_EXAMPLES)(split)
    command(app, "merge", _MERGE_EXAMPLES)(merge)
    command(app, "move", _MOVE_EXAMPLES)(move)
    command(app, "drain", _DRAIN_EXAMPLES)(drain)
    operation = typer.Typer(
        no_args_is_help=True,
        help="Look at splits, merges, moves and everything else that takes more than one step.",
    )
    command(operation, "list", _LIST_EXAMPLES)(list_)
    command(operation, "show", "keyplane operation show op-17")(show)
    app.add_typer(operation, name="operation")


_SPLIT_EXAMPLES = """
    keyplane split                               the busiest partition, where its load halves
    keyplane split 3 --table music
    keyplane split 3 --at 2000000000000000       at this key hash
"""


def split(
    session: Session,
    partition: Annotated[
        int | None, typer.Argument(help="A partition id.", show_default="the busiest one")
    ] = None,
    table: TableName = "",
    at: Annotated[
        str,
        typer.Option(
            help="First key hash of the right half, in hexadecimal.",
            show_default="where the load, or else the items, halve",
        ),
    ] = "",
    wait: Wait = True,
) -> int:
    """Splits a partition in two. No item is copied; requests go on."""
    name = _table(session, table)
    if partition is None:
        partition = _busiest(session, name)
    request = pb.SplitPartitionRequest(table=name, partition_id=partition)
    if at:
        request.split_hash = _hash(at)
    what = f"splitting partition {partition} of {name}"
    return carry_out(session, request, pb.SplitPartitionResponse, what, wait)


_MERGE_EXAMPLES = """
    keyplane merge 3                             with its right neighbour
    keyplane merge 3 4 --table music
"""


def merge(
    session: Session,
    left: Annotated[int, typer.Argument(help="A partition id.")],
    right: Annotated[
        int | None, typer.Argument(help="Its neighbour.", show_default="the one to the right")
    ] = None,
    table: TableName = "",
    wait: Wait = True,
) -> int:
    """Merges two neighbouring partitions; the right one is moved first if it is on another node."""
    name = _table(session, table)
    if right is None:
        right = _right_neighbour(session, name, left)
    request = pb.MergePartitionsRequest(table=name, left_id=left, right_id=right)
    what = f"merging partitions {left} and {right} of {name}"
    return carry_out(session, request, pb.MergePartitionsResponse, what, wait)


_MOVE_EXAMPLES = """
    keyplane move 3 storage-2
    keyplane move 3 storage-2 --table music --no-wait
"""


def move(
    session: Session,
    partition: Annotated[int, typer.Argument(help="A partition id.")],
    node: Annotated[str, typer.Argument(help="The storage node to move it to.")],
    table: TableName = "",
    wait: Wait = True,
) -> int:
    """Moves a partition to another storage node. Requests wait for some milliseconds at the end."""
    name = _table(session, table)
    request = pb.MovePartitionRequest(table=name, partition_id=partition, target_node_id=node)
    what = f"moving partition {partition} of {name} to {node}"
    return carry_out(session, request, pb.MovePartitionResponse, what, wait)


_DRAIN_EXAMPLES = """
    keyplane drain storage-3                     then it can be stopped for good
"""


def drain(
    session: Session,
    node: Annotated[str, typer.Argument(help="A storage node.")],
    wait: Wait = True,
) -> int:
    """Moves every partition off a storage node, and gives it no new ones."""
    request = pb.DrainNodeRequest(node_id=node)
    return carry_out(session, request, pb.DrainNodeResponse, f"draining {node}", wait)


_LIST_EXAMPLES = """
    keyplane operation list
    keyplane operation list --active             those that have not ended
"""


def list_(
    session: Session,
    active: Annotated[bool, typer.Option("--active", help="Only what has not ended.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 50,
) -> int:
    """Lists operations."""
    with session.admin() as admin:
        facts = [operation_facts(row) for row in recent_operations(admin, active, limit)]
    columns = ("operation_id", "kind", "state", "table", "partition_ids", "progress", "message")
    session.out.table(
        [column.replace("_", " ") for column in columns],
        ([escape(str(row[column])) for column in columns] for row in facts),
    )
    session.out.result({"operations": facts})
    return EXIT_OK


def show(session: Session, operation_id: Annotated[str, typer.Argument(help="Its id.")]) -> int:
    """Shows one operation, whether it has ended or not."""
    with session.admin() as admin:
        operation = _get(admin, operation_id)
    _describe(session, operation)
    session.out.result({"operation": operation_facts(operation)})
    return EXIT_OK


def carry_out(
    session: Session, request: Message, response_type: type[_R], what: str, wait: bool = True
) -> int:
    """Starts an operation and, with `wait`, follows it to its end, through restarts of the
    Metadata Store. Ctrl-C ends the waiting, not the operation."""
    with session.admin() as admin:
        started: Any = admin.call(request, response_type)
        operation: pb.Operation = started.operation
        if wait:
            with session.out.waiting(what) as spinner:
                operation = _follow(admin, operation, what, spinner)
    _describe(session, operation)
    session.out.result({"operation": operation_facts(operation)})
    return EXIT_NO if operation.state == pb.OPERATION_STATE_FAILED else EXIT_OK


def _follow(
    admin: AdminClient, operation: pb.Operation, what: str, spinner: Status
) -> pb.Operation:
    while not has_ended(operation):
        time.sleep(_POLL_S)
        try:
            operation = _get(admin, operation.operation_id)
            said = operation.progress
        except KeyplaneError as error:
            if not error.retryable:
                raise
            said = "the Metadata Store does not answer; the operation waits for it"
        spinner.update(escape(f"{what}: {said}" if said else what))
    return operation


def _get(admin: AdminClient, operation_id: str) -> pb.Operation:
    request = pb.GetOperationRequest(operation_id=operation_id)
    return admin.call(request, pb.GetOperationResponse).operation


def _describe(session: Session, operation: pb.Operation) -> None:
    facts = operation_facts(operation)
    out = session.out
    out.say(f"{facts['kind']} {operation.operation_id}: [bold]{facts['state']}[/bold]")
    if operation.state == pb.OPERATION_STATE_FAILED:
        out.say(f"[red]{operation.reason}[/red] {escape(operation.message)}")
    if operation.planned_because:
        out.say(f"planned: {escape(operation.planned_because)}")
    if operation.result_partition_ids:
        made = ", ".join(map(str, operation.result_partition_ids))
        out.say(f"partitions now: {made}")
    if operation.fence_ms:
        out.say(f"requests waited for {operation.fence_ms:.1f} ms")
    if not has_ended(operation):
        out.say(f"look again with `keyplane operation show {operation.operation_id}`")


def _table(session: Session, name: str) -> str:
    if name:
        return name
    return find_table(session.routers(), name, session.credentials()).name


def _busiest(session: Session, table: str) -> int:
    """By reads and writes together as last reported; the first one if none has any load."""
    with session.admin() as admin:
        found, loads = all_partitions(admin, table)

    def load(partition: catalog.Partition) -> float:
        reported = loads.get(partition.partition_id, pb.PartitionLoad())
        return reported.reads_per_second + reported.writes_per_second

    return max(found, key=load).partition_id


def _right_neighbour(session: Session, table: str, left_id: int) -> int:
    with session.admin() as admin:
        found, _ = all_partitions(admin, table)
    for left, right in pairwise(found):
        if left.partition_id == left_id:
            return right.partition_id
    raise KeyplaneError(
        Reason.NOT_NEIGHBOURS,
        f"partition {left_id} of {table} has no neighbour to the right; "
        f"`keyplane table partitions {table}` lists them in order",
    )


def _hash(text: str) -> int:
    try:
        value = int(text, 16)
    except ValueError:
        value = -1
    if not 0 <= value < 1 << 64:
        raise typer.BadParameter(f"{text!r} is no hexadecimal hash", param_hint="--at")
    return value
