"""Virtual time: events in order, each belonging to a process that may be dead or stopped.

Nothing here reads a real clock. Events at one time run in the order in which they were asked for,
so the same calls give the same run.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Protocol

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


class Event:
    """Something that happens once, unless it is cancelled before.

    lag: of a timer, its owner's when it was set: time that has stood still since comes on top.
    """

    __slots__ = ("callback", "lag", "owner")

    def __init__(
        self,
        callback: Callable[[], None] | None,
        owner: Owner | None = None,
        lag: float | None = None,
    ) -> None:
        self.callback = callback
        self.owner = owner
        self.lag = lag

    def cancel(self) -> None:
        self.callback = None


class Scheduler:
    """The heap of events. `now` is in virtual seconds from the start of the world."""

    def __init__(self) -> None:
        self.now = 0.0
        self.steps = 0
        # Whose code is running: what a crash in the middle of it kills.
        self.running: Owner | None = None
        self._sequence = 0
        self._events: list[tuple[float, int, Event]] = []

    def after(
        self, delay_s: float, callback: Callable[[], None], owner: Owner | None = None
    ) -> Event:
        """Runs the callback in `delay_s` (at once, after what is due now, if that is not positive).

        Without an owner it is an event of the world itself.
        """
        event = Event(callback, owner)
        self.add(delay_s, event)
        return event

    def timer(self, delay_s: float, callback: Callable[[], None], owner: Owner) -> Event:
        """As `after`, by the owner's own clock: while that stands still the time does not run."""
        event = Event(callback, owner, owner.lag)
        self.add(delay_s, event)
        return event

    def add(self, delay_s: float, event: Event) -> None:
        """Takes an event up, for the first time or again."""
        self._sequence += 1
        at = self.now + delay_s if delay_s > 0.0 else self.now
        heapq.heappush(self._events, (at, self._sequence, event))

    def run_until(self, end: float) -> None:
        """Runs everything due up to `end`, and ends exactly then."""
        events, pop = self._events, heapq.heappop
        while events and events[0][0] <= end:
            self.now, _, event = pop(events)
            if event.callback is not None:
                self._run(event)
        self.now = max(self.now, end)

    def run_while(self, going: Callable[[], bool], end: float) -> bool:
        """Runs events while `going()`, up to `end`. False if it was still going then."""
        events, pop = self._events, heapq.heappop
        while going():
            if not events or events[0][0] > end:
                self.now = max(self.now, end)
                return False
            self.now, _, event = pop(events)
            if event.callback is not None:
                self._run(event)
        return True

    def _run(self, event: Event) -> None:
        owner, callback = event.owner, event.callback
        assert callback is not None
        if owner is not None:
            if not owner.alive:
                return
            if owner.stopped:
                owner.park(event)
                return
            if event.lag is not None and event.lag != owner.lag:
                behind_s, event.lag = owner.lag - event.lag, owner.lag
                self.add(behind_s, event)
                return
        event.callback = None
        self.running = owner
        self.steps += 1
        try:
            callback()
        except ProcessKilledError:
            # Unwound the code of a process that died in it. What it had begun is lost with it.
            pass
        self.running = None
