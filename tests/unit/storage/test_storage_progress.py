"""What a node knows of how far its partitions have come, after whatever happens to it."""

from __future__ import annotations

import random

import pytest
from storage_world import MIDDLE, StorageWorld, item_key, token

from keyplane.storage.v1 import storage_pb2 as pb
from storage.config import WriteConfig
from storage.layout import log_key, log_keys, progress_key
from storage.records import Progress, load_progress, put_progress
from wire.ports import Batch, EngineError

# Tokens are forgotten, and so records of the log are deleted, all the time.
SMALL = WriteConfig(tokens_max=12, token_age_s=20.0)

PARTITIONS = 6


def test_it_is_what_it_was_after_every_restart() -> None:
    for seed in range(12):
        _Walk(seed).run()


class _Walk:
    """A node with some partitions, of which most are seldom written to."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.world = StorageWorld(seed)
        self.world.start("s1", writes=SMALL)
        self.partitions = self.world.open("s1", PARTITIONS)
        self.sequence = 0
        self.ids = 100

    def run(self) -> None:
        steps = (self.write, self.write, self.write, self.wait, self.restart, self.split)
        for _ in range(120):
            self.rng.choices(steps, weights=(8, 8, 8, 2, 3, 1))[0]()
        self.restart()

    def write(self) -> None:
        name = f"n{int(self.rng.paretovariate(0.5)) % 200}"
        hash_ = item_key(name).hash
        partition = next(each for each in self.partitions if each.covers(hash_))
        where = partition.partition_id, partition.epoch
        options = {}
        if self.rng.random() < 0.8:
            self.sequence += 1
            options["token"] = token(self.sequence)
        if self.rng.random() < 0.3:
            self.world.delete("s1", where, name, **options)
        else:
            self.world.put("s1", where, name, "x" * self.rng.randrange(9), **options)

    def wait(self) -> None:
        self.world.run_for(self.rng.choice((0.1, 1.0, SMALL.token_age_s)))

    def split(self) -> None:
        partition = self.rng.choice(self.partitions)
        at = partition.start + (partition.end - partition.start) // 2
        where = partition.partition_id, partition.epoch
        answer = self.world.split("s1", where, at, self.ids, self.ids + 1)
        assert answer is not None
        self.ids += 2
        self.world.run_for(2)
        shards = self.world.node("s1").state.shards.values()
        self.partitions = [shard.partition for shard in shards]

    def restart(self) -> None:
        before = self.known()
        self.world.kill("s1")
        self.world.start("s1")
        # What a split has left uncounted, and was not written to since it was counted.
        self.world.run_for(3)
        assert self.known() == before
        assert all(count >= 0 for _, count, _, _ in before.values())

    def known(self) -> dict[int, tuple[int, int, int, bool]]:
        shards = self.world.node("s1").state.shards
        return {
            number: (shard.version, shard.items, shard.data_bytes, shard.counted)
            for number, shard in shards.items()
        }


@pytest.fixture
def world() -> StorageWorld:
    world = StorageWorld()
    world.start("s1", writes=SMALL)
    world.open("s1")
    world.split("s1", (1, 1), MIDDLE, 2, 3)
    return world


def _names(low: bool) -> list[str]:
    return [name for name in map(str, range(1000)) if (item_key(name).hash < MIDDLE) == low]


def test_a_record_that_goes_leaves_its_progress_behind(world: StorageWorld) -> None:
    """Of a partition that was written to once, while another one is all the time."""
    engine = world.members["s1"].engine
    world.put("s1", (2, 2), _names(low=True)[0], "x", token=token(1))
    assert load_progress(engine, 2).version == 0
    for number in range(40):
        world.put("s1", (3, 2), _names(low=False)[0], "y", token=token(10 + number))
        world.run_for(0.2)
    assert engine.get(log_key(1)) is None
    assert load_progress(engine, 2) == Progress(1, 1, world.node("s1").state.shards[2].data_bytes)


def test_a_batch_that_fails_settles_nothing(world: StorageWorld) -> None:
    """What it would have written under its own key is still to be written."""
    engine = world.members["s1"].engine
    names = _names(low=False)
    world.put("s1", (2, 2), _names(low=True)[0], "x", token=token(1))
    for number in range(11):
        world.put("s1", (3, 2), names[0], "y", token=token(10 + number))
        world.run_for(0.2)
    engine.fail_with = EngineError("no")
    for number in range(11, 16):
        with pytest.raises(Exception, match="write"):
            world.put("s1", (3, 2), names[0], "y", token=token(10 + number))
    engine.fail_with = None
    world.run_for(5)
    for number in range(20, 60):
        world.put("s1", (3, 2), names[0], "y", token=token(10 + number))
        world.run_for(0.2)
    assert load_progress(engine, 2).version == 1
    before = world.node("s1").state.shards[2].version
    world.kill("s1")
    world.start("s1")
    assert world.node("s1").state.shards[2].version == before


def test_versions_go_on_from_the_log_where_a_key_of_their_own_is_older(world: StorageWorld) -> None:
    name = _names(low=True)[0]
    for _ in range(3):
        world.put("s1", (2, 2), name, "x")
    engine = world.members["s1"].engine
    assert engine.get(progress_key(2)) is not None
    assert load_progress(engine, 2).version == 0
    world.kill("s1")
    world.start("s1")
    assert world.put("s1", (2, 2), name, "x").version == 4


def test_a_partition_that_comes_back_is_not_taken_for_what_it_was(world: StorageWorld) -> None:
    """The log still says how far it had come before it went."""
    world.start("s2")
    name = _names(low=True)[0]
    world.put("s1", (2, 2), name, "a", token=token(1))
    world.move("s1", (2, 2), "s2")
    world.run_until(lambda: world.move("s1", (2, 2), "s2").phase == pb.MOVE_PHASE_DONE)
    world.delete("s2", (2, 3), name, token=token(2))
    world.move("s2", (2, 3), "s1")
    world.run_until(lambda: world.move("s2", (2, 3), "s1").phase == pb.MOVE_PHASE_DONE)
    for _ in range(2):
        shard = world.node("s1").state.shards[2]
        assert (shard.version, shard.items) == (2, 0)
        world.kill("s1")
        world.start("s1")


def test_data_of_format_2_is_read(world: StorageWorld) -> None:
    """Its log says nothing of progress, which is under the partitions' own keys."""
    name = _names(low=True)[0]
    first = world.put("s1", (2, 2), name, "a", token=token(1))
    world.put("s1", (2, 2), name, "b", token=token(2))
    member = world.members["s1"]
    shard = world.node("s1").state.shards[2]
    old = Batch()
    for key, record in member.engine.scan(*log_keys()):
        if record[0] == 3:
            count = int.from_bytes(record[9:13], "big")
            old.writes[key] = bytes([1]) + record[1:9] + record[13 + 33 * count :]
    progress = shard.after(None)
    world.kill("s1")
    put_progress(old, 2, progress)
    member.engine.use(world.clock)
    member.engine.commit(old, True, lambda _: None)
    world.run_for(1)
    world.start("s1")
    assert world.node("s1").state.shards[2].after(None) == progress
    assert world.put("s1", (2, 2), name, "a", token=token(1, attempt=1)) == first
    assert world.put("s1", (2, 2), name, "c").version == 3
