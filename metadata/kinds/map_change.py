"""Bringing a table's map to where the storage nodes already are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from keyplane.catalog.v1 import catalog_pb2 as catalog_pb
from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.partition import Partition
from metadata.catalog import Catalog
from metadata.change import Change, MapChange
from metadata.kinds.script import Outcome, Retry
from metadata.operations import Operation


def map_changed(
    catalog: Catalog,
    operation: Operation,
    removed: Sequence[Partition],
    added: Sequence[Partition],
) -> Change:
    """The next version of the operation's table, and the operation, in one transaction.

    What somebody has asked for is also what the planner leaves the table at.
    """
    table = catalog.tables[operation.table_id]
    asked_for = 0 if operation.why else len(added) - len(removed)
    changed = replace(
        table,
        map_version=table.map_version + 1,
        partitions_min=max(1, table.partitions_min + asked_for),
    )
    return Change(
        catalog.counters,
        tables=(changed,),
        operations=(operation,),
        map=MapChange(table.table_id, removed, added),
    )


def check_answer(
    expected: Sequence[Partition], answered: Sequence[catalog_pb.Partition], then: Outcome
) -> Outcome:
    """`then` if a storage node serves exactly what it was asked to; the map never follows a guess.

    Otherwise the step is repeated, and the operation's progress says what is wrong.
    """
    try:
        served = [Partition.from_proto(message) for message in answered]
    except KeyplaneError as error:
        return Retry(error)
    if list(map(_shape, served)) != list(map(_shape, expected)):
        return Retry(
            KeyplaneError(
                Reason.MAP_INVALID, f"the storage node serves {served} instead of {expected}"
            )
        )
    return then


def _shape(partition: Partition) -> tuple[int, int, int, int, int, str]:
    return (
        partition.partition_id,
        partition.table_id,
        partition.start,
        partition.end,
        partition.epoch,
        partition.leader,
    )
