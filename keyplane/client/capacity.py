"""What calls have consumed, in capacity units."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from keyplane.data.v1 import data_pb2 as data


class Units(NamedTuple):
    """Capacity units; see `keyplane.model.capacity` for what costs how many."""

    read: float
    write: float


class Spent:
    """Adds up what the answers to calls say that they consumed, by table.

    The same one can be given to any number of calls of one client. Attempts that failed, or whose
    answer did not arrive, are not in it. `get_item`'s and the others' results are unchanged.
    """

    __slots__ = ("_by_table",)

    def __init__(self) -> None:
        self._by_table: dict[str, Units] = {}

    def __repr__(self) -> str:
        return f"Spent({self._by_table})"

    @property
    def tables(self) -> dict[str, Units]:
        return dict(self._by_table)

    @property
    def total(self) -> Units:
        units = self._by_table.values()
        return Units(sum(each.read for each in units), sum(each.write for each in units))

    def take(self, response: Any) -> None:
        """response: of a data call, of any kind. One that says nothing adds nothing."""
        told = response.consumed_capacity
        found: Iterable[data.ConsumedCapacity] = told
        if isinstance(told, data.ConsumedCapacity):
            found = [told] if response.HasField("consumed_capacity") else []
        for each in found:
            before = self._by_table.get(each.table, Units(0.0, 0.0))
            self._by_table[each.table] = Units(
                before.read + each.read_capacity_units, before.write + each.write_capacity_units
            )
