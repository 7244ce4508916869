"""How an operation begins: recognised if asked for before, refused if something is in its way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.partition import Partition
from metadata.catalog import TABLE_KINDS, Catalog
from metadata.change import Change, Counters
from metadata.kinds.script import World
from metadata.operations import Operation, State
from metadata.plans import Kind, Plan
from metadata.records import TableRecord
from metadata.writer import Decision


def once(
    world: World,
    catalog: Catalog,
    request_id: str,
    arguments: str,
    begin: Callable[[], Change],
) -> Decision[Operation]:
    """The operation that a request id already stands for, or a new one, the first of `begin()`.

    Raises KeyplaneError: OPERATION_EXISTS if the id stands for another request, OVERLOADED past
    the bound on operations that have not ended, and what `begin` raises.
    """
    known = catalog.operation_of_request(request_id) if request_id else None
    if known is not None:
        if known.arguments != arguments:
            raise KeyplaneError(
                Reason.OPERATION_EXISTS,
                f"request id {request_id!r} was used for {known.arguments!r} "
                f"({known.operation_id}); choose another",
                metadata={"operation_id": known.operation_id},
            )
        return Decision(None, known)
    if len(catalog.active) >= world.config.operations_active_max:
        raise KeyplaneError(
            Reason.OVERLOADED,
            f"{len(catalog.active)} operations are under way; try again when some have ended",
            retry_after_s=1.0,
        )
    change = begin()
    return Decision(change, change.operations[0])


def new_operation(
    world: World,
    catalog: Catalog,
    kind: Kind,
    plan: Plan,
    *,
    arguments: str,
    request_id: str = "",
    table: TableRecord | None = None,
    partitions: Sequence[Partition] = (),
    node_id: str = "",
) -> Operation:
    """A PENDING operation. Its number is the catalog's next; the change must raise the counter.

    The id is random: storage nodes recognise operations by it, also those of a control plane
    whose database was lost.
    """
    name = kind.value.replace("_", "-")
    return Operation(
        operation_id=f"{name}-{world.rng.getrandbits(64):016x}",
        sequence=catalog.counters.operation,
        kind=kind,
        state=State.PENDING,
        arguments=arguments,
        request_id=request_id,
        table=table.name if table else "",
        table_id=table.table_id if table else 0,
        partition_ids=tuple(each.partition_id for each in partitions),
        node_id=node_id,
        plan=plan,
        created_at=world.now,
        updated_at=world.now,
    )


def counted(
    counters: Counters, operations: int = 1, partitions: int = 0, tables: int = 0
) -> Counters:
    """The counters after so many numbers have been given out."""
    return replace(
        counters,
        operation=counters.operation + operations,
        partition_id=counters.partition_id + partitions,
        table_id=counters.table_id + tables,
    )


def require_table_free(catalog: Catalog, table: TableRecord) -> None:
    """Raises KeyplaneError(TABLE_BUSY) while any operation on the table has not ended."""
    for operation in catalog.operations_on(table.table_id):
        raise _busy(Reason.TABLE_BUSY, f"table {table.name!r}", operation.operation_id)


def require_partitions_free(
    catalog: Catalog, table: TableRecord, partitions: Sequence[Partition]
) -> None:
    """Raises KeyplaneError: TABLE_BUSY, or PARTITION_BUSY."""
    for operation in catalog.operations_on(table.table_id):
        if operation.kind in TABLE_KINDS:
            raise _busy(Reason.TABLE_BUSY, f"table {table.name!r}", operation.operation_id)
    for partition in partitions:
        holder = catalog.holder(partition.partition_id)
        if holder is not None:
            raise _busy(Reason.PARTITION_BUSY, f"partition {partition.partition_id}", holder)


def _busy(reason: Reason, what: str, operation_id: str) -> KeyplaneError:
    return KeyplaneError(
        reason,
        f"{what} is held by operation {operation_id}; try again when it has ended",
        metadata={"operation_id": operation_id},
        retry_after_s=1.0,
    )
