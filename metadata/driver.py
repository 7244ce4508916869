"""Drives every operation that has not ended, one step after the other, until it has.

The database is the only memory that matters: a driver that starts anew finds the operations where
their last persisted state left them, and repeats the step that was under way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice

from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.retry import Backoff
from metadata.catalog import Catalog
from metadata.kinds import SCRIPTS
from metadata.kinds.script import (
    Abort,
    Advance,
    Again,
    Outcome,
    Retry,
    Step,
    Transition,
    World,
    after_error,
    cancelled,
)
from metadata.operations import Operation, State
from metadata.plans import Kind
from metadata.writer import Decision, Writer
from wire.metrics import Metrics
from wire.ports import Timer


@dataclass(slots=True, eq=False)
class _Run:
    """What the driver knows of one operation beyond what is persisted.

    busy: a step, or the writing of its outcome, is under way.
    held: somebody is trying to cancel it; no new step begins.
    due: when the next step may begin. failing_since: of the present run of failures.
    perhaps_done: a storage node may have acted on the present state already.
    """

    operation_id: str
    busy: bool = False
    held: bool = False
    driven: bool = False
    due: float = 0.0
    failures: int = 0
    failing_since: float | None = None
    perhaps_done: bool = False
    progress: str = ""


class Driver:
    def __init__(self, world: World, writer: Writer, metrics: Metrics) -> None:
        self._world = world
        self._writer = writer
        self._backoff = Backoff(world.config.retry_min_s, world.config.retry_max_s)
        self._runs: dict[str, _Run] = {}
        self._timer: Timer | None = None
        self._ended = metrics.counter(
            "metadata_operations", "Operations that ended.", label="outcome"
        )
        self._retried = metrics.counter(
            "metadata_step_failures", "Steps that failed.", label="reason"
        )
        metrics.gauge(
            "metadata_operations_active",
            "Operations that have not ended.",
            lambda: len(world.catalog.active),
        )

    def open(self) -> None:
        """Takes up every operation of the world's catalog, from its persisted state."""
        self._runs = {
            operation.operation_id: _Run(
                operation.operation_id, perhaps_done=operation.state is State.RUNNING
            )
            for operation in self._world.catalog.active.values()
        }
        if self._timer is None:
            self._timer = self._world.clock.call_later(0.0, self._beat)

    def stop(self) -> None:
        """Begins no more steps. Answers that are on their way change nothing any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._runs = {}

    def kick(self) -> None:
        """Looks at once, rather than at the next beat, for what there is to do."""
        self._world.clock.call_soon(self._look)

    def progress(self, operation: Operation) -> str:
        """Where an operation is, fresher than what is persisted; may be empty."""
        run = self._runs.get(operation.operation_id)
        return run.progress if run is not None and not operation.state.ended else ""

    # --- Steps -----------------------------------------------------------------------------------

    def _beat(self) -> None:
        self._timer = self._world.clock.call_later(self._world.config.drive_beat_s, self._beat)
        self._look()

    def _look(self) -> None:
        if self._timer is None:
            return
        active = self._world.catalog.active
        for operation_id in [each for each in self._runs if each not in active]:
            del self._runs[operation_id]
        now = self._world.clock.now()
        places = self._world.config.operations_driven_max - sum(
            run.driven for run in self._runs.values()
        )
        for operation in list(active.values()):
            run = self._runs.setdefault(operation.operation_id, _Run(operation.operation_id))
            # A drain takes no place: it waits for moves, which need one.
            if not run.driven and operation.kind is not Kind.DRAIN:
                if places <= 0:
                    continue
                places -= 1
                run.driven = True
            if not run.busy and not run.held and run.due <= now:
                self._step(run, operation, SCRIPTS[operation.kind].steps[operation.state])

    def _step(self, run: _Run, operation: Operation, step: Step) -> None:
        run.busy = True

        def ended(outcome: Outcome) -> None:
            if self._is_current(run):
                run.busy = False
                self._end(run, operation, outcome)

        try:
            step(self._world, operation, ended)
        except KeyplaneError as error:
            ended(after_error(error))

    def _end(self, run: _Run, operation: Operation, outcome: Outcome) -> None:
        match outcome:
            case Advance(transition):
                self._persist(run, operation, transition)
            case Again(delay_s, progress):
                run.failures, run.failing_since = 0, None
                run.perhaps_done = True
                run.progress = progress
                run.due = self._world.clock.now() + delay_s
            case Retry(error):
                self._retry(run, operation, error)
            case Abort(error):
                self._abort(run, operation, error)

    def _retry(self, run: _Run, operation: Operation, error: KeyplaneError) -> None:
        now = self._world.clock.now()
        run.failing_since = now if run.failing_since is None else run.failing_since
        run.perhaps_done |= not error.definite
        tired = now - run.failing_since >= self._world.config.give_up_s
        if (
            tired
            and operation.state is not State.COMMITTED
            and SCRIPTS[operation.kind].gives_up(operation, error, run.perhaps_done)
        ):
            run.failing_since = None
            self._abort(run, operation, error)
        else:
            self._back_off(run, error)

    def _back_off(self, run: _Run, error: KeyplaneError) -> None:
        self._retried.inc(error.reason.name)
        delay_s = self._backoff.delay_s(run.failures, self._world.rng.random())
        run.failures += 1
        run.due = self._world.clock.now() + max(self._world.config.drive_beat_s, delay_s)
        run.progress = f"failed {run.failures} times, trying again; last: {error}"

    def _abort(self, run: _Run, operation: Operation, error: KeyplaneError) -> None:
        script = SCRIPTS[operation.kind]
        self._persist(
            run,
            operation,
            lambda catalog, current: script.abort(self._world, catalog, current, error),
        )

    # --- Transitions -----------------------------------------------------------------------------

    def _persist(
        self,
        run: _Run,
        operation: Operation,
        transition: Transition,
        on_done: Callable[[Operation | KeyplaneError], None] = lambda _: None,
    ) -> None:
        run.busy = True
        operation_id = operation.operation_id

        def decide(catalog: Catalog) -> Decision[None]:
            if catalog.operations.get(operation_id) != operation:
                raise KeyplaneError(
                    Reason.ILLEGAL_TRANSITION,
                    f"operation {operation_id} went on meanwhile; look at it again",
                )
            change = transition(catalog, operation)
            return Decision(replace(change, forgotten_operations=self._surplus(catalog)), None)

        def persisted(outcome: KeyplaneError | None) -> None:
            if self._is_current(run):
                run.busy = False
                self._after_write(run, operation, outcome)
            on_done(outcome or self._world.catalog.operations[operation_id])

        self._writer.submit(decide, persisted)

    def _after_write(self, run: _Run, operation: Operation, error: KeyplaneError | None) -> None:
        if error is not None:
            # Nothing is wrong with the step itself, so its patience is not used up.
            self._back_off(run, error)
            return
        now_is = self._world.catalog.operations[operation.operation_id]
        run.failures, run.failing_since, run.perhaps_done = 0, None, False
        run.progress = ""
        if now_is.state.ended:
            self._ended.inc(f"{now_is.kind}.{now_is.state}")
        self.kick()

    def _surplus(self, catalog: Catalog) -> tuple[str, ...]:
        """Ended operations past the bound, oldest first."""
        surplus = (
            len(catalog.operations) - len(catalog.active) - self._world.config.operations_kept_max
        )
        ended = (each for each in catalog.operations.values() if each.state.ended)
        return tuple(each.operation_id for each in islice(ended, max(0, surplus)))

    def _is_current(self, run: _Run) -> bool:
        return self._runs.get(run.operation_id) is run

    # --- Cancelling ------------------------------------------------------------------------------

    def cancel(
        self, operation_id: str, on_done: Callable[[Operation | KeyplaneError], None]
    ) -> None:
        """Gives an operation up on request, if that is still possible.

        on_done: the operation afterwards. Errors: OPERATION_NOT_FOUND; ILLEGAL_TRANSITION when it
        is too late, or its kind cannot be taken back; NOT_SERVING while somebody else cancels it;
        what the storage node said; DATABASE_ERROR.
        """
        operation = self._world.catalog.operation(operation_id)
        script = SCRIPTS[operation.kind]
        step = script.cancel.get(operation.state)
        if operation.state is State.PENDING:
            step = _cancel_pending
        if step is None:
            raise KeyplaneError(
                Reason.ILLEGAL_TRANSITION,
                f"operation {operation_id} is a {operation.kind} that is {operation.state}, "
                "which cannot be taken back",
            )
        run = self._runs.setdefault(operation_id, _Run(operation_id))
        if run.held:
            # The end of either would let the operation go on under the other.
            raise KeyplaneError(
                Reason.NOT_SERVING,
                f"operation {operation_id} is being cancelled already; ask again for how it ended",
                retry_after_s=self._world.config.drive_beat_s,
            )
        run.held = True

        def released(outcome: Operation | KeyplaneError) -> None:
            run.held = False
            self.kick()
            on_done(outcome)

        def tried(outcome: Outcome) -> None:
            match outcome:
                case Advance(transition):
                    self._persist(run, operation, transition, released)
                case Abort(error):
                    self._persist(
                        run,
                        operation,
                        lambda catalog, current: script.abort(self._world, catalog, current, error),
                        released,
                    )
                case Retry(error):
                    released(error)
                case Again(_, progress):
                    released(KeyplaneError(Reason.NOT_SERVING, progress))

        step(self._world, operation, tried)


def _cancel_pending(
    world: World, operation: Operation, on_outcome: Callable[[Outcome], None]
) -> None:
    on_outcome(Abort(cancelled()))
