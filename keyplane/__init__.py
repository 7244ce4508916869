"""Keyplane: DynamoDB's routing layer, made runnable. This package is its client SDK.

from keyplane import Client, ConditionFailed

with Client(["127.0.0.1:7000", "127.0.0.1:7001"]) as client:
    client.put_item("music", {"artist": "Miles Davis", "song": "So What"}, if_exists=False)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from keyplane.client.admin import AdminClient, AsyncAdminClient
    from keyplane.client.aio import AsyncClient
    from keyplane.client.capacity import Spent, Units
    from keyplane.client.config import ClientConfig
    from keyplane.client.errors import (
        AccessDenied,
        AlreadyExists,
        BatchIncomplete,
        ConditionFailed,
        DeadlineExceeded,
        InvalidRequest,
        NotFound,
        OutcomeUnknown,
        Overloaded,
        TableNotFound,
        Throttled,
        Unavailable,
        WrongState,
    )
    from keyplane.client.requests import Delete, Page, Put, VersionedItem
    from keyplane.client.sync import Client
    from keyplane.model.credentials import Credentials
    from keyplane.model.errors import KeyplaneError, Reason

# Loaded at first use: servers import this package for `keyplane.model`, and need no client.
_HOMES = {
    "keyplane.client.admin": ("AdminClient", "AsyncAdminClient"),
    "keyplane.client.aio": ("AsyncClient",),
    "keyplane.client.capacity": ("Spent", "Units"),
    "keyplane.client.config": ("ClientConfig",),
    "keyplane.client.errors": (
        "AccessDenied",
        "AlreadyExists",
        "BatchIncomplete",
        "ConditionFailed",
        "DeadlineExceeded",
        "InvalidRequest",
        "NotFound",
        "OutcomeUnknown",
        "Overloaded",
        "TableNotFound",
        "Throttled",
        "Unavailable",
        "WrongState",
    ),
    "keyplane.client.requests": ("Delete", "Page", "Put", "VersionedItem"),
    "keyplane.client.sync": ("Client",),
    "keyplane.model.credentials": ("Credentials",),
    "keyplane.model.errors": ("KeyplaneError", "Reason"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "AccessDenied",
    "AdminClient",
    "AlreadyExists",
    "AsyncAdminClient",
    "AsyncClient",
    "BatchIncomplete",
    "Client",
    "ClientConfig",
    "ConditionFailed",
    "Credentials",
    "DeadlineExceeded",
    "Delete",
    "InvalidRequest",
    "KeyplaneError",
    "NotFound",
    "OutcomeUnknown",
    "Overloaded",
    "Page",
    "Put",
    "Reason",
    "Spent",
    "TableNotFound",
    "Throttled",
    "Unavailable",
    "Units",
    "VersionedItem",
    "WrongState",
]


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'keyplane' has no attribute {name!r}")
    return getattr(importlib.import_module(home), name)
