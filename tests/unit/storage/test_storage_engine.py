"""The Engine port, kept alike by RocksDB and by memory."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from storage.engine import BACKGROUND_NICENESS, RocksEngine
from storage.memory import MemoryEngine
from wire.memory import VirtualClock
from wire.ports import Batch, Engine, EngineError


class Bench:
    """An engine, and a thread of control for its callbacks."""

    def __init__(self, make: Callable[[Bench], Engine]) -> None:
        self.clock = VirtualClock()
        self._posted: list[Callable[[], None]] = []
        self._arrived = threading.Condition()
        self.engine = make(self)

    def post(self, callback: Callable[[], None]) -> None:
        with self._arrived:
            self._posted.append(callback)
            self._arrived.notify()

    def commit(self, batch: Batch, sync: bool = False) -> None:
        done: list[EngineError | None] = []
        self.engine.commit(batch, sync, done.append)
        assert not done, "never inside the call"
        self.run_until(lambda: bool(done))
        assert done == [None]

    def run_until(self, done: Callable[[], bool]) -> None:
        while not done():
            if not self.clock.step():
                with self._arrived:
                    assert self._arrived.wait_for(lambda: bool(self._posted), timeout=30)
                    callback = self._posted.pop(0)
                callback()

    def all(self) -> list[tuple[bytes, bytes]]:
        return list(self.engine.scan(b"", b"\xff"))


@pytest.fixture(params=["rocksdb", "memory"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    if request.param == "rocksdb":
        bench = Bench(lambda bench: RocksEngine(tmp_path / "db", bench.clock, bench.post))
    else:
        bench = Bench(lambda bench: MemoryEngine(bench.clock))
    yield bench
    bench.engine.close()


def filled(bench: Bench) -> Bench:
    bench.commit(Batch({key: key.upper() for key in (b"a", b"b", b"c", b"d")}))
    return bench


@pytest.mark.parametrize("sync", [False, True])
def test_a_batch_becomes_visible_whole(bench: Bench, sync: bool) -> None:
    filled(bench)
    bench.commit(Batch({b"a": b"2", b"b": None, b"e": b""}), sync)
    assert bench.engine.get(b"a") == b"2"
    assert bench.engine.get(b"b") is None
    assert bench.engine.get(b"e") == b""


def test_scans_are_half_open_and_run_both_ways(bench: Bench) -> None:
    filled(bench)
    keys = [key for key, _ in bench.engine.scan(b"b", b"d")]
    assert keys == [b"b", b"c"]
    assert [key for key, _ in bench.engine.scan(b"b", b"d", backward=True)] == [b"c", b"b"]
    assert list(bench.engine.scan(b"d", b"b")) == []


def test_deleted_ranges_come_before_the_writes_of_their_batch(bench: Bench) -> None:
    filled(bench)
    bench.commit(Batch({b"b": b"new"}, [(b"a", b"c")]))
    assert bench.all() == [(b"b", b"new"), (b"c", b"C"), (b"d", b"D")]


def test_a_snapshot_sees_nothing_that_comes_after_it(bench: Bench) -> None:
    filled(bench)
    snapshot = bench.engine.snapshot()
    bench.commit(Batch({b"a": b"later", b"c": None, b"z": b"later"}, [(b"b", b"c")]))
    assert snapshot.get(b"a") == b"A"
    assert snapshot.get(b"z") is None
    assert [key for key, _ in snapshot.scan(b"", b"\xff")] == [b"a", b"b", b"c", b"d"]
    assert [key for key, _ in snapshot.scan(b"b", b"d", backward=True)] == [b"c", b"b"]
    one, other = snapshot.scan(b"", b"\xff"), snapshot.scan(b"", b"\xff", backward=True)
    together = [(next(one)[0], next(other)[0]) for _ in range(4)]
    assert together == [(b"a", b"d"), (b"b", b"c"), (b"c", b"b"), (b"d", b"a")]
    snapshot.close()


def test_commits_end_in_the_order_of_their_calls(bench: Bench) -> None:
    """A synced commit takes longer than an unsynced one, which must not overtake it."""
    ended: list[int] = []
    for number in range(20):
        sync = number % 3 == 0
        batch = Batch({b"last": str(number).encode()})
        bench.engine.commit(batch, sync, lambda _, number=number: ended.append(number))
    bench.run_until(lambda: len(ended) == 20)
    assert ended == list(range(20))
    assert bench.engine.get(b"last") == b"19"


def test_a_directory_is_used_by_one_process_at_a_time(tmp_path: Path) -> None:
    clock = VirtualClock()
    engine = RocksEngine(tmp_path / "db", clock, clock.call_soon)
    with pytest.raises(EngineError, match="another process has this data directory open"):
        RocksEngine(tmp_path / "db", clock, clock.call_soon)
    engine.close()


def test_requests_come_before_what_rocksdb_does_by_itself(tmp_path: Path) -> None:
    clock = VirtualClock()
    engine = RocksEngine(tmp_path / "db", clock, clock.call_soon)
    niceness: dict[str, set[int]] = {"rocksdb": set(), "other": set()}
    for thread in Path("/proc/self/task").iterdir():
        whose = "rocksdb" if (thread / "comm").read_text().startswith("rocksdb:") else "other"
        niceness[whose].add(os.getpriority(os.PRIO_PROCESS, int(thread.name)))
    own = os.getpriority(os.PRIO_PROCESS, 0)
    assert niceness == {"rocksdb": {own + BACKGROUND_NICENESS}, "other": {own}}
    engine.close()


def test_what_was_committed_is_there_after_reopening(tmp_path: Path) -> None:
    for generation in range(3):
        bench = Bench(lambda bench: RocksEngine(tmp_path / "db", bench.clock, bench.post))
        assert len(bench.all()) == generation
        bench.commit(Batch({b"key-%d" % generation: b"value"}))
        bench.engine.close()


def test_memory_loses_to_the_power_what_was_not_synced() -> None:
    clock = VirtualClock()
    engine = MemoryEngine(clock)
    engine.commit(Batch({b"a": b"1"}), True, lambda _: None)
    engine.commit(Batch({b"b": b"2"}), False, lambda _: None)
    clock.run_for(1)
    engine.commit(Batch({b"c": b"3"}), True, lambda _: None)
    engine.crash()
    clock.run_for(1)
    assert [key for key, _ in engine.scan(b"", b"\xff")] == [b"a", b"b"]
    engine.power_loss()
    assert [key for key, _ in engine.scan(b"", b"\xff")] == [b"a"]


def test_memory_fails_on_demand() -> None:
    clock = VirtualClock()
    engine = MemoryEngine(clock)
    engine.fail_with = EngineError("No space left on device")
    ended: list[EngineError | None] = []
    engine.commit(Batch({b"a": b"1"}), True, ended.append)
    clock.run_for(1)
    assert ended == [engine.fail_with]
    assert engine.get(b"a") is None
