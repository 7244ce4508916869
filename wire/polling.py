"""An event loop that looks again before it sleeps.

Waking a process that sleeps costs tens of microseconds, on a virtual machine more than a request
does, and a request through a router wakes four. So where the next event tends to come soon, the
loop goes on looking for a moment, and lets others run between two looks; the kernel does the same
for sockets with SO_BUSY_POLL. Where events are far apart it sleeps at once.
"""

from __future__ import annotations

import asyncio
import os
import selectors
import time
from collections.abc import Callable

# Events that are further apart than this are not waited for awake.
WORTH_S = 0.001

# What looks by default, in microseconds: about what a request takes.
BUSY_POLL_US = 200
BUSY_POLL_US_MAX = 10_000


class BusySelector(selectors.DefaultSelector):
    """look_s: how long it looks before it sleeps, at most.

    now, pause: the clock, and what lets other processes run. For tests.
    """

    def __init__(
        self,
        look_s: float,
        now: Callable[[], float] = time.monotonic,
        pause: Callable[[], object] = os.sched_yield,
    ) -> None:
        super().__init__()
        self._look_s_max = look_s
        self._now = now
        self._pause = pause
        # Falls by half with every wait that was long.
        self._look_s = look_s

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is not None and timeout <= 0:
            return super().select(timeout)
        now = self._now
        began = now()
        look_s = self._look_s if timeout is None else min(self._look_s, timeout)
        end = began + look_s
        while True:
            ready = super().select(0)
            if ready:
                return ready
            at = now()
            if at >= end:
                break
            self._pause()
        ready = super().select(None if timeout is None else max(0.0, timeout - (at - began)))
        waited_s = now() - began
        if ready and waited_s <= WORTH_S:
            self._look_s = self._look_s_max
        elif waited_s > WORTH_S:
            self._look_s = self._look_s / 2 if self._look_s > 1e-6 else 0.0
        return ready


def new_loop(busy_poll_us: int = 0) -> asyncio.AbstractEventLoop:
    """An event loop that looks for so many microseconds before it sleeps; with 0, asyncio's own."""
    if busy_poll_us:
        return asyncio.SelectorEventLoop(BusySelector(busy_poll_us / 1e6))
    return asyncio.new_event_loop()
