"""From Python arguments to request messages, and from responses to Python results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from keyplane.client.errors import InvalidRequest, typed
from keyplane.data.v1 import data_pb2 as data
from keyplane.model import items as model_items
from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.items import from_item

# An item or a key: attribute name to a value that `keyplane.model.items` can hold.
Item: TypeAlias = dict[str, Any]
Attributes: TypeAlias = Mapping[str, Any]


class VersionedItem(NamedTuple):
    item: Item
    version: int


class Page(NamedTuple):
    """next_key: where the next page starts, for `start_after`; None after the last page. Opaque."""

    items: list[Item]
    next_key: Item | None


@dataclass(frozen=True, slots=True)
class Put:
    """Of a batch: write this item."""

    item: Attributes


@dataclass(frozen=True, slots=True)
class Delete:
    """Of a batch: delete the item with this key."""

    key: Attributes


def to_item(values: Attributes) -> data.Item:
    """Raises InvalidRequest for what no item can hold; see `keyplane.model.items.to_item`."""
    try:
        return model_items.to_item(values)
    except KeyplaneError as error:
        raise typed(error) from None


def condition(if_exists: bool | None, if_version: int | None) -> data.Condition | None:
    """Raises InvalidRequest if both are given."""
    if if_exists is not None and if_version is not None:
        raise _invalid("if_version says that the item exists; leave if_exists out")
    if if_exists is not None:
        return data.Condition(exists=if_exists)
    return None if if_version is None else data.Condition(version_equals=if_version)


def batch_get(
    keys: Mapping[str, Iterable[Attributes]], consistent: bool
) -> data.BatchGetItemRequest:
    request = data.BatchGetItemRequest()
    for table, table_keys in keys.items():
        wanted = request.requests[table]
        wanted.consistent_read = consistent
        wanted.keys.extend(map(to_item, table_keys))
    return request


def batch_write(writes: Mapping[str, Iterable[Put | Delete]]) -> data.BatchWriteItemRequest:
    """Without its token; see `number_writes`."""
    request = data.BatchWriteItemRequest()
    for table, table_writes in writes.items():
        wanted = request.requests[table].writes
        for write in table_writes:
            if isinstance(write, Put):
                wanted.add(put=to_item(write.item))
            else:
                wanted.add(delete=to_item(write.key))
    return request


def number_writes(request: data.BatchWriteItemRequest, first: int) -> int:
    """Gives each write of a batch its own sequence number, and returns how many there are."""
    sequence = first
    for table in sorted(request.requests):
        for write in request.requests[table].writes:
            write.sequence = sequence
            sequence += 1
    return sequence - first


def sort_range(
    begins_with: Any = None, gt: Any = None, gte: Any = None, lt: Any = None, lte: Any = None
) -> data.SortKeyRange | None:
    """Bounds on the sort key; None without any.

    Raises InvalidRequest for two lower or two upper bounds.
    """
    if gt is not None and gte is not None:
        raise _invalid("gt and gte are both lower bounds; give one")
    if lt is not None and lte is not None:
        raise _invalid("lt and lte are both upper bounds; give one")
    bounds = data.SortKeyRange(from_exclusive=gt is not None, to_exclusive=lt is not None)
    lower, upper = gt if gte is None else gte, lt if lte is None else lte
    if lower is not None:
        getattr(bounds, "from").CopyFrom(scalar(lower))
    if upper is not None:
        bounds.to.CopyFrom(scalar(upper))
    if begins_with is not None:
        bounds.begins_with.CopyFrom(scalar(begins_with))
    return bounds if bounds.ByteSize() else None


def scalar(value: Any) -> data.AttributeValue:
    """One key value."""
    return to_item({"key": value}).attributes["key"]


def versioned(response: data.GetItemResponse) -> VersionedItem | None:
    if not response.HasField("item"):
        return None
    return VersionedItem(from_item(response.item), response.version)


def items_by_table(found: Mapping[str, list[data.Item]]) -> dict[str, list[Item]]:
    return {table: list(map(from_item, items)) for table, items in found.items()}


def page(response: data.QueryResponse | data.ScanResponse) -> Page:
    last = response.last_evaluated_key if response.HasField("last_evaluated_key") else None
    return Page(list(map(from_item, response.items)), None if last is None else from_item(last))


def _invalid(message: str) -> KeyplaneError:
    return InvalidRequest(Reason.INVALID_ARGUMENT, message)
