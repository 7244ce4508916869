"""The write queue among tenants: none can fill it up for the others."""

from __future__ import annotations

from keyplane.model.errors import KeyplaneError, Reason
from storage.config import WriteConfig

# Suggested to callers refused because the queue is full: about the time it takes to work off half.
OVERLOADED_RETRY_S = 0.025

# The tenant of whoever needs no key, as `Shard.tenant` names it.
_LOCAL = ""


class _Held:
    __slots__ = ("data_bytes", "writes")

    def __init__(self) -> None:
        self.writes = 0
        self.data_bytes = 0


class Sharing:
    """Who holds how much of the queue, in writes and in bytes of items.

    Once the shared part of it is in use, a tenant that holds as much as that divided by those that
    wait is refused; the rest is for those that hold less. So it is with requests in flight at
    routers (`router.exchange.Desk`). Where no tenant is there is nothing to share.
    """

    __slots__ = ("_bytes", "_held", "_writes")

    def __init__(self, config: WriteConfig) -> None:
        self._writes = max(1, int(config.queue_writes_max * config.queue_shared))
        self._bytes = max(1, int(config.queue_bytes_max * config.queue_shared))
        # By tenant that waits; not of the local one, which holds what is left.
        self._held: dict[str, _Held] = {}

    def crowded(self, queued_writes: int, queued_bytes: int) -> bool:
        """Whether the shared part of the queue is in use."""
        return queued_writes >= self._writes or queued_bytes >= self._bytes

    def refusal(self, tenant: str, queued_writes: int, queued_bytes: int) -> KeyplaneError | None:
        """Why a tenant may add nothing to a queue that holds so much."""
        if (tenant == _LOCAL and not self._held) or not self.crowded(queued_writes, queued_bytes):
            return None
        writes = queued_writes - sum([each.writes for each in self._held.values()])
        data_bytes = queued_bytes - sum([each.data_bytes for each in self._held.values()])
        busy = max(1, len(self._held) + (writes > 0))
        if tenant != _LOCAL:
            held = self._held.get(tenant)
            writes, data_bytes = (held.writes, held.data_bytes) if held is not None else (0, 0)
        if (queued_writes >= self._writes and writes * busy >= self._writes) or (
            queued_bytes >= self._bytes and data_bytes * busy >= self._bytes
        ):
            return KeyplaneError(
                Reason.OVERLOADED,
                f"{writes} writes of this tenant wait here for their commit, its share while {busy}"
                " wait; slow down or spread the load over more keys",
                retry_after_s=OVERLOADED_RETRY_S,
            )
        return None

    def add(self, tenant: str, writes: int, data_bytes: int) -> None:
        if tenant == _LOCAL:
            return
        held = self._held.get(tenant)
        if held is None:
            held = self._held[tenant] = _Held()
        held.writes += writes
        held.data_bytes += data_bytes

    def remove(self, tenant: str, writes: int, data_bytes: int) -> None:
        if tenant == _LOCAL:
            return
        held = self._held[tenant]
        held.writes -= writes
        held.data_bytes -= data_bytes
        if not held.writes:
            del self._held[tenant]

    def clear(self) -> None:
        self._held.clear()
