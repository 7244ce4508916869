"""What BatchGetItem and BatchWriteItem have in common.

A table's keys set out as one operation on the partition of the first of them, which sheds the keys
that other partitions cover: the step that follows a split in the middle of a batch is also the one
that spreads a batch out.
"""

from __future__ import annotations

from collections.abc import Sequence

from keyplane.model.errors import KeyplaneError, Reason
from keyplane.storage.v1 import storage_pb2 as storage
from router.context import RouterContext
from router.exchange import Exchange
from router.operation import Operation
from router.partition_call import DoneFn, PartitionCall
from router.tables import KnownTable


def check_count(count: int, most: int, what: str) -> None:
    """Raises KeyplaneError: INVALID_ARGUMENT for an empty batch, BATCH_TOO_LARGE."""
    if count == 0:
        raise KeyplaneError(Reason.INVALID_ARGUMENT, f"a batch needs 1 to {most} {what}")
    if count > most:
        message = f"a batch of {count} {what}; at most {most} fit, send the rest in another"
        raise KeyplaneError(Reason.BATCH_TOO_LARGE, message)


def check_distinct(keys: Sequence[tuple[str, storage.ItemKey]]) -> None:
    """Raises KeyplaneError(INVALID_ARGUMENT) if a table's key is there twice."""
    seen: set[tuple[str, bytes]] = set()
    for table, key in keys:
        if (table, key.encoded) in seen:
            message = f"the batch names a key of table {table!r} twice; name each key once"
            raise KeyplaneError(Reason.INVALID_ARGUMENT, message)
        seen.add((table, key.encoded))


def send_part(
    context: RouterContext,
    exchange: Exchange,
    known: KnownTable,
    operation: Operation,
    on_done: DoneFn,
) -> None:
    """Sends one table's part, with a deadline that leaves time to say what was not done."""
    whole_s = exchange.deadline - exchange.started_at
    deadline = exchange.started_at + whole_s * context.config.batch_time_share
    PartitionCall(context, known, operation, exchange.started_at, deadline, on_done).start()


def misfit(count: int, wanted: int) -> KeyplaneError:
    return KeyplaneError(
        Reason.INTERNAL, f"a storage node answered a batch of {wanted} with {count} results"
    )
