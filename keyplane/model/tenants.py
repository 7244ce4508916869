"""Tenants: the accounts that own tables, their users, and how their tables are named.

A table of tenant `acme` is `acme/orders` inside the cluster and `orders` to its callers. No table
name has a slash, so neither can one tenant name another's table, nor can two collide. Those of the
tenant `local`, which every cluster has, are the same inside and outside.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from functools import lru_cache

from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.throttling import RESOURCE, table_arn

# The tenant of callers that need no key, and of the operator.
LOCAL = "local"

SEPARATOR = "/"

TENANT_ID_CHARS_MAX = 32
USER_NAME_CHARS_MAX = 64
_TENANT_ID = re.compile(rf"[a-z][a-z0-9-]{{2,{TENANT_ID_CHARS_MAX - 1}}}")
# As IAM's, https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html
_USER_NAME = re.compile(rf"[A-Za-z0-9+=,.@_-]{{1,{USER_NAME_CHARS_MAX}}}")

ACCOUNT_DIGITS = 12

# Keys of one user: two, so that one can be replaced by the other while both are good.
KEYS_PER_USER_MAX = 2


class Role(enum.IntEnum):
    """What a user may do; each may do what those before it may."""

    # Read items and look at tables.
    READ = 1
    # Write items.
    WRITE = 2
    # Create, change and delete tables of the tenant, and its users.
    ADMIN = 3
    # Of the cluster, not of a tenant: all of the control plane.
    OPERATOR = 4


def prefix_of(tenant_id: str) -> str:
    """What its table names begin with inside the cluster."""
    return "" if tenant_id == LOCAL else tenant_id + SEPARATOR


def tenant_of(table: str) -> str:
    """Whose table has that name inside the cluster."""
    return table.partition(SEPARATOR)[0] if SEPARATOR in table else LOCAL


def shown_to(error: KeyplaneError, prefix: str, account: str) -> KeyplaneError:
    """An error in the names that its caller knows.

    prefix: as `prefix_of` the caller's tenant. Names are quoted in messages.
    """
    if not prefix:
        return error
    if error.reason is Reason.THROTTLED:
        return _refusal_shown_to(error, prefix, account)
    return _shown_to(error, prefix, account)


def _shown_to(error: KeyplaneError, prefix: str, account: str) -> KeyplaneError:
    metadata: Mapping[str, str] = error.metadata
    arn = metadata.get(RESOURCE, "")
    own = table_arn(prefix)
    if arn.startswith(own):
        metadata = {**metadata, RESOURCE: table_arn(arn[len(own) :], account)}
    message = error.message.replace("'" + prefix, "'")
    return KeyplaneError(error.reason, message, metadata, error.retry_after_s, error.details)


# Under overload most answers are refusals, and equal ones are one and the same (`Refusals`): so
# they are put into a caller's names once, and encoded once.
_refusal_shown_to = lru_cache(maxsize=1024)(_shown_to)


def validate_tenant_id(tenant_id: str) -> None:
    """Raises KeyplaneError(INVALID_ARGUMENT)."""
    if _TENANT_ID.fullmatch(tenant_id) is None:
        raise KeyplaneError(
            Reason.INVALID_ARGUMENT,
            f"tenant {tenant_id[:64]!r} must be 3 to {TENANT_ID_CHARS_MAX} characters of a-z, 0-9"
            " and '-', the first a letter",
        )


def validate_user_name(name: str) -> None:
    """Raises KeyplaneError(INVALID_ARGUMENT)."""
    if _USER_NAME.fullmatch(name) is None:
        raise KeyplaneError(
            Reason.INVALID_ARGUMENT,
            f"user {name[:80]!r} must be 1 to {USER_NAME_CHARS_MAX} characters of a-z, A-Z, 0-9 and"
            " any of +=,.@_-",
        )
