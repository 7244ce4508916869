"""`keyplane tenant …` and `keyplane user …`: accounts, who may use them, and how much."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Annotated, Any

import typer
from rich.markup import escape

from keyplane.catalog.v1 import catalog_pb2 as catalog
from keyplane.cli.listing import all_tenants
from keyplane.cli.output import EXIT_OK
from keyplane.cli.render import tenant_facts, user_facts
from keyplane.cli.session import Session, command
from keyplane.metadata.v1 import metadata_pb2 as pb
from keyplane.model.credentials import KEY_ID_ENV, SECRET_ENV

# What a field of 32 bits holds.
_LIMIT_MAX = 2**32 - 1


class Role(enum.StrEnum):
    READ = "read"
    WRITE = "write"
    ADMIN = "admin"


_ROLES = {
    Role.READ: catalog.ROLE_READ,
    Role.WRITE: catalog.ROLE_WRITE,
    Role.ADMIN: catalog.ROLE_ADMIN,
}

TenantId = Annotated[str, typer.Argument(help="The tenant's id.", show_default=False)]
OfTenant = Annotated[
    str, typer.Option("--tenant", help="Whose user.", show_default="that of the key in use")
]
UserName = Annotated[str, typer.Argument(help="The user's name.", show_default=False)]


def _limit(help_: str) -> Any:
    return typer.Option(min=1, max=_LIMIT_MAX, help=help_, show_default="no limit")


Requests = Annotated[int | None, _limit("Requests a second, at each router.")]
ReadUnits = Annotated[int | None, _limit("Read capacity units a second of all its tables.")]
WriteUnits = Annotated[int | None, _limit("Write capacity units a second of all its tables.")]
Tables = Annotated[int | None, _limit("Tables it may have.")]
Connections = Annotated[int | None, _limit("Connections that it uses at once, at each router.")]


def register(app: typer.Typer) -> None:
    tenant = typer.Typer(
        no_args_is_help=True, help="Tenants: accounts with tables, users and limits of their own."
    )
    command(tenant, "create", _CREATE_EXAMPLES)(create)
    command(tenant, "list", "keyplane tenant list")(list_)
    command(tenant, "describe", "keyplane tenant describe acme")(describe)
    command(tenant, "limits", _LIMITS_EXAMPLES)(limits)
    command(tenant, "suspend", "keyplane tenant suspend acme")(suspend)
    command(tenant, "resume", "keyplane tenant resume acme")(resume)
    command(tenant, "delete", "keyplane tenant delete acme")(delete)
    app.add_typer(tenant, name="tenant")
    user = typer.Typer(no_args_is_help=True, help="Users of a tenant, and their keys.")
    command(user, "create", _CREATE_USER_EXAMPLES)(create_user)
    command(user, "list", "keyplane user list --tenant acme")(list_users)
    command(user, "delete", "keyplane user delete ann --tenant acme")(delete_user)
    command(user, "rotate-key", _ROTATE_EXAMPLES)(rotate_key)
    app.add_typer(user, name="user")


# --- Tenants -------------------------------------------------------------------------------------


_CREATE_EXAMPLES = """
    keyplane tenant create acme
    keyplane tenant create bolt --requests 500 --tables 10
"""


def create(
    session: Session,
    tenant: TenantId,
    requests: Requests = None,
    read_units: ReadUnits = None,
    write_units: WriteUnits = None,
    tables: Tables = None,
    connections: Connections = None,
) -> int:
    """Creates a tenant. It can do nothing before it has a user."""
    allowed = _limits(requests, read_units, write_units, tables, connections)
    request = pb.CreateTenantRequest(tenant_id=tenant, limits=allowed)
    with session.admin() as admin:
        answer = admin.call(request, pb.CreateTenantResponse)
    return _show(session, tenant_facts(answer.tenant))


def list_(session: Session) -> int:
    """Lists the tenants."""
    with session.admin() as admin:
        facts = [tenant_facts(tenant) for tenant in all_tenants(admin)]
    session.out.table(
        ["tenant", "account", "state", "limits"],
        ([row["tenant"], row["account"], row["state"], _spelled(row["limits"])] for row in facts),
    )
    session.out.result({"tenants": facts})
    return EXIT_OK


def describe(session: Session, tenant: TenantId) -> int:
    """Shows a tenant: account, state, limits, how many users and tables it has."""
    with session.admin() as admin:
        answer = admin.call(pb.DescribeTenantRequest(tenant_id=tenant), pb.DescribeTenantResponse)
    counts = {"users": answer.user_count, "tables": answer.table_count}
    return _show(session, tenant_facts(answer.tenant) | counts)


_LIMITS_EXAMPLES = """
    keyplane tenant limits acme --requests 1000 --read-units 3000 --write-units 1000
    keyplane tenant limits acme             no limits any more
"""


def limits(
    session: Session,
    tenant: TenantId,
    requests: Requests = None,
    read_units: ReadUnits = None,
    write_units: WriteUnits = None,
    tables: Tables = None,
    connections: Connections = None,
) -> int:
    """Sets a tenant's limits, all of them: one that is not named is none any more."""
    allowed = _limits(requests, read_units, write_units, tables, connections)
    request = pb.UpdateTenantRequest(tenant_id=tenant, limits=allowed)
    with session.admin() as admin:
        answer = admin.call(request, pb.UpdateTenantResponse)
    return _show(session, tenant_facts(answer.tenant))


def suspend(session: Session, tenant: TenantId) -> int:
    """Refuses all calls of a tenant, within two seconds at every router. Its data stays."""
    with session.admin() as admin:
        answer = admin.call(pb.SuspendTenantRequest(tenant_id=tenant), pb.SuspendTenantResponse)
    return _show(session, tenant_facts(answer.tenant))


def resume(session: Session, tenant: TenantId) -> int:
    """Takes a suspended tenant's calls again."""
    with session.admin() as admin:
        answer = admin.call(pb.ResumeTenantRequest(tenant_id=tenant), pb.ResumeTenantResponse)
    return _show(session, tenant_facts(answer.tenant))


def delete(session: Session, tenant: TenantId) -> int:
    """Deletes a tenant and its users, once it has no tables."""
    with session.admin() as admin:
        admin.call(pb.DeleteTenantRequest(tenant_id=tenant), pb.DeleteTenantResponse)
    session.out.say(f"tenant {tenant} is deleted")
    session.out.result({"tenant": tenant, "deleted": True})
    return EXIT_OK


# --- Users ---------------------------------------------------------------------------------------


_CREATE_USER_EXAMPLES = """
    keyplane user create ann --tenant acme --role admin
    keyplane user create app --tenant acme --role write --json
"""


def create_user(
    session: Session,
    name: UserName,
    tenant: OfTenant = "",
    role: Annotated[
        Role,
        typer.Option(help="read: items and tables; write: items, too; admin: tables and users."),
    ] = Role.READ,
) -> int:
    """Creates a user, and shows its key: this once, since the secret is not kept in the clear."""
    request = pb.CreateUserRequest(tenant_id=tenant, name=name, role=_ROLES[role])
    with session.admin() as admin:
        answer = admin.call(request, pb.CreateUserResponse)
    return _show_key(session, answer.user, answer.key)


def list_users(session: Session, tenant: OfTenant = "") -> int:
    """Lists a tenant's users and the ids of their keys."""
    with session.admin() as admin:
        answer = admin.call(pb.ListUsersRequest(tenant_id=tenant), pb.ListUsersResponse)
    facts = [user_facts(user) for user in answer.users]
    session.out.table(
        ["user", "role", "keys"],
        (
            [row["user"], row["role"], ", ".join(key["key_id"] for key in row["keys"])]
            for row in facts
        ),
    )
    session.out.result({"users": facts})
    return EXIT_OK


def delete_user(session: Session, name: UserName, tenant: OfTenant = "") -> int:
    """Deletes a user. Its keys are refused within two seconds at every router."""
    with session.admin() as admin:
        admin.call(pb.DeleteUserRequest(tenant_id=tenant, name=name), pb.DeleteUserResponse)
    session.out.say(f"user {name} is deleted")
    session.out.result({"user": name, "deleted": True})
    return EXIT_OK


_ROTATE_EXAMPLES = """
    keyplane user rotate-key app --tenant acme
    keyplane user rotate-key app --tenant acme --revoke-others     a secret was lost
"""


def rotate_key(
    session: Session,
    name: UserName,
    tenant: OfTenant = "",
    revoke_others: Annotated[
        bool, typer.Option("--revoke-others", help="Take back the keys it has, at once.")
    ] = False,
) -> int:
    """Gives a user a new key. The one before it stays good until the next rotation."""
    request = pb.RotateKeyRequest(tenant_id=tenant, name=name, revoke_others=revoke_others)
    with session.admin() as admin:
        answer = admin.call(request, pb.RotateKeyResponse)
    return _show_key(session, answer.user, answer.key)


# --- Showing -------------------------------------------------------------------------------------


def _limits(
    requests: int | None,
    read_units: int | None,
    write_units: int | None,
    tables: int | None,
    connections: int | None,
) -> catalog.TenantLimits:
    return catalog.TenantLimits(
        requests_per_second=requests,
        read_units_per_second=read_units,
        write_units_per_second=write_units,
        tables=tables,
        connections=connections,
    )


def _spelled(limits: Mapping[str, int]) -> str:
    return ", ".join(f"{value:,} {name.replace('_', ' ')}" for name, value in limits.items())


def _show(session: Session, facts: dict[str, Any]) -> int:
    for fact, value in facts.items():
        text = (_spelled(value) or "none") if fact == "limits" else str(value)
        session.out.say(f"{fact.replace('_', ' '):<19}{escape(text)}")
    session.out.result(facts)
    return EXIT_OK


def _show_key(session: Session, user: pb.UserInfo, key: pb.NewKey) -> int:
    session.out.say(f"user {escape(user.name)} has a new key; the secret is shown this once:\n")
    session.out.say(f"  export {KEY_ID_ENV}={key.key_id}")
    session.out.say(f"  export {SECRET_ENV}={key.secret}\n")
    session.out.result(user_facts(user) | {"key_id": key.key_id, "secret": key.secret})
    return EXIT_OK
