"""What clients ask for: kinds of request, how often, and of which items."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from keyplane.client.requests import Attributes
from sim.topology import TableSpec

# Items share their partition key with so many others, where a table has a sort key.
_ITEMS_PER_PARTITION_KEY = 4

BATCH_KEYS = 3


@dataclass(frozen=True, slots=True)
class WorkloadSpec:
    """lanes: per client. think_s: mean pause between a lane's requests, in virtual seconds.

    mix: relative frequency of each kind of request. timeout_s: of each. hot: the share of requests
    that are for one and the same item, and made by all lanes at the same moments. surge_s: length
    of the times in which it is so busy, and of those between them in which it hardly is; 0: always.
    """

    lanes: int = 3
    think_s: float = 0.37
    timeout_s: float = 5.0
    hot: float = 0.0
    surge_s: float = 0.0
    mix: Mapping[str, float] = field(
        default_factory=lambda: {
            "put": 30.0,
            "get": 30.0,
            "get_stale": 5.0,
            "delete": 6.0,
            "put_if_absent": 5.0,
            "put_if_version": 12.0,
            "delete_if_version": 3.0,
            "batch_write": 4.0,
            "batch_get": 3.0,
            "query": 1.5,
            "scan": 0.5,
        }
    )


@dataclass(frozen=True, slots=True)
class Key:
    """An item's place: its table, its key attributes, and its name in the history."""

    table: TableSpec
    attributes: Attributes
    name: str


def keys_of(spec: TableSpec) -> list[Key]:
    """The items that clients use of a table."""
    if not spec.sorted:
        return [
            Key(spec, {"id": f"k{number}"}, f"{spec.name}/k{number}") for number in range(spec.keys)
        ]
    places = [divmod(number, _ITEMS_PER_PARTITION_KEY) for number in range(spec.keys)]
    return [
        Key(spec, {"id": f"k{partition}", "at": sort}, f"{spec.name}/k{partition}/{sort}")
        for partition, sort in places
    ]


def name_of(table: TableSpec, item: Attributes) -> str:
    """The name in the history of an item that was read."""
    name = f"{table.name}/{item['id']}"
    return f"{name}/{int(item['at'])}" if table.sorted else name
