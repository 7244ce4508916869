"""A process of the seeded world: one life of one member, with its own clock.

It ends by being killed. What a member keeps (its disk, its engine, its database) is handed to the
next life by whoever starts that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

from sim.scheduler import Event, Scheduler
from wire.memory_process import ProcessKilledError
from wire.ports import Handler, SealKeys


class SimProcess:
    """Implements the port `Server`, and `Clock` in `clock`, for one life.

    life: counts the lives of the member of this name, from 1.
    stopped: as by SIGSTOP. Its events wait, in order, for `resume`. stops: how often so far.
    """

    __slots__ = (
        "_parked",
        "_scheduler",
        "_stopped_at",
        "_stopped_reading",
        "address",
        "alive",
        "clock",
        "handlers",
        "lag",
        "life",
        "name",
        "on_death",
        "stopped",
        "stops",
    )

    def __init__(
        self,
        scheduler: Scheduler,
        name: str,
        life: int,
        rate: float = 1.0,
        started_at: float = 0.0,
    ) -> None:
        """rate: of its clock, against virtual time. started_at: what its clock shows now."""
        self._scheduler = scheduler
        self._parked: list[Event] = []
        # When it was last stopped, in virtual time and by its own clock.
        self._stopped_at = self._stopped_reading = 0.0
        self.name = name
        self.address = address_of(name)
        self.life = life
        self.alive = True
        self.stopped = False
        self.stops = 0
        self.lag = 0.0
        self.clock = SimClock(scheduler, self, rate, started_at)
        self.handlers: dict[str, Handler] = {}
        # Who wants to know of its death, in the order in which they asked.
        self.on_death: dict[Callable[[], None], None] = {}

    def take_seals(self, keys: SealKeys) -> None:
        """There are no connections here."""

    def register(self, method: str, handler: Handler) -> None:
        self.handlers[method] = handler

    def kill(self) -> None:
        """As kill -9. Nothing that it asked for happens any more."""
        if self.alive:
            self.alive = False
            self._parked.clear()
            waiting, self.on_death = self.on_death, {}
            for tell in waiting:
                tell()

    def die(self) -> NoReturn:
        """Kills it from within its own code, which runs no further."""
        self.kill()
        raise ProcessKilledError(self.name)

    def stop(self) -> None:
        if self.alive and not self.stopped:
            self.stopped = True
            self.stops += 1
            self._stopped_at = self._scheduler.now
            self._stopped_reading = self.clock.now()

    def resume(self, unnoticed: bool) -> None:
        """Goes on where it was. unnoticed: even its clock stood still, as of a suspended machine;
        else it jumps, as after SIGCONT.
        """
        if not self.stopped:
            return
        self.stopped = False
        if unnoticed:
            self.lag += self._scheduler.now - self._stopped_at
            self.clock.go_on_from(self._stopped_reading)
        parked, self._parked = self._parked, []
        for event in parked:
            due, lag = event[0], event.lag
            if lag is None:
                self._scheduler.put_off(event, 0.0, None)
            else:
                self._scheduler.put_off(event, due + self.lag - lag - self._scheduler.now, self.lag)

    def park(self, event: Event) -> None:
        self._parked.append(event)

    def __repr__(self) -> str:
        state = "dead" if not self.alive else "stopped" if self.stopped else "alive"
        return f"SimProcess({self.name}, life {self.life}, {state})"


class SimClock:
    """A process's own clock: it may be fast or slow, and never agrees with another's."""

    __slots__ = ("_base", "_owner", "_rate", "_scheduler", "_since")

    def __init__(
        self, scheduler: Scheduler, owner: SimProcess, rate: float, started_at: float
    ) -> None:
        self._scheduler = scheduler
        self._owner = owner
        self._rate = rate
        self._base = started_at
        self._since = scheduler.now

    @property
    def rate(self) -> float:
        return self._rate

    def now(self) -> float:
        return self._base + (self._scheduler.now - self._since) * self._rate

    def wall(self) -> float:
        return 1_000_000_000.0 + self.now()

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Event:
        return self._scheduler.timer(delay_s / self._rate, callback, self._owner)

    def call_soon(self, callback: Callable[[], None]) -> None:
        self._scheduler.timer(0.0, callback, self._owner)

    def run_at(self, rate: float) -> None:
        """Changes how fast it runs from now on. Timers that are set already keep their time."""
        self._base, self._since, self._rate = self.now(), self._scheduler.now, rate

    def go_on_from(self, reading: float) -> None:
        """It shows this now: the time since it showed this before, it never saw."""
        self._base, self._since = reading, self._scheduler.now


def address_of(name: str) -> str:
    """Where the process of this name listens, life after life."""
    return f"{name}:1"


def name_of(address: str) -> str:
    return address.removesuffix(":1")
