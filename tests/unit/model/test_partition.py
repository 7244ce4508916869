"""Partitions: ranges, the two ways to write an end, and what is refused from the wire."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from keyplane.catalog.v1 import catalog_pb2 as catalog
from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.partition import (
    KEYSPACE_END,
    Partition,
    end_from_wire,
    end_to_wire,
    even_ranges,
)

GOOD: dict[str, Any] = {
    "partition_id": 1,
    "table_id": 2,
    "start": 16,
    "end": 32,
    "epoch": 3,
    "leader": "storage-1",
    "replicas": ["storage-1", "storage-2"],
}


def test_a_range_holds_its_start_but_not_its_end() -> None:
    partition = Partition(1, 2, 16, 32, 3, "storage-1")
    assert [partition.covers(hash_) for hash_ in (15, 16, 31, 32)] == [False, True, True, False]


def test_neighbours_do_not_overlap() -> None:
    left, right = Partition(1, 9, 0, 16, 1, "a"), Partition(2, 9, 16, 32, 1, "a")
    inside = Partition(3, 9, 15, 17, 1, "a")
    assert not left.overlaps(right) and not right.overlaps(left)
    assert inside.overlaps(left) and left.overlaps(inside) and inside.overlaps(right)


def test_a_partition_without_replicas_has_its_leader() -> None:
    assert Partition(1, 2, 0, 9, 1, "a") == Partition(1, 2, 0, 9, 1, "a", ("a",))


def test_the_end_of_the_keyspace_is_zero_on_the_wire() -> None:
    last = Partition(1, 2, 16, KEYSPACE_END, 3, "storage-1")
    assert last.to_proto().end == 0
    assert Partition.from_proto(last.to_proto()) == last
    assert end_from_wire(end_to_wire(KEYSPACE_END)) == KEYSPACE_END
    assert end_from_wire(end_to_wire(5)) == 5


def test_the_state_is_the_senders_to_say() -> None:
    partition = Partition.from_proto(catalog.Partition(**GOOD))
    assert partition.to_proto().state == catalog.PARTITION_STATE_ACTIVE
    retired = partition.to_proto(catalog.PARTITION_STATE_RETIRED)
    assert retired.state == catalog.PARTITION_STATE_RETIRED


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"start": 32}, "is empty"),
        ({"start": 40}, "is empty"),
        ({"partition_id": 0}, "start at 1"),
        ({"table_id": 0}, "start at 1"),
        ({"epoch": 0}, "start at 1"),
        ({"leader": ""}, "not one of the replicas"),
        ({"leader": "", "replicas": []}, "not one of the replicas"),
        ({"leader": "storage-3"}, "not one of the replicas"),
        ({"replicas": ["storage-1", ""]}, "not one of the replicas"),
    ],
)
def test_descriptors_that_say_nothing_usable_are_refused(change: dict[str, Any], why: str) -> None:
    with pytest.raises(KeyplaneError, match=why) as caught:
        Partition.from_proto(catalog.Partition(**(GOOD | change)))
    assert caught.value.reason is Reason.MALFORMED_REQUEST


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 1000])
def test_even_ranges_tile_the_keyspace(count: int) -> None:
    ranges = even_ranges(count)
    assert len(ranges) == count
    assert ranges[0][0] == 0 and ranges[-1][1] == KEYSPACE_END
    assert all(left[1] == right[0] for left, right in pairwise(ranges))
    sizes = [end - start for start, end in ranges]
    assert max(sizes) - min(sizes) <= 1
