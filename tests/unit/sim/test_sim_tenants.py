"""Tenants in a seeded world: the observer fires on what it watches for, and clients carry on."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sim_plants import BUSY, call, fires
from sim_world import SMALL

from cache.tenant_shards import shard_of
from keyplane.data.v1 import data_pb2 as data
from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.signature import HEADER
from sim import Observer, Scenario, TableSpec
from sim.observers.tenants import Tenants
from sim.process import SimProcess
from sim.topology import TenantSpec, Topology
from wire.ports import Reply

TWO = replace(
    SMALL,
    clients=2,
    tables=(TableSpec("acme/orders", 2, 4), TableSpec("globex/orders", 2, 4)),
    tenants=(TenantSpec("acme"), TenantSpec("globex")),
    clocks_apart_s=10.0,
)
GET = "/keyplane.data.v1.DataService/GetItem"


def scene(topology: Topology = TWO) -> Scenario:
    return Scenario(1, topology, BUSY, watchers=[Tenants])


def test_both_tenants_work_on_tables_of_one_name() -> None:
    """While somebody else tries whatever there is to try, and keys change."""
    scenario = scene()
    scenario.at(1.0, lambda: scenario.operator.tenancy.rotate_all())
    result = scenario.run(12.0)
    assert result.held, result
    assert result.failed == 0
    assert result.requests > 500
    assert all(len(keys) > 2 for keys in scenario.operator.tenancy.keys.values())


def test_the_same_tables_hold_values_of_their_own_tenants_only() -> None:
    scenario = scene()
    scenario.run(6.0)
    by_table = {
        (operation.key.partition("/")[0], operation.lane.partition("/")[0])
        for operation in scenario.history.operations
    }
    assert by_table == {("acme", "client-1"), ("globex", "client-2")}


def test_an_answer_to_a_call_that_nobody_signed_is_noticed() -> None:
    scenario = scene()
    scenario.at(2.0, lambda: call(scenario, "x", "router-1", GET, data.GetItemRequest(), Reply()))
    assert fires(scenario.run(4.0).violation, "I13", "no key that anybody was given", "router-1")


def test_a_suspended_tenant_that_is_served_is_noticed() -> None:
    """The router has heard of it, and something makes it forget."""
    scenario = scene()
    tenancy, world = scenario.operator.tenancy, scenario.world

    def forget() -> None:
        for router in world.routers.values():
            callers = router.core._callers
            assert callers is not None
            for tenant in callers.tenants:
                tenant.active = True

    scenario.at(1.0, lambda: tenancy.suspend(0.0, 1.0))
    for tenth in range(20, 45):
        scenario.at(tenth / 10, forget)
    assert fires(scenario.run(6.0).violation, "I13", "of a tenant that it has heard is suspended")


def test_a_tenant_above_its_requests_is_noticed() -> None:
    scenario = scene(replace(TWO, tenants=(TenantSpec("acme", requests=3), TenantSpec("globex"))))

    def lift() -> None:
        for router in scenario.world.routers.values():
            callers = router.core._callers
            assert callers is not None
            for tenant in callers.tenants:
                tenant.is_limited = False

    scenario.at(1.0, lift)
    assert fires(scenario.run(5.0).violation, "I13", "more than the 3 requests a second of tenant")


def test_a_limit_that_is_kept_refuses_and_violates_nothing() -> None:
    scenario = scene(replace(TWO, tenants=(TenantSpec("acme", requests=3), TenantSpec("globex"))))
    result = scenario.run(6.0)
    assert result.held, result
    assert set(result.failures) <= {"THROTTLED", "DEADLINE_EXCEEDED"}
    assert result.failures["THROTTLED"]


def test_a_router_that_goes_back_to_an_older_shard_is_noticed() -> None:
    scenario = scene()
    number = shard_of("acme")

    def go_back() -> None:
        keeper = scenario.world.routers["router-1"].core._tenants
        assert keeper is not None
        before = keeper._values[number]

        def back() -> None:
            keeper._values[number] = before

        scenario.world.scheduler.after(6.0, back)

    scenario.at(0.5, go_back)
    scenario.at(1.0, lambda: scenario.operator.tenancy.rotate_all())
    assert fires(scenario.run(10.0).violation, "I13", "router-1 goes back from version", "router-1")


def test_a_router_that_hears_nothing_while_nothing_is_wrong_is_noticed() -> None:
    """The keys that are rotated once the world is calm."""

    class Deaf(Observer):
        def calm(self) -> None:
            keeper = self.world.routers["router-2"].core._tenants
            assert keeper is not None
            keeper.offer = lambda number, value: None  # type: ignore[method-assign]

    scenario = Scenario(1, TWO, BUSY, watchers=[Tenants, Deaf])
    violation = scenario.run(3.0, least_s=30.0).violation
    assert fires(violation, "I13", "router-2 has not heard within", "router-2")


def test_the_intruder_gets_answers_to_what_its_reader_may_ask() -> None:
    """So what it is refused is refused for what is wrong with it."""
    answered: list[str] = []

    class Heard(Observer):
        def on_answer(self, sent: object, server: SimProcess, reply: Reply) -> None:
            if getattr(sent, "source", None) is self.world.process("intruder"):
                answered.append("OK" if reply.error is None else reply.error.reason.name)

    Scenario(1, TWO, BUSY, watchers=[Heard]).run(20.0)
    assert {"OK", *(each.name for each in REFUSALS)} <= set(answered)


REFUSALS = (
    *(Reason.MISSING_CREDENTIALS, Reason.BAD_SIGNATURE, Reason.SIGNATURE_EXPIRED, Reason.REPLAYED),
    *(Reason.ROLE_NOT_ALLOWED, Reason.INVALID_ARGUMENT),
)


def test_a_tenant_needs_a_table() -> None:
    with pytest.raises(KeyplaneError, match="tenant 'globex' has no table") as raised:
        scene(replace(TWO, tables=(TableSpec("acme/orders"),)))
    assert raised.value.reason is Reason.INVALID_ARGUMENT


def test_calls_are_signed_only_where_there_are_tenants() -> None:
    signed: set[bool] = set()

    class Looks(Observer):
        def on_request(self, sent: object, server: SimProcess) -> None:
            if getattr(sent, "method", "") == GET:
                signed.add(HEADER in getattr(sent, "metadata", {}))

    Scenario(1, SMALL, BUSY, watchers=[Looks]).run(2.0)
    assert signed == {False}
