"""Maps and route tables against models too simple to be wrong."""

from __future__ import annotations

from bisect import bisect_right
from itertools import pairwise

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cache.partition_map import PartitionMap
from cache.routes import RouteTable
from keyplane.catalog.v1 import catalog_pb2 as pb
from keyplane.model.errors import KeyplaneError
from keyplane.model.partition import KEYSPACE_END, Partition
from keyplane.route.v1 import route_pb2

TABLE_ID = 7
NODES = ("storage-1", "storage-2", "storage-3")
MEMDS = route_pb2.ROUTE_SOURCE_MEMDS
HINT = route_pb2.ROUTE_SOURCE_HINT


def table(version: int = 1) -> pb.Table:
    return pb.Table(table_id=TABLE_ID, name="orders", hash_seed=version)


def partition(partition_id: int, start: int, end: int, epoch: int, node: int = 0) -> Partition:
    replicas = (NODES[node], NODES[(node + 1) % 3])
    return Partition(partition_id, TABLE_ID, start, end, epoch, NODES[node], replicas)


class MapMachine(RuleBasedStateMachine):
    """A map that is split, merged and moved equals one built from a plain list, page for page."""

    @initialize(count=st.integers(1, 700))
    def build(self, count: int) -> None:
        bounds = [index * KEYSPACE_END // count for index in range(count + 1)]
        self.model = [
            partition(number, start, end, 1, number % 3)
            for number, (start, end) in enumerate(pairwise(bounds), start=1)
        ]
        self.next_id = count + 1
        self.map = PartitionMap.build(table(), 1, self.model)
        self.history: list[tuple[PartitionMap, list[Partition]]] = []

    def take_over(self, first: int, removed: int, added: list[Partition]) -> None:
        self.history.append((self.map, list(self.model)))
        gone = self.model[first : first + removed]
        self.map = self.map.replace(self.map.version + 1, gone, added)
        self.model[first : first + removed] = added

    @rule(data=st.data())
    def split(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(0, len(self.model) - 1))
        parent = self.model[index]
        assume(parent.end - parent.start > 1)
        at = data.draw(st.integers(parent.start + 1, parent.end - 1))
        left = partition(self.next_id, parent.start, at, parent.epoch + 1)
        right = partition(self.next_id + 1, at, parent.end, parent.epoch + 1)
        self.next_id += 2
        self.take_over(index, 1, [left, right])

    @precondition(lambda self: len(self.model) > 1)
    @rule(data=st.data())
    def merge(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(0, len(self.model) - 2))
        left, right = self.model[index : index + 2]
        epoch = max(left.epoch, right.epoch) + 1
        merged = partition(self.next_id, left.start, right.end, epoch)
        self.next_id += 1
        self.take_over(index, 2, [merged])

    @rule(data=st.data(), node=st.integers(0, 2))
    def move(self, data: st.DataObject, node: int) -> None:
        index = data.draw(st.integers(0, len(self.model) - 1))
        old = self.model[index]
        moved = partition(old.partition_id, old.start, old.end, old.epoch + 1, node)
        self.take_over(index, 1, [moved])

    @rule(data=st.data())
    def refuse_a_gap(self, data: st.DataObject) -> None:
        """A replacement that does not cover what it replaces is refused and changes nothing."""
        index = data.draw(st.integers(0, len(self.model) - 1))
        parent = self.model[index]
        assume(parent.end - parent.start > 1)
        short = partition(self.next_id, parent.start, parent.end - 1, parent.epoch + 1)
        with pytest.raises(KeyplaneError, match="MAP_INVALID"):
            self.map.replace(self.map.version + 1, [parent], [short])

    @invariant()
    def equals_the_model(self) -> None:
        assert list(self.map.partitions()) == self.model
        assert len(self.map) == len(self.model)

    @invariant()
    def pages_depend_only_on_content(self) -> None:
        rebuilt = PartitionMap.build(table(), self.map.version, self.model)
        assert [page.digest for page in rebuilt.pages] == [page.digest for page in self.map.pages]

    @invariant()
    def old_maps_never_change(self) -> None:
        for old, model in self.history[-3:]:
            assert list(old.partitions()) == model

    @rule(key_hash=st.integers(0, KEYSPACE_END - 1))
    def floor(self, key_hash: int) -> None:
        starts = [each.start for each in self.model]
        assert self.map.floor(key_hash) == self.model[bisect_right(starts, key_hash) - 1]


TestMap = MapMachine.TestCase
TestMap.settings = settings(max_examples=30, stateful_step_count=15, deadline=None)

# Route tables are compared with a model hash by hash, so their bounds come from a coarse grid.
GRID = 32
CELL = KEYSPACE_END // GRID


@st.composite
def claims(draw: st.DrawFn) -> Partition:
    start, end = sorted(draw(st.sets(st.integers(0, GRID), min_size=2, max_size=2)))
    epoch = draw(st.integers(1, 12))
    # Equal (epoch, id) must mean the same partition, as it does in the protocol.
    partition_id = 1 + (start * (GRID + 1) + end) * 3 + draw(st.integers(0, 2))
    return partition(partition_id, start * CELL, end * CELL, epoch, partition_id % 3)


@st.composite
def whole_maps(draw: st.DrawFn) -> list[Partition]:
    cuts = sorted(draw(st.sets(st.integers(1, GRID - 1), max_size=6)))
    result = []
    for start, end in pairwise([0, *cuts, GRID]):
        partition_id = 1 + (start * (GRID + 1) + end) * 3
        epoch = draw(st.integers(1, 12))
        result.append(partition(partition_id, start * CELL, end * CELL, epoch, partition_id % 3))
    return result


def rank(claim: Partition | None) -> tuple[int, int]:
    return (claim.epoch, claim.partition_id) if claim is not None else (0, 0)


class Model:
    """One claim per cell: the highest that was ever installed for it."""

    def __init__(self) -> None:
        self.cells: list[Partition | None] = [None] * GRID

    def install(self, claim: Partition) -> None:
        for cell in range(claim.start // CELL, claim.end // CELL):
            if rank(claim) > rank(self.cells[cell]):
                self.cells[cell] = claim


def known(routes: RouteTable) -> list[Partition | None]:
    found = (routes.lookup(cell * CELL + CELL // 2) for cell in range(GRID))
    return [route.partition if route is not None else None for route in found]


class RouteTableMachine(RuleBasedStateMachine):
    """Whatever arrives in whatever order, each hash has the highest claim ever made for it."""

    def __init__(self) -> None:
        super().__init__()
        self.routes = RouteTable(table())
        self.model = Model()
        self.version = 0

    @rule(hint=st.lists(claims(), max_size=5))
    def install_hint(self, hint: list[Partition]) -> None:
        before = known(self.routes)
        changed = self.routes.install_hint(hint, HINT)
        for claim in hint:
            self.model.install(claim)
        if known(self.routes) != before:
            assert changed

    @rule(partitions=whole_maps(), step=st.integers(1, 3))
    def install_newer_map(self, partitions: list[Partition], step: int) -> None:
        self.version += step
        new = PartitionMap.build(table(), self.version, partitions)
        assert self.routes.install_map(new, MEMDS, now=float(self.version))
        for claim in partitions:
            self.model.install(claim)

    @precondition(lambda self: self.version > 0)
    @rule(partitions=whole_maps(), behind=st.integers(0, 5))
    def older_map_is_refused(self, partitions: list[Partition], behind: int) -> None:
        version = max(0, self.version - behind)
        before = known(self.routes)
        old = PartitionMap.build(table(), version, partitions)
        assert not self.routes.install_map(old, MEMDS, now=0.0)
        assert known(self.routes) == before and self.routes.version == self.version

    @invariant()
    def highest_claim_wins(self) -> None:
        assert known(self.routes) == self.model.cells
        for inside in (0, CELL - 1, 0):
            hashes = [cell * CELL + inside for cell in range(GRID)]
            assert list(map(self.routes.partition_of, hashes)) == self.model.cells

    @invariant()
    def walking_agrees_with_looking_up(self) -> None:
        reached = 0
        for start, end, route in self.routes.routes():
            assert reached <= start < end
            reached = end
            assert self.routes.lookup(start) == route == self.routes.lookup(end - 1)
        covered = sum(end - start for start, end, _ in self.routes.routes())
        assert covered == CELL * sum(claim is not None for claim in self.model.cells)


TestRouteTable = RouteTableMachine.TestCase
TestRouteTable.settings = settings(max_examples=150, stateful_step_count=15, deadline=None)


@given(st.lists(claims(), max_size=12), st.randoms(use_true_random=False))
def test_order_and_repetition_do_not_matter(hint: list[Partition], random: object) -> None:
    """Installing is commutative and idempotent: any order, any batching, any repetition."""
    at_once, one_by_one = RouteTable(table()), RouteTable(table())
    at_once.install_hint(hint, HINT)
    shuffled = hint * 2
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    for claim in shuffled:
        one_by_one.install_hint([claim], HINT)
    assert known(at_once) == known(one_by_one)
    assert not one_by_one.install_hint(hint, HINT)
