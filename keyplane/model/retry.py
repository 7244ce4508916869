"""When to try again: a back-off table with a row per cause, and a budget that keeps retries few."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from keyplane.model.errors import KeyplaneError, Reason

# 2**30 times any base is past every cap; a larger exponent would only make big integers.
_DOUBLINGS_MAX = 30


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential back-off with full jitter: uniform in [0, min(cap, base * 2**retry)).

    Full jitter spreads callers that failed together over the whole interval, which needs the
    fewest calls in total (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).
    """

    base_s: float
    cap_s: float

    def delay_s(self, retry: int, uniform: float) -> float:
        """retry: 0 for the first one. uniform: a random number in [0, 1)."""
        return uniform * min(self.cap_s, self.base_s * 2.0 ** min(retry, _DOUBLINGS_MAX))


# How long each cause usually lasts decides its row. Causes without a row use DEFAULT_BACKOFF.
BACKOFFS: Mapping[Reason, Backoff] = {
    # A fence, or a node that is taking a partition over: milliseconds.
    Reason.NOT_SERVING: Backoff(0.005, 0.2),
    # Nobody knows the new owner yet: it becomes known within a beat.
    Reason.STALE_ROUTE: Backoff(0.005, 0.25),
    Reason.NO_ROUTE: Backoff(0.05, 0.5),
    # A process that restarts.
    Reason.NODE_UNREACHABLE: Backoff(0.02, 0.5),
    Reason.CONNECTION_LOST: Backoff(0.02, 0.5),
    Reason.SHUTTING_DOWN: Backoff(0.01, 0.2),
    # A bucket that fills again: the server says when.
    Reason.THROTTLED: Backoff(0.025, 1.0),
    # Too much load, which more calls would add to.
    Reason.OVERLOADED: Backoff(0.05, 2.0),
    Reason.RETRY_BUDGET_SPENT: Backoff(0.1, 2.0),
    # A device that refuses writes seldom recovers at once.
    Reason.WRITE_ERROR: Backoff(0.05, 1.0),
}
DEFAULT_BACKOFF = Backoff(0.05, 1.0)


def backoff_s(error: KeyplaneError, retry: int, uniform: float) -> float:
    """Seconds to wait after `error`: its row's, on top of what the server asked for."""
    row = BACKOFFS.get(error.reason, DEFAULT_BACKOFF)
    return (error.retry_after_s or 0.0) + row.delay_s(retry, uniform)


class RetryBudget:
    """A token bucket that retries are paid from, filled by requests and, slowly, by time.

    Retries can then add at most `ratio` to the load, whatever fails and however long: a service
    that struggles is not pushed over by its own callers (Google, Site Reliability Engineering,
    ch. 21). The floor lets a caller with little traffic retry at all.
    """

    __slots__ = ("_burst", "_floor_per_s", "_ratio", "_refilled_at", "_tokens")

    def __init__(self, ratio: float, floor_per_s: float, burst: float, now: float) -> None:
        """ratio: retries earned per request. burst: most that are saved up; it starts full."""
        self._ratio = ratio
        self._floor_per_s = floor_per_s
        self._burst = burst
        self._tokens = burst
        self._refilled_at = now

    def earn(self) -> None:
        """One request has come."""
        self._tokens = min(self._burst, self._tokens + self._ratio)

    def spend(self, now: float) -> bool:
        """Takes a retry from the bucket, if there is one in it."""
        elapsed_s = max(0.0, now - self._refilled_at)
        self._refilled_at = now
        self._tokens = min(self._burst, self._tokens + elapsed_s * self._floor_per_s)
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True
