"""A memcached node as one process sees it: stale, damaged, slow, cut off, gone."""

from __future__ import annotations

import random
from collections.abc import Mapping

import pytest

from cache.memory import MemoryMemdsNode
from wire.faults import Direction, Fault, FaultKind
from wire.injection import FaultTable, FaultyMemdsNode
from wire.injection.check import NETWORK_KINDS
from wire.injection.memds import SEEN_MAX
from wire.memory import VirtualClock
from wire.ports import MemdsGet, MemdsOutcome, MemdsStore

NODE = "127.0.0.1:11211"
TIMEOUT_S = 0.2


class Scene:
    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.real = MemoryMemdsNode(self.clock, NODE, "marker", timeout_s=TIMEOUT_S)
        self.real.store({"marker": b"", "root": b"version 1"})
        self.table = FaultTable(self.clock, "router-1")
        for kind in (*NETWORK_KINDS, FaultKind.METADATA_LAG):
            self.table.allow(kind)
        self.node = FaultyMemdsNode(self.real, self.table, self.clock, random.Random(1), TIMEOUT_S)

    def begin(
        self,
        kind: FaultKind,
        parameters: Mapping[str, float] = {},
        probability: float = 1.0,
    ) -> None:
        fault = Fault("f", kind, "memds-1", parameters=parameters, probability=probability)
        self.table.add(fault, [NODE])

    def cut(self, direction: Direction) -> None:
        fault = Fault("f", FaultKind.PARTITION, "router-1", "memds-1", direction)
        self.table.add(fault, [NODE])

    def read(self, *keys: str) -> tuple[MemdsGet, float]:
        """What is read, and how long it took."""
        results: list[MemdsGet] = []
        began = self.clock.now()
        self.node.get_many(keys, results.append)
        assert results == []
        self.clock.run_until(lambda: bool(results))
        return results[0], round(self.clock.now() - began, 3)

    def store(self, **values: bytes) -> tuple[MemdsOutcome, float]:
        results: list[MemdsOutcome] = []
        began = self.clock.now()
        self.node.set_many(values, results.append)
        self.clock.run_until(lambda: bool(results))
        return results[0], round(self.clock.now() - began, 3)


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_a_stale_node_shows_what_was_seen_when_it_became_so_and_takes_stores(
    scene: Scene,
) -> None:
    scene.read("root", "other")
    scene.begin(FaultKind.MEMDS_STALE)
    scene.store(root=b"version 2", other=b"new", unread=b"new")
    assert scene.read("root", "other", "unread")[0].values == {"root": b"version 1"}
    scene.table.heal_all()
    assert scene.read("root")[0].values == {"root": b"version 2"}


def test_a_stale_node_that_was_never_read_knows_nothing(scene: Scene) -> None:
    scene.begin(FaultKind.MEMDS_STALE)
    assert scene.read("root")[0] == MemdsGet(MemdsOutcome.EMPTY)


def test_a_publisher_can_replace_what_it_sees_stale(scene: Scene) -> None:
    scene.read("root")
    scene.begin(FaultKind.MEMDS_STALE)
    scene.real.store({"root": b"version 2"})
    got: list[MemdsGet] = []
    scene.node.gets_many(["root"], got.append)
    scene.clock.run_for(1.0)
    assert got[0].values == {"root": b"version 1"}
    stored: list[MemdsStore] = []
    scene.node.cas("root", b"version 3", got[0].tokens["root"], lambda how, _: stored.append(how))
    scene.clock.run_for(1.0)
    assert stored == [MemdsStore.STORED]


def test_what_is_remembered_of_a_node_is_bounded(scene: Scene) -> None:
    """I9: what was read last is kept."""
    many = {f"page-{number}": b"x" for number in range(SEEN_MAX)}
    scene.real.store(many)
    scene.read("root")
    scene.read(*many)
    scene.begin(FaultKind.MEMDS_STALE)
    assert scene.read("root", "page-0")[0].values == {"page-0": b"x"}


def test_a_damaged_value_differs_in_one_bit(scene: Scene) -> None:
    scene.begin(FaultKind.MEMDS_CORRUPT)
    (value,) = scene.read("root")[0].values.values()
    wrong = [a ^ b for a, b in zip(value, b"version 1", strict=True) if a != b]
    assert len(wrong) == 1
    assert wrong[0].bit_count() == 1


def test_damage_comes_with_its_probability(scene: Scene) -> None:
    scene.begin(FaultKind.MEMDS_CORRUPT, probability=0.3)
    damaged = sum(scene.read("root")[0].values["root"] != b"version 1" for _ in range(1000))
    assert 200 < damaged < 400


def test_a_slow_node_is_late_and_past_the_timeout_it_is_one(scene: Scene) -> None:
    scene.begin(FaultKind.MEMDS_SLOW, {"delay_s": 0.1})
    assert scene.read("root") == (
        MemdsGet(MemdsOutcome.OK, {"root": b"version 1"}),
        pytest.approx(0.1, abs=0.002),
    )
    scene.table.heal_all()
    scene.begin(FaultKind.MEMDS_SLOW, {"delay_s": 1.0})
    assert scene.read("root") == (MemdsGet(MemdsOutcome.TIMEOUT), TIMEOUT_S)


def test_a_node_that_is_down_refuses_at_once(scene: Scene) -> None:
    scene.begin(FaultKind.MEMDS_DOWN)
    assert scene.read("root") == (MemdsGet(MemdsOutcome.DOWN), 0.0)
    assert scene.store(root=b"2") == (MemdsOutcome.DOWN, 0.0)


@pytest.mark.parametrize("direction", Direction)
def test_cut_off_it_is_silent_and_one_way_it_may_have_stored(
    scene: Scene, direction: Direction
) -> None:
    scene.cut(direction)
    assert scene.store(root=b"version 2") == (MemdsOutcome.TIMEOUT, TIMEOUT_S)
    arrived = direction is Direction.FROM_PEER
    assert scene.real.values["root"] == (b"version 2" if arrived else b"version 1")


def test_another_node_is_not_touched(scene: Scene) -> None:
    scene.table.allow_memds("127.0.0.1:2")
    scene.table.add(Fault("f", FaultKind.MEMDS_DOWN, "memds-2"), ["127.0.0.1:2"])
    assert scene.read("root")[0].outcome is MemdsOutcome.OK


def test_what_a_lagging_metadata_store_publishes_leaves_late_and_is_no_timeout(
    scene: Scene,
) -> None:
    scene.table.add(Fault("f", FaultKind.METADATA_LAG, "router-1", parameters={"delay_s": 3.0}))
    assert scene.store(root=b"version 2") == (MemdsOutcome.OK, pytest.approx(3.0, abs=0.01))
    assert scene.read("root")[1] < 0.01
