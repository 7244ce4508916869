"""Every observer fires on the wrong thing it watches for, and on nothing else.

What is wrong is planted in a small world under load: a state that no code makes, or a process that
lies. The observer is the only one there, so that it is the one that notices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from sim_world import SMALL

from cache import memds_keys
from cache.config import ReaderConfig
from cache.routes import RouteTable
from keyplane.data.v1 import data_pb2 as data
from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.partition import Partition
from keyplane.route.v1 import route_pb2 as route
from keyplane.storage.v1 import storage_pb2 as storage
from metadata.config import MetadataConfig
from metadata.operations import State as OperationState
from router.config import RouterConfig
from sim import INVARIANTS, Observer, Scenario, Topology, WorkloadSpec
from sim.observers.bounds import Bounds
from sim.observers.constant_work import ConstantWork
from sim.observers.forward_only import ForwardOnly
from sim.observers.no_backdoor import NoBackdoor
from sim.observers.one_owner import EXECUTE, OneOwner
from sim.observers.operations import Operations
from sim.observers.truth import Truth
from sim.observers.whole_maps import WholeMaps
from sim.process import address_of
from sim.topology import CLUSTER, METADATA
from sim.violation import Violation
from sim.world import World
from storage.config import MoveConfig, WriteConfig
from storage.ownership import Holding
from storage.shard import Shard
from wire.faults import Fault, FaultKind
from wire.ports import Reply, ReplyFn, Request

Watcher = Callable[[World], Observer]
Plant = Callable[[Scenario], object]

BUSY = WorkloadSpec(lanes=4, think_s=0.1)


def scene(watcher: Watcher, topology: Topology = SMALL) -> Scenario:
    return Scenario(1, topology, BUSY, watchers=[watcher])


def seen(
    watcher: Watcher, plant: Plant, at: float = 2.0, topology: Topology = SMALL
) -> Violation | None:
    """What the observer finds when something is planted two seconds after the load began."""
    scenario = scene(watcher, topology)
    scenario.at(at, lambda: plant(scenario))
    return scenario.run(at + 2.0).violation


def fires(violation: Violation | None, invariant: str, message: str, *about: str) -> bool:
    assert violation is not None
    assert message in violation.message
    assert violation.about >= set(about)
    return violation.invariant == invariant


# --- the world, to be lied about ----------------------------------------------------------------


def served(scenario: Scenario) -> tuple[str, Shard]:
    """A storage node, and something that it serves."""
    for name, member in scenario.world.storage_members().items():
        for shard in member.node.state.shards.values():
            return name, shard
    raise AssertionError("nobody serves anything")


def other(scenario: Scenario, name: str) -> str:
    return next(each for each in scenario.world.topology.storage_names() if each != name)


def routes(scenario: Scenario) -> RouteTable:
    table = scenario.world.routers["router-1"].core.tables.get("orders")
    assert table is not None
    return table.routes


def call(
    scenario: Scenario, source: str, target: str, method: str, request: Any, answer: Reply
) -> None:
    """A message that somebody sends, and a lie that it is answered with."""
    world = scenario.world
    sender = world.process(source) or world.new_process(source)
    server = world.process(target)
    assert server is not None
    honest = server.handlers.get(method)

    def lie(_: Request, reply: ReplyFn) -> None:
        if honest is not None:
            server.handlers[method] = honest
        reply(answer)

    server.handlers[method] = lie
    world.transport(sender).call(
        address_of(target),
        method,
        request.SerializeToString(),
        sender.clock.now() + 5.0,
        lambda _: None,
    )


def write(partition: Partition, key_hash: int) -> storage.ExecuteRequest:
    request = storage.ExecuteRequest(partition_id=partition.partition_id, epoch=partition.epoch)
    request.write.key.hash = key_hash
    return request


ACKNOWLEDGED = Reply(
    storage.ExecuteResponse(write=storage.WriteResult(version=1)).SerializeToString()
)


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
        table.map = type(table.map).build(table.table, 0, table.map.partitions())

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


# --- I7 -----------------------------------------------------------------------------------------

QUICK = replace(SMALL, reader=ReaderConfig(CLUSTER, beat_s=0.1))


@pytest.mark.parametrize("factor", [0.0, 2.0])
def test_a_router_that_asks_memds_more_or_less_than_its_beat_is_noticed(factor: float) -> None:
    def plant(scenario: Scenario) -> None:
        requests = scenario.world.memds_requests
        counted = requests["router-1"]

        def again() -> None:
            nonlocal counted
            grown = requests["router-1"] - counted
            counted += int(grown * factor)
            requests["router-1"] = counted
            scenario.world.scheduler.after(0.2, again)

        again()

    scenario = scene(ConstantWork, QUICK)
    scenario.at(0.0, lambda: plant(scenario))
    violation = scenario.run(10.0).violation
    assert fires(violation, "I7", "where its beat makes 40.00", "router-1")


def test_windows_in_which_a_router_was_away_say_nothing() -> None:
    scenario = scene(ConstantWork, QUICK)
    scenario.fault("restart", "router-1", at=1.0)
    scenario.fault("pause", "router-1", at=3.0, seconds=1.0)
    scenario.fault("skew", "router-2", at=3.0, seconds=2.0, rate=0.5)
    result = scenario.run(16.0)
    assert result.held, result


# --- I8 -----------------------------------------------------------------------------------------


def split_done(scenario: Scenario) -> str:
    """The operation id of a split that has ended."""
    return next(
        operation.operation_id
        for operation in scenario.world.metadata.core.catalog.operations.values()
        if operation.state is OperationState.SUCCEEDED and operation.request_id
    )


def test_an_operation_that_has_ended_and_changes_is_noticed() -> None:
    scenario = scene(Operations)

    def plant() -> None:
        operations: Any = scenario.world.metadata.core.catalog.operations
        ended = split_done(scenario)
        operations[ended] = replace(operations[ended], state=OperationState.FAILED)

    scenario.at(0.5, lambda: scenario.operator.split("orders"))
    scenario.at(3.0, plant)
    violation = scenario.run(5.0).violation
    assert fires(violation, "I8", "ended as succeeded and is failed now")


def test_a_request_that_began_two_operations_is_noticed() -> None:
    scenario = scene(Operations)

    def plant() -> None:
        operations: Any = scenario.world.metadata.core.catalog.operations
        ended = split_done(scenario)
        operations["twin"] = replace(operations[ended], operation_id="twin")

    scenario.at(0.5, lambda: scenario.operator.split("orders"))
    scenario.at(3.0, plant)
    violation = scenario.run(5.0).violation
    assert fires(violation, "I8", "and twin too", "twin")


def test_an_operation_that_is_not_over_when_all_is_calm_is_noticed() -> None:
    """A node is dead, so that a move to it cannot go on; the observer is told that all is calm."""
    scenario = scene(Operations)
    name = "storage-2"
    scenario.at(1.0, lambda: scenario.world.kill(name))
    scenario.at(1.0, lambda: scenario.operator.move("orders", name, at=0.0))
    scenario.at(3.0, lambda: Operations(scenario.world).calm())
    violation = scenario.run(4.0).violation
    assert fires(violation, "I8", "long after the last fault")


def test_a_node_that_serves_less_than_the_map_says_is_noticed() -> None:
    def plant(scenario: Scenario) -> None:
        name, shard = served(scenario)
        del scenario.world.storage(name).node.state.shards[shard.partition.partition_id]
        Operations(scenario.world).calm()

    assert fires(seen(Operations, plant), "I8", "what storage nodes serve is not what the map says")


def test_a_map_with_a_gap_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where storage nodes agree with it."""

    def plant(scenario: Scenario) -> None:
        name, shard = served(scenario)
        lost = shard.partition
        del scenario.world.storage(name).node.state.shards[lost.partition_id]
        for map in scenario.world.metadata.core.catalog.maps.values():
            kept = [each for each in map.partitions() if each != lost]
            monkeypatch.setattr(type(map), "partitions", lambda *_, kept=kept: iter(kept))
        Operations(scenario.world).calm()

    violation = seen(Operations, plant)
    assert violation is not None
    assert violation.invariant == "I8"
    assert "gap" in violation.message or "ends at" in violation.message


# --- I9 -----------------------------------------------------------------------------------------


@contextmanager
def bounded(scenario: Scenario, **configs: Any) -> Iterator[None]:
    """The observer takes these for the bounds; the processes have those of the topology."""
    topology = scenario.world.topology
    scenario.world.topology = replace(topology, **configs)
    yield
    scenario.world.topology = topology


@pytest.mark.parametrize(
    ("what", "configs"),
    [
        ("requests in flight", {"router": RouterConfig(inflight_max=0)}),
        ("remembered tokens", {"writes": WriteConfig(tokens_max=0)}),
        ("operations", {"metadata": MetadataConfig(operations_active_max=0)}),
        ("requests at a fence", {"moves": MoveConfig(fence_queue_max=-1)}),
    ],
)
def test_what_is_beyond_its_bound_is_noticed(what: str, configs: dict[str, Any]) -> None:
    """Each number is the one that the processes really have, against a bound that it exceeds."""
    scenario = scene(Bounds, replace(SMALL, moves=MoveConfig(rate_bytes_s=200.0)))

    def look() -> None:
        with bounded(scenario, **configs):
            Bounds(scenario.world).beat()

    scenario.at(0.5, lambda: scenario.operator.move("orders", "storage-2", at=0.0))
    scenario.at(0.5, lambda: scenario.operator.move("orders", "storage-1", at=0.9))
    for number in range(200):
        scenario.at(0.6 + number / 100, look)
    violation = scenario.run(3.0).violation
    assert fires(violation, "I9", what)


def test_writes_that_queue_beyond_their_bound_are_noticed() -> None:
    def plant(scenario: Scenario) -> None:
        state = scenario.world.storage("storage-1").node.state
        state.queue._queued_writes = 1_000_000

    assert fires(seen(Bounds, plant), "I9", "queued writes; the bound is", "storage-1")


# --- I5, in MemDS -------------------------------------------------------------------------------


def test_a_root_without_its_page_is_noticed() -> None:
    def plant(scenario: Scenario) -> None:
        observer = WholeMaps(scenario.world)
        observer.beat()
        values = scenario.world.memcached["memds-1"].values
        prefix = memds_keys.page(CLUSTER, b"")
        del values[next(key for key in values if key.startswith(prefix))]
        observer.beat()

    assert fires(seen(WholeMaps, plant), "I5", "memds-1 holds", "memds-1")


def test_a_node_that_was_seen_empty_is_not_whole_for_that() -> None:
    """It lacks nothing that it names, as it names nothing; what comes back comes in any order."""

    def plant(scenario: Scenario) -> None:
        observer = WholeMaps(scenario.world)
        observer.beat()
        memcached = scenario.world.memcached["memds-1"]
        before = dict(memcached.values)
        memcached.flush()
        observer.beat()
        root = memds_keys.root(CLUSTER, "orders")
        memcached.store({root: before[root]})
        observer.beat()

    assert seen(WholeMaps, plant) is None


def test_a_node_that_was_emptied_may_lack_pages_until_it_is_whole_again() -> None:
    scenario = scene(WholeMaps)
    scenario.fault("memds-flush", "memds-1", at=1.0)
    scenario.fault("memds-down", "memds-2", at=2.0, seconds=1.0)
    assert scenario.run(5.0).held
