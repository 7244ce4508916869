"""Who may call, as MemDS holds it: tenants with their users' keys, in a fixed number of values.

Each is sealed under the cluster's secret, number and cluster included, so what MemDS gives back was
written by the Metadata Store, for this place, or does not open.
"""

from __future__ import annotations

from typing import Final

import xxhash
from google.protobuf.message import DecodeError

from cache.envelope import Kind, open_sealed, seal
from keyplane.catalog.v1 import catalog_pb2 as pb
from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.vault import Vault

# A fixed number, so that reading them is constant work. With KEYS_MAX keys each is a third of the
# 1 MB that memcached takes.
SHARDS: Final = 8

# Of all users of a cluster.
KEYS_MAX: Final = 20_000


def shard_of(tenant_id: str) -> int:
    """The number of the shard that a tenant is in."""
    return xxhash.xxh3_64_intdigest(tenant_id.encode()) % SHARDS


def seal_shard(vault: Vault, cluster: str, number: int, shard: pb.TenantShard) -> bytes:
    sealed = vault.seal(shard.SerializeToString(), _context(cluster, number))
    return seal(Kind.TENANTS, sealed)


def open_shard(vault: Vault, cluster: str, number: int, value: bytes) -> pb.TenantShard:
    """Raises KeyplaneError: CORRUPT, or FOREIGN_FORMAT."""
    plain = vault.open(open_sealed(Kind.TENANTS, value), _context(cluster, number))
    try:
        return pb.TenantShard.FromString(plain)
    except DecodeError as error:
        raise KeyplaneError(Reason.CORRUPT, "a TENANTS value cannot be parsed") from error


def _context(cluster: str, number: int) -> str:
    return f"tenants {number} of {cluster}"
