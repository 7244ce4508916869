"""One call of the caller over all its attempts: a state machine that the shells drive.

    while True:
        step = call.next(now)               # raises once the call has failed for good
        Wait: sleep so long, go on
        Send: send `call.request` to the router, then
              call.failed(now, error)       # raises if it cannot be tried again
              call.answered(now, response)  # True: `call.result` is there
              or after `hedge_after_s` without either:
              call.hedge(now)               # a second router to send the read to as well; then
              call.keep(router, now)        # the one of them that the call goes on with

The sync and the asyncio client are this loop, without and with `await`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

from google.protobuf.message import Message

from keyplane.client.capacity import Spent
from keyplane.client.config import ClientConfig
from keyplane.client.errors import typed
from keyplane.client.pool import Outcome, Rng, Router, RouterPool, outcome_of
from keyplane.data.v1 import data_pb2 as data
from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.retry import RetryBudget, backoff_s

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Method:
    """A unary gRPC method: its path, what it answers with, and whether it changes anything."""

    path: str
    response_type: type[Message]
    writes: bool = False


@dataclass(frozen=True, slots=True)
class Send:
    """Send the call's request to this router, and give it so long.

    probes: ejected routers whose health to check by the way, without waiting for it.
    hedge_after_s: how long to wait for the answer before asking for a `hedge`; None: for ever.
    """

    router: str
    timeout_s: float
    probes: Collection[str] = ()
    hedge_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Wait:
    seconds: float


@dataclass(frozen=True, slots=True)
class CallContext:
    """What all calls of one client share."""

    config: ClientConfig
    pool: RouterPool
    budget: RetryBudget
    rng: Rng


class Call(Generic[T]):
    """A call that one answer ends."""

    __slots__ = (
        "_attempts",
        "_backoffs",
        "_context",
        "_deadline",
        "_doubt",
        "_failovers",
        "_finish",
        "_hedge",
        "_hedge_sent_at",
        "_last_error",
        "_result",
        "_resume_at",
        "_router",
        "_sent_at",
        "_spent",
        "_started_at",
        "_tried",
        "method",
        "request",
    )

    def __init__(
        self,
        context: CallContext,
        method: Method,
        request: Message,
        finish: Callable[[Any], T],
        now: float,
        timeout_s: float | None = None,
    ) -> None:
        """finish: makes the caller's result from the response."""
        self.method = method
        self.request = request
        self._context = context
        self._finish = finish
        self._result: T | None = None
        self._spent: Spent | None = None
        self._started_at = now
        self._deadline = now + (context.config.timeout_s if timeout_s is None else timeout_s)
        self._resume_at = now
        self._sent_at = now
        self._attempts = 0
        self._failovers = 0
        self._backoffs = 0
        self._router: Router | None = None
        # The second router that has the request at the same time.
        self._hedge: Router | None = None
        self._hedge_sent_at = now
        self._tried: set[str] = set()
        self._last_error: KeyplaneError | None = None
        # The latest failure that leaves open whether a write was done. Definite failures after it
        # speak of later attempts only and do not settle it.
        self._doubt: KeyplaneError | None = None
        context.budget.earn()

    def meter(self, spent: Spent | None) -> None:
        """Has answers say what they consumed, for `spent` to add up. Only for data calls."""
        self._spent = spent
        if spent is not None:
            wanted = data.RETURN_CONSUMED_CAPACITY_TOTAL
            cast(Any, self.request).return_consumed_capacity = wanted

    @property
    def result(self) -> T:
        """Only after `answered` returned True."""
        return cast(T, self._result)

    def next(self, now: float) -> Send | Wait:
        """What to do now. Raises the call's error once there is no time left."""
        if now >= self._deadline:
            raise self._out_of_time()
        if now < self._resume_at:
            return Wait(self._resume_at - now)
        context = self._context
        self._router = context.pool.acquire(self._tried)
        self._tried.add(self._router.address)
        self._sent_at = now
        self._attempts += 1
        self._stamp_age(now)
        hedge_after_s = None if self.method.writes else context.config.hedge_after_s
        probes = context.pool.probes_due(now)
        return Send(self._router.address, self._attempt_s(now), probes, hedge_after_s)

    def hedge(self, now: float) -> Send | None:
        """A second router for a read that has no answer yet; None if there is none to be had.

        It is paid for like a retry, so that hedging cannot double the load of routers that are all
        slow. It goes on with one of the two by `keep`.
        """
        pool = self._context.pool
        if not pool.has_untried(self._tried) or not self._context.budget.spend(now):
            return None
        self._hedge = pool.acquire(self._tried)
        self._hedge_sent_at = now
        self._tried.add(self._hedge.address)
        return Send(self._hedge.address, self._attempt_s(now))

    def keep(self, router: str, now: float, error: KeyplaneError | None = None) -> None:
        """Goes on with the attempt at one of two routers: the first to answer, or the one that is
        left after the other's `error`.
        """
        first, second = self._router, self._hedge
        assert first is not None and second is not None, "only after `hedge`"
        other, sent_at = second, self._hedge_sent_at
        if router == second.address:
            other, sent_at = first, self._sent_at
            self._router, self._sent_at = second, self._hedge_sent_at
        self._hedge = None
        outcome = Outcome.ANSWERED if error is None else outcome_of(error)
        # Without an error it counts as if it had answered now, which it has not: it is slower.
        self._context.pool.release(other, now, now - sent_at, outcome)

    def answered(self, now: float, response: Message) -> bool:
        """Takes an answer. True when the call is over and `result` is there."""
        self._take(now, response)
        self._result = self._finish(response)
        return True

    def failed(self, now: float, error: KeyplaneError) -> None:
        """Takes a failed attempt. Raises the call's error if it cannot be tried again."""
        self._release(now, outcome_of(error))
        self._last_error = error
        if self.method.writes and not error.definite:
            self._doubt = error
            if not self._mark_doubtful():
                raise self._final(error)
        if not error.retryable or self._attempts >= self._context.config.attempts_max:
            raise self._final(error)
        pool = self._context.pool
        if (
            outcome_of(error) is not Outcome.ANSWERED
            and self._failovers < len(pool.routers)
            and pool.has_untried(self._tried)
        ):
            # At once, and not from the budget: this is bounded by the number of routers, and
            # losing one must not use up what keeps overload in check.
            self._failovers += 1
        else:
            self._back_off(now, error)

    def abandoned(self, now: float) -> None:
        """The caller wants no answer any more."""
        if self._hedge is not None and self._router is not None:
            self.keep(self._router.address, now)
        self._release(now, Outcome.ANSWERED)

    def _take(self, now: float, response: Message) -> None:
        """Counts an answer."""
        self._release(now, Outcome.ANSWERED)
        if self._spent is not None:
            self._spent.take(response)

    def _attempt_s(self, now: float) -> float:
        """How long an attempt that begins now may take."""
        return min(self._deadline - now, self._context.config.attempt_timeout_s)

    def _release(self, now: float, outcome: Outcome) -> None:
        router, self._router = self._router, None
        if router is not None:
            self._context.pool.release(router, now, now - self._sent_at, outcome)
            if outcome is Outcome.ANSWERED:
                self._tried = {router.address}

    def _back_off(self, now: float, error: KeyplaneError) -> None:
        """Plans the next attempt. Raises when the budget or the deadline does not allow one."""
        if not self._context.budget.spend(now):
            if error.reason is Reason.THROTTLED:
                # Being refused is what the caller has to know; nothing is in trouble.
                raise self._final(error)
            spent = KeyplaneError(
                Reason.RETRY_BUDGET_SPENT,
                f"not tried again, since too many requests fail at the moment: {error}",
            )
            raise self._final(spent) from error
        self._resume_at = now + backoff_s(error, self._backoffs, self._context.rng.random())
        self._backoffs += 1
        if self._resume_at >= self._deadline:
            raise self._out_of_time()

    def _out_of_time(self) -> KeyplaneError:
        """Says why the last attempt failed, or that there was no time for any."""
        if self._last_error is not None:
            return self._final(self._last_error)
        message = f"nothing was sent: {self.method.path} was given no time"
        return typed(KeyplaneError(Reason.DEADLINE_BEFORE_START, message))

    def _final(self, error: KeyplaneError) -> KeyplaneError:
        """What to raise for a last failure, in view of an earlier attempt that may have worked.

        A failed condition settles any doubt: storage nodes judge one only when they know that no
        earlier attempt was carried out.
        """
        settled = not error.definite or error.reason is Reason.CONDITION_FAILED
        return typed(error if self._doubt is None or settled else self._doubt)

    def _token(self) -> data.WriteToken | None:
        return cast(Any, self.request).token if self.method.writes else None

    def _stamp_age(self, now: float) -> None:
        token = self._token()
        if token is not None and token.attempt:
            token.age_ms = round((now - self._started_at) * 1000)

    def _mark_doubtful(self) -> bool:
        """Marks the write as perhaps done. False if there is no token to do it by."""
        token = self._token()
        if token is None or not token.client_id:
            return False
        token.attempt += 1
        return True
