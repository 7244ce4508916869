"""Whatever happens to a node, its log of write tokens knows what was done, and claims no more."""

from __future__ import annotations

import random
from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from keyplane.model.partition import Partition, even_ranges
from storage.config import WriteConfig
from storage.layout import item_key, token_name
from storage.memory import MemoryEngine
from storage.ownership import Holding
from storage.stored import join_token
from storage.token_log import SWEPT_PER_BATCH, SWEPT_PER_BEAT, TokenLog
from storage.tokens import COVER_MARGIN_S, Remembered, covers
from wire.memory import VirtualClock
from wire.ports import Batch, EngineError

TABLE_ID = 7
# Sums of times are not exact.
ROUNDING_S = 1e-6
CONFIG = WriteConfig(tokens_max=20, token_age_s=30.0)
PARTITIONS = [
    Partition(number, TABLE_ID, start, end, 1, "here")
    for number, (start, end) in enumerate(even_ranges(3))
]


class _Process:
    """A life of the node: its clock starts where it likes."""

    def __init__(self, engine: MemoryEngine, holdings: list[Holding], started: float) -> None:
        self.clock = VirtualClock()
        self.clock.run_for(started)
        engine.use(self.clock)
        self.log = TokenLog(CONFIG, self.clock)
        self.log.load(engine, holdings, complete=True)
        self.holdings = list(holdings)
        # Names of the tokens that are on disk.
        unbounded = TokenLog(replace(CONFIG, tokens_max=1_000_000), self.clock)
        unbounded.load(engine, holdings, complete=True)
        self.read = {result.name for result in known(unbounded)}

    def covers_since(self, where: int) -> float:
        began = self.log.time(self.holdings[where].remembers_since)
        return max(began, self.log.memory.forgotten_until)


def known(log: TokenLog) -> list[Remembered]:
    held = [result for part in log.memory.parts() for result in part]
    return [result for result in held if log.memory.knows(result)]


class TokenLogMachine(RuleBasedStateMachine):
    """Real time passes in `now`; the node sees as much of it as it runs. `done` says what was
    really done and when, of each partition since it is here."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.engine = MemoryEngine(VirtualClock())
        self.holdings = [Holding.opened(each, "open") for each in PARTITIONS]
        self.done: dict[bytes, tuple[int, float]] = {}
        self.results: dict[bytes, Remembered] = {}
        self.sequence = 0
        self.rng = random.Random(0)
        self.process = _Process(self.engine, self.holdings, 0.0)

    @initialize(seed=st.integers(0, 1000))
    def start(self, seed: int) -> None:
        self.rng = random.Random(seed)

    def _commit(self, batch: Batch, sync: bool = False, fails: bool = False) -> bool:
        ended: list[EngineError | None] = []
        self.engine.fail_with = EngineError("no") if fails else None
        self.engine.commit(batch, sync, ended.append)
        self.process.clock.run_for(0)
        self.engine.fail_with = None
        return ended == [None]

    def _result(self, where: int, done_at: float) -> Remembered:
        """Of a new token."""
        self.sequence += 1
        partition = PARTITIONS[where]
        key = item_key(TABLE_ID, self.rng.randrange(partition.start, partition.end), b"k")
        name = token_name(key, join_token(bytes(16), self.sequence))
        return Remembered(name, done_at, self.sequence, True, self.rng.random() < 0.2)

    @rule(count=st.integers(1, 4), sync=st.booleans(), fails=st.sampled_from([False] * 5 + [True]))
    def write(self, count: int, sync: bool, fails: bool) -> None:
        """One group commit, and what WriteQueue does after it."""
        log, now = self.process.log, self.process.clock.now()
        results = []
        owners = []
        for _ in range(count):
            where = self.rng.randrange(len(PARTITIONS))
            results.append(self._result(where, now))
            owners.append(where)
        batch = Batch()
        logged = log.write(batch, results, sweep=SWEPT_PER_BATCH)
        if not self._commit(batch, sync, fails):
            return
        for where, result in zip(owners, results, strict=True):
            self.done[result.name] = where, self.now
            self.results[result.name] = result
        log.learn(results)
        log.written(logged)

    @rule(seconds=st.floats(0, 20))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.process.clock.run_for(seconds)

    @rule()
    def beat(self) -> None:
        log = self.process.log
        log.forget_old()
        if log.idle_sweep:
            batch = Batch()
            logged = log.write(batch, (), sweep=SWEPT_PER_BEAT)
            if self._commit(batch):
                log.written(logged)

    @rule(where=st.integers(0, 2), covers_s=st.floats(0, 100), count=st.integers(0, 6))
    def comes_back(self, where: int, covers_s: float, count: int) -> None:
        """It was away, where all that was done before was lost, or nothing ever done, `covers_s`
        ago; since then so many writes, the tokens of which come along.
        """
        log, now = self.process.log, self.process.clock.now()
        partition = PARTITIONS[where]
        holding = replace(self.holdings[where], remembers_since=log.stamp(now - covers_s))
        batch = Batch()
        log.write_arrival(batch, partition)
        if not self._commit(batch, sync=True):
            return
        log.drop(partition)
        self.done = {name: did for name, did in self.done.items() if did[0] != where}
        ages = [self.rng.uniform(0, covers_s) for _ in range(count)]
        arrived = [self._result(where, now - age_s) for age_s in ages]
        batch = Batch()
        log.write(batch, arrived)
        if not self._commit(batch, sync=True):
            return
        self.holdings[where] = self.process.holdings[where] = holding
        log.arrived(arrived)
        for result, age_s in zip(arrived, ages, strict=True):
            self.done[result.name] = where, self.now - age_s
            self.results[result.name] = result

    @rule(down_s=st.floats(0, 100), clock=st.floats(0, 1000))
    def restart(self, down_s: float, clock: float) -> None:
        before = {result.name for result in known(self.process.log)}
        self.engine.crash()
        self.now += down_s
        self.process = _Process(self.engine, self.holdings, clock)
        assert before <= self.process.read, "what was known is known"

    @rule(down_s=st.floats(0, 100))
    def power_loss(self, down_s: float) -> None:
        """What is not on the disk any more is as if it had not been done."""
        self.engine.power_loss()
        self.now += down_s
        self.process = _Process(self.engine, self.holdings, 0.0)
        self.done = {name: did for name, did in self.done.items() if name in self.process.read}

    @invariant()
    def what_was_done_is_known_or_not_claimed(self) -> None:
        """Whoever asks, with a right age: an unknown token was not done, or is not covered."""
        now = self.process.clock.now()
        for name, (where, done_at) in self.done.items():
            found = self.process.log.memory.find(name)
            if found is None:
                age_s = self.now - done_at - COVER_MARGIN_S + ROUNDING_S
                assert not covers(self.process.covers_since(where), age_s, now)
            else:
                result = self.results[name]
                assert found == Remembered(
                    name, found.done_at, result.version, result.existed, result.refused
                )

    @invariant()
    def the_bound_holds(self) -> None:
        assert len(self.process.log.memory) <= CONFIG.tokens_max

    @invariant()
    def nobody_is_thought_older_than_he_is(self) -> None:
        now = self.process.clock.now()
        for result in known(self.process.log):
            if result.name in self.done:
                age_s = self.now - self.done[result.name][1]
                assert now - result.done_at <= age_s + ROUNDING_S


TestTokenLog = TokenLogMachine.TestCase
TestTokenLog.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_what_the_oldest_record_says_stays_where_it_is_remembered() -> None:
    """Its number is not the first, so what is older may be forgotten; what it says is not."""
    machine = TokenLogMachine()
    machine.start(seed=0)
    machine.write(count=1, sync=False, fails=True)
    machine.comes_back(where=0, covers_s=0.0, count=1)
    machine.restart(down_s=0.0, clock=0.0)
    machine.beat()
    machine.write(count=1, sync=False, fails=False)
    machine.restart(down_s=0.0, clock=0.0)
