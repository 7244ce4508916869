"""The clock of a real process: its event loop's."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable


class LoopClock:
    """Time and timers of one event loop. Everything runs on the loop's thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.now = time_of(loop)

    def wall(self) -> float:
        return time.time()

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
        return self.loop.call_later(delay_s, callback)

    def call_soon(self, callback: Callable[[], None]) -> None:
        self.loop.call_soon(callback)


def time_of(loop: asyncio.AbstractEventLoop) -> Callable[[], float]:
    """What tells the time of a loop's timers: `loop.time`, without the detour where it is one."""
    # asyncio's own loops go by this clock, and add a call of Python to it.
    return time.monotonic if isinstance(loop, asyncio.BaseEventLoop) else loop.time
