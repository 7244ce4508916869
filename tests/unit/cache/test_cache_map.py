"""Pages and maps: what is refused, and what a change costs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from cache_world import make_map, make_partitions, make_table, split

from cache import partition_map
from cache.pages import PAGE_PARTITIONS_MAX, Page, decode_page, paginate
from cache.partition_map import PartitionMap
from keyplane.catalog.v1 import catalog_pb2 as pb
from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.partition import KEYSPACE_END, Partition


def refused(make: Callable[[], object]) -> str:
    """The message with which a map or page is refused as MAP_INVALID."""
    with pytest.raises(KeyplaneError) as caught:
        make()
    assert caught.value.reason is Reason.MAP_INVALID
    return caught.value.message


def build(partitions: list[Partition]) -> PartitionMap:
    return PartitionMap.build(make_table(), 1, partitions)


# --- maps -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 255, 256, 257, 10_000])
def test_every_bound_belongs_to_the_partition_that_starts_there(count: int) -> None:
    """floor(start) and floor(end - 1) are the partition; ranges are half-open."""
    partitions = make_partitions(count)
    made = build(partitions)
    assert len(made) == count
    for partition in partitions[:: max(1, count // 100)]:
        assert made.floor(partition.start) == partition
        assert made.floor(partition.end - 1) == partition
    assert made.floor(0) == partitions[0]
    assert made.floor(KEYSPACE_END - 1) == partitions[-1]


def test_overlapping_lists_what_covers_a_range() -> None:
    partitions = make_partitions(10)
    found = build(partitions).overlapping(partitions[3].start + 1, partitions[5].start + 1)
    assert list(found) == partitions[3:6]


@pytest.mark.parametrize("missing", [0, 4, 9])
def test_a_map_with_a_gap_is_refused(missing: int) -> None:
    """At the beginning, in the middle and at the end."""
    partitions = make_partitions(10)
    del partitions[missing]
    assert "gap" in refused(lambda: build(partitions))


def test_a_map_with_an_overlap_is_refused() -> None:
    partitions = make_partitions(10)
    first = partitions[0]
    partitions[0] = Partition(1, 7, first.start, first.end + 1, 1, "storage-1")
    assert "overlap" in refused(lambda: build(partitions))


def test_pages_that_overlap_or_leave_a_gap_are_refused() -> None:
    """Also where each page by itself is fine."""
    pages = paginate(7, make_partitions(2_000))
    assert "gap" in refused(lambda: PartitionMap(make_table(), 1, [*pages[:3], *pages[4:]]))
    assert "gap" in refused(lambda: PartitionMap(make_table(), 1, [*pages, pages[-1]]))


def test_a_map_without_partitions_is_refused() -> None:
    assert "gap" in refused(lambda: build([]))


def test_an_id_that_occurs_twice_is_refused() -> None:
    """On one page, and on two."""
    for count in (10, 2_000):
        partitions = make_partitions(count)
        last = partitions[-1]
        partitions[-1] = Partition(1, 7, last.start, last.end, 1, "storage-1")
        assert "twice" in refused(lambda partitions=partitions: build(partitions))


def test_a_partition_of_another_table_is_refused() -> None:
    partitions = make_partitions(10)
    first = partitions[0]
    partitions[0] = Partition(1, 8, first.start, first.end, 1, "storage-1")
    assert "another table" in refused(lambda: build(partitions))
    assert "another table" in refused(
        lambda: PartitionMap(make_table(table_id=9), 1, paginate(7, make_partitions(10)))
    )


def test_replacing_needs_a_higher_version_and_partitions_that_are_there() -> None:
    made = make_map(8, version=5)
    parent = made.floor(0)
    stranger = Partition(99, 7, parent.start, parent.end, 1, "storage-1")
    assert "follow" in refused(lambda: made.replace(5, [parent], [parent]))
    assert "not in the map" in refused(lambda: made.replace(6, [stranger], [stranger]))
    assert refused(lambda: made.replace(6, [parent], []))
    assert refused(lambda: made.replace(6, [], [stranger]))
    assert list(made.partitions()) == make_partitions(8)


def test_an_old_id_cannot_come_back_somewhere_else() -> None:
    """Neither one that sits on a page that is kept, nor one on the page that is rewritten."""
    made = make_map(2_000)
    first = made.floor(0)
    last_id = made.floor(KEYSPACE_END - 1).partition_id
    for taken in (last_id, first.partition_id + 1):
        again = Partition(taken, 7, first.start, first.end, 2, "storage-1")
        assert "twice" in refused(lambda again=again: made.replace(2, [first], [again]))


def test_settings_change_without_touching_pages() -> None:
    made = make_map(1_000)
    table = make_table()
    table.durability = pb.DURABILITY_POWER
    after = made.replace(2, [], [], table)
    assert after.pages == made.pages
    assert (after.version, after.table.durability) == (2, pb.DURABILITY_POWER)


def test_a_split_rewrites_one_page_seldom_two() -> None:
    """Over 300 splits of 10,000 partitions, and all other pages are shared, not copied."""
    made = make_map(10_000)
    rewritten = []
    for number in range(300):
        after = split(made, number * KEYSPACE_END // 300)
        rewritten.append(len(set(after.pages).difference(made.pages)))
        made = after
    assert max(rewritten) <= 4
    assert sum(rewritten) / len(rewritten) < 1.2


def test_pages_are_cut_the_same_whether_a_map_was_changed_or_made() -> None:
    """Also where a page was cut for its size, in sight of what is split now on the next page."""
    made = make_map(322)
    assert made.pages[0].looked_ahead
    # A child that starts here has the lowest hash of all that the cut looks at.
    at = 11_400_316_989_652_797_428
    parent = made.floor(at)
    children = [
        replace(parent, partition_id=1000, end=at, epoch=2),
        replace(parent, partition_id=1001, start=at, epoch=2),
    ]
    after = made.replace(2, [parent], children)
    anew = PartitionMap.build(after.table, 2, after.partitions())
    assert [page.digest for page in anew.pages] == [page.digest for page in after.pages]


def test_a_root_and_its_pages_make_the_map_again() -> None:
    made = make_map(2_000, version=3)
    pages = {page.digest: decode_page(page.value, page.digest) for page in made.pages}
    again = PartitionMap.from_root(made.root(), pages)
    assert list(again.partitions()) == list(made.partitions())
    assert (again.version, again.table) == (3, made.table)
    assert again.root() == made.root()


def test_a_root_is_met_with_the_pages_of_the_map_before() -> None:
    """Only the pages that differ have to be given."""
    before = make_map(2_000)
    after = split(before, 0)
    held = {page.digest for page in before.pages}
    fresh = {page.digest: page for page in after.pages if page.digest not in held}
    assert list(PartitionMap.from_root(after.root(), fresh, before).partitions()) == list(
        after.partitions()
    )


def test_a_root_that_does_not_fit_its_pages_is_refused() -> None:
    """A page is missing, named twice, or holds more than the root promised."""
    made = make_map(2_000)
    pages = {page.digest: page for page in made.pages}
    for base in (None, made):
        short, double, wrong = made.root(), made.root(), made.root()
        del short.page_digests[1]
        double.page_digests.append(double.page_digests[0])
        wrong.partition_count += 1
        for root in (short, double, wrong):
            assert refused(lambda root=root, base=base: PartitionMap.from_root(root, pages, base))
    assert "missing" in refused(lambda: PartitionMap.from_root(made.root(), {}))


def test_partition_objects_kept_for_lookups_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Past the bound they are made again, and every answer stays right."""
    monkeypatch.setattr(partition_map, "MATERIALISED_MAX", 100)
    partitions = make_partitions(1_000)
    made = build(partitions)
    for partition in partitions * 2:
        assert made.floor(partition.start) == partition
        kept = sum(each is not None for page in made.pages for each in page.made)
        assert kept <= 100


# --- pages ----------------------------------------------------------------------------------------


def test_pages_are_bounded_and_end_by_content() -> None:
    """At most 256 partitions, 128 or so on average, whatever the starts look like."""
    pages = paginate(7, make_partitions(100_000))
    sizes = [len(page) for page in pages]
    assert max(sizes) <= PAGE_PARTITIONS_MAX
    assert 80 < sum(sizes) / len(sizes) < 150


def test_a_report_page_may_have_gaps_and_a_map_may_not() -> None:
    """Every third partition of a table, as one of three storage nodes serves it."""
    mine = make_partitions(900)[::3]
    pages = paginate(7, mine)
    assert len(pages) < 10
    again = [decode_page(page.value, page.digest) for page in pages]
    assert [partition for page in again for partition in page.partitions()] == mine
    page = again[0]
    assert page.has_gaps
    assert page.floor(mine[0].end) is None
    assert page.floor(mine[0].end - 1) == mine[0]
    assert "gap" in refused(lambda: PartitionMap(make_table(), 1, pages))


def test_the_leader_comes_first_and_replicas_stay() -> None:
    partition = Partition(1, 7, 0, KEYSPACE_END, 1, "b", ("a", "b", "c"))
    (page,) = paginate(7, [partition])
    found = page.floor(5)
    assert found is not None
    assert (found.leader, found.replicas) == ("b", ("b", "a", "c"))


def good_page() -> pb.MapPage:
    return pb.MapPage(
        table_id=7,
        starts=[0, 10, 20],
        end=30,
        partition_ids=[1, 2, 3],
        epochs=[1, 1, 1],
        replica_sets=[pb.ReplicaSet(node_ids=["storage-1"])],
        replica_set_indexes=[0, 0, 0],
    )


def page(message: pb.MapPage) -> Page:
    return Page(message, message.SerializeToString())


@pytest.mark.parametrize(
    "spoil",
    [
        pb.MapPage.Clear,
        lambda m: m.starts.append(30),
        lambda m: m.starts.__setitem__(1, 20),
        lambda m: m.starts.__setitem__(2, 30),
        lambda m: m.epochs.__setitem__(1, 0),
        lambda m: m.epochs.pop(),
        lambda m: m.partition_ids.__setitem__(0, 0),
        lambda m: m.partition_ids.__setitem__(2, 0),
        lambda m: m.partition_ids.__setitem__(2, 1),
        lambda m: m.replica_set_indexes.__setitem__(2, 1),
        lambda m: m.replica_set_indexes.__setitem__(2, 1 << 20),
        lambda m: m.replica_sets.add(),
        lambda m: m.replica_sets[0].node_ids.append(""),
        lambda m: m.replica_sets.pop(),
        lambda m: setattr(m, "table_id", 0),
        lambda m: setattr(m, "end", 20),
    ],
)
def test_columns_that_are_no_run_of_partitions_are_refused(
    spoil: Callable[[pb.MapPage], object],
) -> None:
    message = good_page()
    assert len(page(message)) == 3
    spoil(message)
    refused(lambda: page(message))


def test_too_many_rows_are_refused() -> None:
    rows = 2 * PAGE_PARTITIONS_MAX
    message = pb.MapPage(
        table_id=7,
        starts=range(rows),
        end=rows,
        partition_ids=range(1, rows + 1),
        epochs=[1] * rows,
        replica_sets=[pb.ReplicaSet(node_ids=["storage-1"])],
        replica_set_indexes=[0] * rows,
    )
    refused(lambda: page(message))
    for column in (message.starts, message.partition_ids, message.epochs):
        del column[PAGE_PARTITIONS_MAX + 1 :]
    del message.replica_set_indexes[PAGE_PARTITIONS_MAX + 1 :]
    refused(lambda: page(message))


def test_a_page_under_the_digest_of_another_is_corrupt() -> None:
    first, second = paginate(7, make_partitions(200))[:2]
    with pytest.raises(KeyplaneError) as caught:
        decode_page(first.value, second.digest)
    assert caught.value.reason is Reason.CORRUPT
