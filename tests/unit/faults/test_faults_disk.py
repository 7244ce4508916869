"""Disks and databases that take their time."""

from __future__ import annotations

from keyplane.model.errors import KeyplaneError
from metadata.catalog import Catalog
from metadata.change import Change, Counters
from metadata.inline import InlineLedger
from metadata.lag import LaggingLedger
from metadata.memory import MemoryDatabase
from storage.memory import MemoryEngine
from wire.faults import Fault, FaultKind
from wire.injection import FaultTable, FaultyEngine
from wire.memory import VirtualClock
from wire.ports import Batch


def test_a_slow_disk_commits_later_and_in_order_even_when_it_heals_in_between() -> None:
    clock = VirtualClock()
    table = FaultTable(clock, "storage-1")
    engine = FaultyEngine(MemoryEngine(clock), table, clock)
    done: list[tuple[str, float]] = []

    def commit(name: str) -> None:
        batch = Batch({b"key": name.encode()})
        engine.commit(batch, False, lambda error: done.append((name, clock.now())))

    commit("before")
    clock.run_for(0.1)
    table.add(Fault("f", FaultKind.SLOW_DISK, "storage-1", parameters={"delay_s": 0.2}))
    commit("slow")
    assert engine.get(b"key") == b"before"
    table.heal_all()
    commit("after")
    clock.run_for(1.0)
    assert [name for name, _ in done] == ["before", "slow", "after"]
    assert [round(at, 3) for _, at in done] == [0.0, 0.3, 0.3]
    assert engine.get(b"key") == b"after"
    commit("healed")
    clock.run_for(0.0)
    assert done[-1] == ("healed", clock.now())


def test_a_lagging_metadata_store_commits_later() -> None:
    clock = VirtualClock()
    table = FaultTable(clock, "metadata")
    database = MemoryDatabase()
    ledger = LaggingLedger(InlineLedger(clock, database.open()), table, clock)
    opened: list[Catalog | KeyplaneError] = []
    ledger.open(opened.append)
    clock.run_for(0.0)
    committed: list[float] = []

    def commit() -> None:
        def done(error: KeyplaneError | None) -> None:
            assert error is None
            committed.append(clock.now())

        ledger.commit(Change(Counters()), done)

    table.add(Fault("f", FaultKind.METADATA_LAG, "metadata", parameters={"delay_s": 2.0}))
    commit()
    clock.run_for(3.0)
    table.heal_all()
    commit()
    clock.run_for(1.0)
    assert committed == [2.0, 3.0]
    ledger.close()
    database.discard()
