"""What routers hold of tenants, opened: who they let in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cache.tenant_shards import open_shard
from keyplane.catalog.v1 import catalog_pb2 as catalog
from sim.topology import CLUSTER
from sim.world import World


@dataclass(frozen=True, slots=True)
class HeldKey:
    """A key of a user of a tenant."""

    key_id: str
    tenant: str
    role: int
    suspended: bool


class HeldTenants:
    """Opens each value once."""

    def __init__(self, world: World) -> None:
        """Only of a world with tenants."""
        self._world = world
        vault = world.vault("held")
        assert vault is not None, "a world without tenants"
        self._vault = vault
        self._opened: dict[tuple[int, bytes], tuple[int, frozenset[HeldKey]]] = {}

    def values(self, router: str) -> tuple[bytes, ...]:
        """Of a router that has booted: what it holds, as it came."""
        return tuple(self._world.routers[router].core.sealed_tenants())

    def versions(self, values: Sequence[bytes]) -> Iterator[tuple[int, int]]:
        """Number and version of each shard that is there."""
        for number, value in enumerate(values):
            if value:
                yield number, self._open(number, value)[0]

    def keys(self, values: Sequence[bytes]) -> frozenset[HeldKey]:
        return frozenset().union(
            *(self._open(number, value)[1] for number, value in enumerate(values) if value)
        )

    def true_keys(self) -> frozenset[HeldKey]:
        """As the Metadata Store has them."""
        return frozenset(
            HeldKey(
                key.key_id,
                tenant.tenant_id,
                user.role,
                tenant.state == catalog.TENANT_STATE_SUSPENDED,
            )
            for tenant in self._world.metadata.core.catalog.tenants.values()
            for user in tenant.users
            for key in user.keys
        )

    def _open(self, number: int, value: bytes) -> tuple[int, frozenset[HeldKey]]:
        opened = self._opened.get((number, value))
        if opened is None:
            shard = open_shard(self._vault, CLUSTER, number, value)
            keys = frozenset(
                HeldKey(
                    key.key_id,
                    access.tenant.tenant_id,
                    user.role,
                    access.tenant.state == catalog.TENANT_STATE_SUSPENDED,
                )
                for access in shard.tenants
                for user in access.users
                for key in user.keys
            )
            opened = self._opened[number, value] = shard.version, keys
        return opened
