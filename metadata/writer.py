"""One change at a time: decided on what is true now, persisted, then installed in memory.

A change is decided only when every earlier one has ended, so two requests cannot both find the
same partition free. After a failed write it is open whether the database has the change; until that
is settled, nothing is written and memory stays as it was.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from keyplane.model.errors import KeyplaneError, Reason
from metadata.catalog import Catalog, Staged
from metadata.change import Change
from metadata.config import MetadataConfig
from metadata.ledger import Ledger
from wire.crashpoints import crashpoint
from wire.metrics import Metrics
from wire.ports import Clock

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Decision(Generic[_T]):
    """What to change, None for nothing, and what to tell whoever asked."""

    change: Change | None
    result: _T


# Called when it is the change's turn. Raises KeyplaneError to refuse.
Decide = Callable[[Catalog], Decision[_T]]


@dataclass(frozen=True, slots=True)
class _Intent:
    decide: Decide[Any]
    on_done: Callable[[Any], None]


class Writer:
    """on_replaced: called when the catalog had to be read again, with everything it holds."""

    def __init__(
        self,
        config: MetadataConfig,
        clock: Clock,
        ledger: Ledger,
        metrics: Metrics,
        on_replaced: Callable[[Catalog], None],
    ) -> None:
        self._config = config
        self._clock = clock
        self._ledger = ledger
        self._on_replaced = on_replaced
        self._catalog = Catalog()
        self._queue: deque[_Intent] = deque()
        self._busy = True
        self._in_doubt = False
        self._stopped = False
        self._on_idle: Callable[[], None] | None = None
        self.superseded = False
        self._written = metrics.counter("metadata_changes", "Changes by outcome.", label="outcome")
        metrics.gauge(
            "metadata_changes_queued",
            "Changes that wait for the database.",
            lambda: len(self._queue),
        )
        metrics.gauge(
            "metadata_database_in_doubt",
            "1 while the database has failed and changes are refused.",
            lambda: self._in_doubt,
        )

    def open(self, catalog: Catalog) -> None:
        """Starts taking changes to a freshly opened database."""
        self._catalog = catalog
        self._busy = False

    def submit(self, decide: Decide[_T], on_done: Callable[[_T | KeyplaneError], None]) -> None:
        """Decides and makes a change when its turn comes; `on_done` gets the decision's result.

        Errors: what `decide` raises; DATABASE_ERROR; OVERLOADED past the bound on waiting changes.
        """
        refusal = self._refusal()
        if refusal is not None:
            self._clock.call_soon(lambda: on_done(refusal))
            return
        self._queue.append(_Intent(decide, on_done))
        self._clock.call_soon(self._next)

    def stop(self, on_done: Callable[[], None]) -> None:
        """Refuses what comes from here on, and reports when nothing is being written any more."""
        self._stopped = True
        self._on_idle = on_done
        if not self._busy:
            self._clock.call_soon(self._idle)

    def _refusal(self) -> KeyplaneError | None:
        if self._stopped:
            return KeyplaneError(Reason.SHUTTING_DOWN, "the Metadata Store is shutting down")
        if self._in_doubt:
            return KeyplaneError(
                Reason.DATABASE_ERROR,
                "another Metadata Store has taken this database over"
                if self.superseded
                else "the database has failed and has not recovered yet; try again soon",
                retry_after_s=self._config.database_retry_s,
            )
        if len(self._queue) >= self._config.changes_queued_max:
            return KeyplaneError(
                Reason.OVERLOADED, "too many changes wait for the database", retry_after_s=1.0
            )
        return None

    def _next(self) -> None:
        while self._queue and not self._busy:
            intent = self._queue.popleft()
            try:
                decision = intent.decide(self._catalog)
                staged = self._catalog.stage(decision.change) if decision.change else None
            except KeyplaneError as error:
                self._written.inc("refused")
                intent.on_done(error)
                continue
            if staged is None:
                intent.on_done(decision.result)
                continue
            self._busy = True
            self._commit(intent, staged, decision.result)

    def _commit(self, intent: _Intent, staged: Staged, result: object) -> None:
        def done(error: KeyplaneError | None) -> None:
            self._busy = False
            if error is not None:
                self._written.inc("failed")
                self._doubt(error, intent)
                return
            for operation in staged.change.operations:
                crashpoint(operation.milestone)
            self._written.inc("committed")
            self._catalog.install(staged)
            intent.on_done(result)
            self._idle()
            self._next()

        self._ledger.commit(staged.change, done)

    def _idle(self) -> None:
        if self._on_idle is not None and not self._queue and not self._busy:
            on_idle, self._on_idle = self._on_idle, None
            on_idle()

    # --- After a failure -------------------------------------------------------------------------

    def _doubt(self, error: KeyplaneError, intent: _Intent) -> None:
        self._in_doubt = True
        self.superseded = "superseded" in error.metadata
        waiting = [intent, *self._queue]
        self._queue.clear()
        for each in waiting:
            each.on_done(error)
        if self._stopped:
            self._idle()
        elif not self.superseded:
            self._clock.call_later(self._config.database_retry_s, self._settle)

    def _settle(self) -> None:
        def settled(outcome: Catalog | KeyplaneError | None) -> None:
            self._busy = False
            if isinstance(outcome, KeyplaneError):
                self._doubt_again(outcome)
                return
            self._in_doubt = False
            if outcome is not None:
                self._written.inc("found")
                self._catalog = outcome
                self._on_replaced(outcome)
            self._idle()

        if not self._stopped:
            self._busy = True
            self._ledger.settle(settled)

    def _doubt_again(self, error: KeyplaneError) -> None:
        self.superseded = "superseded" in error.metadata
        if self._stopped:
            self._idle()
        elif not self.superseded:
            self._clock.call_later(self._config.database_retry_s, self._settle)
