"""The write queue: everything that changes the engine goes through it, one batch at a time.

Writes that come in one tick, or while a batch is being committed, form the next batch: group
commit. Each is evaluated in order against the engine and the batch's own earlier writes, so the
queue is also where conditional writes to one item are put in sequence. All are answered once the
batch is durable, failed conditions too: they may have failed on a write of the same batch.

Changes of ownership stand in the same queue and are committed alone. That puts them *between* two
requests: every write before has been committed and answered under the old ownership, every write
after is checked against the new one.

When a commit fails, its writes are answered WRITE_ERROR: whether a restart will find them is open.
Then the queue first writes back what was there before, until that succeeds; from then on the failed
batch cannot come back, and what could not be acknowledged has certainly not been done.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from keyplane.model.errors import KeyplaneError, Reason
from storage.config import WriteConfig
from storage.evaluate import carry_out, recall
from storage.group import Group, Write, result_of, result_of_failure
from storage.layout import token_name
from storage.request import ItemWrite
from storage.sharing import OVERLOADED_RETRY_S, Sharing
from storage.stored import read_version, size_of
from storage.token_log import TokenLog
from storage.tokens import Remembered
from wire import crashpoints
from wire.metrics import Metrics
from wire.ports import Batch, Clock, Engine, EngineError, Reply

crashpoints.declare("storage.write.committed")

# Powers of two: sizes of group commits.
_SIZE_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


@dataclass(slots=True)
class Step:
    """A change of ownership, ready to be made: `apply` runs once `batch` is durable.

    An empty batch is not committed; such a step only takes its turn.
    """

    batch: Batch
    apply: Callable[[], None]
    sync: bool = True


@dataclass(slots=True)
class _Change:
    plan: Callable[[], Step]
    refused: Callable[[KeyplaneError], None]


class WriteQueue:
    def __init__(
        self,
        config: WriteConfig,
        clock: Clock,
        engine: Engine,
        metrics: Metrics,
        tokens: TokenLog,
    ) -> None:
        self._config = config
        self._clock = clock
        self._engine = engine
        self._tokens = tokens
        self._queue: deque[Write | _Change] = deque()
        self._queued_writes = 0
        self._queued_bytes = 0
        self._sharing = Sharing(config)
        self._scheduled = False
        self._in_flight = False
        self._idle_callbacks: list[Callable[[], None]] = []
        # Why the last commit failed, until one succeeds again.
        self._failure: KeyplaneError | None = None
        self._probe_s = config.probe_s_min
        # Keys of failed batches.
        self._uncertain: set[bytes] = set()
        self._group_sizes = metrics.histogram(
            "storage_commit_writes", "Writes in one group commit", _SIZE_BUCKETS
        )
        self._commit_s = metrics.histogram("storage_commit_seconds", "Time to commit a batch")
        self._commit_errors = metrics.counter(
            "storage_commit_errors", "Batches that the engine failed to commit"
        )
        metrics.gauge(
            "storage_writes_queued", "Writes that wait for a commit", lambda: self._queued_writes
        )
        metrics.gauge(
            "storage_read_only",
            "1 while the device refuses writes",
            lambda: float(self._failure is not None),
        )

    @property
    def crowded(self) -> bool:
        """Whether so much waits that the node has no room for bursts."""
        return self._sharing.crowded(self._queued_writes, self._queued_bytes)

    @property
    def failure(self) -> KeyplaneError | None:
        """Why the node cannot write at present."""
        return self._failure

    def write(self, write: Write) -> None:
        """Raises KeyplaneError: OVERLOADED, or NOT_SERVING while the device refuses writes."""
        if self._failure is not None:
            raise self._failure
        if (
            self._queued_writes >= self._config.queue_writes_max
            or self._queued_bytes + write.data_bytes > self._config.queue_bytes_max
        ):
            raise KeyplaneError(
                Reason.OVERLOADED,
                "too many writes wait for their commit; slow down or split the partition",
                retry_after_s=OVERLOADED_RETRY_S,
            )
        tenant = write.shard.tenant
        unfair = self._sharing.refusal(tenant, self._queued_writes, self._queued_bytes)
        if unfair is not None:
            raise unfair
        self._queue.append(write)
        self._queued_writes += len(write.operations)
        self._queued_bytes += write.data_bytes
        self._sharing.add(tenant, len(write.operations), write.data_bytes)
        self._schedule()

    def change(self, plan: Callable[[], Step], refused: Callable[[KeyplaneError], None]) -> None:
        """Makes a change of ownership between two requests.

        plan: called at its turn; checks that the change is still allowed and raises KeyplaneError
        if not. refused: called with that error, or with WRITE_ERROR when the commit failed.
        """
        self._queue.append(_Change(plan, refused))
        self._schedule()

    def between(self, action: Callable[[], None]) -> None:
        """Runs an action between two batches, when memory and engine agree. While the device
        refuses writes nothing is in flight either, so the action may then run at once.
        """
        self.change(lambda: Step(Batch(), action), lambda _: action())

    def when_idle(self, callback: Callable[[], None]) -> None:
        """Runs the callback once nothing is queued or in flight."""
        self._idle_callbacks.append(callback)
        self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled and not self._in_flight:
            self._scheduled = True
            self._clock.call_soon(self._drain)

    def _drain(self) -> None:
        """Forms the next batch from the head of the queue and commits it."""
        self._scheduled = False
        while not self._in_flight and self._queue:
            if self._failure is not None:
                self._refuse_all(self._failure)
            elif isinstance(self._queue[0], _Change):
                change = self._queue.popleft()
                assert isinstance(change, _Change)
                self._make(change)
            else:
                self._commit_group()
        if not self._in_flight and not self._queue:
            callbacks, self._idle_callbacks = self._idle_callbacks, []
            for callback in callbacks:
                callback()

    # --- Changes of ownership -----------------------------------------------------------------

    def _make(self, change: _Change) -> None:
        try:
            step = change.plan()
        except KeyplaneError as error:
            change.refused(error)
            return
        except EngineError as error:
            change.refused(KeyplaneError(Reason.INTERNAL, str(error)))
            return
        if not step.batch:
            step.apply()
            return

        def committed(error: EngineError | None) -> None:
            if error is None:
                step.apply()
            else:
                self._fail(step.batch, error)
                change.refused(_write_error(error))

        self._commit(step.batch, step.sync, committed)

    # --- Writes --------------------------------------------------------------------------------

    def _commit_group(self) -> None:
        group = Group(self._tokens, self._clock.now())
        size = 0
        while self._queue and size < self._config.batch_writes_max:
            write = self._queue[0]
            if isinstance(write, _Change):
                break
            self._queue.popleft()
            self._queued_writes -= len(write.operations)
            self._queued_bytes -= write.data_bytes
            self._sharing.remove(write.shard.tenant, len(write.operations), write.data_bytes)
            size += len(write.operations)
            self._evaluate(write, group)
        if group.empty:
            group.answer()
            return
        group.close()
        self._group_sizes.observe(size)

        self._commit(group.batch, group.sync, partial(self._committed, group))

    def _committed(self, group: Group, error: EngineError | None) -> None:
        if error is None:
            crashpoints.crashpoint("storage.write.committed")
            group.learn()
            group.answer()
        else:
            self._fail(group.batch, error)
            group.answer(_write_error(error))

    def _evaluate(self, write: Write, group: Group) -> None:
        shard = write.shard
        if shard.retired or shard.gate is not None:
            write.execution.again()
            return
        if group.now >= write.deadline:
            late = KeyplaneError(
                Reason.DEADLINE_BEFORE_START, "the deadline passed while the write was queued"
            )
            write.reply(Reply(error=late))
            return
        group.writes.append(write)
        keys = write.keys
        for index, operation in enumerate(write.operations):
            key = keys[index]
            try:
                result = self._evaluate_one(write, operation, key, group)
            except KeyplaneError as error:
                write.error = error
                result = result_of_failure(error)
            except EngineError as error:
                write.error = KeyplaneError(Reason.INTERNAL, str(error))
                result = result_of_failure(write.error)
            write.results.append(result)

    def _evaluate_one(self, write: Write, operation: ItemWrite, key: bytes, group: Group) -> bytes:
        shard = write.shard
        token = operation.token
        writes = group.batch.writes
        current = writes[key] if key in writes else self._engine.get(key)
        found_version = None
        before_bytes = 0
        if current is not None:
            found_version = read_version(current)
            before_bytes = size_of(current)
            if shard.limits is not None:
                shard.limits.write_over(before_bytes, operation.item_bytes)
        name = b""
        if token:
            name = token_name(key, token)
            covers_since = self._tokens.covers_since(shard)
            before = recall(operation, current, group.recall(name), covers_since, write.arrived_at)
            if before is not None:
                return result_of(before.version, before.existed, 0)
        # A refusal must outlive whatever a late copy of it may find.
        group.sync = group.sync or shard.synced
        try:
            outcome = carry_out(operation, found_version, shard.version + 1)
        except KeyplaneError:
            if token:
                group.remember(Remembered(name, group.now, 0, False, refused=True))
            raise
        if outcome.changed:
            shard.version += 1
            group.change(shard, key, current, outcome.value)
        if token:
            group.remember(Remembered(name, group.now, outcome.version, outcome.existed))
        return result_of(outcome.version, outcome.existed, before_bytes)

    # --- Commits -------------------------------------------------------------------------------

    def _commit(
        self, batch: Batch, sync: bool, on_done: Callable[[EngineError | None], None]
    ) -> None:
        self._in_flight = True
        done = partial(self._commit_done, self._clock.now(), on_done)
        self._engine.commit(batch, sync, done)

    def _commit_done(
        self,
        began: float,
        on_done: Callable[[EngineError | None], None],
        error: EngineError | None,
    ) -> None:
        self._commit_s.observe(self._clock.now() - began)
        self._in_flight = False
        # Scheduled first, so that a crash in `on_done` is not also a stuck queue.
        if self._queue or self._idle_callbacks:
            self._schedule()
        on_done(error)

    def _fail(self, batch: Batch, error: EngineError) -> None:
        """Refuses what is queued, and tries again in a while."""
        self._commit_errors.inc()
        self._uncertain.update(batch.writes)
        self._failure = KeyplaneError(
            Reason.NOT_SERVING,
            f"the node cannot write to its disk ({error}): free some 100 MB if it is full, and the"
            " node goes on by itself; otherwise repair the disk and start the node again",
            retry_after_s=self._config.probe_s_min,
        )
        self._refuse_all(self._failure)
        self._clock.call_later(self._probe_s, self._probe)
        self._probe_s = min(self._config.probe_s_max, self._probe_s * 2)

    def _probe(self) -> None:
        """Writes back what readers have seen all along."""
        try:
            batch = Batch({key: self._engine.get(key) for key in sorted(self._uncertain)})
        except EngineError as error:
            self._fail(Batch(), error)
            return

        def done(error: EngineError | None) -> None:
            if error is not None:
                self._fail(batch, error)
                return
            self._failure = None
            self._probe_s = self._config.probe_s_min
            self._uncertain.clear()

        self._commit(batch, True, done)

    def _refuse_all(self, error: KeyplaneError) -> None:
        """Nothing has been done of what is still queued."""
        queue, self._queue = self._queue, deque()
        self._queued_writes = self._queued_bytes = 0
        self._sharing.clear()
        for entry in queue:
            if isinstance(entry, _Change):
                entry.refused(error)
            else:
                entry.reply(Reply(error=error))


def _write_error(error: EngineError) -> KeyplaneError:
    return KeyplaneError(
        Reason.WRITE_ERROR,
        f"the write failed ({error}); whether a restart of the node will find it is open",
    )
