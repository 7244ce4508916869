"""DynamoDB's documented limits, which Keyplane keeps.

Source: "Quotas in Amazon DynamoDB" and "Constraints in Amazon DynamoDB",
https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html
"""

from __future__ import annotations

import re

from keyplane.model.errors import KeyplaneError, Reason

ITEM_BYTES_MAX = 400 * 1024
PARTITION_KEY_BYTES_MAX = 2048
SORT_KEY_BYTES_MAX = 1024

# Lists and maps inside each other.
NESTING_MAX = 32

# Of a key attribute; other names may be as long as the item.
KEY_NAME_BYTES_MAX = 255

# 38 significant digits; magnitude 1e-130 to 9.99…e+125, or zero.
NUMBER_DIGITS_MAX = 38
NUMBER_EXPONENT_MIN = -130
NUMBER_EXPONENT_MAX = 125

BATCH_GET_KEYS_MAX = 100
BATCH_WRITE_ITEMS_MAX = 25
# Of all items in one BatchGetItem response or one BatchWriteItem request.
BATCH_BYTES_MAX = 16 * 1024 * 1024

# Of one page of Query or Scan, counted by item size.
PAGE_BYTES_MAX = 1024 * 1024
SCAN_SEGMENTS_MAX = 1_000_000

# Capacity units a second that one partition does, of each kind: "Best practices for designing and
# using partition keys effectively",
# https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/bp-partition-key-design.html
PARTITION_READ_UNITS = 3000.0
PARTITION_WRITE_UNITS = 1000.0

# Bytes of data that one partition holds, DynamoDB's limit of an item collection in a table with
# local secondary indexes, since that has to fit one:
# https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/LSI.html
PARTITION_BYTES = 10 << 30

# Read and write capacity units a second that a table may be given: DynamoDB's quotas where nobody
# has asked for more, https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/ServiceQuotas.html
TABLE_UNITS_MAX = 40_000

# Read and write units a second that an on-demand table may use at once when it is new,
# https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/on-demand-capacity-mode.html
WARM_READ_UNITS = 12_000
WARM_WRITE_UNITS = 4_000

TABLE_NAME = re.compile(r"[A-Za-z0-9_.-]{3,255}")


def validate_table_name(name: str) -> None:
    """Raises KeyplaneError(INVALID_ARGUMENT) on a name that DynamoDB would refuse."""
    if TABLE_NAME.fullmatch(name) is None:
        shown = name if len(name) <= 64 else name[:61] + "..."
        raise KeyplaneError(
            Reason.INVALID_ARGUMENT,
            f"table name {shown!r} must be 3 to 255 characters of a-z, A-Z, 0-9, '_', '-' and '.'",
        )
