"""What a kind of operation consists of: a step per state, and what each step can end in.

A step may ask storage nodes and look at the catalog; it changes nothing itself. What it wants
changed is in its outcome, which the driver persists before the next step. Any step may run again
after a crash.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from keyplane.model.errors import KeyplaneError, Reason
from metadata.catalog import Catalog
from metadata.change import Change
from metadata.config import MetadataConfig
from metadata.nodes import NodeRegistry
from metadata.operations import Operation, State
from metadata.peers import Peers
from wire.ports import Clock, Rng


@dataclass(slots=True)
class World:
    """What a step may look at and use. `catalog` is replaced when the database is read again."""

    config: MetadataConfig
    clock: Clock
    rng: Rng
    registry: NodeRegistry
    peers: Peers
    catalog: Catalog = field(default_factory=Catalog)

    @property
    def now(self) -> float:
        """Seconds since 1970, for the record."""
        return self.clock.wall()


# What an operation's next state changes. Raises KeyplaneError if it does not fit any more.
Transition = Callable[[Catalog, Operation], Change]


@dataclass(frozen=True, slots=True)
class Advance:
    """The step is done; persist this and go on."""

    transition: Transition


@dataclass(frozen=True, slots=True)
class Again:
    """Not there yet; look again after `delay_s`. `progress` is for people."""

    delay_s: float
    progress: str


@dataclass(frozen=True, slots=True)
class Retry:
    """It did not work this time; try again after a back-off."""

    error: KeyplaneError


@dataclass(frozen=True, slots=True)
class Abort:
    """It cannot work, and nothing was done: give the operation up."""

    error: KeyplaneError


Outcome = Advance | Again | Retry | Abort
OnOutcome = Callable[[Outcome], None]
Step = Callable[[World, Operation, OnOutcome], None]


def fail(world: World, catalog: Catalog, operation: Operation, error: KeyplaneError) -> Change:
    """To FAILED with the error, and nothing else."""
    failed = operation.become_failed(world.now, error.reason.name, error.message)
    return Change(catalog.counters, operations=(failed,))


def start(world: World, operation: Operation, on_outcome: OnOutcome) -> None:
    """The step of a PENDING operation that has nothing to find out before it begins."""

    def running(catalog: Catalog, operation: Operation) -> Change:
        return Change(catalog.counters, operations=(operation.become_running(world.now),))

    on_outcome(Advance(running))


def finish(world: World, operation: Operation, on_outcome: OnOutcome) -> None:
    """The step of a COMMITTED operation that has nothing left to clean up."""
    on_outcome(Advance(succeed(world)))


def succeed(world: World, message: str = "") -> Transition:
    def succeeded(catalog: Catalog, operation: Operation) -> Change:
        done = operation.become_succeeded(world.now, message)
        return Change(catalog.counters, operations=(done,))

    return succeeded


# Whether an operation whose step has kept failing with this error is given up. The flag says that a
# storage node may have acted on the present step already.
GivesUp = Callable[[Operation, KeyplaneError, bool], bool]


def if_untouched(operation: Operation, error: KeyplaneError, perhaps_done: bool) -> bool:
    """Given up when the node it needs is gone and has certainly not begun."""
    return error.reason is Reason.NODE_UNREACHABLE and not perhaps_done


def never(operation: Operation, error: KeyplaneError, perhaps_done: bool) -> bool:
    """Goes on until it works: half of it may have been done."""
    return False


@dataclass(frozen=True, slots=True)
class Script:
    """steps: by state; those that have ended have none.

    abort: the change that gives a PENDING or RUNNING operation up.
    gives_up: of PENDING and RUNNING operations; a COMMITTED one always goes on.
    cancel: how a request to cancel is tried, by state. PENDING operations can always be cancelled.
    """

    steps: Mapping[State, Step]
    abort: Callable[[World, Catalog, Operation, KeyplaneError], Change] = fail
    gives_up: GivesUp = if_untouched
    cancel: Mapping[State, Step] = field(default_factory=dict)


def after_error(error: KeyplaneError) -> Outcome:
    """What a step ends in when a storage node refused it.

    A storage node that says for certain that it did not and will not do it ends the operation.
    STALE_ROUTE too: it does not serve the partition under this epoch, and no retry changes that.
    """
    refused = error.definite and not error.retryable
    if refused or error.reason is Reason.STALE_ROUTE:
        return Abort(error)
    return Retry(error)


def cancelled() -> KeyplaneError:
    return KeyplaneError(Reason.CANCELLED, "cancelled on request; nothing was changed")
