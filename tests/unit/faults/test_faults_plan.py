"""Who is told what, and what is remembered, when a fault is done to a whole cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

from keyplane.cluster import Kind, Member
from keyplane.cluster.fault_plan import plan
from keyplane.cluster.fault_records import Record, changing, load
from keyplane.model.errors import KeyplaneError, Reason
from wire.faults import Direction, Fault, FaultKind


def member(name: str) -> Member:
    return Member(name, Kind(name.partition("-")[0]), f"at:{name}")


EVERYBODY = [
    member(name)
    for name in (
        *("metadata", "granter", "memds-1", "memds-2"),
        *("storage-1", "storage-2", "router-1", "router-2"),
    )
]


def members(name: str) -> list[Member]:
    return [each for each in EVERYBODY if name and each.name.startswith(name)]


def orders(
    target: str,
    peer: str = "",
    direction: Direction = Direction.BOTH,
    kind: FaultKind = FaultKind.PARTITION,
) -> dict[str, tuple[str, tuple[str, ...]]]:
    """What each process is told, and with which addresses."""
    fault = Fault("f", kind, target, peer, direction)
    return {
        order.member.name: (str(order.fault), order.addresses)
        for order in plan(fault, members(target), members(peer), EVERYBODY)
    }


def test_between_router_and_storage_only_the_router_calls_so_only_it_is_told() -> None:
    told = {"router-1": ("partition router-1 <-> storage-2", ("at:storage-2",))}
    assert orders("router-1", "storage-2") == told
    assert orders("storage-2", "router-1") == told


def test_a_granter_is_called_by_routers_alone() -> None:
    told = ("partition router-1 <-> granter", ("at:granter",))
    assert orders("granter", "router-1") == {"router-1": told}


def test_one_way_is_seen_from_the_caller() -> None:
    assert orders("router-1", "storage-2", Direction.TO_PEER) == {
        "router-1": ("partition router-1 -> storage-2", ("at:storage-2",))
    }
    assert orders("storage-2", "router-1", Direction.TO_PEER) == {
        "router-1": ("partition router-1 <- storage-2", ("at:storage-2",))
    }


def test_where_both_call_both_are_told() -> None:
    assert orders("storage-1", "metadata", Direction.TO_PEER) == {
        "storage-1": ("partition storage-1 -> metadata", ("at:metadata",)),
        "metadata": ("partition metadata <- storage-1", ("at:storage-1",)),
    }
    assert orders("storage-1", "storage-2") == {
        "storage-1": ("partition storage-1 <-> storage-2", ("at:storage-2",)),
        "storage-2": ("partition storage-2 <-> storage-1", ("at:storage-1",)),
    }


def test_a_kind_stands_for_all_its_members() -> None:
    assert orders("router", "storage") == {
        "router-1": ("partition router-1 <-> storage", ("at:storage-1", "at:storage-2")),
        "router-2": ("partition router-2 <-> storage", ("at:storage-1", "at:storage-2")),
    }


def test_a_kind_cut_from_itself_is_each_from_all_others() -> None:
    assert orders("storage", "storage") == {
        "storage-1": ("partition storage-1 <-> storage", ("at:storage-2",)),
        "storage-2": ("partition storage-2 <-> storage", ("at:storage-1",)),
    }
    with pytest.raises(KeyplaneError, match="at both ends"):
        orders("storage", "storage", Direction.TO_PEER)


def test_from_everybody_only_the_target_is_told() -> None:
    assert orders("storage-1") == {"storage-1": ("partition storage-1", ())}


def test_memcached_cannot_be_told_so_everybody_who_calls_it_is() -> None:
    told = orders("memds-1")
    assert set(told) == {"metadata", "storage-1", "storage-2", "router-1", "router-2"}
    assert {addresses for _, addresses in told.values()} == {("at:memds-1",)}
    stale = orders("memds", kind=FaultKind.MEMDS_STALE)
    assert stale["router-1"] == ("memds-stale memds", ("at:memds-1", "at:memds-2"))
    with pytest.raises(KeyplaneError, match="no memcached node"):
        orders("router-1", kind=FaultKind.MEMDS_STALE)


@pytest.mark.parametrize(
    ("target", "peer", "why"),
    [
        ("router-1", "metadata", "no router ever calls the Metadata Store"),
        ("metadata", "router", "no router ever calls the Metadata Store"),
        ("router-1", "router-2", "never call each other"),
        ("memds-1", "memds-2", "never call each other"),
        ("granter", "storage-1", "never call each other"),
        ("granter", "memds", "never call each other"),
    ],
)
def test_where_nothing_is_said_nothing_can_be_cut(target: str, peer: str, why: str) -> None:
    with pytest.raises(KeyplaneError, match=why) as caught:
        orders(target, peer)
    assert caught.value.reason is Reason.INVALID_ARGUMENT


def test_records_are_read_as_they_were_written_and_ids_are_never_given_twice(
    tmp_path: Path,
) -> None:
    path = tmp_path / "faults.json"
    fault = Fault(
        "drop-1", FaultKind.DROP, "a", "b", Direction.FROM_PEER, 0.5, {"delay_s": 0.1}, "point"
    )
    record = Record(fault, ("a", "b"), until=12.5)
    with changing(path) as records:
        assert records.next_id(FaultKind.DROP) == "drop-1"
        records.by_id["drop-1"] = record
    with changing(path) as records:
        assert records.by_id == {"drop-1": record}
        del records.by_id["drop-1"]
        assert records.next_id(FaultKind.KILL) == "kill-2"
    assert load(path).by_id == {}


def test_an_error_while_records_change_leaves_them_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "faults.json"
    with pytest.raises(RuntimeError), changing(path) as records:
        records.next_id(FaultKind.KILL)
        raise RuntimeError
    assert not path.exists()


@pytest.mark.parametrize("content", ["{", "[]", '{"counted": 1, "faults": [{"id": "x"}]}'])
def test_records_that_make_no_sense_are_refused_with_the_way_out(
    tmp_path: Path, content: str
) -> None:
    path = tmp_path / "faults.json"
    path.write_text(content)
    with pytest.raises(KeyplaneError, match="delete it") as caught:
        load(path)
    assert caught.value.reason is Reason.CORRUPT
