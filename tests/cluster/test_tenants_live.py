"""Tenants on a running cluster: apart from each other, signed, and served with nobody to ask."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from live_cli import Cli
from live_tools import cluster_of, counter
from pymemcache.client.base import Client as Memcached

from cache import memds_keys
from cache.tenant_shards import SHARDS
from keyplane import (
    AdminClient,
    AsyncAdminClient,
    AsyncClient,
    Client,
    ClientConfig,
    Credentials,
    KeyplaneError,
    Put,
    Reason,
    TableNotFound,
)
from keyplane.catalog.v1 import catalog_pb2 as catalog
from keyplane.client.channels import read_error
from keyplane.cluster import Cluster, ClusterConfig, Kind
from keyplane.cluster.commands import PACKAGES
from keyplane.data.v1 import data_pb2 as data
from keyplane.metadata.v1 import metadata_pb2 as metadata
from keyplane.model.items import from_item, to_item
from keyplane.model.signature import HEADER, Signer
from wire.auth import Auth
from wire.http2.client import Http2Transport
from wire.loop import LoopClock
from wire.ports import Reply

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]

# What a change takes to reach every router, as docs/architecture.md says; and room for a busy
# machine, which only the patience of the test has.
REVOKED_WITHIN_S = 2.0
PATIENCE_S = 20.0

# Every refusal is told to the caller.
ONCE = ClientConfig(attempts_max=1)

GET = "/keyplane.data.v1.DataService/GetItem"


class Live:
    """A cluster with the tenants `acme` and `bolt`, an admin of each, a table `orders` of each."""

    def __init__(self, cluster: Cluster, stack: ExitStack) -> None:
        self.cluster = cluster
        self.stack = stack
        self.metadata = cluster.addresses(Kind.METADATA)[0]
        self.operator = self.admin(cluster.operator())
        self.keys: dict[str, Credentials] = {}
        self.secrets: list[str] = []
        for tenant_id in ("acme", "bolt"):
            self.call(metadata.CreateTenantRequest(tenant_id=tenant_id))
            self.keys[tenant_id] = self.create_user(tenant_id, "admin", catalog.ROLE_ADMIN)
            self.create_table(tenant_id, "orders")
        self.create_table("bolt", "bills")

    def admin(self, credentials: Credentials | None) -> AdminClient:
        return self.stack.enter_context(AdminClient(self.metadata, credentials=credentials))

    def client(self, credentials: Credentials | None, router: str = "") -> Client:
        routers = [router] if router else self.cluster.addresses(Kind.ROUTER)
        return self.stack.enter_context(Client(routers, ONCE, credentials))

    def call(self, request: Any) -> Any:
        """As the operator."""
        name = type(request).__name__.replace("Request", "Response")
        return self.operator.call(request, getattr(metadata, name))

    def create_user(self, tenant_id: str, name: str, role: int) -> Credentials:
        key = self.call(metadata.CreateUserRequest(tenant_id=tenant_id, name=name, role=role)).key
        self.secrets.append(key.secret)
        credentials = Credentials(key.key_id, key.secret)
        for router in self.cluster.addresses(Kind.ROUTER):
            # Each hears of it for itself.
            until(self.client(credentials, router).describe_router)
        return credentials

    def create_table(self, tenant_id: str, name: str) -> None:
        key = catalog.KeyAttribute(name="id", type=catalog.SCALAR_TYPE_STRING)
        request = metadata.CreateTableRequest(table=name, partition_key=key)
        with AdminClient(self.metadata, credentials=self.keys[tenant_id]) as admin:
            admin.run(request)


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    config = ClusterConfig(memds=2, routers=2, storage=1, auth=Auth.REQUIRED)
    with cluster_of(tmp_path_factory.mktemp("tenants"), config) as cluster, ExitStack() as stack:
        live = Live(cluster, stack)
        for tenant_id in ("acme", "bolt"):
            for router in cluster.addresses(Kind.ROUTER):
                client = live.client(live.keys[tenant_id], router)
                until(lambda: client.put_item("orders", {"id": "1", "of": tenant_id}))  # noqa: B023
        yield live


def until(act: Callable[[], Any], patience_s: float = PATIENCE_S) -> Any:
    """What it returns once it raises nothing any more."""
    give_up = time.monotonic() + patience_s
    while True:
        try:
            return act()
        except KeyplaneError:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.05)


def until_refused(act: Callable[[], Any], reason: Reason) -> float:
    """Seconds until it is refused for this reason, and not for another before."""
    began = time.monotonic()
    while time.monotonic() < began + PATIENCE_S:
        try:
            act()
        except KeyplaneError as error:
            assert error.reason is reason, error
            return time.monotonic() - began
        time.sleep(0.02)
    raise AssertionError(f"never refused with {reason.name}")


def refused(act: Callable[[], Any]) -> KeyplaneError:
    with pytest.raises(KeyplaneError) as caught:
        act()
    return caught.value


# --- Apart ---------------------------------------------------------------------------------------


def test_two_tenants_have_a_table_of_one_name_each(live: Live) -> None:
    acme, bolt = live.client(live.keys["acme"]), live.client(live.keys["bolt"])
    assert acme.get_item("orders", {"id": "1"}) == {"id": "1", "of": "acme"}
    assert bolt.get_item("orders", {"id": "1"}) == {"id": "1", "of": "bolt"}
    acme.batch_write({"orders": [Put({"id": "2", "of": "acme"})]})
    assert [item["id"] for item in bolt.scan("orders")] == ["1"]
    assert sorted(item["id"] for item in acme.scan("orders")) == ["1", "2"]
    acme.delete_item("orders", {"id": "2"})


@pytest.mark.parametrize("name", ["bolt/orders", "bolt/bills", "/bills", "bills", "../bolt/bills"])
def test_a_tenant_can_neither_read_list_nor_guess_anothers_tables(live: Live, name: str) -> None:
    """By any call. What is another's is answered as what nobody has."""
    acme = live.client(live.keys["acme"])
    calls: list[Callable[[], Any]] = [
        lambda: acme.get_item(name, {"id": "1"}),
        lambda: acme.put_item(name, {"id": "1"}),
        lambda: acme.delete_item(name, {"id": "1"}),
        lambda: acme.batch_get({name: [{"id": "1"}]}),
        lambda: acme.batch_write({name: [Put({"id": "1"})]}),
        lambda: list(acme.query(name, "1")),
        lambda: list(acme.scan(name)),
        lambda: acme.explain(name, {"id": "1"}),
    ]
    own = live.admin(live.keys["acme"])
    for request, response in (
        (metadata.DescribeTableRequest(table=name), metadata.DescribeTableResponse),
        (metadata.ListPartitionsRequest(table=name), metadata.ListPartitionsResponse),
        (metadata.UpdateTableRequest(table=name, durability=2), metadata.UpdateTableResponse),
        (metadata.DeleteTableRequest(table=name), metadata.DeleteTableResponse),
    ):
        calls.append(lambda request=request, response=response: own.call(request, response))
    for call in calls:
        error = refused(call)
        assert error.reason in (Reason.TABLE_NOT_FOUND, Reason.INVALID_ARGUMENT), error
    nowhere = refused(lambda: acme.get_item("walls", {"id": "1"}))
    if name == "bills":
        there = refused(lambda: acme.get_item(name, {"id": "1"}))
        assert isinstance(there, TableNotFound)
        assert there.message.replace("bills", "walls") == nowhere.message
    listed = own.call(metadata.ListTablesRequest(), metadata.ListTablesResponse).tables
    assert [table.name for table in listed] == ["orders"]
    assert {view.table.name for view in acme.describe_router().tables} == {"orders"}
    shown = own.call(metadata.ListOperationsRequest(), metadata.ListOperationsResponse)
    assert {operation.table for operation in shown.operations} == {"orders"}


def test_the_operator_sees_all_tables_and_no_items(live: Live) -> None:
    listed = live.call(metadata.ListTablesRequest()).tables
    assert {"acme/orders", "bolt/bills", "bolt/orders"} <= {table.name for table in listed}
    client = live.client(live.cluster.operator())
    error = refused(lambda: client.get_item("acme/orders", {"id": "1"}))
    assert error.reason is Reason.INVALID_ARGUMENT


# --- Signed --------------------------------------------------------------------------------------


def test_every_router_and_the_metadata_store_want_a_signature(live: Live) -> None:
    nobody = live.admin(None)
    listing = metadata.ListTablesRequest(), metadata.ListTablesResponse
    assert refused(lambda: nobody.call(*listing)).reason is Reason.MISSING_CREDENTIALS
    forged = Credentials(live.keys["acme"].key_id, live.keys["bolt"].secret)
    assert refused(lambda: live.admin(forged).call(*listing)).reason is Reason.BAD_SIGNATURE
    for router in live.cluster.addresses(Kind.ROUTER):
        for credentials, reason in (
            (None, Reason.MISSING_CREDENTIALS),
            (forged, Reason.BAD_SIGNATURE),
            (Credentials("KPAK0000000000000000", forged.secret), Reason.UNKNOWN_KEY),
        ):
            client = live.client(credentials, router)
            error = refused(lambda: client.get_item("orders", {"id": "1"}))  # noqa: B023
            assert error.reason is reason


def test_what_was_overheard_is_of_no_use(live: Live) -> None:
    """Sent again, changed, for another method, too late, or from a clock that is wrong."""
    router = live.cluster.addresses(Kind.ROUTER)[0]
    credentials = live.keys["acme"]

    def signs(ahead_s: float = 0.0) -> Signer:
        wall = lambda: time.time() + ahead_s  # noqa: E731
        return Signer(credentials.key_id, credentials.secret_bytes, wall)

    signer = signs()
    request = data.GetItemRequest(table="orders", key=to_item({"id": "1"}))
    payload = request.SerializeToString()

    def send(value: str, sent: bytes = payload, method: str = GET) -> str:
        """The reason of the refusal; empty for an answer."""
        with grpc.insecure_channel(router) as channel:
            call = channel.unary_unary(method)
            try:
                call(sent, timeout=10.0, metadata=((HEADER, value),))
            except grpc.RpcError as failure:
                return read_error(router, failure).reason.name
        return ""

    good = signer.value(GET, payload)
    assert send(good) == ""
    assert send(good) == "REPLAYED"
    other = data.GetItemRequest(table="orders", key=to_item({"id": "2"})).SerializeToString()
    assert send(signer.value(GET, payload), other) == "BAD_SIGNATURE"
    scan = GET.replace("GetItem", "Scan")
    assert send(signer.value(GET, payload), method=scan) == "BAD_SIGNATURE"
    for ahead_s in (-40.0, 40.0):
        assert send(signs(ahead_s).value(GET, payload)) == "SIGNATURE_EXPIRED"


def test_roles_are_kept_by_routers_and_the_metadata_store(live: Live) -> None:
    reader = live.create_user("acme", "reader", catalog.ROLE_READ)
    client = live.client(reader)
    assert until(lambda: client.get_item("orders", {"id": "1"}))["of"] == "acme"
    error = refused(lambda: client.put_item("orders", {"id": "1", "of": "reader"}))
    assert error.reason is Reason.ROLE_NOT_ALLOWED
    admin = live.admin(reader)
    delete = metadata.DeleteTableRequest(table="orders"), metadata.DeleteTableResponse
    assert refused(lambda: admin.call(*delete)).reason is Reason.ROLE_NOT_ALLOWED
    drain = metadata.DrainNodeRequest(node_id="storage-1"), metadata.DrainNodeResponse
    error = refused(lambda: live.admin(live.keys["acme"]).call(*drain))
    assert error.reason is Reason.ROLE_NOT_ALLOWED
    assert client.get_item("orders", {"id": "1"}) == {"id": "1", "of": "acme"}


def test_every_client_signs(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocking and asyncio, hedged reads too, with credentials given or of the environment."""
    routers = live.cluster.addresses(Kind.ROUTER)
    key = live.keys["acme"]
    monkeypatch.setenv("KEYPLANE_KEY_ID", key.key_id)
    monkeypatch.setenv("KEYPLANE_SECRET", key.secret)
    impatient = ClientConfig(hedge_after_s=0.0001)
    wanted = {"id": "1", "of": "acme"}

    async def story() -> None:
        async with AsyncClient(routers, impatient) as client:
            for _ in range(50):
                assert await client.get_item("orders", {"id": "1"}) == wanted
            await client.put_item("orders", wanted)
        async with AsyncClient(routers, credentials=live.keys["bolt"]) as client:
            found = await client.get_item("orders", {"id": "1"})
            assert found == {"id": "1", "of": "bolt"}
        async with AsyncAdminClient(live.metadata) as admin:
            answer = await admin.call(metadata.ListTablesRequest(), metadata.ListTablesResponse)
            assert [table.name for table in answer.tables] == ["orders"]

    asyncio.run(story())
    with Client(routers, impatient) as client:
        for _ in range(50):
            assert client.get_item("orders", {"id": "1"}) == wanted
    monkeypatch.setenv("KEYPLANE_SECRET", "cut")
    with pytest.raises(KeyplaneError, match="a secret"):
        Client(routers)


def test_servers_refuse_to_start_without_what_they_need(live: Live, tmp_path: Path) -> None:
    """And say which flag would help."""
    open_to_all = tmp_path / "secret"
    open_to_all.write_bytes(live.cluster.paths.secret.read_bytes())
    open_to_all.chmod(0o644)
    for arguments, remedy in (
        (["--auth", "required"], "--cluster-secret-file"),
        (["--auth", "required", "--cluster-secret-file", str(tmp_path / "none")], "cannot be read"),
        (["--auth", "required", "--cluster-secret-file", str(open_to_all)], "chmod 600"),
        (["--auth", "perhaps"], "--auth"),
    ):
        for server in ("router", "metadata"):
            done = subprocess.run(
                [sys.executable, "-m", server, *arguments],
                cwd=PACKAGES,
                env={**os.environ, "KEYPLANE_SNAPSHOT_DIR": str(tmp_path)}
                | {"KEYPLANE_DATABASE_URL": f"sqlite:///{tmp_path}/m.db"},
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert done.returncode in (1, 2), done
            assert remedy in done.stdout + done.stderr


# --- Taken back ----------------------------------------------------------------------------------


def test_a_suspension_reaches_every_router_in_time(live: Live) -> None:
    """And reaches nobody else; the tenant's items are there when it is resumed."""
    routers = [
        live.client(live.keys["acme"], router) for router in live.cluster.addresses(Kind.ROUTER)
    ]
    bolt = live.client(live.keys["bolt"])
    live.call(metadata.SuspendTenantRequest(tenant_id="acme"))
    took = [
        until_refused(
            lambda: client.get_item("orders", {"id": "1"}),  # noqa: B023
            Reason.TENANT_SUSPENDED,
        )
        for client in routers
    ]
    assert bolt.get_item("orders", {"id": "1"})
    live.call(metadata.ResumeTenantRequest(tenant_id="acme"))
    for client in routers:
        assert until(lambda: client.get_item("orders", {"id": "1"}))["of"] == "acme"  # noqa: B023
    # The first is a measurement: later ones wait for those before them.
    assert took[0] < REVOKED_WITHIN_S + 1.0


def test_a_sealed_connection_serves_its_tenant_until_that_is_suspended(live: Live) -> None:
    """Calls of the transport that seals (`wire.http2.seal`), which carry no signature."""
    member = live.cluster.state().of_kind(Kind.ROUTER)[0]
    router, credentials = member.address, live.keys["acme"]
    payload = data.GetItemRequest(table="orders", key=to_item({"id": "1"})).SerializeToString()

    async def story() -> None:
        clock = LoopClock(asyncio.get_running_loop())
        signer = Signer(credentials.key_id, credentials.secret_bytes, time.time)
        transport = Http2Transport(clock, signer=signer)

        async def call() -> Reason | None:
            ended: asyncio.Future[Reply] = clock.loop.create_future()
            transport.call(router, GET, payload, clock.now() + 10.0, ended.set_result)
            reply = await ended
            if reply.error is not None:
                return reply.error.reason
            answer = data.GetItemResponse.FromString(reply.payload)
            assert from_item(answer.item)["of"] == "acme"
            return None

        async def until(reason: Reason | None) -> float:
            started = time.monotonic()
            while (told := await call()) is not reason:
                assert time.monotonic() - started < PATIENCE_S, told
                await asyncio.sleep(0.01)
            return time.monotonic() - started

        try:
            await until(None)
            assert counter(live.cluster, member.name, "keyplane_http2_sealed_connections") == 1
            live.call(metadata.SuspendTenantRequest(tenant_id="acme"))
            assert await until(Reason.TENANT_SUSPENDED) < REVOKED_WITHIN_S + 1.0
        finally:
            live.call(metadata.ResumeTenantRequest(tenant_id="acme"))
            await until(None)
            await transport.close()

    asyncio.run(story())


def test_keys_are_rotated_without_an_outage(live: Live) -> None:
    """The old key works while the new one spreads, and is refused once it is taken back."""
    first = live.create_user("acme", "app", catalog.ROLE_WRITE)
    old = live.client(first)
    # At every router: each hears of it for itself.
    until(lambda: [old.put_item("orders", {"id": "app"}) for _ in range(10)])
    request = metadata.RotateKeyRequest(tenant_id="acme", name="app")
    key = live.call(request).key
    live.secrets.append(key.secret)
    new = live.client(Credentials(key.key_id, key.secret))
    give_up = time.monotonic() + PATIENCE_S
    while time.monotonic() < give_up:
        old.put_item("orders", {"id": "app"})
        try:
            new.put_item("orders", {"id": "app"})
            break
        except KeyplaneError as error:
            assert error.reason is Reason.UNKNOWN_KEY
    request.revoke_others = True
    live.secrets.append(live.call(request).key.secret)
    until_refused(lambda: old.put_item("orders", {"id": "app"}), Reason.UNKNOWN_KEY)
    until_refused(lambda: new.put_item("orders", {"id": "app"}), Reason.UNKNOWN_KEY)


def test_a_limit_reaches_routers_and_binds_one_tenant_alone(live: Live) -> None:
    limits = catalog.TenantLimits(requests_per_second=20)
    live.call(metadata.UpdateTenantRequest(tenant_id="acme", limits=limits))
    acme, bolt = live.client(live.keys["acme"]), live.client(live.keys["bolt"])
    try:
        give_up = time.monotonic() + PATIENCE_S
        while time.monotonic() < give_up:
            try:
                acme.get_item("orders", {"id": "1"})
            except KeyplaneError as error:
                assert error.reason is Reason.THROTTLED
                assert error.metadata["reason"] == "TableReadAccountLimitExceeded"
                account = error.metadata["resource"].split(":")[4]
                break
        described = live.call(metadata.DescribeTenantRequest(tenant_id="acme"))
        assert account == described.tenant.account
        for _ in range(100):
            bolt.get_item("orders", {"id": "1"})
    finally:
        live.call(metadata.UpdateTenantRequest(tenant_id="acme"))
    time.sleep(REVOKED_WITHIN_S)
    until(lambda: acme.get_item("orders", {"id": "1"}))


# --- Kept ----------------------------------------------------------------------------------------


def test_no_secret_is_in_any_file_or_in_memcached(live: Live) -> None:
    """But for the one file that is for that; and that is for its owner alone."""
    root = live.cluster.paths.root
    needles = [secret.encode() for secret in live.secrets]
    needles += [Credentials("KPAK0000000000000000", each).secret_bytes for each in live.secrets]
    needles += [live.cluster.operator().secret.encode()]
    needles += [live.cluster.operator().secret_bytes, root.joinpath("cluster.secret").read_bytes()]
    searched = 0
    for path in root.rglob("*"):
        if path.is_file() and path.name != "cluster.secret":
            content = path.read_bytes()
            searched += len(content)
            assert not [needle for needle in needles if needle in content], path
    assert searched > 10_000
    with sqlite3.connect(root / "data/metadata/metadata.db") as connection:
        kept = "\n".join(connection.iterdump()).encode()
    assert live.keys["acme"].key_id.encode() in kept
    assert not [needle for needle in needles if needle in kept]
    for member in live.cluster.state().of_kind(Kind.MEMDS):
        held = b"".join(memcached_values(member.address, live.cluster.name))
        assert held
        assert not [needle for needle in needles if needle in held]
        assert live.keys["acme"].key_id.encode() not in held
    assert live.cluster.paths.secret.stat().st_mode & 0o777 == 0o600
    for name in ("KEYPLANE_SECRET", "KEYPLANE_KEY_ID"):
        assert name not in os.environ


def memcached_values(address: str, cluster: str) -> Iterator[bytes]:
    """The values of all shards of tenants."""
    host, _, port = address.rpartition(":")
    memcached = Memcached((host, int(port)), connect_timeout=2, timeout=2)
    try:
        for number in range(SHARDS):
            value = memcached.get(memds_keys.tenants(cluster, number))
            assert value is not None
            yield value
    finally:
        memcached.close()


def test_known_tenants_are_served_with_the_control_plane_gone(live: Live) -> None:
    """Also by a router that is new, and by one that starts again with MemDS gone as well (I6)."""
    cluster = live.cluster
    acme = live.client(live.keys["acme"])
    cluster.kill("metadata")
    try:
        assert acme.get_item("orders", {"id": "1"})
        added = cluster.add_router()
        new = live.client(live.keys["acme"], added.address)
        assert new.get_item("orders", {"id": "1"}) == {"id": "1", "of": "acme"}
        stranger = Credentials("KPAK0000000000000000", live.keys["bolt"].secret)
        eve = live.client(stranger, added.address)
        assert refused(lambda: eve.get_item("orders", {"id": "1"})).reason is Reason.UNKNOWN_KEY
        # Its snapshot has everything that it needs a second after it has heard of it.
        time.sleep(3.0)
        for member in cluster.state().of_kind(Kind.MEMDS):
            cluster.kill(member.name)
        cluster.restart(added.name)
        again = live.client(live.keys["acme"], added.address)
        assert again.get_item("orders", {"id": "1"}) == {"id": "1", "of": "acme"}
        assert refused(lambda: eve.get_item("orders", {"id": "1"})).reason is Reason.UNKNOWN_KEY
    finally:
        for member in cluster.state().of_kind(Kind.MEMDS):
            cluster.restart(member.name)
        cluster.restart("metadata")
    assert live.call(metadata.ListTenantsRequest()).tenants


# --- By hand -------------------------------------------------------------------------------------


def test_the_commands_for_tenants_and_users(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """From nothing, over a cluster that did not ask, to one that does."""
    cli("up", "--routers", "1", "--storage", "1", "--memds", "1")
    cli("up", "--auth", "required", code=3)
    cli("down")
    cli("up", "--auth", "required")
    made = cli("tenant", "create", "acme", "--tables", "1", "--requests", "1000")
    assert made["limits"] == {"tables": 1, "requests_per_second": 1000}
    assert [each["tenant"] for each in cli("tenant", "list")["tenants"]] == ["acme", "local"]
    key = cli("user", "create", "ann", "--tenant", "acme", "--role", "admin")
    assert cli("user", "list", "--tenant", "acme")["users"][0]["keys"][0]["key_id"] == key["key_id"]
    cli("table", "create", "orders")
    monkeypatch.setenv("KEYPLANE_KEY_ID", key["key_id"])
    monkeypatch.setenv("KEYPLANE_SECRET", key["secret"])
    cli("table", "create", "orders")
    assert "LIMIT_EXCEEDED" in str(cli("table", "create", "bills", code=3))
    until_ok(lambda: cli("put", '{"id": "1"}', "--table", "orders"))
    assert "ROLE_NOT_ALLOWED" in str(cli("tenant", "list", code=3))
    assert [each["table"] for each in cli("table", "list")["tables"]] == ["orders"]
    new = cli("user", "rotate-key", "ann", "--revoke-others")
    monkeypatch.setenv("KEYPLANE_KEY_ID", new["key_id"])
    assert "BAD_SIGNATURE" in str(cli("table", "list", code=3))
    monkeypatch.setenv("KEYPLANE_SECRET", new["secret"])
    cli("table", "list")
    monkeypatch.delenv("KEYPLANE_SECRET")
    assert "set both or neither" in str(cli("table", "list", code=3))
    monkeypatch.delenv("KEYPLANE_KEY_ID")
    cli("tenant", "suspend", "acme")
    assert cli("tenant", "describe", "acme")["state"] == "suspended"
    cli("tenant", "resume", "acme")
    assert cli("tenant", "limits", "acme")["limits"] == {}
    assert "TENANT_NOT_EMPTY" in str(cli("tenant", "delete", "acme", code=3))
    cli("table", "delete", "acme/orders")
    cli("user", "delete", "ann", "--tenant", "acme")
    cli("tenant", "delete", "acme")
    assert "TENANT_NOT_FOUND" in str(cli("tenant", "describe", "acme", code=3))


def until_ok(act: Callable[[], Any]) -> None:
    """Routers hear of a new key within two seconds."""
    give_up = time.monotonic() + PATIENCE_S
    while True:
        try:
            act()
            return
        except AssertionError:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.2)
