"""Deadlines of many calls behind one timer.

Calls are not kept in order of their deadlines: whoever owns them looks through those in flight when
the earliest one may be due. With like timeouts that is once per timeout, and a call costs one
comparison.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Final

# Looks are at least this far apart, so a call may end so much after its deadline.
LOOK_S_MIN: Final = 0.002


class Expiry:
    """look: ends what is due at `now`, and returns the earliest deadline that is left, or inf.

    next_at: when the next look is due. A call with an earlier deadline must `watch` it.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, look: Callable[[float], float]) -> None:
        self._loop = loop
        self._look = look
        self._timer: asyncio.TimerHandle | None = None
        self._looked_at = -math.inf
        self.next_at = math.inf

    def watch(self, deadline: float) -> None:
        if deadline >= self.next_at:
            return
        if self._timer is not None:
            self._timer.cancel()
        self.next_at = max(deadline, self._looked_at + LOOK_S_MIN)
        self._timer = self._loop.call_at(self.next_at, self._run)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _run(self) -> None:
        self._timer = None
        self.next_at = math.inf
        # A timer may ring within the clock's resolution before its time.
        now = self._looked_at = max(self._loop.time(), self._looked_at)
        self.watch(self._look(now))
