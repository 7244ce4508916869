"""Capacity units: what reads and writes cost by the size of their items.

Rules and figures are those of "DynamoDB read and write operations",
https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/read-write-operations.html
"""

from __future__ import annotations

from typing import Final

# One unit is a strongly consistent read of so much, or two that are eventually consistent.
READ_UNIT_BYTES: Final = 4096
# One unit is a write of so much.
WRITE_UNIT_BYTES: Final = 1024

_EVENTUAL_SHARE: Final = 0.5


def read_units(item_bytes: int, consistent: bool) -> float:
    """Of a read of one item, or of a page of a query or scan, which counts as one of the size of
    all its items. What is not there costs as much as the smallest that is.

    item_bytes: as `keyplane.model.items.item_size`.
    """
    units = _units(item_bytes, READ_UNIT_BYTES)
    return float(units) if consistent else units * _EVENTUAL_SHARE


def write_units(before_bytes: int, after_bytes: int) -> float:
    """Of a put or delete, whose larger side counts. A deletion of nothing costs one unit.

    before_bytes, after_bytes: sizes of the item; 0 where there is none.
    """
    return float(_units(max(before_bytes, after_bytes), WRITE_UNIT_BYTES))


def _units(size: int, unit: int) -> int:
    return max(1, -(-size // unit))
