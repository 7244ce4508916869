"""What a tenant may do at one router, apart from capacity units: requests a second, connections.

Looked at before a request is read, so that one that is refused costs next to nothing: the refusal
is made once and told to all.
"""

from __future__ import annotations

from typing import Final

from cache.callers import Tenant
from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.throttling import REASON, RESOURCE, Limit, table_arn, throttling_reason

# Seconds without a request after which a connection is not counted any more.
CONNECTION_IDLE_S: Final = 10.0

# For callers that are refused: in a tenth of a second a tenth of the rate has come in.
_RETRY_AFTER_S: Final = 0.1


def over_limit(tenant: Tenant, peer: str, writes: bool, now: float) -> KeyplaneError | None:
    """Counts a request; why it is refused, if it is. peer: the address of its connection."""
    if tenant.connections_max and not _connected(tenant, peer, now):
        return KeyplaneError(
            Reason.LIMIT_EXCEEDED,
            f"tenant {tenant.tenant_id!r} uses {tenant.connections_max} connections to this router,"
            " as many as it may; share clients between threads, or have the operator allow more:"
            " keyplane tenant limits",
        )
    bucket = tenant.requests
    if bucket is None:
        return None
    if not bucket.admits(now):
        if not tenant.refusals:
            tenant.refusals = (_refusal(tenant, False), _refusal(tenant, True))
        return tenant.refusals[writes]
    bucket.take(1.0)
    return None


def _connected(tenant: Tenant, peer: str, now: float) -> bool:
    peers = tenant.peers
    if peer not in peers and len(peers) >= tenant.connections_max:
        for each in [each for each, at in peers.items() if now - at > CONNECTION_IDLE_S]:
            del peers[each]
        if len(peers) >= tenant.connections_max:
            return False
    peers[peer] = now
    return True


def _refusal(tenant: Tenant, writes: bool) -> KeyplaneError:
    """What is told to reads or to writes past the requests a second."""
    return KeyplaneError(
        Reason.THROTTLED,
        f"tenant {tenant.tenant_id!r} has made the {tenant.limits.requests_per_second:,} requests"
        " of this second that it may at one router; send less, or have the operator allow more:"
        " keyplane tenant limits",
        metadata={
            REASON: throttling_reason(Limit.ACCOUNT, writes),
            RESOURCE: table_arn("*", tenant.account),
        },
        retry_after_s=_RETRY_AFTER_S,
    )
