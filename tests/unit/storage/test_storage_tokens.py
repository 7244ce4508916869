"""Retrying a write without doing it twice."""

from __future__ import annotations

import pytest
from storage_world import MIDDLE, StorageWorld, item_key, reason_of, token

from keyplane.data.v1 import data_pb2 as data
from keyplane.model.errors import Reason
from keyplane.storage.v1 import storage_pb2 as pb
from storage.config import WriteConfig
from storage.tokens import COVER_MARGIN_S, Remembered, TokenBudget, TokenMemory


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


def test_after_a_restart_what_nothing_explains_is_refused_not_guessed(world: StorageWorld) -> None:
    world.put("s1", (1, 1), "alice", "a", token=token(1))
    world.put("s1", (1, 1), "alice", "b", token=token(2))
    world.kill("s1")
    world.start("s1")
    retry = token(1, attempt=1, age_ms=50)
    error = reason_of(lambda: world.put("s1", (1, 1), "alice", "a", token=retry))
    assert error.reason is Reason.RETRY_NOT_COVERED
    assert not error.definite
    assert world.get("s1", (1, 1), "alice") == "b"
    world.put("s1", (1, 1), "alice", "c", token=token(3))


def test_a_late_copy_of_a_first_attempt_is_recognized_by_the_item(world: StorageWorld) -> None:
    first = world.put("s1", (1, 1), "alice", "a", token=token(1))
    world.kill("s1")
    world.start("s1")
    assert world.put("s1", (1, 1), "alice", "a", token=token(1)).version == first.version


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


def test_the_memory_travels_with_splits_merges_and_moves(world: StorageWorld) -> None:
    world.start("s2")
    first = world.put("s1", (1, 1), "alice", "a", token=token(1))
    world.put("s1", (1, 1), "alice", "b", token=token(2))

    def retry(name: str, where: tuple[int, int]) -> pb.WriteResult:
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


def test_the_memory_is_bounded_and_says_so() -> None:
    """I9: past the bound old tokens go, and retries of their time are refused."""
    world = StorageWorld()
    world.start("s1", writes=WriteConfig(partition_tokens_max=2))
    world.open("s1")
    world.run_for(10)
    for number in range(4):
        world.put("s1", (1, 1), "alice", str(number), token=token(number))
        world.run_for(1)
    old = token(0, attempt=1, age_ms=4000)
    error = reason_of(lambda: world.put("s1", (1, 1), "alice", "0", token=old))
    assert error.reason is Reason.RETRY_NOT_COVERED
    world.put("s1", (1, 1), "alice", "2", token=token(2, attempt=1, age_ms=2000))
    assert world.get("s1", (1, 1), "alice") == "3"


def test_coverage_ends_at_the_youngest_forgotten_write() -> None:
    memory = TokenMemory(0.0, TokenBudget(total=100, each_max=2))
    for second in range(10, 14):
        memory.remember(bytes([second]), Remembered(float(second), second, False))
    assert len(memory) == 2
    assert memory.covers_since == 11.0
    now = 20.0
    assert memory.covers(now - 11.0 - COVER_MARGIN_S - 0.1, now)
    assert not memory.covers(now - 11.0 - COVER_MARGIN_S + 0.1, now)


def test_partitions_share_the_nodes_bound_on_tokens() -> None:
    budget = TokenBudget(total=10, each_max=8)
    memory = TokenMemory(0.0, budget)
    for number in range(8):
        memory.remember(bytes([number]), Remembered(float(number), number, False))
    budget.share_among(5)
    memory.remember(b"x", Remembered(9.0, 9, False))
    assert [token for token, _ in memory] == [b"\x07", b"x"]


def test_what_was_done_since_is_found_from_the_end() -> None:
    memory = TokenMemory(1.0, TokenBudget(total=100, each_max=100))
    for number in range(2, 6):
        memory.remember(bytes([number]), Remembered(float(number), number, False))
    assert [token for token, _ in memory.since(4.0)] == [b"\x04", b"\x05"]
    assert memory.since(6.0) == []
