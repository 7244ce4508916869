"""What outlives a process: a storage node's engine, and the Metadata Store's database."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from sim_world import booted

from keyplane.catalog.v1 import catalog_pb2 as catalog
from keyplane.model.errors import KeyplaneError, Reason
from metadata.catalog import Catalog
from metadata.change import Change, Counters
from metadata.memory import FragileDatabase, MemoryDatabase
from metadata.records import KeyAttribute, TableRecord
from sim.ledger import SimLedger, Trouble
from sim.process import SimProcess
from sim.scheduler import Scheduler
from storage.memory import MemoryEngine
from wire.ports import Batch, EngineError

NO_SPACE = EngineError("no space left on device")


class Machine:
    """A disk, and one life after another of a process that writes it."""

    def __init__(self, commit_s: float = 0.0) -> None:
        self.scheduler = Scheduler()
        self.process = SimProcess(self.scheduler, "storage-1", 1)
        self.engine = MemoryEngine(self.process.clock, commit_s)

    def commit(self, *keys: bytes, sync: bool = False) -> EngineError | None:
        ended: list[EngineError | None] = []
        self.engine.commit(Batch(dict.fromkeys(keys, b"")), sync, ended.append)
        self.scheduler.run_until(self.scheduler.now + 1.0)
        (error,) = ended
        return error

    def crash(self, power: bool = False) -> None:
        self.process.kill()
        if power:
            self.engine.power_loss()
        else:
            self.engine.crash()
        self.process = SimProcess(self.scheduler, "storage-1", self.process.life + 1)
        self.engine.use(self.process.clock)

    @property
    def keys(self) -> list[bytes]:
        return [key for key, _ in self.engine.scan(b"", b"\xff")]


def test_a_killed_process_keeps_what_was_written_and_a_machine_what_was_synced() -> None:
    machine = Machine()
    machine.commit(b"a", sync=True)
    machine.commit(b"b")
    machine.crash()
    assert machine.keys == [b"a", b"b"]
    machine.crash(power=True)
    assert machine.keys == [b"a"]


def test_a_sync_makes_everything_before_it_durable_too() -> None:
    machine = Machine()
    machine.commit(b"a")
    machine.commit(b"b", sync=True)
    machine.commit(b"c")
    machine.crash(power=True)
    assert machine.keys == [b"a", b"b"]


def test_what_was_being_committed_when_the_process_died_is_gone() -> None:
    machine = Machine(commit_s=1.0)
    machine.engine.commit(Batch({b"a": b""}), True, lambda _: pytest.fail("it is dead"))
    machine.scheduler.run_until(0.5)
    machine.crash()
    machine.scheduler.run_until(5.0)
    assert machine.keys == []


def test_the_next_life_does_not_wait_for_the_commits_of_the_last() -> None:
    machine = Machine(commit_s=1.0)
    for _ in range(10):
        machine.engine.commit(Batch({b"a": b""}), True, lambda _: pytest.fail("it is dead"))
    machine.crash()
    assert machine.commit(b"b") is None


def test_a_failed_batch_leaves_no_trace() -> None:
    machine = Machine()
    machine.engine.fail_with = NO_SPACE
    assert machine.commit(b"a", sync=True) is NO_SPACE
    machine.engine.fail_with = None
    assert machine.commit(b"b") is None
    machine.crash()
    assert machine.keys == [b"b"]


def test_a_failed_batch_that_is_kept_comes_back_with_the_next_process() -> None:
    """What a write error leaves on disk nobody knows, until somebody reads it."""
    machine = Machine()
    machine.commit(b"a")
    machine.engine.fail_with, machine.engine.keeps_failed = NO_SPACE, 1
    assert machine.commit(b"b", b"c") is NO_SPACE
    assert machine.keys == [b"a"]
    machine.crash()
    assert machine.keys == [b"a", b"b", b"c"]


def test_a_failed_batch_that_is_kept_goes_with_the_power() -> None:
    machine = Machine()
    machine.commit(b"a", sync=True)
    machine.engine.fail_with, machine.engine.keeps_failed = NO_SPACE, 1
    machine.commit(b"b", sync=True)
    machine.crash(power=True)
    assert machine.keys == [b"a"]


def test_a_failed_batch_comes_back_beneath_what_was_written_after_it() -> None:
    """In the order of the log: a later write of the same key wins."""
    machine = Machine()
    machine.engine.fail_with, machine.engine.keeps_failed = NO_SPACE, 1
    machine.engine.commit(Batch({b"a": b"failed"}), True, lambda _: None)
    machine.scheduler.run_until(1.0)
    machine.engine.fail_with = None
    machine.engine.commit(Batch({b"a": b"written"}), True, lambda _: None)
    machine.scheduler.run_until(2.0)
    machine.crash()
    assert machine.engine.get(b"a") == b"written"


# --- the database -------------------------------------------------------------------------------


@pytest.fixture
def database() -> Iterator[MemoryDatabase]:
    database = MemoryDatabase()
    yield database
    database.discard()


def table(name: str, table_id: int = 1) -> Change:
    record = TableRecord(
        table_id=table_id,
        name=name,
        partition_key=KeyAttribute("id", catalog.SCALAR_TYPE_STRING),
        sort_key=None,
        hash_seed=7,
        durability=catalog.DURABILITY_PROCESS,
        capacity_mode=catalog.CAPACITY_MODE_UNLIMITED,
        provisioned=None,
        state=catalog.TABLE_STATE_ACTIVE,
        map_version=1,
        created_at=0.0,
    )
    return Change(Counters(table_id=table_id + 1), tables=(record,))


def names(found: Catalog | KeyplaneError | None) -> list[str]:
    assert isinstance(found, Catalog)
    return sorted(record.name for record in found.tables.values())


def test_a_change_outlives_the_store_that_made_it(database: MemoryDatabase) -> None:
    first = database.open()
    assert names(first.open()) == []
    first.write(table("orders"))
    assert names(database.open().open()) == ["orders"]


def test_a_store_that_was_followed_by_another_changes_nothing_any_more(
    database: MemoryDatabase,
) -> None:
    first, second = database.open(), database.open()
    first.open()
    second.open()
    with pytest.raises(KeyplaneError):
        first.write(table("orders"))
    assert names(database.open().open()) == []


@pytest.mark.parametrize("made", [False, True])
def test_a_commit_that_broke_off_is_settled_by_looking(
    database: MemoryDatabase, made: bool
) -> None:
    """The error is the same either way and indefinite. Looking says which; writes work again."""
    store = database.open()
    store.open()
    with pytest.raises(KeyplaneError) as raised:
        store.write_untold(table("orders"), made)
    assert (raised.value.reason, raised.value.definite) == (Reason.DATABASE_ERROR, False)
    settled = store.settle()
    if made:
        assert names(settled) == ["orders"]
    else:
        assert settled is None
    store.write(table("users", 2))
    assert names(database.open().open()) == ["orders", "users"][not made :]


def test_a_discarded_database_is_refused(database: MemoryDatabase) -> None:
    other = MemoryDatabase()
    other.discard()
    with pytest.raises(ValueError, match="discarded"):
        other.open()


def test_a_database_is_empty_whoever_used_its_memory_before() -> None:
    for name in ("orders", "users"):
        database = MemoryDatabase()
        store = database.open()
        assert names(store.open()) == []
        store.write(table(name))
        database.discard()


def test_two_databases_at_once_do_not_share_anything(database: MemoryDatabase) -> None:
    other = MemoryDatabase()
    first, second = database.open(), other.open()
    first.open()
    second.open()
    first.write(table("orders"))
    second.write(table("users"))
    assert names(database.open().open()) == ["orders"]
    assert names(other.open().open()) == ["users"]
    other.discard()


class Store:
    """A ledger in virtual time, and what it said."""

    def __init__(self, database: FragileDatabase, seed: int = 1) -> None:
        self.scheduler = Scheduler()
        self.process = SimProcess(self.scheduler, "metadata", 1)
        self.trouble = Trouble()
        self.ledger = SimLedger(self.process.clock, database, random.Random(seed), self.trouble)
        self.said: list[object] = []
        self.ledger.open(self.said.append)
        self.wait()

    def wait(self, seconds: float = 5.0) -> None:
        self.scheduler.run_until(self.scheduler.now + seconds)

    def commit(self, change: Change) -> object:
        self.ledger.commit(change, self.said.append)
        self.wait()
        return self.said[-1]


def test_a_failing_database_makes_some_changes_and_not_others(database: MemoryDatabase) -> None:
    """A broken connection does not say. The store finds out by settling, change after change."""
    store = Store(database.open())
    store.trouble.failing = True
    made: list[str] = []
    for number in range(1, 13):
        error = store.commit(table(f"table-{number}", number))
        assert isinstance(error, KeyplaneError)
        assert error.reason is Reason.DATABASE_ERROR
        store.ledger.settle(store.said.append)
        store.wait()
        if store.said[-1] is not None:
            made.append(f"table-{number}")
    assert 0 < len(made) < 12
    store.trouble.failing = False
    assert store.commit(table("last", 99)) is None
    assert names(database.open().open()) == sorted([*made, "last"])


def test_a_late_database_takes_its_time_for_every_call(database: MemoryDatabase) -> None:
    store = Store(database.open())
    store.trouble.lag_s = 3.0
    store.ledger.commit(table("orders"), store.said.append)
    store.wait(2.9)
    assert len(store.said) == 1
    store.wait(0.2)
    assert store.said[1:] == [None]


@pytest.mark.parametrize(("dies_at", "made"), [(0.0005, False), (0.0015, True)])
def test_a_store_that_dies_around_its_commit_leaves_it_made_or_not(
    database: MemoryDatabase, dies_at: float, made: bool
) -> None:
    """And either way nobody has been told."""
    store = Store(database.open())
    store.ledger.commit(table("orders"), lambda _: pytest.fail("it is dead"))
    store.scheduler.after(dies_at, store.process.kill)
    store.wait()
    assert names(database.open().open()) == ["orders"] * made


def test_two_worlds_one_after_the_other_do_not_share_data() -> None:
    """Not the database, not memcached, not the storage nodes' engines."""
    terms: list[int] = []
    for _ in range(2):
        with booted() as world:
            terms.append(world.metadata.core.catalog.term)
            assert world.metadata.core.catalog.tables == {}
            assert [
                name for name in world.memcached if "probe" in world.memcached[name].values
            ] == []
            engine = world.storage("storage-1").engine
            assert engine.get(b"probe") is None
            engine.commit(Batch({b"probe": b""}), True, lambda _: None)
            world.memcached["memds-1"].store({"probe": b""})
            world.run_for(1.0)
    assert terms == [1, 1]
