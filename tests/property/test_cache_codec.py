"""Stored bytes that were cut, altered or written by another release are refused, with a reason."""

from __future__ import annotations

from itertools import pairwise

import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.envelope import FORMAT_VERSION, MAGIC, Kind, open_sealed, seal
from cache.pages import Page, decode_page, paginate
from cache.partition_map import PartitionMap
from cache.routes import RouteTable
from cache.snapshot import decode_snapshot, encode_snapshot
from keyplane.catalog.v1 import catalog_pb2 as pb
from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.partition import KEYSPACE_END, Partition
from keyplane.route.v1 import route_pb2

HASHES = st.integers(0, KEYSPACE_END - 1)
REFUSED = {Reason.CORRUPT, Reason.FOREIGN_FORMAT, Reason.MAP_INVALID}


@st.composite
def partitions(draw: st.DrawFn, gaps: bool = True) -> list[Partition]:
    """Disjoint partitions of one table by rising start."""
    cuts = sorted(draw(st.sets(st.integers(1, KEYSPACE_END - 1), max_size=40)))
    bounds = [0, *cuts, KEYSPACE_END]
    kept = [(start, end) for start, end in pairwise(bounds) if not gaps or draw(st.booleans())]
    return [
        Partition(number, 7, start, end, draw(st.integers(1, 1 << 63)), "a", ("a", "b"))
        for number, (start, end) in enumerate(kept, start=1)
    ]


def snapshot_bytes() -> bytes:
    table = pb.Table(table_id=7, name="orders")
    whole = [Partition(n + 1, 7, n << 56, (n + 1) << 56, 1, "a", ("a",)) for n in range(256)]
    routes = RouteTable(table)
    routes.install_map(PartitionMap.build(table, 3, whole), route_pb2.ROUTE_SOURCE_MEMDS, 0.0)
    newer = Partition(900, 7, 0, 1 << 55, 2, "b", ("b",))
    routes.install_hint([newer], route_pb2.ROUTE_SOURCE_HINT)
    return encode_snapshot([routes], pb.NodeDirectory(version=1))


PAGE = paginate(7, [Partition(n + 1, 7, n << 50, (n + 1) << 50, 1, "a", ("a",)) for n in range(60)])
SNAPSHOT = snapshot_bytes()


def damaged(value: bytes) -> st.SearchStrategy[bytes]:
    """The value cut short, with a bit flipped, or with bytes added."""
    cut = st.integers(0, len(value) - 1).map(lambda length: value[:length])
    flip = st.integers(0, len(value) * 8 - 1).map(lambda bit: flipped(value, bit))
    longer = st.binary(min_size=1, max_size=40).map(lambda more: value + more)
    return cut | flip | longer


def flipped(value: bytes, bit: int) -> bytes:
    changed = bytearray(value)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


@given(partitions())
def test_pages_come_back_as_they_were(given_partitions: list[Partition]) -> None:
    """Encoding and decoding loses nothing: ranges, gaps, ids, epochs, replicas."""
    pages = paginate(7, given_partitions)
    again = [decode_page(page.value, page.digest) for page in pages]
    assert [each for page in again for each in page.partitions()] == given_partitions


@given(partitions(gaps=False), HASHES)
def test_a_map_finds_what_a_scan_finds(given_partitions: list[Partition], key_hash: int) -> None:
    made = PartitionMap.build(pb.Table(table_id=7, name="orders"), 1, given_partitions)
    (expected,) = [each for each in given_partitions if each.covers(key_hash)]
    assert made.floor(key_hash) == expected


@given(partitions(gaps=False), st.data())
def test_a_gap_or_overlap_is_refused(
    given_partitions: list[Partition], data: st.DataObject
) -> None:
    """Wherever one bound is moved, a map is not made."""
    index = data.draw(st.integers(0, len(given_partitions) - 1))
    old = given_partitions[index]
    end = data.draw(st.integers(old.start + 1, KEYSPACE_END).filter(lambda end: end != old.end))
    given_partitions[index] = Partition(old.partition_id, 7, old.start, end, 1, "a", ("a",))
    with pytest.raises(KeyplaneError) as caught:
        PartitionMap.build(pb.Table(table_id=7, name="orders"), 1, given_partitions)
    assert caught.value.reason is Reason.MAP_INVALID


@given(damaged(PAGE[0].value))
@settings(max_examples=300)
def test_a_damaged_page_is_refused(value: bytes) -> None:
    with pytest.raises(KeyplaneError) as caught:
        decode_page(value, PAGE[0].digest)
    assert caught.value.reason in REFUSED


@given(damaged(SNAPSHOT))
@settings(max_examples=300)
def test_a_damaged_snapshot_is_refused(content: bytes) -> None:
    with pytest.raises(KeyplaneError) as caught:
        decode_snapshot(content)
    assert caught.value.reason in REFUSED


@given(st.sampled_from(Kind), st.binary(), st.integers(0, 255).filter(lambda v: v != 1))
def test_another_format_version_is_named(kind: Kind, payload: bytes, version: int) -> None:
    assert FORMAT_VERSION == 1
    value = bytearray(seal(kind, payload))
    value[len(MAGIC)] = version
    with pytest.raises(KeyplaneError) as caught:
        open_sealed(kind, bytes(value))
    assert caught.value.reason is Reason.FOREIGN_FORMAT


@given(st.binary(max_size=400))
def test_garbage_with_a_right_checksum_is_refused(payload: bytes) -> None:
    """A payload that is no message, or a message that is no page or snapshot, is told by a reason.

    This is what another program's bug would store: the frame is right and the inside is not.
    """
    for decode in (
        lambda: decode_page(seal(Kind.PAGE, payload), xxhash.xxh3_128_digest(payload)),
        lambda: decode_snapshot(seal(Kind.SNAPSHOT, payload)),
    ):
        try:
            decode()
        except KeyplaneError as error:
            assert error.reason in REFUSED


@st.composite
def spoiled_pages(draw: st.DrawFn) -> pb.MapPage:
    """A valid page message of which one column was changed at random."""
    message = pb.MapPage.FromString(PAGE[0].payload)
    column = draw(st.sampled_from(["starts", "partition_ids", "epochs", "replica_set_indexes"]))
    values = getattr(message, column)
    bits = 32 if column == "replica_set_indexes" else 64
    for index in draw(st.sets(st.integers(0, len(values) - 1), max_size=3)):
        values[index] = draw(st.integers(0, (1 << bits) - 1))
    del values[draw(st.integers(0, len(values))) :]
    message.end = draw(HASHES)
    return message


@given(spoiled_pages())
def test_a_page_of_any_columns_is_whole_or_refused(message: pb.MapPage) -> None:
    """Never an exception of another kind, and never a page whose rows contradict each other."""
    try:
        page = Page(message, message.SerializeToString())
    except KeyplaneError as error:
        assert error.reason is Reason.MAP_INVALID
        return
    reached = page.start
    for partition in page.partitions():
        assert reached <= partition.start < partition.end <= page.end
        assert page.floor(partition.start) == partition
        reached = partition.end
    assert reached == page.end
