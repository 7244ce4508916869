"""Data operations on one storage node: what is checked first, and what is answered."""

from __future__ import annotations

import pytest
from storage_world import MIDDLE, StorageWorld, item, item_key, reason_of, token

from keyplane.data.v1 import data_pb2 as data
from keyplane.model.errors import Reason
from keyplane.model.partition import end_to_wire
from keyplane.route.v1.route_pb2 import RouteHint
from keyplane.storage.v1 import storage_pb2 as pb
from storage.config import WriteConfig
from wire.ports import EngineError, Reply, Request


@pytest.fixture
def world() -> StorageWorld:
    world = StorageWorld()
    world.start("s1")
    world.open("s1")
    return world


def test_what_is_put_is_got_until_it_is_deleted(world: StorageWorld) -> None:
    assert world.get("s1", (1, 1), "alice") is None
    first = world.put("s1", (1, 1), "alice", "a")
    second = world.put("s1", (1, 1), "alice", "b")
    assert (first.existed, second.existed) == (False, True)
    assert second.version > first.version
    assert world.get("s1", (1, 1), "alice") == "b"
    assert world.delete("s1", (1, 1), "alice") == pb.WriteResult(
        version=second.version, existed=True, before_bytes=len(item("alice", "b"))
    )
    assert world.get("s1", (1, 1), "alice") is None
    assert world.delete("s1", (1, 1), "alice") == pb.WriteResult()


def test_versions_of_a_key_rise_over_deletes_and_restarts(world: StorageWorld) -> None:
    before = world.put("s1", (1, 1), "alice", "a").version
    world.delete("s1", (1, 1), "alice")
    world.kill("s1")
    world.start("s1")
    assert world.put("s1", (1, 1), "alice", "b").version > before


def test_conditions_decide_on_the_item_that_is_there(world: StorageWorld) -> None:
    absent, present = data.Condition(exists=False), data.Condition(exists=True)

    def reason(**options: object) -> Reason:
        return reason_of(lambda: world.put("s1", (1, 1), "alice", "x", **options)).reason

    assert reason(condition=present) is Reason.CONDITION_FAILED
    assert reason(condition=data.Condition(version_equals=0)) is Reason.CONDITION_FAILED
    version = world.put("s1", (1, 1), "alice", "a", condition=absent).version
    assert reason(condition=absent) is Reason.CONDITION_FAILED
    assert reason(condition=data.Condition(version_equals=version + 1)) is Reason.CONDITION_FAILED
    world.put("s1", (1, 1), "alice", "b", condition=data.Condition(version_equals=version))
    assert world.get("s1", (1, 1), "alice") == "b"


def test_writes_of_one_batch_see_each_other_in_order(world: StorageWorld) -> None:
    """Two conditional puts race in one tick: one wins, and the other is told so."""
    replies: list[Reply] = []
    for value in ("first", "second"):
        write = pb.WriteOp(
            key=item_key("alice"), put=item("alice", value), condition=data.Condition(exists=False)
        )
        request = pb.ExecuteRequest(partition_id=1, epoch=1, write=write)
        world.send("s1", "Execute", request, replies.append)
    world.run_until(lambda: len(replies) == 2)
    assert replies[0].error is None
    assert replies[1].error is not None
    assert replies[1].error.reason is Reason.CONDITION_FAILED
    assert world.get("s1", (1, 1), "alice") == "first"
    engine = world.members["s1"].engine
    assert engine.commits == 3, "the node record, the table, and one group commit"


def test_a_batch_of_writes_is_answered_write_by_write(world: StorageWorld) -> None:
    world.put("s1", (1, 1), "bob", "old")
    batch = pb.BatchWriteOp(
        writes=[
            pb.WriteOp(key=item_key("alice"), put=item("alice", "new")),
            pb.WriteOp(key=item_key("bob"), delete=True, condition=data.Condition(exists=False)),
        ]
    )
    results = world.execute("s1", 1, 1, batch_write=batch).batch_write.results
    assert [result.reason for result in results] == ["", "CONDITION_FAILED"]
    keys = pb.BatchGetOp(keys=[item_key("alice"), item_key("carol"), item_key("bob")])
    found = world.execute("s1", 1, 1, batch_get=keys).batch_get.results
    assert [result.found for result in found] == [True, False, True]


def test_a_query_returns_sort_keys_in_order_and_in_pages(world: StorageWorld) -> None:
    for at in ("03", "01", "02", "05", "04"):
        world.put("s1", (1, 1), "alice", at, at=at)
    world.put("s1", (1, 1), "bob", "other")
    key = item_key("alice")

    def values(backward: bool, low: str, high: str, limit: int) -> tuple[list[str], bool]:
        query = pb.QueryOp(hash=key.hash, to=item_key("alice", high).encoded, backward=backward)
        query.limit = limit
        setattr(query, "from", item_key("alice", low).encoded)
        page = world.execute("s1", 1, 1, query=query).page
        found = [data.Item.FromString(each).attributes["at"].s for each in page.items]
        return found, page.more

    assert values(False, "00", "99", 0) == (["01", "02", "03", "04", "05"], False)
    assert values(True, "02", "05", 0) == (["04", "03", "02"], False)
    assert values(False, "00", "99", 2) == (["01", "02"], True)
    assert values(False, "06", "01", 0) == ([], False)


def test_a_scan_pages_through_everything_once(world: StorageWorld) -> None:
    names = {f"user-{number}" for number in range(50)}
    for name in names:
        world.put("s1", (1, 1), name, name)
    seen: list[str] = []
    scan = pb.ScanOp(max_bytes=200)
    while True:
        page = world.execute("s1", 1, 1, scan=scan).page
        assert 0 < sum(map(len, page.items)) <= 200
        seen += [data.Item.FromString(each).attributes["id"].s for each in page.items]
        if not page.more:
            break
        scan.position.CopyFrom(page.last)
        scan.exclusive = True
    assert len(seen) == 50
    assert set(seen) == names


def test_segments_of_a_scan_share_the_items_out(world: StorageWorld) -> None:
    names = {f"user-{number}" for number in range(50)}
    for name in names:
        world.put("s1", (1, 1), name, name)
    left = world.execute("s1", 1, 1, scan=pb.ScanOp(end=MIDDLE)).page.items
    start = pb.ItemKey(hash=MIDDLE)
    right = world.execute("s1", 1, 1, scan=pb.ScanOp(position=start, end=end_to_wire(0))).page.items
    assert len(left) + len(right) == 50
    assert left
    assert right
    assert not set(left) & set(right)


def test_an_item_larger_than_a_page_is_still_returned(world: StorageWorld) -> None:
    world.put("s1", (1, 1), "alice", "x" * 300_000)
    page = world.execute("s1", 1, 1, scan=pb.ScanOp(max_bytes=1000)).page
    assert len(page.items) == 1


def test_id_and_epoch_are_checked_before_anything_else(world: StorageWorld) -> None:
    unknown = reason_of(lambda: world.put("s1", (9, 1), "alice", "a"))
    assert unknown.reason is Reason.STALE_ROUTE
    assert unknown.detail(RouteHint) == RouteHint()
    older = reason_of(lambda: world.put("s1", (1, 0), "alice", "a"))
    hint = older.detail(RouteHint)
    assert hint is not None
    assert [(each.partition_id, each.epoch) for each in hint.partitions] == [(1, 1)]
    assert [each.address for each in hint.nodes] == ["s1:1"]
    assert world.errors("s1", "STALE_ROUTE") == 2


def _bad_requests() -> dict[str, tuple[pb.ExecuteRequest, Reason]]:
    key = item_key("alice")
    put = pb.WriteOp(key=key, put=b"")
    malformed = Reason.MALFORMED_REQUEST

    def request(**op: object) -> pb.ExecuteRequest:
        return pb.ExecuteRequest(partition_id=1, epoch=1, **op)

    return {
        "no operation": (request(), malformed),
        "no action": (request(write=pb.WriteOp(key=key)), malformed),
        "delete: false": (request(write=pb.WriteOp(key=key, delete=False)), malformed),
        "no key": (request(write=pb.WriteOp(put=b"")), malformed),
        "short client id": (
            request(write=pb.WriteOp(key=key, put=b"", token=data.WriteToken(client_id=b"x"))),
            malformed,
        ),
        "too large": (
            request(write=pb.WriteOp(key=key, put=bytes(900_000))),
            Reason.ITEM_TOO_LARGE,
        ),
        "empty batch": (request(batch_write=pb.BatchWriteOp()), malformed),
        "26 writes": (
            request(batch_write=pb.BatchWriteOp(writes=[put] * 26)),
            Reason.BATCH_TOO_LARGE,
        ),
        "101 keys": (request(batch_get=pb.BatchGetOp(keys=[key] * 101)), Reason.BATCH_TOO_LARGE),
    }


@pytest.mark.parametrize("case", _bad_requests())
def test_bad_requests_are_refused_counted_and_change_nothing(
    world: StorageWorld, case: str
) -> None:
    request, reason = _bad_requests()[case]
    entries = dict(world.members["s1"].engine.scan(b"", b"\xff"))
    assert reason_of(lambda: world.call("s1", "Execute", request)).reason is reason
    assert world.errors("s1", reason.name) == 1
    assert dict(world.members["s1"].engine.scan(b"", b"\xff")) == entries


def test_a_hash_outside_the_partition_is_refused(world: StorageWorld) -> None:
    world.split("s1", (1, 1), MIDDLE, 2, 3)
    left = (2, 2) if item_key("alice").hash >= MIDDLE else (3, 2)
    error = reason_of(lambda: world.put("s1", left, "alice", "a"))
    assert error.reason is Reason.MALFORMED_REQUEST


def test_a_deadline_that_has_passed_is_refused_before_anything_is_done(world: StorageWorld) -> None:
    process = world.members["s1"].process
    assert process is not None
    replies: list[Reply] = []
    handler = process.server.handlers["/keyplane.storage.v1.StorageService/Execute"]
    write = pb.WriteOp(key=item_key("alice"), put=item("alice", "late"))
    payload = pb.ExecuteRequest(partition_id=1, epoch=1, write=write).SerializeToString()
    handler(Request("Execute", payload, world.clock.now()), replies.append)
    assert replies[0].error is not None
    assert replies[0].error.reason is Reason.DEADLINE_BEFORE_START


def test_past_its_bound_the_write_queue_sheds() -> None:
    """I9: the queue is full before the first commit ends; what is refused was not done."""
    world = StorageWorld()
    world.start("s1", writes=WriteConfig(queue_writes_max=3))
    world.open("s1")
    replies: list[Reply] = []
    for number in range(5):
        write = pb.WriteOp(key=item_key(f"user-{number}"), put=item(f"user-{number}", "x"))
        request = pb.ExecuteRequest(partition_id=1, epoch=1, write=write)
        world.send("s1", "Execute", request, replies.append)
    world.run_until(lambda: len(replies) == 5)
    errors = [reply.error for reply in replies if reply.error is not None]
    assert [error.reason for error in errors] == [Reason.OVERLOADED] * 2
    assert all(error.retry_after_s for error in errors)


def test_while_the_device_refuses_writes_reads_go_on_and_it_recovers(world: StorageWorld) -> None:
    world.put("s1", (1, 1), "alice", "a")
    engine = world.members["s1"].engine
    engine.fail_with = EngineError("No space left on device")
    failed = reason_of(lambda: world.put("s1", (1, 1), "alice", "b", token=token(1)))
    assert failed.reason is Reason.WRITE_ERROR
    assert not failed.definite
    refused = reason_of(lambda: world.put("s1", (1, 1), "bob", "b"))
    assert refused.reason is Reason.NOT_SERVING
    assert refused.definite
    assert "No space left" in refused.message
    assert world.get("s1", (1, 1), "alice") == "a"
    engine.fail_with = None
    world.run_for(5)
    retried = world.put("s1", (1, 1), "alice", "b", token=token(1, attempt=1, age_ms=1))
    assert retried.version
    assert world.get("s1", (1, 1), "alice") == "b"


def test_sizes_are_told_with_what_is_read_and_written(world: StorageWorld) -> None:
    """As the router has counted them, for reads, batches, pages, and writes that replace."""
    at = (1, 1)

    def put(id: str, item_bytes: int) -> pb.WriteResult:
        return world.put("s1", at, id, "x" * 50, item_bytes=item_bytes)

    assert put("alice", 40).before_bytes == 0
    assert put("alice", 60).before_bytes == 40
    assert put("bob", 30).before_bytes == 0
    one = world.execute("s1", *at, get=pb.GetOp(key=item_key("alice"))).get
    assert one.item_bytes == 60
    keys = [item_key(name) for name in ("alice", "bob", "nobody")]
    batch = world.execute("s1", *at, batch_get=pb.BatchGetOp(keys=keys)).batch_get
    assert [each.item_bytes for each in batch.results] == [60, 30, 0]
    assert world.execute("s1", *at, scan=pb.ScanOp()).page.item_bytes == 90
    writes = [
        pb.WriteOp(key=item_key("alice"), delete=True),
        pb.WriteOp(key=item_key("alice"), put=item("alice", "y" * 50), item_bytes=20),
        pb.WriteOp(key=item_key("alice"), delete=True),
    ]
    written = world.execute("s1", *at, batch_write=pb.BatchWriteOp(writes=writes)).batch_write
    assert [each.before_bytes for each in written.results] == [60, 0, 20]


@pytest.mark.parametrize("told", [0, 10_000])
def test_a_size_that_is_not_told_or_cannot_be_is_that_of_the_bytes(
    world: StorageWorld, told: int
) -> None:
    """With a token and without one: both forms in which puts come."""
    size = len(item("alice", "a"))
    for name in (None, token(1)):
        world.put("s1", (1, 1), "alice", "a", token=name, item_bytes=told)
        assert world.delete("s1", (1, 1), "alice").before_bytes == size


def test_a_write_that_was_done_before_does_not_know_what_it_replaced(world: StorageWorld) -> None:
    world.put("s1", (1, 1), "alice", "a", item_bytes=11)
    first = world.put("s1", (1, 1), "alice", "b", token=token(1), item_bytes=12)
    again = world.put("s1", (1, 1), "alice", "b", token=token(1, attempt=1), item_bytes=12)
    assert (first.before_bytes, again.before_bytes) == (11, 0)
    assert first.version == again.version
    assert world.delete("s1", (1, 1), "alice").before_bytes == 12


def test_sizes_move_with_their_items(world: StorageWorld) -> None:
    world.put("s1", (1, 1), "alice", "a", item_bytes=13)
    world.start("s2")
    world.move("s1", (1, 1), "s2")
    world.run_for(30)
    assert world.delete("s2", (1, 2), "alice").before_bytes == 13
