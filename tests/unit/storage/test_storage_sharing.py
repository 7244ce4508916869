"""The write queue among tenants."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from storage_world import TABLE, StorageWorld, item, item_key

from keyplane.catalog.v1 import catalog_pb2 as catalog
from keyplane.model.errors import Reason
from keyplane.model.partition import Partition, even_ranges
from keyplane.storage.v1 import storage_pb2 as pb
from storage.config import WriteConfig
from storage.sharing import Sharing
from wire.ports import Reply

TENANTS = ("", "acme/", "bolt/", "coil/")


def open_tables(
    world: StorageWorld,
    *names: str,
    mode: catalog.CapacityMode.ValueType = catalog.CAPACITY_MODE_UNLIMITED,
) -> None:
    """A table of one partition for each name; their ids are 1, 2, ... mode: of the last."""
    ((start, end),) = even_ranges(1)
    for number, name in enumerate(names, 1):
        table = catalog.Table()
        table.CopyFrom(TABLE)
        table.name, table.table_id = name, TABLE.table_id + number
        if number == len(names):
            table.capacity_mode = mode
        partition = Partition(number, table.table_id, start, end, 1, "s1")
        world.call(
            "s1",
            "OpenPartitions",
            pb.OpenPartitionsRequest(
                operation_id=f"create {number}", table=table, partitions=[partition.to_proto()]
            ),
        )


def flood(world: StorageWorld, *wanted: tuple[int, int], value: str = "x") -> list[int]:
    """Sends (partition, writes) in one tick, in that order; how many of each were done."""
    replies: list[tuple[int, Reply]] = []
    for partition, count in wanted:
        for number in range(count):
            name = f"user-{number}"
            write = pb.WriteOp(key=item_key(name), put=item(name, value))
            request = pb.ExecuteRequest(partition_id=partition, epoch=1, write=write)
            world.send(
                "s1",
                "Execute",
                request,
                lambda r, p=partition: replies.append((p, r)),  # type: ignore[misc]
            )
    world.run_until(lambda: len(replies) == sum(count for _, count in wanted))
    for _, reply in replies:
        if reply.error is not None:
            assert reply.error.reason is Reason.OVERLOADED
            assert reply.error.retry_after_s
    done = Counter(partition for partition, reply in replies if reply.error is None)
    return [done[partition] for partition, _ in wanted]


@pytest.mark.parametrize("first", ["acme/orders", "orders"])
def test_a_tenant_that_floods_the_queue_leaves_room_for_another(first: str) -> None:
    """Of the local one, which has no name, too, as soon as there are others."""
    world = StorageWorld()
    world.start("s1", writes=WriteConfig(queue_writes_max=16))
    open_tables(world, first, "bolt/orders")
    # Three quarters are shared: 12. Past them the first holds more than half, the other less.
    assert flood(world, (2, 1), (1, 40), (2, 4)) == [5, 11, 5]


def test_a_tenant_with_large_items_leaves_room_for_another() -> None:
    world = StorageWorld()
    world.start("s1", writes=WriteConfig(queue_bytes_max=160_000))
    open_tables(world, "acme/orders", "bolt/orders")
    done = flood(world, (2, 1), (1, 40), (2, 2), value="x" * 10_000)
    assert done == [3, 11, 3]


def test_alone_on_a_node_without_tenants_all_of_the_queue_is_used() -> None:
    world = StorageWorld()
    world.start("s1", writes=WriteConfig(queue_writes_max=16))
    open_tables(world, "orders")
    assert flood(world, (1, 40)) == [16]


def test_what_was_shared_is_free_again_after_its_commit() -> None:
    world = StorageWorld()
    world.start("s1", writes=WriteConfig(queue_writes_max=16))
    open_tables(world, "acme/orders", "bolt/orders")
    for _ in range(3):
        assert flood(world, (1, 40)) == [12]
        assert flood(world, (2, 12)) == [12]


@pytest.mark.parametrize(("crowd", "admitted"), [(3, 6), (15, 1)])
def test_what_a_partition_has_saved_is_for_when_its_node_has_room(
    crowd: int, admitted: int
) -> None:
    """A second of 1,000 units is saved, and each write takes 100; another table is the crowd."""
    world = StorageWorld()
    world.start("s1", writes=WriteConfig(queue_writes_max=20))
    open_tables(world, "crowd", "users", mode=catalog.CAPACITY_MODE_ON_DEMAND)
    replies: list[Reply] = []
    for partition, count, value in ((1, crowd, "x"), (2, 6, "x" * 102_000)):
        for number in range(count):
            write = pb.WriteOp(key=item_key(f"user-{number}"), put=item(f"user-{number}", value))
            request = pb.ExecuteRequest(partition_id=partition, epoch=1, write=write)
            world.send("s1", "Execute", request, replies.append)
    world.run_until(lambda: len(replies) == 6 + crowd)
    throttled = [each.error for each in replies if each.error is not None]
    assert all(error.reason is Reason.THROTTLED for error in throttled)
    assert 6 - len(throttled) == admitted


STEP = st.tuples(st.sampled_from(TENANTS), st.integers(1, 5), st.integers(1, 500))


@given(st.lists(STEP, max_size=60))
def test_nobody_is_refused_with_less_than_a_share_or_admitted_with_more(
    steps: list[tuple[str, int, int]],
) -> None:
    """Against counts kept for all alike."""
    sharing = Sharing(WriteConfig(queue_writes_max=40, queue_bytes_max=4_000))
    writes, data_bytes = Counter[str](), Counter[str]()
    for tenant, more, more_bytes in steps:
        refusal = sharing.refusal(tenant, writes.total(), data_bytes.total())
        waiting = [each for each in TENANTS if writes[each]]
        shares = len(waiting) or 1
        crowded = writes.total() >= 30 and writes[tenant] >= 30 / shares
        crowded |= data_bytes.total() >= 3_000 and data_bytes[tenant] >= 3_000 / shares
        alone = tenant == "" and waiting in ([], [""])
        assert (refusal is not None) == (crowded and not alone)
        if refusal is None:
            sharing.add(tenant, more, more_bytes)
            writes[tenant] += more
            data_bytes[tenant] += more_bytes
        elif waiting:
            # What waits the longest is committed.
            done = waiting[0]
            sharing.remove(done, writes.pop(done), data_bytes.pop(done))
