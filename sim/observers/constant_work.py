"""I7: a router sends MemDS the same number of requests, whatever happens.

Counted per router over windows, in the router's own time. A window in which it was dead, stopped or
had its clock changed says nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from cache.config import Refresh
from sim.observers.base import Observer
from sim.process import SimProcess
from sim.world import World

# Beats in one window: one more or less at its edges is then a few percent.
WINDOW_BEATS = 40

# By how much a window may differ from what the beat makes it.
TOLERANCE = 0.10

# Requests of one beat: two nodes, two each.
_PER_BEAT = 4


@dataclass(slots=True)
class _Window:
    """process, stops, rate: whose, and how its time went. A change begins the window anew."""

    process: SimProcess
    stops: int
    rate: float
    began_at: float
    requests: int


class ConstantWork(Observer):
    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._windows: dict[str, _Window] = {}
        # Requests per second of router time, of every full window.
        self.rates: list[float] = []

    def beat(self) -> None:
        if self.world.topology.reader.refresh is not Refresh.FIXED:
            return
        nodes = min(2, self.world.topology.memds)
        expected = nodes * _PER_BEAT / 2 / self.world.topology.reader.beat_s
        for name in self.world.routers:
            process = self.world.process(name)
            if process is None or process.stopped or not self.world.has_booted(name):
                self._windows.pop(name, None)
                continue
            now, requests = process.clock.now(), self.world.memds_requests[name]
            window = self._windows.get(name)
            if (
                window is None
                or window.process is not process
                or (window.stops, window.rate) != (process.stops, process.clock.rate)
            ):
                self._windows[name] = _Window(
                    process, process.stops, process.clock.rate, now, requests
                )
                continue
            elapsed_s = now - window.began_at
            if elapsed_s < WINDOW_BEATS * self.world.topology.reader.beat_s:
                continue
            rate = (requests - window.requests) / elapsed_s
            self.rates.append(rate)
            if abs(rate - expected) > TOLERANCE * expected:
                self.world.violate(
                    "I7",
                    f"{name} sent MemDS {rate:.2f} requests a second for {elapsed_s:.1f} s,"
                    f" where its beat makes {expected:.2f}",
                    name,
                )
            self._windows[name] = _Window(process, process.stops, process.clock.rate, now, requests)
