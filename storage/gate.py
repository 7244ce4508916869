"""Where requests wait while their partition is fenced."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from keyplane.model.errors import KeyplaneError, Reason
from wire.ports import Clock, Reply, ReplyFn

# How often waiting requests are looked through for those whose time is up.
SWEEP_S = 0.05

# A request is answered this long before its deadline, for the answer to arrive in time.
ANSWER_MARGIN_S = 0.1

# Suggested to callers that could not wait here until the fence was lifted.
RETRY_AFTER_S = 0.02


@dataclass(slots=True)
class _Waiting:
    give_up_at: float
    again: Callable[[], None]
    reply: ReplyFn


class Gate:
    """A closed gate in front of one partition. It is opened once, and then thrown away.

    Nothing has been done of a request that waits, so those that cannot wait any longer are refused
    with NOT_SERVING, which is definite.
    """

    def __init__(self, clock: Clock, waiting_max: int, wait_s_max: float) -> None:
        self._clock = clock
        self._waiting_max = waiting_max
        self._wait_s_max = wait_s_max
        self._waiting: deque[_Waiting] = deque()
        self._closed_at = clock.now()
        self._open = False
        self._sweeping = False

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def closed_at(self) -> float:
        return self._closed_at

    def wait(self, deadline: float, again: Callable[[], None], reply: ReplyFn) -> None:
        """Runs `again` when the gate opens, or refuses the request in time."""
        now = self._clock.now()
        give_up_at = min(deadline - ANSWER_MARGIN_S, self._closed_at + self._wait_s_max)
        if now >= give_up_at or len(self._waiting) >= self._waiting_max:
            reply(Reply(error=_not_serving()))
            return
        self._waiting.append(_Waiting(give_up_at, again, reply))
        if not self._sweeping:
            self._sweeping = True
            self._clock.call_later(SWEEP_S, self._sweep)

    def open(self) -> None:
        """Lets all that wait go on, in the order in which they came."""
        self._open = True
        while self._waiting:
            self._waiting.popleft().again()

    def refuse(self, error: KeyplaneError) -> None:
        """Answers all that wait with an error. The gate stays closed."""
        waiting, self._waiting = self._waiting, deque()
        for each in waiting:
            each.reply(Reply(error=error))

    def _sweep(self) -> None:
        if self._open:
            return
        now = self._clock.now()
        kept: deque[_Waiting] = deque()
        for waiting in self._waiting:
            if now >= waiting.give_up_at:
                waiting.reply(Reply(error=_not_serving()))
            else:
                kept.append(waiting)
        self._waiting = kept
        self._sweeping = bool(kept)
        if kept:
            self._clock.call_later(SWEEP_S, self._sweep)


def _not_serving() -> KeyplaneError:
    return KeyplaneError(
        Reason.NOT_SERVING,
        "the partition is being handed over to another node; try again shortly",
        retry_after_s=RETRY_AFTER_S,
    )
