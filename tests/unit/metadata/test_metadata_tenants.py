"""Tenants at the Metadata Store: who may call, what they see, and what is kept of their keys."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from google.protobuf.message import Message
from metadata_world import CLUSTER, World, new_table, refused

from cache import memds_keys
from cache.callers import CLOCK_SKEW_S
from cache.tenant_shards import open_shard, shard_of
from keyplane.catalog.v1 import catalog_pb2 as catalog
from keyplane.metadata.v1 import metadata_pb2 as pb
from keyplane.model.credentials import Credentials
from keyplane.model.errors import Reason
from keyplane.model.signature import Signer
from keyplane.model.vault import Vault
from metadata.config import MetadataConfig

SECRET = b"c" * 32


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Tenants `acme` and `bolt`, calls are signed."""
    world = World(tmp_path, vault=Vault(SECRET), signed=True)
    for tenant_id in ("acme", "bolt"):
        create_tenant(world, tenant_id)
    return world


def create_tenant(world: World, tenant_id: str, **limits: int) -> catalog.Tenant:
    request = pb.CreateTenantRequest(tenant_id=tenant_id, limits=catalog.TenantLimits(**limits))
    return world.ask("CreateTenant", request, pb.CreateTenantResponse).tenant


def create_user(
    world: World, tenant_id: str = "acme", role: int = catalog.ROLE_ADMIN, name: str = ""
) -> Signer:
    request = pb.CreateUserRequest(tenant_id=tenant_id, name=name or f"user-{role}", role=role)
    answer = world.ask("CreateUser", request, pb.CreateUserResponse)
    return world.signs(Credentials(answer.key.key_id, answer.key.secret))


def create_table(world: World, signer: Signer | None, name: str = "orders") -> pb.Operation:
    operation = world.ask("CreateTable", new_table(name), pb.CreateTableResponse, signer).operation
    world.settle()
    return operation


def tables(world: World, signer: Signer | None = None) -> list[str]:
    answer = world.ask("ListTables", pb.ListTablesRequest(), pb.ListTablesResponse, signer)
    return [table.name for table in answer.tables]


def test_tenants_have_name_spaces_of_their_own(world: World) -> None:
    """Both have a table `orders`, see their own under that name, and nobody else's."""
    acme, bolt = create_user(world, "acme"), create_user(world, "bolt")
    for signer in (acme, bolt, None):
        create_table(world, signer)
    create_table(world, bolt, "bills")
    assert tables(world, acme) == ["orders"]
    assert tables(world, bolt) == ["bills", "orders"]
    assert tables(world) == ["acme/orders", "bolt/bills", "bolt/orders", "orders"]
    describe = pb.DescribeTableRequest(table="orders")
    found = [
        world.ask("DescribeTable", describe, pb.DescribeTableResponse, signer).table
        for signer in (acme, bolt, None)
    ]
    assert [table.name for table in found] == ["orders"] * 3
    assert len({table.table_id for table in found}) == 3


@pytest.mark.parametrize("name", ["bolt/orders", "/orders", "acme/orders", "bolt\0orders", "bills"])
def test_a_tenant_cannot_name_anothers_table(world: World, name: str) -> None:
    acme, bolt = create_user(world, "acme"), create_user(world, "bolt")
    create_table(world, acme)
    create_table(world, bolt)
    create_table(world, bolt, "bills")
    for method, request, answer in (
        ("DescribeTable", pb.DescribeTableRequest(table=name), pb.DescribeTableResponse),
        ("DeleteTable", pb.DeleteTableRequest(table=name), pb.DeleteTableResponse),
        ("ListPartitions", pb.ListPartitionsRequest(table=name), pb.ListPartitionsResponse),
    ):
        error = refused(lambda: world.ask(method, request, answer, acme))  # noqa: B023
        wanted = Reason.TABLE_NOT_FOUND if name == "bills" else Reason.INVALID_ARGUMENT
        assert error.reason is wanted
    # Nor can the tenant `local`, whose names have no prefix.
    request = pb.CreateUserRequest(tenant_id="local", name="eve", role=catalog.ROLE_ADMIN)
    key = world.ask("CreateUser", request, pb.CreateUserResponse).key
    eve = world.signs(Credentials(key.key_id, key.secret))
    describe = pb.DescribeTableRequest(table=name)
    error = refused(lambda: world.ask("DescribeTable", describe, pb.DescribeTableResponse, eve))
    assert error.reason in (Reason.TABLE_NOT_FOUND, Reason.INVALID_ARGUMENT)
    assert tables(world, eve) == []


def test_operations_are_seen_by_their_own_tenant_alone(world: World) -> None:
    acme, bolt = create_user(world, "acme"), create_user(world, "bolt")
    operation = create_table(world, acme)
    assert operation.table == "orders"
    get = pb.GetOperationRequest(operation_id=operation.operation_id)
    assert world.ask("GetOperation", get, pb.GetOperationResponse, acme).operation.table == "orders"
    error = refused(lambda: world.ask("GetOperation", get, pb.GetOperationResponse, bolt))
    assert error.reason is Reason.OPERATION_NOT_FOUND
    cancel = pb.CancelOperationRequest(operation_id=operation.operation_id)
    error = refused(lambda: world.ask("CancelOperation", cancel, pb.CancelOperationResponse, bolt))
    assert error.reason is Reason.OPERATION_NOT_FOUND
    listed = world.ask(
        "ListOperations", pb.ListOperationsRequest(), pb.ListOperationsResponse, bolt
    )
    assert not listed.operations


def test_errors_name_tables_as_their_caller_does(world: World) -> None:
    acme = create_user(world)
    create_table(world, acme)
    error = refused(lambda: create_table(world, acme))
    assert error.reason is Reason.TABLE_EXISTS
    assert "'orders'" in error.message
    assert "acme" not in error.message


ROLES = {
    "CreateTable": (new_table("more"), pb.CreateTableResponse, 3),
    "DescribeTable": (pb.DescribeTableRequest(table="orders"), pb.DescribeTableResponse, 1),
    "UpdateTable": (pb.UpdateTableRequest(table="orders", durability=2), pb.UpdateTableResponse, 3),
    "ListTables": (pb.ListTablesRequest(), pb.ListTablesResponse, 1),
    "ListPartitions": (pb.ListPartitionsRequest(table="orders"), pb.ListPartitionsResponse, 1),
    "DeleteTable": (pb.DeleteTableRequest(table="orders"), pb.DeleteTableResponse, 3),
    "SplitPartition": (pb.SplitPartitionRequest(table="orders"), pb.SplitPartitionResponse, 4),
    "MovePartition": (pb.MovePartitionRequest(table="orders"), pb.MovePartitionResponse, 4),
    "RegisterNode": (pb.RegisterNodeRequest(), pb.RegisterNodeResponse, 4),
    "Heartbeat": (pb.HeartbeatRequest(node_id="a"), pb.HeartbeatResponse, 4),
    "ListNodes": (pb.ListNodesRequest(), pb.ListNodesResponse, 4),
    "DrainNode": (pb.DrainNodeRequest(node_id="a"), pb.DrainNodeResponse, 4),
    "CreateTenant": (pb.CreateTenantRequest(tenant_id="more"), pb.CreateTenantResponse, 4),
    "SuspendTenant": (pb.SuspendTenantRequest(tenant_id="acme"), pb.SuspendTenantResponse, 4),
    "UpdateTenant": (pb.UpdateTenantRequest(tenant_id="acme"), pb.UpdateTenantResponse, 4),
    "DeleteTenant": (pb.DeleteTenantRequest(tenant_id="acme"), pb.DeleteTenantResponse, 4),
    "ListTenants": (pb.ListTenantsRequest(), pb.ListTenantsResponse, 4),
    "DescribeTenant": (pb.DescribeTenantRequest(), pb.DescribeTenantResponse, 3),
    "CreateUser": (pb.CreateUserRequest(name="new", role=1), pb.CreateUserResponse, 3),
    "ListUsers": (pb.ListUsersRequest(), pb.ListUsersResponse, 3),
    "RotateKey": (pb.RotateKeyRequest(name="user-1"), pb.RotateKeyResponse, 3),
}


@pytest.mark.parametrize("role", [1, 2, 3])
def test_a_user_does_what_its_role_allows(world: World, role: int) -> None:
    """And is told which role it would take."""
    create_table(world, create_user(world, name="owner"))
    create_user(world, role=catalog.ROLE_READ, name="user-1") if role != 1 else None
    signer = create_user(world, role=role)
    for method, (request, answer, needed) in ROLES.items():
        if role >= needed:
            world.ask(method, request, answer, signer)
            world.settle()
        else:
            error = refused(lambda: world.ask(method, request, answer, signer))  # noqa: B023
            assert error.reason is Reason.ROLE_NOT_ALLOWED, method
            assert method in error.message


def test_an_admin_rules_over_its_own_tenant_alone(world: World) -> None:
    acme = create_user(world, "acme")
    for method, request, answer in (
        (
            "CreateUser",
            pb.CreateUserRequest(tenant_id="bolt", name="eve", role=3),
            pb.CreateUserResponse,
        ),
        ("RotateKey", pb.RotateKeyRequest(tenant_id="bolt", name="user-3"), pb.RotateKeyResponse),
        ("ListUsers", pb.ListUsersRequest(tenant_id="bolt"), pb.ListUsersResponse),
        ("DescribeTenant", pb.DescribeTenantRequest(tenant_id="local"), pb.DescribeTenantResponse),
    ):
        error = refused(lambda: world.ask(method, request, answer, acme))  # noqa: B023
        assert error.reason is Reason.ROLE_NOT_ALLOWED


# --- Signatures ----------------------------------------------------------------------------------


LIST: tuple[str, Message, type[pb.ListTablesResponse]] = (
    "ListTables",
    pb.ListTablesRequest(),
    pb.ListTablesResponse,
)
PATH = "/keyplane.metadata.v1.MetadataService/ListTables"


def test_calls_without_a_good_signature_are_refused_and_say_why(world: World) -> None:
    acme = create_user(world)
    stranger = world.signs(Credentials("KPAK0000000000000000", "A" * 43))
    good = acme.value(PATH, b"")
    cases = [
        ("", Reason.MISSING_CREDENTIALS),
        ("garbage", Reason.BAD_SIGNATURE),
        ("x" * len(good), Reason.BAD_SIGNATURE),
        (stranger.value(PATH, b""), Reason.UNKNOWN_KEY),
        (acme.value(PATH, b"other"), Reason.BAD_SIGNATURE),
        (acme.value(PATH + "x", b""), Reason.BAD_SIGNATURE),
        (good[:-2] + ("AA" if good[-2:] != "AA" else "BB"), Reason.BAD_SIGNATURE),
    ]
    for header, reason in cases:
        error = refused(lambda: world.ask(*LIST, header=header))  # noqa: B023
        assert error.reason is reason, (header, error)
    world.ask(*LIST, header=good)
    assert refused(lambda: world.ask(*LIST, header=good)).reason is Reason.REPLAYED


@pytest.mark.parametrize("skew_s", [-31.0, 31.0])
def test_a_clock_that_is_wrong_is_told_by_how_much(world: World, skew_s: float) -> None:
    request = pb.CreateUserRequest(tenant_id="acme", name="ann", role=3)
    key = world.ask("CreateUser", request, pb.CreateUserResponse).key
    credentials = Credentials(key.key_id, key.secret)
    error = refused(lambda: world.ask(*LIST, world.signs(credentials, skew_s)))
    assert error.reason is Reason.SIGNATURE_EXPIRED
    assert "31.0 s" in error.message
    assert "NTP" in error.message
    world.ask(*LIST, world.signs(credentials, skew_s / 31 * (CLOCK_SKEW_S - 1)))


def test_a_suspended_tenant_is_refused_until_it_is_resumed(world: World) -> None:
    acme = create_user(world)
    suspend = pb.SuspendTenantRequest(tenant_id="acme")
    tenant = world.ask("SuspendTenant", suspend, pb.SuspendTenantResponse).tenant
    assert tenant.state == catalog.TENANT_STATE_SUSPENDED
    assert refused(lambda: tables(world, acme)).reason is Reason.TENANT_SUSPENDED
    world.restart()
    assert refused(lambda: tables(world, acme)).reason is Reason.TENANT_SUSPENDED
    world.ask("ResumeTenant", pb.ResumeTenantRequest(tenant_id="acme"), pb.ResumeTenantResponse)
    assert tables(world, acme) == []


def test_two_keys_are_good_and_a_third_ends_the_first(world: World) -> None:
    first = create_user(world, name="ann")

    def rotate(revoke_others: bool = False) -> Signer:
        request = pb.RotateKeyRequest(tenant_id="acme", name="ann", revoke_others=revoke_others)
        answer = world.ask("RotateKey", request, pb.RotateKeyResponse)
        assert answer.user.keys[0].key_id == answer.key.key_id
        assert answer.user.keys[0].state == pb.KEY_STATE_CURRENT
        return world.signs(Credentials(answer.key.key_id, answer.key.secret))

    second = rotate()
    tables(world, first)
    tables(world, second)
    third = rotate()
    assert refused(lambda: tables(world, first)).reason is Reason.UNKNOWN_KEY
    tables(world, second)
    fourth = rotate(revoke_others=True)
    for signer in (second, third):
        assert refused(lambda: tables(world, signer)).reason is Reason.UNKNOWN_KEY  # noqa: B023
    tables(world, fourth)
    world.ask(
        "DeleteUser", pb.DeleteUserRequest(tenant_id="acme", name="ann"), pb.DeleteUserResponse
    )
    assert refused(lambda: tables(world, fourth)).reason is Reason.UNKNOWN_KEY


# --- What is kept ---


def test_tenants_outlive_a_restart(world: World) -> None:
    acme = create_user(world)
    create_table(world, acme)
    world.restart()
    assert tables(world, acme) == ["orders"]
    assert world.core.catalog.tenants == world.reread().tenants


def test_no_secret_is_in_the_database_or_in_memds(world: World, tmp_path: Path) -> None:
    request = pb.CreateUserRequest(tenant_id="acme", name="ann", role=catalog.ROLE_READ)
    key = world.ask("CreateUser", request, pb.CreateUserResponse).key
    world.run(5.0)
    secret = Credentials(key.key_id, key.secret).secret_bytes
    with sqlite3.connect(tmp_path / "metadata.db") as connection:
        kept = "\n".join(connection.iterdump()).encode()
    held = b"".join(value for node in world.memds for value in node.values.values())
    assert key.key_id.encode() in kept
    for place in (kept, held):
        assert key.secret.encode() not in place
        assert secret not in place
        assert secret.hex().encode() not in place
    shard = open_shard(
        Vault(SECRET),
        CLUSTER,
        shard_of("acme"),
        world.memds[0].values[memds_keys.tenants(CLUSTER, shard_of("acme"))],
    )
    (access,) = [each for each in shard.tenants if each.tenant.tenant_id == "acme"]
    assert access.users[0].keys[0].secret == secret


def test_a_database_of_another_clusters_secret_is_left_alone(tmp_path: Path) -> None:
    world = World(tmp_path, vault=Vault(SECRET), signed=True)
    create_tenant(world, "acme")
    acme = create_user(world)
    world.process.kill()
    world.vault = Vault(b"d" * 32)
    world.start()
    world.run(2.0)
    assert not world.core.ready
    assert "--cluster-secret-file" in world.core.status()
    world.process.kill()
    world.vault = Vault(SECRET)
    world.start()
    world.run_until(lambda: world.core.ready)
    tables(world, acme)


def test_without_a_secret_there_are_tenants_and_no_users(tmp_path: Path) -> None:
    """And calls need no signature."""
    world = World(tmp_path)
    create_tenant(world, "acme")
    error = refused(lambda: create_user(world))
    assert error.reason is Reason.NO_CLUSTER_SECRET
    assert "--cluster-secret-file" in error.message


def test_an_account_of_its_own_for_each(world: World) -> None:
    listed = world.ask("ListTenants", pb.ListTenantsRequest(), pb.ListTenantsResponse).tenants
    accounts = [tenant.account for tenant in listed]
    assert [tenant.tenant_id for tenant in listed] == ["acme", "bolt", "local"]
    assert len(set(accounts)) == 3
    assert all(len(account) == 12 and account.isdigit() for account in accounts)


# --- Bad input ---


TENANT = catalog.TenantLimits
BAD: list[tuple[str, Message, Reason]] = [
    ("CreateTenant", pb.CreateTenantRequest(), Reason.INVALID_ARGUMENT),
    ("CreateTenant", pb.CreateTenantRequest(tenant_id="Acme"), Reason.INVALID_ARGUMENT),
    ("CreateTenant", pb.CreateTenantRequest(tenant_id="a/b"), Reason.INVALID_ARGUMENT),
    ("CreateTenant", pb.CreateTenantRequest(tenant_id="x" * 33), Reason.INVALID_ARGUMENT),
    ("CreateTenant", pb.CreateTenantRequest(tenant_id="local"), Reason.INVALID_ARGUMENT),
    ("CreateTenant", pb.CreateTenantRequest(tenant_id="acme"), Reason.TENANT_EXISTS),
    (
        "CreateTenant",
        pb.CreateTenantRequest(tenant_id="cold", limits=TENANT(tables=0)),
        Reason.INVALID_ARGUMENT,
    ),
    ("DescribeTenant", pb.DescribeTenantRequest(tenant_id="none"), Reason.TENANT_NOT_FOUND),
    ("SuspendTenant", pb.SuspendTenantRequest(tenant_id="none"), Reason.TENANT_NOT_FOUND),
    ("SuspendTenant", pb.SuspendTenantRequest(tenant_id="local"), Reason.INVALID_ARGUMENT),
    ("ResumeTenant", pb.ResumeTenantRequest(), Reason.INVALID_ARGUMENT),
    ("DeleteTenant", pb.DeleteTenantRequest(tenant_id="none"), Reason.TENANT_NOT_FOUND),
    ("DeleteTenant", pb.DeleteTenantRequest(tenant_id="local"), Reason.INVALID_ARGUMENT),
    ("DeleteTenant", pb.DeleteTenantRequest(tenant_id="acme"), Reason.TENANT_NOT_EMPTY),
    (
        "UpdateTenant",
        pb.UpdateTenantRequest(tenant_id="acme", limits=TENANT(tables=1)),
        Reason.INVALID_ARGUMENT,
    ),
    (
        "UpdateTenant",
        pb.UpdateTenantRequest(tenant_id="acme", limits=TENANT(requests_per_second=0)),
        Reason.INVALID_ARGUMENT,
    ),
    ("CreateUser", pb.CreateUserRequest(tenant_id="acme", role=1), Reason.INVALID_ARGUMENT),
    ("CreateUser", pb.CreateUserRequest(tenant_id="acme", name="a b"), Reason.INVALID_ARGUMENT),
    ("CreateUser", pb.CreateUserRequest(tenant_id="acme", name="new"), Reason.INVALID_ARGUMENT),
    (
        "CreateUser",
        pb.CreateUserRequest(tenant_id="acme", name="new", role=9),
        Reason.INVALID_ARGUMENT,
    ),
    (
        "CreateUser",
        pb.CreateUserRequest(tenant_id="none", name="new", role=1),
        Reason.TENANT_NOT_FOUND,
    ),
    (
        "CreateUser",
        pb.CreateUserRequest(tenant_id="acme", name="user-3", role=1),
        Reason.USER_EXISTS,
    ),
    ("DeleteUser", pb.DeleteUserRequest(tenant_id="acme", name="none"), Reason.USER_NOT_FOUND),
    ("RotateKey", pb.RotateKeyRequest(tenant_id="acme", name="none"), Reason.USER_NOT_FOUND),
    ("ListTenants", pb.ListTenantsRequest(page_size=1_001), Reason.INVALID_ARGUMENT),
    ("ListTenants", pb.ListTenantsRequest(page_token="AAAA"), Reason.INVALID_ARGUMENT),
    ("CreateTable", new_table("none/orders"), Reason.TENANT_NOT_FOUND),
    ("CreateTable", new_table("a/b/c"), Reason.INVALID_ARGUMENT),
]


def test_bad_requests_change_nothing(world: World) -> None:
    acme = create_user(world)
    create_table(world, acme)
    create_table(world, acme, "bills")
    before = world.reread().tenants
    for method, request, reason in BAD:
        answer = getattr(pb, f"{method}Response")
        error = refused(lambda: world.ask(method, request, answer))  # noqa: B023
        assert error.reason is reason, (method, request, error)
        assert error.message
    assert world.core.catalog.tenants == before == world.reread().tenants


def test_a_tenant_has_as_many_tables_as_it_may(world: World) -> None:
    create_tenant(world, "small", tables=1)
    small = create_user(world, "small")
    create_table(world, small)
    error = refused(lambda: create_table(world, small, "bills"))
    assert error.reason is Reason.LIMIT_EXCEEDED
    assert "keyplane tenant limits" in error.message
    world.ask("UpdateTenant", pb.UpdateTenantRequest(tenant_id="small"), pb.UpdateTenantResponse)
    create_table(world, small, "bills")


def test_a_tenant_goes_with_its_users_once_its_tables_are_gone(world: World) -> None:
    acme = create_user(world)
    create_table(world, acme)
    delete = pb.DeleteTenantRequest(tenant_id="acme")
    error = refused(lambda: world.ask("DeleteTenant", delete, pb.DeleteTenantResponse))
    assert error.reason is Reason.TENANT_NOT_EMPTY
    world.ask("DeleteTable", pb.DeleteTableRequest(table="orders"), pb.DeleteTableResponse, acme)
    world.settle()
    world.ask("DeleteTenant", delete, pb.DeleteTenantResponse)
    assert refused(lambda: tables(world, acme)).reason is Reason.UNKNOWN_KEY
    assert "acme" not in world.reread().tenants
    # The next tenant of the name sees nothing of it.
    create_tenant(world, "acme")
    acme = create_user(world)
    listed = world.ask(
        "ListOperations", pb.ListOperationsRequest(), pb.ListOperationsResponse, acme
    )
    assert not listed.operations
    assert tables(world, acme) == []
    create_table(world, acme)


def test_users_and_tenants_are_bounded(tmp_path: Path) -> None:
    config = MetadataConfig(tenants_max=1, users_max=1)
    world = World(tmp_path, config=config, vault=Vault(SECRET))
    create_tenant(world, "acme")
    create_user(world)
    error = refused(lambda: create_user(world, name="other"))
    assert error.reason is Reason.LIMIT_EXCEEDED
    assert refused(lambda: create_tenant(world, "bolt")).reason is Reason.LIMIT_EXCEEDED


def test_no_method_is_open_to_all(world: World) -> None:
    """Of any service, also of one that is added."""
    asked = 0
    for service in pb.DESCRIPTOR.services_by_name.values():
        for method in service.methods:
            request = getattr(pb, method.input_type.name)()
            answer = getattr(pb, method.output_type.name)
            error = refused(lambda: world.ask(method.name, request, answer, header=""))  # noqa: B023
            assert error.reason is Reason.MISSING_CREDENTIALS, method.name
            asked += 1
    assert asked == len(world.process.server.handlers)
