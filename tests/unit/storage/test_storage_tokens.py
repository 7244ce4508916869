"""Retrying a write without doing it twice."""

from __future__ import annotations

import pytest
from storage_world import CLIENT_ID, MIDDLE, TABLE, StorageWorld, item_key, reason_of, token

from keyplane.catalog.v1 import catalog_pb2 as catalog
from keyplane.data.v1 import data_pb2 as data
from keyplane.model.errors import Reason
from keyplane.model.partition import KEYSPACE_END, Partition
from keyplane.storage.v1 import records_pb2 as records
from keyplane.storage.v1 import storage_pb2 as pb
from storage.config import WriteConfig
from storage.evaluate import recall
from storage.layout import NODE_RECORD, log_keys
from storage.memory import MemoryEngine
from storage.move_tokens import from_wire
from storage.records import put_node
from storage.request import read_write
from storage.token_log import TokenLog
from storage.tokens import COVER_MARGIN_S, PART, Remembered, TokenMemory, covers
from wire.memory import VirtualClock
from wire.ports import Batch, EngineError


@pytest.fixture
def world() -> StorageWorld:
    world = StorageWorld()
    world.start("s1")
    world.open("s1")
    return world


def test_a_retry_gets_the_first_answer_again(world: StorageWorld) -> None:
    first = world.put("s1", (1, 1), "alice", "a", token=token(1))
    world.put("s1", (1, 1), "alice", "b", token=token(2))
    again = world.put("s1", (1, 1), "alice", "a", token=token(1, attempt=1, age_ms=20))
    assert again == first
    assert world.get("s1", (1, 1), "alice") == "b", "the later write stands"


def test_a_retried_delete_is_answered_as_the_first(world: StorageWorld) -> None:
    world.put("s1", (1, 1), "alice", "a")
    first = world.delete("s1", (1, 1), "alice", token=token(1))
    assert first.existed
    # What it replaced is told to the first attempt alone.
    first.before_bytes = 0
    assert world.delete("s1", (1, 1), "alice", token=token(1, attempt=1)) == first


def test_a_retry_that_was_never_done_is_done(world: StorageWorld) -> None:
    """The memory covers the first attempt and does not know it, so it did not happen."""
    world.run_for(10)
    world.put("s1", (1, 1), "alice", "a", token=token(1, attempt=1, age_ms=3000))
    assert world.get("s1", (1, 1), "alice") == "a"


def test_after_a_restart_the_items_own_token_explains_a_retry(world: StorageWorld) -> None:
    first = world.put("s1", (1, 1), "alice", "a", token=token(1))
    world.kill("s1")
    world.start("s1")
    again = world.put("s1", (1, 1), "alice", "a", token=token(1, attempt=1, age_ms=50))
    assert again.version == first.version


def test_after_a_restart_a_retry_gets_the_first_answer_again(world: StorageWorld) -> None:
    """Tokens are on disk with what they stand for: puts, deletes, and refusals."""
    first = world.put("s1", (1, 1), "alice", "a", token=token(1))
    deleted = world.delete("s1", (1, 1), "alice", token=token(2))
    exists = data.Condition(exists=True)
    refused = {"condition": exists, "token": token(3)}
    assert reason_of(lambda: world.put("s1", (1, 1), "alice", "x", **refused)).definite
    world.put("s1", (1, 1), "alice", "b", token=token(4))
    world.kill("s1")
    world.start("s1")

    def retry(sequence: int) -> data.WriteToken:
        return token(sequence, attempt=1, age_ms=50)

    assert world.put("s1", (1, 1), "alice", "a", token=retry(1)) == first
    deleted.before_bytes = 0
    assert world.delete("s1", (1, 1), "alice", token=retry(2)) == deleted
    again = {"condition": exists, "token": retry(3)}
    error = reason_of(lambda: world.put("s1", (1, 1), "alice", "x", **again))
    assert error.reason is Reason.CONDITION_FAILED
    assert world.get("s1", (1, 1), "alice") == "b"


def test_after_a_restart_a_retry_of_what_was_never_done_is_done(world: StorageWorld) -> None:
    world.put("s1", (1, 1), "alice", "a", token=token(1))
    world.kill("s1")
    world.start("s1")
    world.put("s1", (1, 1), "alice", "b", token=token(2, attempt=1, age_ms=30_000))
    assert world.get("s1", (1, 1), "alice") == "b"


def test_a_late_first_attempt_is_not_done_again_after_a_restart(world: StorageWorld) -> None:
    """It lay in a paused router; its caller tried elsewhere, was answered, and wrote again."""
    first = world.put("s1", (1, 1), "alice", "a", token=token(1, attempt=1, age_ms=2500))
    world.put("s1", (1, 1), "alice", "b", token=token(2))
    world.kill("s1")
    world.start("s1")
    assert world.put("s1", (1, 1), "alice", "a", token=token(1)) == first
    assert world.get("s1", (1, 1), "alice") == "b"


def test_a_late_copy_of_a_first_attempt_is_recognized_by_the_item() -> None:
    """However much has been forgotten."""
    world = StorageWorld()
    world.start("s1", writes=WriteConfig(tokens_max=1))
    world.open("s1")
    first = world.put("s1", (1, 1), "alice", "a", token=token(1))
    world.put("s1", (1, 1), "bob", "b", token=token(2))
    for attempt in (0, 1):
        late = token(1, attempt, age_ms=60_000 * attempt)
        assert world.put("s1", (1, 1), "alice", "a", token=late).version == first.version


def test_a_loss_of_power_takes_tokens_and_items_together(world: StorageWorld) -> None:
    """A write that was lost is done when it is tried again, not answered from memory."""
    world.put("s1", (1, 1), "alice", "a", token=token(1))
    world.power_loss("s1")
    world.start("s1")
    assert world.get("s1", (1, 1), "alice") is None
    world.put("s1", (1, 1), "alice", "a", token=token(1, attempt=1, age_ms=50))
    assert world.get("s1", (1, 1), "alice") == "a"


def test_what_a_synced_table_has_refused_stays_refused_after_a_loss_of_power() -> None:
    world = StorageWorld()
    world.start("s1")
    table = catalog.Table()
    table.CopyFrom(TABLE)
    table.durability = catalog.DURABILITY_POWER
    world.open("s1", table=table)
    exists = data.Condition(exists=True)

    def put(attempt: int) -> Reason:
        options = {"condition": exists, "token": token(1, attempt, age_ms=attempt)}
        return reason_of(lambda: world.put("s1", (1, 1), "alice", "a", **options)).reason

    assert put(0) is Reason.CONDITION_FAILED
    world.power_loss("s1")
    world.start("s1")
    world.put("s1", (1, 1), "alice", "b")
    assert [put(0), put(1)] == [Reason.CONDITION_FAILED] * 2


@pytest.mark.parametrize("restart", [False, True])
def test_a_failed_commit_takes_its_tokens_back(world: StorageWorld, restart: bool) -> None:
    """Nothing answers for a write that has been rolled back."""
    world.put("s1", (1, 1), "alice", "a", token=token(1))
    engine = world.members["s1"].engine
    engine.fail_with, engine.keeps_failed = EngineError("no"), 1_000
    error = reason_of(lambda: world.put("s1", (1, 1), "alice", "b", token=token(2)))
    assert error.reason is Reason.WRITE_ERROR
    engine.fail_with = None
    world.run_for(5)
    if restart:
        world.kill("s1")
        world.start("s1")
    assert world.get("s1", (1, 1), "alice") == "a"
    world.put("s1", (1, 1), "alice", "b", token=token(2, attempt=1, age_ms=5000))
    assert world.get("s1", (1, 1), "alice") == "b"


def test_a_late_copy_of_a_write_whose_condition_failed_is_not_done(world: StorageWorld) -> None:
    """Its caller was told that nothing was done, and that stays true when the condition holds: for
    a copy of the first attempt, for a retry, and on the node that the partition has moved to."""
    exists = data.Condition(exists=True)
    world.run_for(10)
    world.start("s2")

    def put(name: str, where: tuple[int, int], attempt: int) -> Reason:
        again = token(1, attempt=attempt, age_ms=5 * attempt)
        return reason_of(
            lambda: world.put(name, where, "alice", "a", condition=exists, token=again)
        ).reason

    assert put("s1", (1, 1), 0) is Reason.CONDITION_FAILED
    world.put("s1", (1, 1), "alice", "first")
    assert put("s1", (1, 1), 0) is Reason.CONDITION_FAILED
    assert put("s1", (1, 1), 1) is Reason.CONDITION_FAILED
    world.move("s1", (1, 1), "s2")
    world.run_until(lambda: world.move("s1", (1, 1), "s2").phase == pb.MOVE_PHASE_DONE)
    assert put("s2", (1, 2), 1) is Reason.CONDITION_FAILED
    assert world.get("s2", (1, 2), "alice") == "first"


@pytest.mark.parametrize("restarts", [False, True])
def test_the_memory_travels_with_splits_merges_and_moves(
    world: StorageWorld, restarts: bool
) -> None:
    """In memory, and on disk for those who restart after each."""
    world.start("s2")
    first = world.put("s1", (1, 1), "alice", "a", token=token(1))
    world.put("s1", (1, 1), "alice", "b", token=token(2))

    def retry(name: str, where: tuple[int, int]) -> pb.WriteResult:
        if restarts:
            world.kill(name)
            world.start(name)
        return world.put(name, where, "alice", "a", token=token(1, attempt=1, age_ms=50))

    world.split("s1", (1, 1), MIDDLE, 2, 3)
    child = 2 if item_key("alice").hash < MIDDLE else 3
    assert retry("s1", (child, 2)) == first
    merge = pb.MergePartitionsRequest(
        operation_id="merge", left_id=2, left_epoch=2, right_id=3, right_epoch=2, merged_id=4
    )
    world.call("s1", "MergePartitions", merge)
    assert retry("s1", (4, 3)) == first
    world.move("s1", (4, 3), "s2")
    world.run_until(lambda: world.move("s1", (4, 3), "s2").phase == pb.MOVE_PHASE_DONE)
    assert retry("s2", (4, 4)) == first
    assert world.get("s2", (4, 4), "alice") == "b"


def test_a_target_that_dies_before_it_is_activated_remembers(world: StorageWorld) -> None:
    """It had confirmed that all is there, so all has to be there when it comes back."""
    world.start("s2")
    first = world.put("s1", (1, 1), "alice", "a", token=token(1))
    world.put("s1", (1, 1), "alice", "b", token=token(2))
    world.kill_at("storage.move.handover", "s2", by="s1")
    world.move("s1", (1, 1), "s2")
    world.run_until(lambda: not world.members["s2"].up)
    world.start("s2")
    world.run_until(lambda: world.move("s1", (1, 1), "s2").phase == pb.MOVE_PHASE_DONE)
    assert world.put("s2", (1, 2), "alice", "a", token=token(1)) == first
    never = token(3, attempt=1, age_ms=30_000)
    world.put("s2", (1, 2), "alice", "c", token=never)
    assert world.get("s2", (1, 2), "alice") == "c"


def test_a_source_that_does_not_say_where_tokens_belong_is_not_trusted_to_be_complete(
    world: StorageWorld,
) -> None:
    """As older nodes do not: what they remember cannot be stored, and retries are refused."""
    partition = Partition(1, 7, 0, KEYSPACE_END, 1, "here")
    old = pb.RememberedWrite(client_id=CLIENT_ID, sequence=1)
    new = pb.RememberedWrite(client_id=CLIENT_ID, sequence=1, hash=5)
    assert from_wire(partition, [old], 0.0) == []
    assert len(from_wire(partition, [new], 0.0)) == 1


@pytest.mark.parametrize("restart", [False, True])
def test_the_memory_is_bounded_and_says_so(restart: bool) -> None:
    """I9: past the bound the oldest tokens go, and retries of their time are refused; after a
    restart too, while younger ones are answered.
    """
    world = StorageWorld()
    world.start("s1", writes=WriteConfig(tokens_max=2))
    world.open("s1")
    world.run_for(10)
    for number in range(4):
        world.put("s1", (1, 1), "alice", str(number), token=token(number))
        world.run_for(10)
    if restart:
        world.kill("s1")
        world.start("s1")
    old = token(0, attempt=1, age_ms=40_000)
    error = reason_of(lambda: world.put("s1", (1, 1), "alice", "0", token=old))
    assert error.reason is Reason.RETRY_NOT_COVERED
    assert not error.definite
    world.put("s1", (1, 1), "alice", "2", token=token(2, attempt=1, age_ms=20_000))
    assert world.get("s1", (1, 1), "alice") == "3"
    world.put("s1", (1, 1), "bob", "4", token=token(4, attempt=1, age_ms=10_000))
    assert world.get("s1", (1, 1), "bob") == "4"


def log_records(world: StorageWorld) -> int:
    return len(list(world.members["s1"].engine.scan(*log_keys())))


def test_forgotten_tokens_leave_the_disk(world: StorageWorld) -> None:
    """By the way of later writes, and by themselves where none come."""
    config = world.members["s1"].config.writes
    for number in range(200):
        world.put("s1", (1, 1), "alice", str(number), token=token(number))
    assert log_records(world) == 200
    world.run_for(config.token_age_s + 3)
    assert 0 < log_records(world) < 60
    for number in range(200, 220):
        world.put("s1", (1, 1), "alice", str(number), token=token(number))
    assert log_records(world) == 21
    late = token(1, attempt=1, age_ms=round(config.token_age_s * 1000))
    error = reason_of(lambda: world.put("s1", (1, 1), "alice", "1", token=late))
    assert error.reason is Reason.RETRY_NOT_COVERED


def test_time_that_a_node_is_down_only_makes_it_remember_longer(world: StorageWorld) -> None:
    """Its own running time is all it goes by, so nothing is taken to be older than it is."""
    config = world.members["s1"].config.writes
    first = world.put("s1", (1, 1), "alice", "a", token=token(1))
    world.put("s1", (1, 1), "alice", "b", token=token(2))
    for _ in range(3):
        world.kill("s1")
        world.run_for(config.token_age_s)
        world.start("s1")
        assert world.put("s1", (1, 1), "alice", "a", token=token(1)) == first
        assert world.get("s1", (1, 1), "alice") == "b"
    world.run_for(config.token_age_s + 3)
    assert len(world.node("s1").state.tokens.memory) == 0


def make_old(world: StorageWorld, engine: MemoryEngine) -> None:
    """As builds wrote it that kept tokens in memory only."""
    old = Batch()
    put_node(old, "s1", "test")
    record = records.NodeRecord.FromString(old.writes[NODE_RECORD] or b"")
    record.format = 1
    old.writes[NODE_RECORD] = record.SerializeToString()
    old.delete_ranges.append(log_keys())
    engine.use(world.clock)
    engine.commit(old, True, lambda _: None)
    world.run_for(1)


def test_data_of_older_builds_is_covered_since_it_was_first_opened(world: StorageWorld) -> None:
    world.put("s1", (1, 1), "alice", "a", token=token(1))
    world.put("s1", (1, 1), "alice", "b", token=token(2))
    world.kill("s1")
    make_old(world, world.members["s1"].engine)
    world.start("s1")
    assert world.get("s1", (1, 1), "alice") == "b"
    for _ in range(2):
        before = token(1, attempt=1, age_ms=30_000)
        error = reason_of(lambda before=before: world.put("s1", (1, 1), "alice", "a", token=before))
        assert error.reason is Reason.RETRY_NOT_COVERED
        world.run_for(10)
        since = token(3, attempt=1, age_ms=2_000)
        world.put("s1", (1, 1), "alice", "c", token=since)
        world.kill("s1")
        world.start("s1")
    assert world.get("s1", (1, 1), "alice") == "c"


def test_time_that_a_retry_waits_at_the_node_does_not_make_it_younger(world: StorageWorld) -> None:
    """Its age is of when it came, so that is what the memory has to reach back from."""
    op = pb.WriteOp(key=item_key("alice"), delete=True, token=token(1, attempt=1, age_ms=3000))
    write = read_write(op)
    covers_since = 100.0
    came = covers_since + 3.0 + COVER_MARGIN_S
    assert recall(write, None, None, covers_since, came + 0.1) is None
    for arrived_at in (came - 0.1, came - 2.0):
        error = reason_of(lambda at=arrived_at: recall(write, None, None, covers_since, at))
        assert error.reason is Reason.RETRY_NOT_COVERED


def test_a_retry_that_waited_at_a_fence_is_judged_by_when_it_came() -> None:
    """The target is gone; it takes a while until the source knows, and goes on alone."""
    world = StorageWorld()
    world.start("s1", writes=WriteConfig(tokens_max=1))
    world.start("s2")
    world.open("s1")
    world.run_for(20)
    world.put("s1", (1, 1), "alice", "a", token=token(1))
    world.put("s1", (1, 1), "bob", "b", token=token(2))
    # The first is forgotten: the memory is complete for what comes more than the margin from now.
    world.run_for(COVER_MARGIN_S - 0.2)
    world.kill_at("storage.move.fenced", "s2", by="s1")
    world.move("s1", (1, 1), "s2")
    world.run_until(lambda: not world.members["s2"].up)
    shard = world.node("s1").state.shards[1]
    assert shard.gate is not None
    retry = token(3, attempt=1, age_ms=0)
    error = reason_of(lambda: world.put("s1", (1, 1), "alice", "c", token=retry))
    assert world.clock.now() > 20 + COVER_MARGIN_S
    assert error.reason is Reason.RETRY_NOT_COVERED


def results(*times: float, first: int = 0) -> list[Remembered]:
    return [
        Remembered(bytes([first + number]), time, 1, False) for number, time in enumerate(times)
    ]


def filled(found: list[Remembered]) -> TokenMemory:
    memory = TokenMemory()
    for result in found:
        memory.remember(result)
    return memory


def known(memory: TokenMemory) -> list[float]:
    """When what it knows was done."""
    held = [result for part in memory.parts() for result in part]
    return sorted(result.done_at for result in held if memory.knows(result))


def test_coverage_ends_at_the_youngest_forgotten_write() -> None:
    memory = filled(results(10, 11, 12, 13))
    memory.forget(11.0)
    assert known(memory) == [12, 13]
    assert memory.forgotten_until == 11.0
    now = 20.0
    assert covers(11.0, now - 11.0 - COVER_MARGIN_S - 0.1, now)
    assert not covers(11.0, now - 11.0 - COVER_MARGIN_S + 0.1, now)


def test_the_oldest_go_whosever_they_are_and_all_of_their_moment() -> None:
    """Of those done here and of those that have arrived: a busy partition has what it needs."""
    memory = filled(results(2, 4, 6, 6, 8))
    memory.take(results(5, 1, 3, 7, first=100))
    assert known(memory) == [1, 2, 3, 4, 5, 6, 6, 7, 8]
    memory.shed(5)
    assert (known(memory), memory.forgotten_until) == ([5, 6, 6, 7, 8], 4)
    memory.shed(3)
    assert (known(memory), memory.forgotten_until) == ([7, 8], 6)
    memory.shed(2)
    assert (known(memory), memory.forgotten_until) == ([7, 8], 6)


def test_a_log_keeps_no_more_tokens_than_it_may() -> None:
    log = TokenLog(WriteConfig(tokens_max=8), VirtualClock())
    for result in results(*range(1, 12)):
        log.learn([result])
    log.arrived(results(0, 20, first=100))
    assert known(log.memory) == [5, 6, 7, 8, 9, 10, 11, 20]
    assert log.memory.forgotten_until == 4


def test_the_last_word_on_a_token_counts() -> None:
    memory = filled(results(1, 2))
    again = Remembered(bytes([0]), 3.0, 7, True)
    memory.remember(again)
    assert (known(memory), memory.find(bytes([0]))) == ([2, 3], again)
    memory.forget(1.0)
    assert known(memory) == [2, 3]


def test_what_is_dropped_does_not_count_until_it_arrives_again() -> None:
    memory = filled(results(1, 2, 3, 4))
    memory.take(results(9, first=1))
    memory.drop(bytes([1]), bytes([3]))
    assert known(memory) == [1, 4]
    assert memory.find(bytes([1])) is None
    memory.take(results(8, first=2))
    assert known(memory) == [1, 4, 8]
    memory.shed(0)
    assert (len(memory), memory.parts()) == (0, [])


def test_what_was_done_since_is_found_from_the_end() -> None:
    count = 2 * PART + 10
    memory = TokenMemory()
    for number in range(count):
        memory.remember(Remembered(number.to_bytes(4, "big"), float(number), number, False))
    late = [result.version for result in memory.since(float(PART - 1))]
    assert late == list(range(PART - 1, count))
    assert memory.since(float(count)) == []
    assert memory.newest == count - 1
    memory.forget(float(PART))
    assert sum(map(len, memory.parts())) == len(memory) == count - PART - 1


def test_a_move_takes_along_what_is_of_its_partition_and_no_more() -> None:
    """Of a memory of several parts, some of them with nothing of it."""
    world = StorageWorld()
    for name in ("s1", "s2"):
        world.start(name)
    world.open("s1")
    world.split("s1", (1, 1), MIDDLE, 2, 3)
    low, high = (
        "alice",
        next(name for name in map(str, range(100)) if item_key(name).hash >= MIDDLE),
    )
    if item_key(low).hash >= MIDDLE:
        low = next(name for name in map(str, range(100)) if item_key(name).hash < MIDDLE)
    world.put("s1", (2, 2), low, "a", token=token(1))
    for number in range(PART + 50):
        world.put("s1", (3, 2), high, "b", token=token(10 + number))
    world.put("s1", (2, 2), low, "b", token=token(2))
    world.move("s1", (2, 2), "s2")
    world.run_until(lambda: world.move("s1", (2, 2), "s2").phase == pb.MOVE_PHASE_DONE)
    assert len(world.node("s2").state.tokens.memory) == 2
    retry = token(1, attempt=1, age_ms=50)
    assert world.put("s2", (2, 3), low, "a", token=retry).version == 1
    assert world.get("s2", (2, 3), low) == "b"
