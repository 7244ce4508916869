"""What throttled callers are told, in DynamoDB's words.

The reasons are those of "Diagnosing throttling",
https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/throttling-diagnosing.html
"""

from __future__ import annotations

import enum
from typing import Final

from keyplane.model.errors import KeyplaneError, Reason

# Names of the facts in `ErrorInfo.metadata`, as in DynamoDB's `ThrottlingReasons`.
REASON: Final = "reason"
RESOURCE: Final = "resource"

# An ARN names a region, of which a cluster has one, and an account; this is that of the tenant
# `local`.
_ARN: Final = "arn:aws:dynamodb:local:000000000000:table/"


class Limit(enum.StrEnum):
    """Which limit was reached."""

    PROVISIONED = "ProvisionedThroughput"
    ACCOUNT = "AccountLimit"
    KEY_RANGE = "KeyRangeThroughput"
    MAX_ON_DEMAND = "MaxOnDemandThroughput"


def throttling_reason(limit: Limit, writes: bool, index: bool = False) -> str:
    """One of sixteen, such as TableReadKeyRangeThroughputExceeded."""
    what = "Index" if index else "Table"
    return f"{what}{'Write' if writes else 'Read'}{limit.value}Exceeded"


def table_arn(table: str) -> str:
    """The name of a table among all resources."""
    return _ARN + table


def account_arn(account: str, table: str) -> str:
    """As `table_arn`, for the account of another tenant."""
    return f"arn:aws:dynamodb:local:{account}:table/{table}"


def throttled(
    limit: Limit, writes: bool, table: str, message: str, retry_after_s: float
) -> KeyplaneError:
    """A refusal before anything was done."""
    return KeyplaneError(
        Reason.THROTTLED,
        message,
        metadata={REASON: throttling_reason(limit, writes), RESOURCE: table_arn(table)},
        retry_after_s=retry_after_s,
    )
