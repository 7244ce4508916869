"""TenantService: tenants, their users and keys."""

from __future__ import annotations

import base64
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from google.protobuf.message import Message

from cache.tenant_shards import KEYS_MAX
from keyplane.catalog.v1 import catalog_pb2 as catalog_pb
from keyplane.metadata.v1 import metadata_pb2 as pb
from keyplane.model.credentials import secret_to_text
from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.signature import KEY_ID_CHARS, SECRET_BYTES
from keyplane.model.tenants import (
    ACCOUNT_DIGITS,
    LOCAL,
    Role,
    tenant_of,
    validate_tenant_id,
    validate_user_name,
)
from metadata.catalog import Catalog
from metadata.change import Change, Counters
from metadata.handlers.checks import invalid, page_size
from metadata.handlers.dispatch import Answer, Handling, Parts
from metadata.handlers.page_tokens import make_token, read_token
from metadata.tenants import KeyRecord, TenantRecord, UserRecord, limits_of, seal_key
from metadata.writer import Decision

_T = TypeVar("_T")

_ROLES = (catalog_pb.ROLE_READ, catalog_pb.ROLE_WRITE, catalog_pb.ROLE_ADMIN)

# Key ids: what they are, and 80 random bits in base32.
_KEY_ID_PREFIX = "KPAK"


# --- Tenants -------------------------------------------------------------------------------------


def _create(parts: Parts, request: pb.CreateTenantRequest, answer: Answer) -> None:
    validate_tenant_id(request.tenant_id)
    if request.tenant_id == LOCAL:
        raise invalid(f"{LOCAL!r} is the tenant that every cluster has; choose another name")
    _check_limits(request.limits)

    def decide(catalog: Catalog) -> Decision[TenantRecord]:
        if request.tenant_id in catalog.tenants:
            raise KeyplaneError(
                Reason.TENANT_EXISTS,
                f"there is a tenant {request.tenant_id!r} already; choose another name",
            )
        most = parts.world.config.tenants_max
        if len(catalog.tenants) >= most:
            raise KeyplaneError(
                Reason.LIMIT_EXCEEDED, f"there are {most} tenants, which is the most; delete some"
            )
        tenant = TenantRecord(
            request.tenant_id,
            _new_account(parts, catalog),
            catalog_pb.TENANT_STATE_ACTIVE,
            limits_of(request.limits),
            parts.world.now,
        )
        return _kept(catalog, tenant)

    parts.writer.submit(
        decide, _answered(answer, lambda made: pb.CreateTenantResponse(tenant=made.to_proto()))
    )


def _list(parts: Parts, request: pb.ListTenantsRequest, answer: Answer) -> None:
    """By id. The token is the last id shown."""
    size = page_size(request.page_size)
    after = read_token("tenants", request.page_token)
    catalog = parts.world.catalog
    ids = sorted({LOCAL, *catalog.tenants})
    first = bisect_right(ids, after.decode(errors="replace")) if after is not None else 0
    page = ids[first : first + size]
    more = first + size < len(ids)
    answer(
        pb.ListTenantsResponse(
            tenants=[catalog.tenant(each).to_proto() for each in page],
            next_page_token=make_token("tenants", page[-1].encode()) if more else "",
        )
    )


def _describe(parts: Parts, request: pb.DescribeTenantRequest, answer: Answer) -> None:
    catalog = parts.world.catalog
    tenant = catalog.tenant(_tenant_id(parts, request.tenant_id))
    answer(
        pb.DescribeTenantResponse(
            tenant=tenant.to_proto(),
            user_count=len(tenant.users),
            table_count=catalog.tables_of(tenant.tenant_id),
        )
    )


def _update(parts: Parts, request: pb.UpdateTenantRequest, answer: Answer) -> None:
    tenant_id = _tenant_id(parts, request.tenant_id)
    _check_limits(request.limits)
    limits = limits_of(request.limits)

    def decide(catalog: Catalog) -> Decision[TenantRecord]:
        tenant = catalog.tenant(tenant_id)
        count = catalog.tables_of(tenant_id)
        if count > limits.get("tables", count):
            raise invalid(
                f"tenant {tenant_id!r} has {count} tables; allow it as many, or delete some first"
            )
        return _kept(catalog, replace(tenant, limits=limits))

    parts.writer.submit(
        decide, _answered(answer, lambda made: pb.UpdateTenantResponse(tenant=made.to_proto()))
    )


def _suspend(parts: Parts, request: pb.SuspendTenantRequest, answer: Answer) -> None:
    _set_state(
        parts,
        request.tenant_id,
        catalog_pb.TENANT_STATE_SUSPENDED,
        _answered(answer, lambda made: pb.SuspendTenantResponse(tenant=made.to_proto())),
    )


def _resume(parts: Parts, request: pb.ResumeTenantRequest, answer: Answer) -> None:
    _set_state(
        parts,
        request.tenant_id,
        catalog_pb.TENANT_STATE_ACTIVE,
        _answered(answer, lambda made: pb.ResumeTenantResponse(tenant=made.to_proto())),
    )


def _set_state(
    parts: Parts,
    tenant_id: str,
    state: catalog_pb.TenantState.ValueType,
    on_done: Callable[[TenantRecord | KeyplaneError], None],
) -> None:
    """Setting it again to what it is changes nothing."""
    validate_tenant_id(tenant_id)
    _refuse_local(tenant_id)

    def decide(catalog: Catalog) -> Decision[TenantRecord]:
        tenant = catalog.tenant(tenant_id)
        if tenant.state == state:
            return Decision(None, tenant)
        return _kept(catalog, replace(tenant, state=state))

    parts.writer.submit(decide, on_done)


def _delete(parts: Parts, request: pb.DeleteTenantRequest, answer: Answer) -> None:
    validate_tenant_id(request.tenant_id)
    _refuse_local(request.tenant_id)

    def decide(catalog: Catalog) -> Decision[None]:
        tenant = catalog.tenant(request.tenant_id)
        count = catalog.tables_of(tenant.tenant_id)
        if count:
            raise KeyplaneError(
                Reason.TENANT_NOT_EMPTY,
                f"tenant {tenant.tenant_id!r} has {count} tables; delete them first",
            )
        # Whoever has the name next is not to see what was done under it.
        ended = [
            operation.operation_id
            for operation in catalog.operations.values()
            if operation.state.ended and tenant_of(operation.table) == tenant.tenant_id
        ]
        change = Change(
            _counted(catalog),
            forgotten_operations=tuple(ended),
            forgotten_tenants=(tenant.tenant_id,),
        )
        return Decision(change, None)

    parts.writer.submit(decide, _answered(answer, lambda _: pb.DeleteTenantResponse()))


# --- Users ---------------------------------------------------------------------------------------


def _create_user(parts: Parts, request: pb.CreateUserRequest, answer: Answer) -> None:
    tenant_id = _tenant_id(parts, request.tenant_id)
    validate_user_name(request.name)
    if request.role not in _ROLES:
        raise invalid("the role of a user is READ, WRITE or ADMIN")
    key, new = _new_key(parts)

    def decide(catalog: Catalog) -> Decision[UserRecord]:
        tenant = catalog.tenant(tenant_id)
        if any(user.name == request.name for user in tenant.users):
            raise KeyplaneError(
                Reason.USER_EXISTS,
                f"tenant {tenant_id!r} has a user {request.name!r} already; RotateKey gives it a"
                " new key",
            )
        most = parts.world.config.users_max
        if len(tenant.users) >= most:
            raise KeyplaneError(
                Reason.LIMIT_EXCEEDED,
                f"tenant {tenant_id!r} has {most} users, which is the most; delete some",
            )
        _require_key_room(catalog)
        user = UserRecord(request.name, request.role, parts.world.now, (key,))
        return Decision(_kept(catalog, tenant.with_user(user)).change, user)

    parts.writer.submit(
        decide,
        _answered(answer, lambda made: pb.CreateUserResponse(user=made.to_proto(), key=new)),
    )


def _list_users(parts: Parts, request: pb.ListUsersRequest, answer: Answer) -> None:
    tenant = parts.world.catalog.tenant(_tenant_id(parts, request.tenant_id))
    answer(pb.ListUsersResponse(users=[user.to_proto() for user in tenant.users]))


def _delete_user(parts: Parts, request: pb.DeleteUserRequest, answer: Answer) -> None:
    tenant_id = _tenant_id(parts, request.tenant_id)
    validate_user_name(request.name)

    def decide(catalog: Catalog) -> Decision[TenantRecord]:
        return _kept(catalog, catalog.tenant(tenant_id).without_user(request.name))

    parts.writer.submit(decide, _answered(answer, lambda _: pb.DeleteUserResponse()))


def _rotate_key(parts: Parts, request: pb.RotateKeyRequest, answer: Answer) -> None:
    tenant_id = _tenant_id(parts, request.tenant_id)
    validate_user_name(request.name)
    key, new = _new_key(parts)

    def decide(catalog: Catalog) -> Decision[UserRecord]:
        tenant = catalog.tenant(tenant_id)
        user = tenant.user(request.name).rotated(key, request.revoke_others)
        _require_key_room(catalog)
        return Decision(_kept(catalog, tenant.with_user(user)).change, user)

    parts.writer.submit(
        decide,
        _answered(answer, lambda made: pb.RotateKeyResponse(user=made.to_proto(), key=new)),
    )


# --- What they have in common --------------------------------------------------------------------


def _tenant_id(parts: Parts, asked: str) -> str:
    """Whom a request is about: the caller's own tenant, unless the operator names another.

    Raises KeyplaneError: INVALID_ARGUMENT, ROLE_NOT_ALLOWED.
    """
    own = parts.caller.tenant.tenant_id
    if not asked:
        return own
    validate_tenant_id(asked)
    if asked != own:
        parts.caller.require(Role.OPERATOR, "asking about another tenant")
    return asked


def _refuse_local(tenant_id: str) -> None:
    if tenant_id == LOCAL:
        raise invalid(f"the tenant {LOCAL!r} belongs to the cluster, and stays as it is")


def _check_limits(limits: catalog_pb.TenantLimits) -> None:
    for name, value in limits_of(limits).items():
        if not value:
            raise invalid(
                f"a limit of 0 {name.replace('_', ' ')} would refuse everything; suspend the tenant"
                " instead, or leave the limit out"
            )


def _kept(catalog: Catalog, tenant: TenantRecord) -> Decision[TenantRecord]:
    return Decision(Change(_counted(catalog), tenants=(tenant,)), tenant)


def _counted(catalog: Catalog) -> Counters:
    return replace(catalog.counters, tenants=catalog.counters.tenants + 1)


def _new_account(parts: Parts, catalog: Catalog) -> str:
    """Twelve digits that no other tenant has. Those of `local` are all 0."""
    taken = {tenant.account for tenant in catalog.tenants.values()}
    while True:
        account = f"{1 + parts.world.rng.randrange(10**ACCOUNT_DIGITS - 1):0{ACCOUNT_DIGITS}}"
        if account not in taken:
            return account


def _new_key(parts: Parts) -> tuple[KeyRecord, pb.NewKey]:
    """A key as it is kept, and as it is shown once. Raises KeyplaneError(NO_CLUSTER_SECRET)."""
    vault = parts.access.vault
    random_part = base64.b32encode(vault.entropy(10)).decode()
    key_id = (_KEY_ID_PREFIX + random_part)[:KEY_ID_CHARS]
    secret = vault.entropy(SECRET_BYTES)
    record = seal_key(vault, key_id, secret, parts.world.now)
    return record, pb.NewKey(key_id=key_id, secret=secret_to_text(secret))


def _require_key_room(catalog: Catalog) -> None:
    if catalog.key_count >= KEYS_MAX:
        raise KeyplaneError(
            Reason.LIMIT_EXCEEDED,
            f"the cluster's users have {KEYS_MAX:,} keys, which is the most; delete some users",
        )


def _answered(
    answer: Answer, make: Callable[[_T], Message]
) -> Callable[[_T | KeyplaneError], None]:
    def done(outcome: _T | KeyplaneError) -> None:
        answer(outcome if isinstance(outcome, KeyplaneError) else make(outcome))

    return done


METHODS = {
    "CreateTenant": Handling(pb.CreateTenantRequest, _create, Role.OPERATOR),
    "ListTenants": Handling(pb.ListTenantsRequest, _list, Role.OPERATOR),
    "DescribeTenant": Handling(pb.DescribeTenantRequest, _describe, Role.ADMIN),
    "UpdateTenant": Handling(pb.UpdateTenantRequest, _update, Role.OPERATOR),
    "SuspendTenant": Handling(pb.SuspendTenantRequest, _suspend, Role.OPERATOR),
    "ResumeTenant": Handling(pb.ResumeTenantRequest, _resume, Role.OPERATOR),
    "DeleteTenant": Handling(pb.DeleteTenantRequest, _delete, Role.OPERATOR),
    "CreateUser": Handling(pb.CreateUserRequest, _create_user, Role.ADMIN),
    "ListUsers": Handling(pb.ListUsersRequest, _list_users, Role.ADMIN),
    "DeleteUser": Handling(pb.DeleteUserRequest, _delete_user, Role.ADMIN),
    "RotateKey": Handling(pb.RotateKeyRequest, _rotate_key, Role.ADMIN),
}
