"""Tenants at a router: whose call it is, what it may name, and how much of it there may be."""

from __future__ import annotations

from typing import Any

import pytest
from router_world import DATA, ROUTE, World
from storage_peer import Fault

from cache import memds_keys
from cache.tenant_shards import SHARDS, shard_of
from granter.config import GranterConfig
from granter.core import GranterCore
from keyplane.catalog.v1 import catalog_pb2 as catalog
from keyplane.data.v1 import data_pb2 as data
from keyplane.model.credentials import Credentials, secret_to_text
from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.items import from_item, to_item
from keyplane.model.signature import Signer
from keyplane.model.throttling import Limit, throttled
from keyplane.model.vault import Vault
from keyplane.route.v1 import route_pb2 as route
from router.config import RouterConfig
from wire.memory_process import MemoryProcess
from wire.metrics import Metrics

VAULT = Vault(b"c" * 32)
READ, WRITE, ADMIN = catalog.ROLE_READ, catalog.ROLE_WRITE, catalog.ROLE_ADMIN

# What a change takes to reach every router: a beat of the publisher, a round of the reader.
REVOKED_WITHIN_S = 2.0


def key(name: str) -> Credentials:
    return Credentials(f"KPAK{name.upper():0<16}", secret_to_text(name.encode().ljust(32, b".")))


class Tenants:
    """A world with the tenants `acme` and `bolt`, each with a table `music` of its own."""

    def __init__(self, world: World) -> None:
        self.world = world
        world.add_table("acme/music", 8)
        world.add_table("bolt/music", 9)
        world.add_table("bolt/bills", 10)
        self.users = {
            "acme": {"ann": (key("ann"), ADMIN), "ron": (key("ron"), READ)},
            "bolt": {"bob": (key("bob"), WRITE)},
        }
        for tenant_id in self.users:
            self.set(tenant_id)
        self.signers = {name: self.sign(key(name)) for name in ("ann", "ron", "bob")}

    def set(self, tenant_id: str, **more: Any) -> None:
        account = {"acme": "111111111111", "bolt": "222222222222"}[tenant_id]
        self.world.set_tenant(tenant_id, self.users[tenant_id], account, **more)

    def sign(self, credentials: Credentials, skew_s: float = 0.0) -> Signer:
        wall = lambda: self.world.clock.wall() + skew_s  # noqa: E731
        return Signer(credentials.key_id, credentials.secret_bytes, wall)

    def put(self, who: str | Signer, table: str = "music", **attributes: Any) -> Any:
        signer = self.signers[who] if isinstance(who, str) else who
        item = to_item({"artist": "Mingus", **attributes})
        request = data.PutItemRequest(table=table, item=item)
        return self.world.call(DATA + "PutItem", request, data.PutItemResponse, signer=signer)

    def get(self, who: str | Signer, table: str = "music", **more: Any) -> Any:
        signer = self.signers[who] if isinstance(who, str) else who
        request = data.GetItemRequest(table=table, key=to_item({"artist": "Mingus"}))
        return self.world.call(
            DATA + "GetItem", request, data.GetItemResponse, signer=signer, **more
        )

    def refusal(self, who: str | Signer, **more: Any) -> KeyplaneError:
        error: KeyplaneError = self.get(who, **more).error()
        return error


@pytest.fixture
def tenants() -> Tenants:
    tenants = Tenants(World(vault=VAULT))
    tenants.world.start_router()
    return tenants


def test_each_tenant_reads_and_writes_its_own_table_of_a_name(tenants: Tenants) -> None:
    tenants.put("ann", of="acme").wait()
    tenants.put("bob", of="bolt").wait()
    assert from_item(tenants.get("ann").wait().item)["of"] == "acme"
    assert from_item(tenants.get("ron").wait().item)["of"] == "acme"
    assert from_item(tenants.get("bob").wait().item)["of"] == "bolt"


@pytest.mark.parametrize("name", ["bolt/music", "bolt/bills", "/music", "acme/music", "x/y/z"])
@pytest.mark.parametrize("who", ["ann", "operator"])
def test_nobody_can_name_anothers_table(tenants: Tenants, name: str, who: str) -> None:
    """Not the operator either, whose names have no prefix, and in no form of a request."""
    signer = tenants.sign(VAULT.operator) if who == "operator" else tenants.signers["ann"]
    assert tenants.refusal(signer, table=name).reason is Reason.INVALID_ARGUMENT
    assert tenants.put(signer, table=name).error().reason is Reason.INVALID_ARGUMENT
    keys = data.TableKeys(keys=[to_item({"artist": "Mingus"})])
    for method, request, response in (
        (
            "BatchGetItem",
            data.BatchGetItemRequest(requests={name: keys}),
            data.BatchGetItemResponse,
        ),
        ("Scan", data.ScanRequest(table=name), data.ScanResponse),
        (
            "GetItem",
            data.GetItemRequest(
                table=name, key=to_item({"artist": "Mingus"}), return_consumed_capacity=2
            ),
            data.GetItemResponse,
        ),
    ):
        pending = tenants.world.call(DATA + method, request, response, signer=signer)
        assert pending.error().reason is Reason.INVALID_ARGUMENT


def test_a_table_of_another_tenant_is_as_if_it_were_not_there(tenants: Tenants) -> None:
    """The answer is that of a table that nobody has, deleted ones included."""
    there = tenants.refusal("ann", table="bills")
    nowhere = tenants.refusal("ann", table="walls")
    assert there.reason is nowhere.reason is Reason.TABLE_NOT_FOUND
    assert there.message.replace("bills", "walls") == nowhere.message
    world = tenants.world
    world.source.deleted.append(
        catalog.MapRoot(
            table=catalog.Table(table_id=10, name="bolt/bills", state=catalog.TABLE_STATE_DELETED),
            version=2,
        )
    )
    del world.source.by_name["bolt/bills"]
    world.clock.run_for(3.0)
    assert "deleted" in tenants.refusal("bob", table="bills").message
    assert tenants.refusal("ann", table="bills").message == there.message


def test_a_router_describes_to_each_what_is_its_own(tenants: Tenants) -> None:
    def describe(signer: Signer) -> Any:
        request = route.DescribeRouterRequest()
        response = route.DescribeRouterResponse
        call = tenants.world.call
        return call(ROUTE + "DescribeRouter", request, response, signer=signer).wait()

    for who in ("ann", "bob"):
        tenants.get(who).wait()
    own = describe(tenants.signers["ann"])
    assert [view.table.name for view in own.tables] == ["music"]
    assert not own.nodes
    assert not own.memds
    everything = describe(tenants.sign(VAULT.operator))
    assert {"acme/music", "bolt/music"} <= {view.table.name for view in everything.tables}
    assert everything.nodes
    assert everything.memds


def test_errors_say_the_callers_own_names_and_account(tenants: Tenants) -> None:
    storage = tenants.world.nodes["storage-1"]
    error = throttled(Limit.KEY_RANGE, True, "acme/music", "of 'acme/music'", 0.1)
    storage.faults += [Fault(error)] * 100
    error = tenants.put("ann").error()
    assert error.message == "of 'music'"
    assert error.metadata["resource"] == "arn:aws:dynamodb:local:111111111111:table/music"


# --- Who calls -----------------------------------------------------------------------------------


def test_a_role_that_only_reads_writes_nothing(tenants: Tenants) -> None:
    error = tenants.put("ron").error()
    assert error.reason is Reason.ROLE_NOT_ALLOWED
    assert "WRITE" in error.message
    assert not tenants.world.nodes["storage-1"].items


def test_every_bad_signature_has_its_own_reason(tenants: Tenants) -> None:
    method = DATA + "GetItem"
    request = data.GetItemRequest(table="music", key=to_item({"artist": "Mingus"}))
    payload = request.SerializeToString()
    good = tenants.signers["ann"].value(method, payload)
    other = Credentials(key("ann").key_id, key("bob").secret)
    cases = {
        "": Reason.MISSING_CREDENTIALS,
        "Bearer token": Reason.BAD_SIGNATURE,
        good[:-1]: Reason.BAD_SIGNATURE,
        good + "A": Reason.BAD_SIGNATURE,
        good[:30] + "é" + good[31:]: Reason.BAD_SIGNATURE,
        "é" + good[1:]: Reason.BAD_SIGNATURE,
        good[:21] + "B" + good[22:]: Reason.BAD_SIGNATURE,
        good[:50] + ("A" if good[50] != "A" else "B") + good[51:]: Reason.BAD_SIGNATURE,
        "KPAK" + "X" * 16 + good[20:]: Reason.UNKNOWN_KEY,
        tenants.sign(other).value(method, payload): Reason.BAD_SIGNATURE,
        tenants.signers["ann"].value(DATA + "PutItem", payload): Reason.BAD_SIGNATURE,
        tenants.signers["ann"].value(method, payload + b"\0"): Reason.BAD_SIGNATURE,
        tenants.sign(key("ann"), -30.5).value(method, payload): Reason.SIGNATURE_EXPIRED,
        tenants.sign(key("ann"), 30.5).value(method, payload): Reason.SIGNATURE_EXPIRED,
    }
    for header, reason in cases.items():
        pending = tenants.world.call(method, request, data.GetItemResponse, header=header)
        assert pending.error().reason is reason, header
    call = tenants.world.call
    call(method, request, data.GetItemResponse, header=good).wait()
    again = call(method, request, data.GetItemResponse, header=good).error()
    assert again.reason is Reason.REPLAYED
    tenants.world.clock.run_for(31.0)
    late = call(method, request, data.GetItemResponse, header=good).error()
    assert late.reason is Reason.SIGNATURE_EXPIRED
    assert "NTP" in late.message


def test_what_is_taken_back_is_refused_within_two_seconds(tenants: Tenants) -> None:
    """Wherever the beats of publisher and router stand: suspended, key rotated, user gone."""
    world = tenants.world
    for step in range(8):
        tenants.get("ann").wait()
        tenants.set("acme", suspended=True)
        world.clock.run_for(REVOKED_WITHIN_S)
        assert tenants.refusal("ann").reason is Reason.TENANT_SUSPENDED
        tenants.get("bob").wait()
        tenants.set("acme")
        world.clock.run_for(REVOKED_WITHIN_S + 0.07 * step)
    tenants.users["acme"]["ann"] = (key("new"), ADMIN)
    tenants.set("acme")
    world.clock.run_for(REVOKED_WITHIN_S)
    assert tenants.refusal("ann").reason is Reason.UNKNOWN_KEY
    tenants.get(tenants.sign(key("new"))).wait()
    del tenants.users["acme"]["ron"]
    tenants.set("acme")
    world.clock.run_for(REVOKED_WITHIN_S)
    assert tenants.refusal("ron").reason is Reason.UNKNOWN_KEY


def test_a_replay_is_known_over_changes_of_the_tenant(tenants: Tenants) -> None:
    method = DATA + "GetItem"
    request = data.GetItemRequest(table="music", key=to_item({"artist": "Mingus"}))
    good = tenants.signers["ann"].value(method, request.SerializeToString())
    tenants.world.call(method, request, data.GetItemResponse, header=good).wait()
    tenants.set("acme", requests_per_second=100)
    tenants.world.clock.run_for(REVOKED_WITHIN_S)
    again = tenants.world.call(method, request, data.GetItemResponse, header=good).error()
    assert again.reason is Reason.REPLAYED


# --- Last-known-good -----------------------------------------------------------------------------


def test_known_tenants_are_served_with_everything_gone_but_the_snapshot(tenants: Tenants) -> None:
    """The control plane and MemDS gone, the router started anew (I6)."""
    world = tenants.world
    tenants.put("ann", of="acme").wait()
    world.clock.run_for(3.0)
    world.publisher.stop()
    world.lose_memds()
    tenants.get("ann").wait()
    router = world.start_router()
    assert router.ready
    assert from_item(tenants.get("ann").wait().item)["of"] == "acme"
    assert tenants.refusal(tenants.sign(key("eve"))).reason is Reason.UNKNOWN_KEY


def test_the_snapshot_tells_no_secret(tenants: Tenants) -> None:
    tenants.world.clock.run_for(3.0)
    (content,) = tenants.world.disk.files.values()
    assert key("ann").secret_bytes not in content
    assert key("ann").key_id.encode() not in content


def test_a_router_that_knows_nobody_yet_says_so_and_is_not_ready() -> None:
    """A key that it has not heard of may be good: callers go elsewhere, and are not turned away."""
    tenants = Tenants(World(vault=VAULT))
    tenants.world.publisher.stop()
    router = tenants.world.start_router()
    assert not router.ready
    error = tenants.refusal("ann")
    assert error.reason is Reason.NOT_SERVING
    assert error.retryable
    tenants.world.publisher.start()
    tenants.world.clock.run_for(2.0)
    assert router.ready
    tenants.get("ann").wait()


@pytest.mark.parametrize(
    "damage",
    [
        lambda value: b"",
        lambda value: value[:-1],
        lambda value: value[:40] + bytes([value[40] ^ 1]) + value[41:],
        lambda value: b"garbage" * 100,
        lambda value: value + b"x",
    ],
)
def test_a_damaged_value_changes_nothing(tenants: Tenants, damage: Any) -> None:
    world = tenants.world
    world.publisher.stop()
    for node in world.memds:
        for number in range(SHARDS):
            name = memds_keys.tenants("test", number)
            node.values[name] = damage(node.values[name])
    world.clock.run_for(3.0)
    tenants.get("ann").wait()
    assert world.counter("memds_ignored_total").value("corrupt") > 0


def test_a_value_of_another_place_or_cluster_changes_nothing(tenants: Tenants) -> None:
    """MemDS cannot pass one shard off as another, or an old one as new."""
    world = tenants.world
    world.publisher.stop()
    acme = memds_keys.tenants("test", shard_of("acme"))
    old = world.memds[0].values[acme]
    tenants.users["acme"].clear()
    tenants.set("acme")
    world.publisher.start()
    world.clock.run_for(3.0)
    world.publisher.stop()
    assert tenants.refusal("ann").reason is Reason.UNKNOWN_KEY
    for node in world.memds:
        node.values[acme] = old
        for number in range(SHARDS):
            if number != shard_of("acme"):
                node.values[memds_keys.tenants("test", number)] = old
    world.clock.run_for(3.0)
    assert tenants.refusal("ann").reason is Reason.UNKNOWN_KEY
    tenants.get("bob").wait()
    assert world.counter("memds_ignored_total").value("older_tenants") > 0
    assert world.counter("memds_ignored_total").value("corrupt") > 0


def test_a_flushed_memds_removes_no_tenant(tenants: Tenants) -> None:
    tenants.world.publisher.stop()
    for node in tenants.world.memds:
        node.values.clear()
    tenants.world.clock.run_for(5.0)
    tenants.get("ann").wait()


# --- How much ------------------------------------------------------------------------------------


def test_a_tenant_makes_as_many_requests_a_second_as_it_may(tenants: Tenants) -> None:
    """10 at once and 10 a second; another tenant notices nothing of it."""
    tenants.set("acme", requests_per_second=10)
    tenants.world.clock.run_for(REVOKED_WITHIN_S + 1.0)
    pending = [tenants.get("ann") for _ in range(30)]
    others = [tenants.get("bob") for _ in range(30)]
    tenants.world.clock.run_for(0.5)
    assert sum(each.reply.error is None for each in pending) == 10
    assert all(each.reply.error is None for each in others)
    refusals = [each.reply.error for each in pending if each.reply.error is not None]
    assert {error.reason for error in refusals} == {Reason.THROTTLED}
    assert refusals[0].metadata == {
        "reason": "TableReadAccountLimitExceeded",
        "resource": "arn:aws:dynamodb:local:111111111111:table/*",
    }
    assert refusals[0].retry_after_s
    write = tenants.put("ann")
    tenants.world.clock.run_for(0.1)
    assert write.reply.error is None
    tenants.set("acme")
    tenants.world.clock.run_for(REVOKED_WITHIN_S)
    for each in [tenants.get("ann") for _ in range(30)]:
        each.wait()


def test_a_tenant_uses_as_many_connections_as_it_may(tenants: Tenants) -> None:
    """One that is not used any more makes room for another."""
    tenants.set("acme", connections=2)
    tenants.world.clock.run_for(REVOKED_WITHIN_S)
    for _ in range(2):
        for peer in ("one", "two"):
            tenants.get("ann", peer=peer).wait()
    error = tenants.get("ann", peer="three").error()
    assert error.reason is Reason.LIMIT_EXCEEDED
    tenants.get("bob", peer="three").wait()
    tenants.world.clock.run_for(8.0)
    tenants.get("ann", peer="two").wait()
    tenants.world.clock.run_for(8.0)
    tenants.get("ann", peer="three").wait()


def test_near_its_bound_a_router_refuses_whoever_holds_more_than_its_share() -> None:
    """From 15 in flight of 20 on; of two tenants that are busy each may hold 7 of those, and what
    is left is for those who hold less.
    """
    tenants = Tenants(World(vault=VAULT, config=RouterConfig(inflight_max=20)))
    world = tenants.world
    world.start_router()
    for who in ("ann", "bob"):
        tenants.get(who).wait()
    world.nodes["storage-1"].faults += [Fault(None)] * 20
    noisy = [tenants.get("ann", timeout_s=5.0) for _ in range(14)]
    world.clock.run_for(0.1)
    quiet = [tenants.get("bob", timeout_s=5.0)]
    world.clock.run_for(0.1)
    refused = tenants.get("ann").error(0.1)
    assert refused.reason is Reason.OVERLOADED
    assert "share is 7" in refused.message
    assert refused.retry_after_s
    quiet += [tenants.get("bob", timeout_s=5.0) for _ in range(5)]
    world.clock.run_for(0.1)
    assert not any(each.done for each in noisy + quiet)
    assert tenants.get("bob").error(0.1).reason is Reason.OVERLOADED
    world.clock.run_for(6.0)
    alone = [tenants.get("ann") for _ in range(16)]
    world.clock.run_for(0.1)
    assert sum(each.reply.error is not None for each in alone) == 1
    for _ in range(3):
        pending = [tenants.get("ann") for _ in range(15)]
        for each in pending:
            each.wait()


def test_without_a_vault_nobody_has_to_sign() -> None:
    world = World()
    world.start_router()
    world.put("Mingus", of="local")
    assert world.get("Mingus") == {"artist": "Mingus", "of": "local"}


def test_all_tables_of_a_tenant_share_its_capacity_units() -> None:
    """50 write units a second over two tables, by the granter; reads have no limit."""
    tenants = Tenants(World(vault=VAULT, config=RouterConfig(granter="granter:1")))
    world = tenants.world
    process = MemoryProcess(world.network, "granter:1")
    GranterCore(GranterConfig(), process.clock, process.server, Metrics()).start()
    world.start_router()
    tenants.set("bolt", write_units_per_second=50)
    world.clock.run_for(5.0)

    def load(seconds: float) -> tuple[list[Any], list[Any]]:
        """100 writes and 100 reads a second of each table."""
        writes, reads = [], []
        for _ in range(round(seconds * 100)):
            for table in ("music", "bills"):
                writes.append(tenants.put("bob", table))
                reads.append(tenants.get("bob", table))
            world.clock.run_for(0.01)
        world.clock.run_for(0.1)
        return writes, reads

    # Some 10 seconds of 50 were saved up, which goes in a few.
    load(5.0)
    writes, reads = load(20.0)
    admitted = sum(each.reply.error is None for each in writes)
    assert admitted == pytest.approx(50 * 20, rel=0.1)
    assert all(each.reply.error is None for each in reads)
    refusal = next(each.reply.error for each in writes if each.reply.error is not None)
    assert refusal.reason is Reason.THROTTLED
    assert refusal.metadata == {
        "reason": "TableWriteAccountLimitExceeded",
        "resource": "arn:aws:dynamodb:local:222222222222:table/*",
    }
    assert "'bolt'" in refusal.message
    tenants.put("ann").wait()
    # Without a granter the limit rests, and nobody is refused by it.
    process.kill()
    world.clock.run_for(4.0)
    writes, _ = load(2.0)
    assert all(each.reply.error is None for each in writes)


def test_limits_on_units_come_and_go() -> None:
    tenants = Tenants(World(vault=VAULT, config=RouterConfig(granter="granter:1")))
    world = tenants.world
    process = MemoryProcess(world.network, "granter:1")
    GranterCore(GranterConfig(), process.clock, process.server, Metrics()).start()
    world.start_router()
    tenants.set("bolt", write_units_per_second=1)
    world.clock.run_for(3.0)

    def refusals() -> int:
        pending = []
        for _ in range(300):
            pending.append(tenants.put("bob"))
            world.clock.run_for(0.01)
        world.clock.run_for(0.1)
        return sum(each.reply.error is not None for each in pending)

    assert refusals() > 200
    tenants.set("bolt")
    world.clock.run_for(REVOKED_WITHIN_S)
    assert refusals() == 0


def test_no_method_is_open_to_all(tenants: Tenants) -> None:
    """Of any service, also of one that is added."""
    asked = 0
    for package, service in ((data, "DataService"), (route, "RouteService")):
        for method in package.DESCRIPTOR.services_by_name[service].methods:
            path = f"/{method.containing_service.full_name}/{method.name}"
            request = getattr(package, method.input_type.name)()
            response = getattr(package, method.output_type.name)
            error = tenants.world.call(path, request, response).error()
            assert error.reason is Reason.MISSING_CREDENTIALS, path
            asked += 1
    server = tenants.world.network.find("router-1:7000")
    assert server is not None
    assert asked == len(server.handlers)
