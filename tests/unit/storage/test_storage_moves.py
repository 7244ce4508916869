"""Moving a partition while it is written to, with either end dying after any persisted step."""

from __future__ import annotations

import pytest
from storage_load import Load
from storage_world import MIDDLE, TABLE, StorageWorld, item, item_key, reason_of

import storage.changes
import storage.move_source
import storage.move_target  # noqa: F401  declares crash points
from keyplane.catalog.v1 import catalog_pb2 as catalog
from keyplane.model.errors import KeyplaneError, Reason
from keyplane.route.v1.route_pb2 import RouteHint
from keyplane.storage.v1 import storage_pb2 as pb
from storage.config import MoveConfig
from storage.ownership import State
from wire import crashpoints
from wire.ports import Reply

SOURCE_POINTS = sorted(
    {
        "storage.move.started",
        "storage.move.snapshot_sent",
        "storage.move.fenced",
        "storage.move.handover",
        "storage.move.answered",
        "storage.move.retired",
    }
)
TARGET_POINTS = sorted(
    {"storage.move.prepared", "storage.move.confirmed", "storage.move.activated"}
)
ENDED = (pb.MOVE_PHASE_DONE, pb.MOVE_PHASE_ABORTED)


@pytest.fixture
def world() -> StorageWorld:
    world = StorageWorld()
    for name in ("s1", "s2"):
        world.start(name, moves=MoveConfig(chunk_bytes=2_000, fence_lag_writes=8))
    world.open("s1")
    for number in range(200):
        world.put("s1", (1, 1), f"old-{number}", "x" * 50)
    return world


def finish(world: StorageWorld, source: str = "s1", target: str = "s2") -> pb.MovePartitionResponse:
    """As the Metadata Store: calls until the move has ended, whoever is down meanwhile."""
    answers: list[pb.MovePartitionResponse] = []

    def poll() -> bool:
        try:
            answers.append(world.move(source, (1, 1), target))
        except KeyplaneError as error:
            assert error.retryable, error
        else:
            if answers[-1].phase in ENDED:
                return True
        world.run_for(0.1)
        return False

    for _ in range(300):
        if poll():
            return answers[-1]
    raise AssertionError(f"the move does not end: {answers[-1] if answers else None}")


def test_a_move_under_load_loses_nothing(world: StorageWorld) -> None:
    load = Load(world)
    world.run_for(0.5)
    outcome = finish(world)
    assert outcome.phase == pb.MOVE_PHASE_DONE
    assert outcome.items_sent > 200
    assert 0 < outcome.fence_ms < 100
    assert [(name, each.epoch) for name, each in world.served()] == [("s2", 2)]
    world.run_for(0.5)
    load.stop()
    world.run_for(2)
    load.verify()
    assert world.get("s2", (1, 2), "old-7") == "x" * 50


def test_after_a_move_the_source_redirects_and_then_lets_go(world: StorageWorld) -> None:
    finish(world)
    hint = reason_of(lambda: world.get("s1", (1, 1), "old-1")).detail(RouteHint)
    assert hint is not None
    assert [(each.leader, each.epoch) for each in hint.partitions] == [("s2", 2)]
    assert [each.address for each in hint.nodes] == ["s2:1"]
    release = pb.ReleaseMovedRequest(operation_id="move", partition_id=1)
    for _ in range(2):
        world.call("s1", "ReleaseMoved", release)
    assert list(world.members["s1"].engine.scan(b"\x02", b"\x03")) == []
    assert reason_of(lambda: world.get("s1", (1, 1), "old-1")).reason is Reason.STALE_ROUTE


def test_a_partition_can_come_back_before_its_old_data_was_released(world: StorageWorld) -> None:
    finish(world)
    world.put("s2", (1, 2), "new", "n")
    back = pb.MovePartitionRequest(
        operation_id="back",
        partition_id=1,
        epoch=2,
        target=catalog.Node(node_id="s1", address="s1:1"),
    )
    world.run_until(lambda: world.call("s2", "MovePartition", back).phase == pb.MOVE_PHASE_DONE)
    world.call("s1", "ReleaseMoved", pb.ReleaseMovedRequest(operation_id="move", partition_id=1))
    assert world.get("s1", (1, 3), "new") == "n"
    assert world.get("s1", (1, 3), "old-1") == "x" * 50


def test_releasing_spares_what_has_come_back_in_pieces(world: StorageWorld) -> None:
    finish(world)
    world.split("s2", (1, 2), MIDDLE, 2, 3)
    back = pb.MovePartitionRequest(
        operation_id="back",
        partition_id=2,
        epoch=3,
        target=catalog.Node(node_id="s1", address="s1:1"),
    )
    world.run_until(lambda: world.call("s2", "MovePartition", back).phase == pb.MOVE_PHASE_DONE)
    world.call("s1", "ReleaseMoved", pb.ReleaseMovedRequest(operation_id="move", partition_id=1))
    left = [f"old-{n}" for n in range(200) if item_key(f"old-{n}").hash < MIDDLE]
    assert all(world.get("s1", (2, 4), name) for name in left)
    assert len(list(world.members["s1"].engine.scan(b"\x02", b"\x03"))) == len(left)


@pytest.mark.parametrize("victim", ["s1", "s2"])
@pytest.mark.parametrize("point", SOURCE_POINTS + TARGET_POINTS)
def test_a_move_survives_the_death_of_either_end(
    world: StorageWorld, point: str, victim: str
) -> None:
    """I1, I2, I8: it finishes or aborts, nothing acknowledged is lost, one node owns each key."""
    assert point in crashpoints.POINTS
    load = Load(world)
    world.run_for(0.2)
    world.kill_at(point, victim, by="s1" if point in SOURCE_POINTS else "s2")
    world.move("s1", (1, 1), "s2")
    world.run_until(lambda: not world.members[victim].up)
    world.run_for(1.0)
    world.start(victim)
    outcome = finish(world)
    world.run_for(1.0)
    load.stop()
    world.run_for(3)
    load.verify()
    owner = "s2" if outcome.phase == pb.MOVE_PHASE_DONE else "s1"
    assert [name for name, _ in world.served()] == [owner]
    past_return = point in (
        "storage.move.handover",
        "storage.move.activated",
        "storage.move.answered",
        "storage.move.retired",
    )
    if past_return or victim == "s1":
        assert outcome.phase == pb.MOVE_PHASE_DONE
    world.run_for(120)
    states = [each.state for each in world.members["s2"].node.state.ownership]
    assert states == ([State.SERVING] if owner == "s2" else [])


@pytest.mark.parametrize("victim", ["s1", "s2"])
@pytest.mark.parametrize("point", SOURCE_POINTS + TARGET_POINTS)
def test_a_move_between_synced_tables_survives_power_loss(point: str, victim: str) -> None:
    """I2 at the level `power`: what the target confirmed is on its disk, not in its memory."""
    table = catalog.Table()
    table.CopyFrom(TABLE)
    table.durability = catalog.DURABILITY_POWER
    world = StorageWorld()
    for name in ("s1", "s2"):
        world.start(name, moves=MoveConfig(chunk_bytes=2_000, fence_lag_writes=8))
    world.open("s1", table=table)
    load = Load(world)
    world.run_for(0.2)
    world.kill_at(point, victim, by="s1" if point in SOURCE_POINTS else "s2")
    world.move("s1", (1, 1), "s2")
    world.run_until(lambda: not world.members[victim].up)
    world.members[victim].engine.power_loss()
    world.run_for(1.0)
    world.start(victim)
    finish(world)
    load.stop()
    world.run_for(3)
    load.verify()


@pytest.mark.parametrize("point", ["storage.split.persisted", "storage.merge.persisted"])
def test_splits_and_merges_survive_a_crash(world: StorageWorld, point: str) -> None:
    load = Load(world)
    world.run_for(0.2)

    def insist(method: str, request: object) -> None:
        for _ in range(3):
            try:
                world.call("s1", method, request)
                return
            except KeyplaneError as error:
                assert error.retryable, error
                if not world.members["s1"].up:
                    world.start("s1")
        raise AssertionError("it does not end")

    world.kill_at(point, "s1", by="s1")
    split = pb.SplitPartitionRequest(
        operation_id="split", partition_id=1, epoch=1, split_hash=MIDDLE, left_id=2, right_id=3
    )
    insist("SplitPartition", split)
    world.run_for(0.2)
    merge = pb.MergePartitionsRequest(
        operation_id="merge", left_id=2, left_epoch=2, right_id=3, right_epoch=2, merged_id=4
    )
    insist("MergePartitions", merge)
    world.run_for(0.5)
    load.stop()
    world.run_for(3)
    load.verify()
    assert [each.partition_id for _, each in world.served()] == [4]


def test_a_target_that_stays_silent_ends_the_fence_in_time(world: StorageWorld) -> None:
    """Writes wait no longer than the fence may last, and are then carried out at the source."""
    load = Load(world)
    world.run_for(0.2)

    def vanish() -> None:
        crashpoints.disarm()
        world.kill("s2")

    crashpoints.arm("storage.move.fenced", vanish)
    outcome = finish(world)
    assert outcome.phase == pb.MOVE_PHASE_ABORTED
    assert outcome.reason in ("NODE_UNREACHABLE", "NODE_UNAVAILABLE")
    load.stop()
    world.run_for(3)
    load.verify()


def test_during_the_fence_reads_go_on_and_writes_wait(world: StorageWorld) -> None:
    """The target has vanished, so the fence lasts until it is lifted again."""
    fenced: list[bool] = []

    def vanish() -> None:
        crashpoints.disarm()
        world.kill("s2")
        fenced.append(True)

    crashpoints.arm("storage.move.fenced", vanish)
    world.move("s1", (1, 1), "s2")
    world.run_until(lambda: bool(fenced))
    began = world.clock.now()
    assert world.get("s1", (1, 1), "old-1") == "x" * 50
    assert world.clock.now() - began < 0.01
    world.put("s1", (1, 1), "old-1", "y")
    assert 0.1 < world.clock.now() - began < 2.1
    assert world.get("s1", (1, 1), "old-1") == "y"


def test_what_cannot_wait_for_the_end_of_the_fence_is_refused(world: StorageWorld) -> None:
    """I9: past its bound a fenced partition sheds, and the refusal is definite."""
    waiting: list[Reply] = []

    def crowd() -> None:
        crashpoints.disarm()
        world.kill("s2")
        for number in range(1_200):
            write = pb.WriteOp(key=item_key(f"new-{number}"), put=item(f"new-{number}", "n"))
            request = pb.ExecuteRequest(partition_id=1, epoch=1, write=write)
            world.send("s1", "Execute", request, waiting.append)

    crashpoints.arm("storage.move.fenced", crowd)
    finish(world)
    world.run_for(3)
    refused = [reply.error for reply in waiting if reply.error is not None]
    assert len(waiting) == 1_200
    assert {error.reason for error in refused} == {Reason.NOT_SERVING}
    assert len(refused) == 200


def test_a_move_ends_even_if_writes_come_as_fast_as_they_are_sent(world: StorageWorld) -> None:
    """More than the fence's lag arrives with every round trip; in the end it fences regardless."""
    world.start("s3", moves=MoveConfig(fence_lag_writes=1))
    world.network.latency_s = 0.01
    world.move("s1", (1, 1), "s3")
    world.run_until(lambda: world.move("s1", (1, 1), "s3").phase == pb.MOVE_PHASE_DONE)
    load = Load(world, writers=50)
    back = pb.MovePartitionRequest(
        operation_id="back",
        partition_id=1,
        epoch=2,
        target=catalog.Node(node_id="s1", address="s1:1"),
    )
    phase = 0
    while phase not in ENDED:
        phase = world.call("s3", "MovePartition", back).phase
    assert phase == pb.MOVE_PHASE_DONE
    load.stop()
    world.run_for(3)
    load.verify()


def test_cancelling_gives_up_before_the_point_of_no_return(world: StorageWorld) -> None:
    world.move("s1", (1, 1), "s2")
    cancel = pb.CancelMoveRequest(operation_id="move", partition_id=1)
    assert world.call("s1", "CancelMove", cancel).phase == pb.MOVE_PHASE_ABORTED
    world.run_for(2)
    assert finish(world).reason == "CANCELLED", "a repeated call does not start it again"
    world.kill("s1")
    world.start("s1")
    assert finish(world).reason == "CANCELLED", "nor after a restart"
    assert not list(world.members["s2"].node.state.ownership)
    assert world.get("s1", (1, 1), "old-1")


def test_a_start_that_its_cancelling_has_overtaken_starts_nothing(world: StorageWorld) -> None:
    """Who cancelled it believes that it is over, and would not commit what it moved."""
    cancel = pb.CancelMoveRequest(operation_id="move", partition_id=1)
    assert world.call("s1", "CancelMove", cancel).phase == pb.MOVE_PHASE_ABORTED
    assert world.move("s1", (1, 1), "s2").reason == "CANCELLED"
    assert world.move("s1", (1, 1), "s2", "another").phase != pb.MOVE_PHASE_ABORTED


def test_cancelling_after_it_is_too_late(world: StorageWorld) -> None:
    finish(world)
    cancel = pb.CancelMoveRequest(operation_id="move", partition_id=1)
    assert world.call("s1", "CancelMove", cancel).phase == pb.MOVE_PHASE_DONE


def test_a_target_that_has_lost_an_item_does_not_confirm(world: StorageWorld) -> None:
    """The digest is compared before anything is handed over."""
    target = world.members["s2"]

    def lose() -> None:
        crashpoints.disarm()
        arrival = target.node._target._arrivals[1]
        key, value = next(target.engine.scan(b"\x02", b"\x03"))
        arrival.digest.remove(key, value)

    crashpoints.arm("storage.move.snapshot_sent", lose)
    outcome = finish(world)
    assert outcome.phase == pb.MOVE_PHASE_ABORTED
    assert outcome.reason == "DIGEST_MISMATCH"
    world.run_for(2)
    assert list(target.engine.scan(b"\x02", b"\x03")) == []
    assert world.get("s1", (1, 1), "old-1")


def test_late_messages_of_an_older_attempt_touch_nothing(world: StorageWorld) -> None:
    """A second attempt is under way at the target when the first one's messages arrive."""
    partition = pb.PrepareMoveRequest(
        operation_id="move",
        table=TABLE,
        run=2,
        source=catalog.Node(node_id="s1", address="s1:1"),
        partition=world.served()[0][1].to_proto(),
    )
    partition.partition.epoch = 2
    partition.partition.leader = "s2"
    partition.partition.replicas[:] = ["s2"]
    world.call("s2", "PrepareMove", partition)
    older = pb.PrepareMoveRequest()
    older.CopyFrom(partition)
    older.run = 1
    assert reason_of(lambda: world.call("s2", "PrepareMove", older)).reason is (
        Reason.ILLEGAL_TRANSITION
    )
    world.call(
        "s2", "AbandonMove", pb.AbandonMoveRequest(operation_id="move", partition_id=1, run=1)
    )
    entries = pb.ReceiveItemsRequest(operation_id="move", partition_id=1, run=1, chunk=1)
    refused = reason_of(lambda: world.call("s2", "ReceiveItems", entries))
    assert refused.reason is Reason.ILLEGAL_TRANSITION
    entries.run = 2
    world.call("s2", "ReceiveItems", entries)


def test_moves_that_cannot_be_are_refused(world: StorageWorld) -> None:
    def reason(where: tuple[int, int], target: str) -> Reason:
        return reason_of(lambda: world.move("s1", where, target, "other")).reason

    assert reason((1, 1), "s1") is Reason.INVALID_ARGUMENT
    assert reason((1, 2), "s2") is Reason.STALE_ROUTE
    assert reason((9, 1), "s2") is Reason.PARTITION_NOT_FOUND
    world.move("s1", (1, 1), "s2")
    assert reason((1, 1), "s2") is Reason.PARTITION_BUSY
    busy = reason_of(lambda: world.split("s1", (1, 1), MIDDLE, 2, 3))
    assert busy.reason is Reason.PARTITION_BUSY


def test_a_dead_target_aborts_the_move(world: StorageWorld) -> None:
    world.kill("s2")
    outcome = finish(world)
    assert (outcome.phase, outcome.reason) == (pb.MOVE_PHASE_ABORTED, "NODE_UNREACHABLE")
    assert world.get("s1", (1, 1), "old-1")


@pytest.mark.parametrize("seed", range(10))
def test_a_target_that_is_back_within_seconds_does_not_abort_the_move(seed: int) -> None:
    """However the jitter falls: a restarted process takes about a second to be reached again."""
    world = StorageWorld(seed)
    for name in ("s1", "s2"):
        world.start(name)
    world.open("s1")
    world.kill("s2")
    world.move("s1", (1, 1), "s2")
    world.run_for(2)
    world.start("s2")
    assert finish(world).phase == pb.MOVE_PHASE_DONE


def test_dropping_a_table_ends_its_move(world: StorageWorld) -> None:
    world.move("s1", (1, 1), "s2")
    drop = pb.DropTableRequest(operation_id="drop", table_id=TABLE.table_id, name=TABLE.name)
    for name in ("s1", "s2"):
        world.call(name, "DropTable", drop)
    world.run_for(5)
    for name in ("s1", "s2"):
        assert not world.members[name].node._moves
        assert list(world.members[name].engine.scan(b"\x02", b"\x03")) == []
        assert reason_of(lambda name=name: world.get(name, (1, 1), "x")).reason in (
            Reason.TABLE_NOT_FOUND,
            Reason.STALE_ROUTE,
        )


def test_a_source_that_fell_silent_is_forgotten_unless_it_had_been_confirmed(
    world: StorageWorld,
) -> None:
    world.kill_at("storage.move.snapshot_sent", "s1", by="s1")
    world.move("s1", (1, 1), "s2")
    world.run_until(lambda: not world.members["s1"].up)
    world.run_for(1)
    assert [each.state for each in world.members["s2"].node.state.ownership] == [State.INCOMING]
    world.run_for(120)
    assert not list(world.members["s2"].node.state.ownership)
    assert list(world.members["s2"].engine.scan(b"\x02", b"\x03")) == []
