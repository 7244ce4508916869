"""Every observer fires on the wrong thing it watches for, and on nothing else.

What is wrong is planted in a small world under load: a state that no code makes, or a process that
lies. The observer is the only one there, so that it is the one that notices.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from sim_plants import ACKNOWLEDGED, Watcher, call, fires, other, routes, scene, seen, served, write
from sim_world import SMALL

from cache.routes import RouteTable
from keyplane.data.v1 import data_pb2 as data
from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.partition import Partition
from keyplane.route.v1 import route_pb2 as route
from keyplane.storage.v1 import storage_pb2 as storage
from sim import INVARIANTS, Scenario
from sim.observers.authority import Authority
from sim.observers.forward_only import ForwardOnly
from sim.observers.no_backdoor import NoBackdoor
from sim.observers.once import Once
from sim.observers.one_owner import EXECUTE, OneOwner
from sim.observers.truth import Truth
from sim.process import address_of
from sim.topology import METADATA
from storage.ownership import Holding, Move
from wire.faults import Fault, FaultKind
from wire.ports import Reply


def done_as(version: int) -> Reply:
    answer = storage.ExecuteResponse(write=storage.WriteResult(version=version))
    return Reply(answer.SerializeToString())


# --- a clean run --------------------------------------------------------------------------------


@pytest.mark.parametrize("watcher", INVARIANTS, ids=lambda watcher: watcher.__name__)
def test_an_observer_is_quiet_while_all_goes_as_it_should(watcher: Watcher) -> None:
    """Under load, with a split, a move and a restart."""
    scenario = scene(watcher)
    scenario.at(0.5, lambda: scenario.operator.split("orders"))
    scenario.at(1.0, lambda: scenario.operator.move("orders", "storage-2"))
    scenario.fault("restart", "storage-1", at=1.5)
    result = scenario.run(2.0)
    assert result.held, result
    assert result.success_ratio > 0.99


# --- I1 -----------------------------------------------------------------------------------------


def test_two_nodes_that_serve_one_hash_are_noticed_before_anybody_writes() -> None:
    def plant(scenario: Scenario) -> None:
        name, shard = served(scenario)
        twin = replace(shard.partition, partition_id=77, epoch=9, leader=other(scenario, name))
        node = scenario.world.storage(twin.leader).node.state
        for each in node.ownership.live_within(twin.table_id, twin.start, twin.end):
            node.ownership.install([], [each.partition.partition_id])
        node.ownership.install([Holding.opened(twin, "nobody")])

    assert fires(seen(OneOwner, plant), "I1", "which overlaps it", "p77")


def test_an_acknowledgement_for_a_partition_that_the_node_does_not_hold_is_noticed() -> None:
    def plant(scenario: Scenario) -> None:
        name, shard = served(scenario)
        stranger = replace(shard.partition, partition_id=77)
        call(scenario, "stranger", name, EXECUTE, write(stranger, 5), ACKNOWLEDGED)

    assert fires(seen(OneOwner, plant), "I1", "77, which it does not hold", "p77")


def test_an_acknowledgement_of_a_former_owner_after_one_of_the_new_is_noticed() -> None:
    """A partition has moved; a node that has not heard of it goes on acknowledging."""
    scenario = scene(OneOwner)
    before: list[Partition] = []

    def move() -> None:
        name, shard = served(scenario)
        before.append(shard.partition)
        scenario.operator.move("orders", other(scenario, name), at=0.0)

    def lie() -> None:
        (partition,) = before
        new = replace(
            partition, epoch=partition.epoch + 1, leader=other(scenario, partition.leader)
        )
        call(scenario, "a", new.leader, EXECUTE, write(new, 5), ACKNOWLEDGED)
        scenario.world.scheduler.after(
            0.1,
            lambda: call(
                scenario, "b", partition.leader, EXECUTE, write(partition, 5), ACKNOWLEDGED
            ),
        )

    scenario.at(0.5, move)
    scenario.at(4.0, lie)
    violation = scenario.run(6.0).violation
    assert fires(violation, "I1", "hash 0x5", *(f"storage-{number}" for number in (1, 2)))


def test_of_a_batch_only_the_writes_that_were_acknowledged_count() -> None:
    """One of two partitions' writes was refused, so that nobody has acknowledged it there."""

    def plant(scenario: Scenario) -> None:
        name, shard = served(scenario)
        for epoch, refused in ((2, False), (1, True)):
            request = storage.ExecuteRequest(partition_id=shard.partition.partition_id, epoch=epoch)
            request.batch_write.writes.add().key.hash = 5
            answer = storage.ExecuteResponse()
            result = answer.batch_write.results.add()
            result.reason = Reason.CONDITION_FAILED.name if refused else ""
            reply = Reply(answer.SerializeToString())
            scenario.world.scheduler.after(
                0.1 * (3 - epoch),
                lambda r=request, a=reply: call(scenario, "a", name, EXECUTE, r, a),
            )

    assert seen(OneOwner, plant) is None


@pytest.mark.parametrize("epochs", [-1, 1])
def test_an_answer_at_another_epoch_than_the_node_serves_at_is_noticed(epochs: int) -> None:
    def plant(scenario: Scenario) -> None:
        name, shard = served(scenario)
        wrong = replace(shard.partition, epoch=shard.partition.epoch + epochs)
        call(scenario, "late", name, EXECUTE, write(wrong, 5), ACKNOWLEDGED)

    assert fires(seen(Authority, plant), "I1", "which it serves at epoch 1")


def test_a_read_that_the_source_of_a_move_answers_after_the_handover_is_noticed() -> None:
    def plant(scenario: Scenario) -> None:
        name, shard = served(scenario)
        state = scenario.world.storage(name).node.state
        partition = shard.partition
        holding = state.ownership.serving(partition.partition_id)
        moving = holding.become_moving(Move("move-1", 1, state.node))
        state.ownership.install([moving.become_handover()])
        request = storage.ExecuteRequest(partition_id=partition.partition_id, epoch=partition.epoch)
        request.get.key.hash = 5
        read = Reply(storage.ExecuteResponse(get=storage.GetResult()).SerializeToString())
        call(scenario, "reader", name, EXECUTE, request, read)

    assert fires(seen(Authority, plant), "I1", "which is handover there")


def put_under_a_token(scenario: Scenario, *answers: Reply) -> None:
    """One write, tried as often as there are answers for it."""
    name, shard = served(scenario)
    request = write(shard.partition, 5)
    request.write.put = b"item"
    request.write.token.client_id, request.write.token.sequence = bytes(16), 1
    for number, answer in enumerate(answers):
        scenario.world.scheduler.after(
            0.1 * number, lambda a=answer: call(scenario, "client", name, EXECUTE, request, a)
        )


REFUSED = Reply(error=KeyplaneError(Reason.CONDITION_FAILED, "as a test has it"))


@pytest.mark.parametrize(
    "answers", [(done_as(1), done_as(2)), (REFUSED, done_as(1)), (done_as(1), REFUSED)]
)
def test_a_write_that_gets_another_answer_than_before_is_noticed(answers: list[Reply]) -> None:
    found = seen(Once, lambda scenario: put_under_a_token(scenario, *answers))
    assert fires(found, "I2", "before: token 00000000 1")


def test_a_write_may_be_answered_as_before_and_be_done_anew_after_a_loss_of_power() -> None:
    scenario = scene(Once)
    scenario.at(1.0, lambda: put_under_a_token(scenario, done_as(1), done_as(1)))
    scenario.fault("power-loss", "storage-2", at=1.5, seconds=0.1)
    scenario.at(2.0, lambda: put_under_a_token(scenario, done_as(2)))
    assert scenario.run(3.0).held


# --- I10, I8: what was ever true ----------------------------------------------------------------


def test_a_route_that_was_never_true_is_noticed() -> None:
    def plant(scenario: Scenario) -> None:
        _, shard = served(scenario)
        invented = replace(shard.partition, epoch=shard.partition.epoch + 3)
        routes(scenario).install_hint([invented], route.ROUTE_SOURCE_STORAGE)

    assert fires(seen(Truth, plant), "I10", "which nobody ever served", "router-1")


def test_a_partition_id_that_is_used_again_is_noticed() -> None:
    def plant(scenario: Scenario) -> None:
        _, shard = served(scenario)
        shard.partition = replace(shard.partition, end=shard.partition.end - 1)

    assert fires(seen(Truth, plant), "I8", "is in use for a second time")


# --- I3, I5 -------------------------------------------------------------------------------------


def test_a_map_version_that_falls_is_noticed() -> None:
    def plant(scenario: Scenario) -> None:
        table = routes(scenario)
        assert table.map is not None
        table._set_map(type(table.map).build(table.table, 0, table.map.partitions()))

    assert fires(seen(ForwardOnly, plant), "I3", "router-1 went back from version", "router-1")


def test_a_router_that_goes_by_a_route_it_was_told_is_old_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It hears STALE_ROUTE with what is true now, and does not believe it."""
    scenario = scene(ForwardOnly, replace(SMALL, routers=1))

    def plant() -> None:
        monkeypatch.setattr(RouteTable, "install_hint", lambda *_: False)
        monkeypatch.setattr(RouteTable, "install_map", lambda *_: False)
        scenario.operator.split("orders", at=0.2)
        scenario.operator.split("orders", at=0.7)

    scenario.at(1.0, plant)
    violation = scenario.run(5.0).violation
    assert fires(violation, "I3", "although a storage node has told it of", "router-1")


def test_a_table_whose_routes_are_lost_is_noticed() -> None:
    def plant(scenario: Scenario) -> None:
        # It takes a beat to be told of the table again; the observer looks first.
        tables = scenario.world.routers["router-1"].core.tables
        tables.bury("orders")

    assert fires(seen(ForwardOnly, plant), "I5", "router-1 has lost routes of", "router-1")


def test_hashes_whose_routes_are_lost_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The table is still known, and its version has not fallen, but nothing covers a part of it."""

    def plant(scenario: Scenario) -> None:
        lookup = RouteTable.lookup
        half = 1 << 63
        monkeypatch.setattr(
            RouteTable, "lookup", lambda self, hash_: None if hash_ >= half else lookup(self, hash_)
        )

    assert fires(seen(ForwardOnly, plant), "I5", "router-1 has lost routes of", "router-1")


def test_a_router_that_denies_a_table_is_noticed() -> None:
    def plant(scenario: Scenario) -> None:
        denied = KeyplaneError(Reason.TABLE_NOT_FOUND, "no such table")
        request = data.GetItemRequest(table="orders")
        method = "/keyplane.data.v1.DataService/GetItem"
        call(scenario, "stranger", "router-1", method, request, Reply(error=denied))

    assert fires(seen(ForwardOnly, plant, at=7.0), "I5", "says of table 'orders'", "router-1")


# --- I4 -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("caller", "allowed"), [("router-1", False), ("storage-1", True)])
def test_a_router_that_calls_the_metadata_store_is_noticed(caller: str, allowed: bool) -> None:
    """Even if the call never arrives."""

    def plant(scenario: Scenario) -> None:
        process = scenario.world.process(caller)
        assert process is not None
        scenario.faults.inject(Fault("cut", FaultKind.PARTITION, METADATA))
        scenario.world.transport(process).call(
            address_of(METADATA), "/any", b"", process.clock.now() + 1.0, lambda _: None
        )

    violation = seen(NoBackdoor, plant)
    if allowed:
        assert violation is None
    else:
        assert fires(violation, "I4", "router-1 calls the Metadata Store (/any)", "router-1")
