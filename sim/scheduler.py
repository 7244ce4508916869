"""Virtual time: events in order, each belonging to a process that may be dead or stopped.

Nothing here reads a real clock. Events at one time run in the order in which they were asked for,
so the same calls give the same run.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any, Protocol

from wire.memory_process import ProcessKilledError


class Owner(Protocol):
    """Whose event it is. While it is stopped its events wait; once it is dead they are gone.

    lag: virtual seconds for which even its clock stood still, so far.
    """

    alive: bool
    stopped: bool
    lag: float

    def park(self, event: Event) -> None:
        """Keeps an event that came while the owner was stopped."""


class Event(list[Any]):
    """Something that happens once, unless it is cancelled before.

    [at, sequence, callback, owner, lag]: a list, because the heap then orders events without
    running any Python. callback: None once it has run or is cancelled. lag: of a timer, its owner's
    when it was set: time that has stood still since comes on top; None for other events.
    """

    __slots__ = ()

    def cancel(self) -> None:
        self[2] = None

    @property
    def lag(self) -> float | None:
        lag: float | None = self[4]
        return lag


class Scheduler:
    """The heap of events. `now` is in virtual seconds from the start of the world."""

    def __init__(self) -> None:
        self.now = 0.0
        self.steps = 0
        # Whose code is running: what a crash in the middle of it kills.
        self.running: Owner | None = None
        self._sequence = 0
        self._events: list[Event] = []

    def after(
        self, delay_s: float, callback: Callable[[], None], owner: Owner | None = None
    ) -> Event:
        """Runs the callback in `delay_s` (at once, after what is due now, if that is not positive).

        Without an owner it is an event of the world itself.
        """
        self._sequence += 1
        at = self.now + delay_s if delay_s > 0.0 else self.now
        event = Event((at, self._sequence, callback, owner, None))
        heappush(self._events, event)
        return event

    def timer(self, delay_s: float, callback: Callable[[], None], owner: Owner) -> Event:
        """As `after`, by the owner's own clock: while that stands still the time does not run."""
        self._sequence += 1
        at = self.now + delay_s if delay_s > 0.0 else self.now
        event = Event((at, self._sequence, callback, owner, owner.lag))
        heappush(self._events, event)
        return event

    def put_off(self, event: Event, delay_s: float, lag: float | None) -> None:
        """Takes an event that was due up again, as if it had been asked for now."""
        self._sequence += 1
        event[0] = self.now + max(0.0, delay_s)
        event[1] = self._sequence
        event[4] = lag
        heappush(self._events, event)

    def run_until(self, end: float) -> None:
        """Runs everything due up to `end`, and ends exactly then."""
        self.run_while(None, end)
        self.now = max(self.now, end)

    def run_while(self, going: Callable[[], bool] | None, end: float) -> bool:
        """Runs events while `going()`, up to `end`. False if it was still going then."""
        events = self._events
        while going is None or going():
            if not events or events[0][0] > end:
                self.now = max(self.now, end)
                return False
            event = heappop(events)
            self.now, _, callback, owner, lag = event
            if callback is None:
                continue
            if owner is not None:
                if not owner.alive:
                    continue
                if owner.stopped:
                    owner.park(event)
                    continue
                if lag is not None and lag != owner.lag:
                    self.put_off(event, owner.lag - lag, owner.lag)
                    continue
            event[2] = None
            self.running = owner
            self.steps += 1
            try:
                callback()
            except ProcessKilledError:
                # Unwound the code of a process that died in it. What it had begun is lost with it.
                pass
            self.running = None
        return True
