"""What throttled callers are told, in DynamoDB's words.

The reasons are those of "Diagnosing throttling",
https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/throttling-diagnosing.html
"""

from __future__ import annotations

import enum
import math
from typing import Final

from keyplane.model.errors import KeyplaneError, Reason

# Names of the facts in `ErrorInfo.metadata`, as in DynamoDB's `ThrottlingReasons`.
REASON: Final = "reason"
RESOURCE: Final = "resource"

# An ARN names a region, of which a cluster has one, and an account; this is that of the tenant
# `local`.
LOCAL_ACCOUNT: Final = "000000000000"


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


def table_arn(table: str, account: str = LOCAL_ACCOUNT) -> str:
    """The name of a table among all resources. account: of the tenant."""
    return f"arn:aws:dynamodb:local:{account}:table/{table}"


# Seconds. Waits are told in steps, rounded up, so that many refusals are the same: fine ones, and
# coarse ones where it takes long.
_STEP_S: Final = 0.005
_COARSE_FROM_S: Final = 0.5
_COARSE_STEP_S: Final = 0.1

# Of one limit, with different waits. The wait falls with time, so few are in use at once.
_KEPT_MAX: Final = 16


class Refusals:
    """Refusals of one limit, made once for each wait that they tell.

    Under overload most requests are refused, and what is sent for an error is kept with it
    (`KeyplaneError.sent_as`): so a refusal costs next to nothing.
    """

    __slots__ = ("_account", "_by_wait", "_limit", "_message", "_table", "_writes")

    def __init__(
        self,
        limit: Limit,
        writes: bool,
        table: str,
        message: str,
        account: str = LOCAL_ACCOUNT,
    ) -> None:
        self._limit = limit
        self._writes = writes
        self._table = table
        self._message = message
        self._account = account
        # By the wait in fine steps.
        self._by_wait: dict[int, KeyplaneError] = {}

    def after(self, wait_s: float) -> KeyplaneError:
        """The one that asks to come back after so long, or a little longer."""
        step_s = _STEP_S if wait_s < _COARSE_FROM_S else _COARSE_STEP_S
        # What is a step already stays one, whatever its last bit.
        count = max(1, math.ceil(wait_s / step_s - 1e-6))
        steps = count * round(step_s / _STEP_S)
        found = self._by_wait.get(steps)
        if found is None:
            if len(self._by_wait) >= _KEPT_MAX:
                self._by_wait.clear()
            after_s = steps * _STEP_S
            found = throttled(
                self._limit, self._writes, self._table, self._message, after_s, self._account
            )
            self._by_wait[steps] = found
        return found


def throttled(
    limit: Limit,
    writes: bool,
    table: str,
    message: str,
    retry_after_s: float,
    account: str = LOCAL_ACCOUNT,
) -> KeyplaneError:
    """A refusal before anything was done."""
    return KeyplaneError(
        Reason.THROTTLED,
        message,
        metadata={REASON: throttling_reason(limit, writes), RESOURCE: table_arn(table, account)},
        retry_after_s=retry_after_s,
    )
