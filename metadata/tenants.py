"""Tenants and their users as the database holds them, and as routers are told of them."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from cache.tenant_shards import SHARDS, shard_of
from keyplane.catalog.v1 import catalog_pb2 as pb
from keyplane.metadata.v1 import metadata_pb2
from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.tenants import KEYS_PER_USER_MAX, LOCAL
from keyplane.model.throttling import LOCAL_ACCOUNT
from keyplane.model.vault import Vault
from metadata.records import timestamp

# The limits there are, as the fields of `TenantLimits`.
LIMITS = tuple(field.name for field in pb.TenantLimits.DESCRIPTOR.fields)


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """sealed: the secret under the cluster's own (`Vault`), in base64. created_at: since 1970."""

    key_id: str
    sealed: str
    created_at: float

    def secret(self, vault: Vault) -> bytes:
        """Raises KeyplaneError(CORRUPT) if it was sealed under another cluster's secret."""
        return vault.open(base64.b64decode(self.sealed), f"key {self.key_id}")


def seal_key(vault: Vault, key_id: str, secret: bytes, now: float) -> KeyRecord:
    sealed = vault.seal(secret, f"key {key_id}")
    return KeyRecord(key_id, base64.b64encode(sealed).decode(), now)


@dataclass(frozen=True, slots=True)
class UserRecord:
    """keys: the newest last."""

    name: str
    role: pb.Role.ValueType
    created_at: float
    keys: tuple[KeyRecord, ...]

    def rotated(self, key: KeyRecord, revoke_others: bool) -> UserRecord:
        """With one key more; the oldest goes where there would be too many."""
        kept = () if revoke_others else self.keys[-(KEYS_PER_USER_MAX - 1) :]
        return replace(self, keys=(*kept, key))

    def to_proto(self) -> metadata_pb2.UserInfo:
        states = [metadata_pb2.KEY_STATE_CURRENT, metadata_pb2.KEY_STATE_PREVIOUS]
        newest_first = zip(reversed(self.keys), states, strict=False)
        return metadata_pb2.UserInfo(
            name=self.name,
            role=self.role,
            keys=[
                metadata_pb2.KeyInfo(
                    key_id=key.key_id, state=state, created_at=timestamp(key.created_at)
                )
                for key, state in newest_first
            ],
            created_at=timestamp(self.created_at),
        )


@dataclass(frozen=True, slots=True)
class TenantRecord:
    """limits: by name, only those that are set. users: by name."""

    tenant_id: str
    account: str
    state: pb.TenantState.ValueType
    limits: Mapping[str, int]
    created_at: float
    users: tuple[UserRecord, ...] = ()

    @property
    def key_count(self) -> int:
        return sum(len(user.keys) for user in self.users)

    def user(self, name: str) -> UserRecord:
        """Raises KeyplaneError(USER_NOT_FOUND)."""
        for user in self.users:
            if user.name == name:
                return user
        raise KeyplaneError(
            Reason.USER_NOT_FOUND,
            f"tenant {self.tenant_id!r} has no user {name!r}; ListUsers shows those it has",
        )

    def with_user(self, user: UserRecord) -> TenantRecord:
        """Adds it, or replaces the one of its name."""
        others = [each for each in self.users if each.name != user.name]
        return replace(self, users=tuple(sorted([*others, user], key=lambda each: each.name)))

    def without_user(self, name: str) -> TenantRecord:
        self.user(name)
        return replace(self, users=tuple(each for each in self.users if each.name != name))

    def to_proto(self) -> pb.Tenant:
        return pb.Tenant(
            tenant_id=self.tenant_id,
            account=self.account,
            state=self.state,
            limits=pb.TenantLimits(**self.limits),
            created_at=timestamp(self.created_at),
        )


def limits_of(limits: pb.TenantLimits) -> dict[str, int]:
    return {name: getattr(limits, name) for name in LIMITS if limits.HasField(name)}  # type: ignore[arg-type]


def local_tenant(now: float = 0.0) -> TenantRecord:
    """What the tenant `local` is while nothing has been said of it."""
    return TenantRecord(LOCAL, LOCAL_ACCOUNT, pb.TENANT_STATE_ACTIVE, {}, now)


def users_to_json(users: Iterable[UserRecord]) -> list[dict[str, Any]]:
    return [
        {
            "name": user.name,
            "role": user.role,
            "created_at": user.created_at,
            "keys": [
                {"key_id": key.key_id, "sealed": key.sealed, "created_at": key.created_at}
                for key in user.keys
            ],
        }
        for user in users
    ]


def users_from_json(rows: Iterable[Mapping[str, Any]]) -> tuple[UserRecord, ...]:
    """Reads back what `users_to_json` wrote."""
    return tuple(
        UserRecord(
            row["name"],
            row["role"],
            row["created_at"],
            tuple(KeyRecord(**key) for key in row["keys"]),
        )
        for row in rows
    )


def make_shards(
    tenants: Iterable[TenantRecord], version: int, vault: Vault
) -> list[pb.TenantShard]:
    """Everything that servers need to know, by the number of the shard. Raises as `secret`."""
    shards = [pb.TenantShard(version=version) for _ in range(SHARDS)]
    for tenant in tenants:
        access = shards[shard_of(tenant.tenant_id)].tenants.add(tenant=tenant.to_proto())
        for user in tenant.users:
            keys = [pb.SigningKey(key_id=key.key_id, secret=key.secret(vault)) for key in user.keys]
            access.users.add(name=user.name, role=user.role, keys=keys)
    return shards
