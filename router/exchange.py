"""One request of a client while the router works on it, and the bound on how many there are."""

from __future__ import annotations

import math
from collections.abc import Callable

from google.protobuf.message import Message
from mypy_extensions import mypyc_attr

from cache.callers import Caller, Tenant
from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.tenants import shown_to
from router.config import RouterConfig
from wire.metrics import Metrics
from wire.ports import Clock, Reply, ReplyFn, Request


@mypyc_attr(acyclic=True)
class Exchange:
    """A request until it is answered, which happens exactly once.

    caller: whose it is. deadline: on the clock's axis; the caller's, or the default when it set
    none.
    """

    __slots__ = ("_desk", "_reply", "_started_at", "caller", "deadline")

    def __init__(
        self, desk: Desk, caller: Caller, reply: ReplyFn, deadline: float, started_at: float
    ) -> None:
        self._desk = desk
        self.caller = caller
        self._reply: ReplyFn | None = reply
        self._started_at = started_at
        self.deadline = deadline

    @property
    def started_at(self) -> float:
        return self._started_at

    def answer(self, response: Message) -> None:
        self._end(Reply(response.SerializeToString()))

    def answer_bytes(self, response: bytes) -> None:
        """response: serialized."""
        self._end(Reply(response))

    def settle(self, _call: object, result: bytes | KeyplaneError) -> None:
        """As a `DoneFn` of an operation whose result is the answer."""
        if isinstance(result, KeyplaneError):
            self.fail(result)
        else:
            self.answer_bytes(result)

    def fail(self, error: KeyplaneError) -> None:
        self._desk.errors.inc(error.reason.name)
        tenant = self.caller.tenant
        if tenant.prefix:
            error = shown_to(error, tenant.prefix, tenant.account)
        self._end(Reply(error=error))

    def _end(self, reply: Reply) -> None:
        end, self._reply = self._reply, None
        assert end is not None, "answered twice"
        self._desk.close(self.caller.tenant, self._started_at)
        end(reply)


class Desk:
    """Takes requests in and counts them out. Sheds what is too much, as early as possible.

    Where tenants share it, it refuses those first that hold more than their share, and keeps room
    for those that hold nothing, so that none can fill it up for all.
    """

    def __init__(
        self, config: RouterConfig, clock: Clock, metrics: Metrics, shared: bool = False
    ) -> None:
        self._config = config
        self._clock = clock
        self.now = clock.now
        self._on_idle: Callable[[], None] | None = None
        self.in_flight = 0
        self.draining = False
        self._shared = shared
        self._crowded_from = int(config.inflight_max * config.inflight_shared)
        # Tenants that have requests in flight.
        self._busy = 0
        self.errors = metrics.counter(
            "router_errors", "Requests answered with an error, by reason.", "reason"
        )
        self._latency = metrics.histogram(
            "router_request_seconds", "Time from a request's arrival to its answer."
        )
        metrics.gauge("router_in_flight", "Requests being worked on.", lambda: self.in_flight)

    def open(self, request: Request, caller: Caller, reply: ReplyFn) -> Exchange | None:
        """The exchange for a request, or None after refusing it."""
        now = self._clock.now()
        tenant = caller.tenant
        refusal = self._refusal(request, tenant, now)
        if refusal is not None:
            self.refuse(refusal, reply)
            return None
        wanted = self._config.timeout_s
        if request.deadline != math.inf:
            wanted = min(request.deadline - now, self._config.timeout_s_max)
        self.in_flight += 1
        if self._shared:
            if not tenant.in_flight:
                self._busy += 1
            tenant.in_flight += 1
        return Exchange(self, caller, reply, now + wanted, now)

    def refuse(self, error: KeyplaneError, reply: ReplyFn) -> None:
        """Answers a request that is not begun."""
        self.errors.inc(error.reason.name)
        reply(Reply(error=error))

    def close(self, tenant: Tenant, started_at: float) -> None:
        """An exchange that began then has been answered."""
        self.in_flight -= 1
        if self._shared:
            tenant.in_flight -= 1
            if not tenant.in_flight:
                self._busy -= 1
        self._latency.observe(self._clock.now() - started_at)
        self._check_idle()

    def drain(self, on_idle: Callable[[], None]) -> None:
        """Refuses requests from now on, and calls back once none is in flight."""
        self.draining = True
        self._on_idle = on_idle
        self._check_idle()

    def _check_idle(self) -> None:
        if self._on_idle is not None and not self.in_flight:
            on_idle, self._on_idle = self._on_idle, None
            self._clock.call_soon(on_idle)

    def _refusal(self, request: Request, tenant: Tenant, now: float) -> KeyplaneError | None:
        if self.draining:
            return KeyplaneError(
                Reason.SHUTTING_DOWN, "this router is stopping; use another router"
            )
        if request.deadline <= now:
            return KeyplaneError(
                Reason.DEADLINE_BEFORE_START, "the deadline passed before the request was begun"
            )
        if self.in_flight >= self._config.inflight_max:
            return KeyplaneError(
                Reason.OVERLOADED,
                f"{self.in_flight} requests are in flight here; send fewer or add routers",
                retry_after_s=self._config.overload_retry_after_s,
            )
        if self._shared and self.in_flight >= self._crowded_from:
            share = self._crowded_from // max(1, self._busy)
            if tenant.in_flight >= share:
                return KeyplaneError(
                    Reason.OVERLOADED,
                    f"{tenant.in_flight} requests of this tenant are in flight here, and its share"
                    f" is {share} while {self._busy} tenants are busy; send fewer or add routers",
                    retry_after_s=self._config.overload_retry_after_s,
                )
        return None
