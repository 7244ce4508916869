"""A server's last-known-good of who may call, from MemDS and from its own snapshot.

Forward only: a shard replaces one of a lower version, and what cannot be used changes nothing. That
a shard is missing says nothing about its tenants.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from cache import ignored
from cache.callers import Callers
from cache.ignored import Ignored
from cache.tenant_shards import SHARDS, open_shard
from keyplane.model.errors import KeyplaneError
from keyplane.model.vault import Vault

# Shards read per beat once all are known: with the reader's beat of 0.25 s each is read again
# within a second, whatever happens.
_SHARDS_PER_BEAT = 2

# Below any that is published.
_NO_VERSION = -1


class TenantKeeper:
    """Feeds `Callers`. on_change: called when a shard was taken over."""

    def __init__(
        self, vault: Vault, cluster: str, callers: Callers, on_change: Callable[[], None]
    ) -> None:
        self._vault = vault
        self._cluster = cluster
        self._callers = callers
        self._on_change = on_change
        self._values = [b""] * SHARDS
        self._versions = [_NO_VERSION] * SHARDS
        self._next = 0
        callers.complete = False

    @property
    def complete(self) -> bool:
        """Whether every shard has been read, so that a key that is not known is none."""
        return self._callers.complete

    def values(self) -> Sequence[bytes]:
        """Every shard as it was published, for a snapshot; empty where none was read."""
        return self._values

    def adopt(self, values: Sequence[bytes]) -> None:
        """Starts from the values of a snapshot. What does not open is left to MemDS."""
        for number, value in enumerate(values[:SHARDS]):
            if value:
                self.offer(number, value)

    def due(self) -> Iterator[int]:
        """Shards to read on this beat: those that are not known, and a few in rotation."""
        for _ in range(_SHARDS_PER_BEAT):
            yield self._next
            self._next = (self._next + 1) % SHARDS
        if not self.complete:
            yield from (each for each in range(SHARDS) if self._versions[each] == _NO_VERSION)

    def offer(self, number: int, value: bytes) -> Ignored | None:
        """Takes a value over; why not, if it cannot be used."""
        if value == self._values[number]:
            return None
        try:
            shard = open_shard(self._vault, self._cluster, number, value)
        except KeyplaneError as error:
            return ignored.of_error(error)
        if shard.version <= self._versions[number]:
            # Of one version there may be several sealings, all of the same.
            return Ignored.OLDER_TENANTS if shard.version < self._versions[number] else None
        self._callers.install(number, shard)
        self._values[number], self._versions[number] = value, shard.version
        self._callers.complete = _NO_VERSION not in self._versions
        self._on_change()
        return None
