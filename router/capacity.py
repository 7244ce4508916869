"""What an answer says of the capacity units that its request has consumed.

Failed requests say nothing of it, as with DynamoDB, though some consume.
"""

from __future__ import annotations

from collections.abc import Mapping

from keyplane.data.v1 import data_pb2 as data
from keyplane.model.capacity import read_units, write_units
from keyplane.model.errors import KeyplaneError, Reason


class Spending:
    """Of one request on one table."""

    __slots__ = ("_consistent", "_detailed", "_reads", "_table", "_writes")

    def __init__(self, table: str, consistent: bool, detailed: bool) -> None:
        """consistent: whether reads are to be. detailed: INDEXES was asked for."""
        self._table = table
        self._consistent = consistent
        self._detailed = detailed
        self._reads = 0.0
        self._writes = 0.0

    def read(self, item_bytes: int) -> None:
        """Of one item or one page; 0 if there was none."""
        self._reads += read_units(item_bytes, self._consistent)

    def write(self, before_bytes: int, after_bytes: int) -> None:
        """Of one item."""
        self._writes += write_units(before_bytes, after_bytes)

    def message(self) -> data.ConsumedCapacity:
        reads, writes = self._reads, self._writes
        consumed = data.ConsumedCapacity(
            table=self._table,
            capacity_units=reads + writes,
            read_capacity_units=reads,
            write_capacity_units=writes,
        )
        if self._detailed:
            # There are no indexes that could have a part in it.
            part = consumed.table_capacity
            part.capacity_units = reads + writes
            part.read_capacity_units, part.write_capacity_units = reads, writes
        return consumed


def spending(
    wanted: data.ReturnConsumedCapacity.ValueType, table: str, consistent: bool = False
) -> Spending | None:
    """None if the request does not ask for it. Raises KeyplaneError(INVALID_ARGUMENT) if it asks
    for something else.
    """
    match wanted:
        case data.RETURN_CONSUMED_CAPACITY_UNSPECIFIED | data.RETURN_CONSUMED_CAPACITY_NONE:
            return None
        case data.RETURN_CONSUMED_CAPACITY_TOTAL:
            return Spending(table, consistent, detailed=False)
        case data.RETURN_CONSUMED_CAPACITY_INDEXES:
            return Spending(table, consistent, detailed=True)
        case _:
            raise KeyplaneError(
                Reason.INVALID_ARGUMENT,
                f"return_consumed_capacity {wanted} is unknown; it is NONE, TOTAL or INDEXES",
            )


def messages(spent: Mapping[str, Spending | None]) -> list[data.ConsumedCapacity]:
    """Of all tables that are to be told of."""
    return [each.message() for each in spent.values() if each is not None]
