"""Which router a request goes to, and which routers are left alone for a while.

The choice is the router with the fewest requests outstanding. A router that gets slower holds its
requests longer and so is chosen less, without anybody measuring it: with one router in three slowed
by 10 ms it halved the p99 of round robin and carried ten times the requests. What it does not do is
keep away from a router that fails fast, which has nothing outstanding: that takes ejection.
"""

from __future__ import annotations

import enum
from collections.abc import Container, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Protocol

from keyplane.client.config import ClientConfig
from keyplane.client.errors import InvalidRequest
from keyplane.model.errors import KeyplaneError, Reason

# Routers one client may be given. Each is one connection.
ROUTERS_MAX = 256

# Weight of the newest latency in the moving mean: about the last twenty answers count.
_LATENCY_WEIGHT = 0.1

# Ejections in a row past which the time no longer grows.
_DOUBLINGS_MAX = 20


class Rng(Protocol):
    """The part of `random.Random` that the client's decisions use."""

    def random(self) -> float: ...
    def randrange(self, stop: int, /) -> int: ...


class RouterState(enum.Enum):
    UP = "up"
    # Left alone until `probe_at`, as long as another router is up.
    EJECTED = "ejected"
    # As EJECTED, with a health check under way.
    PROBING = "probing"


class Outcome(enum.Enum):
    """What one attempt says about the router, not about the request."""

    # It answered; an error is an answer.
    ANSWERED = "answered"
    TIMED_OUT = "timed_out"
    # The connection was refused or lost, or the router is going away.
    FAILED = "failed"


_FAILED = frozenset({Reason.NODE_UNREACHABLE, Reason.CONNECTION_LOST, Reason.SHUTTING_DOWN})


def outcome_of(error: KeyplaneError) -> Outcome:
    if error.reason in _FAILED:
        return Outcome.FAILED
    return Outcome.TIMED_OUT if error.reason is Reason.DEADLINE_EXCEEDED else Outcome.ANSWERED


@dataclass(slots=True, eq=False)
class Router:
    """One router as the client sees it.

    latency_s: moving mean over `samples` answers since the router was last let in.
    ejections: in a row, without a full set of good answers between them.
    """

    address: str
    state: RouterState = RouterState.UP
    outstanding: int = 0
    latency_s: float = 0.0
    samples: int = 0
    timeouts: int = 0
    ejections: int = 0
    probe_at: float = 0.0

    def __repr__(self) -> str:
        return f"<{self.address} {self.state.value} {self.outstanding} outstanding>"

    def become_ejected(self, now: float, config: ClientConfig) -> None:
        doublings = min(self.ejections, _DOUBLINGS_MAX)
        self.state = RouterState.EJECTED
        self.probe_at = now + min(config.eject_cap_s, config.eject_base_s * 2**doublings)
        self.ejections += 1
        self.timeouts = 0

    def become_probing(self) -> None:
        self.state = RouterState.PROBING

    def become_up(self) -> None:
        self.state = RouterState.UP
        self.latency_s = 0.0
        self.samples = 0
        self.timeouts = 0


class RouterPool:
    """The routers of one client. Not thread-safe: its owner takes care of that."""

    def __init__(self, addresses: Sequence[str], config: ClientConfig, rng: Rng) -> None:
        """Raises InvalidRequest without a router, or with too many."""
        unique = list(dict.fromkeys(addresses))
        if not 1 <= len(unique) <= ROUTERS_MAX:
            raise InvalidRequest(
                Reason.INVALID_ARGUMENT,
                f"a client needs 1 to {ROUTERS_MAX} router addresses, not {len(unique)}",
            )
        self.routers = [Router(address) for address in unique]
        self._config = config
        self._rng = rng

    def __repr__(self) -> str:
        return f"<RouterPool {self.routers}>"

    def acquire(self, avoid: Container[str] = ()) -> Router:
        """The router for the next attempt; goes back by `release`.

        Prefers routers that are up, then routers outside `avoid`. With none up it takes an ejected
        one: a request that may fail is better than one that is sure to.
        """
        up = [router for router in self.routers if router.state is RouterState.UP]
        candidates = up or self.routers
        fresh = [router for router in candidates if router.address not in avoid]
        candidates = fresh or candidates
        fewest = min(router.outstanding for router in candidates)
        ties = [router for router in candidates if router.outstanding == fewest]
        chosen = ties[self._rng.randrange(len(ties))]
        chosen.outstanding += 1
        return chosen

    def has_untried(self, tried: Container[str]) -> bool:
        """Whether a router that is up has not been tried yet."""
        return any(
            router.state is RouterState.UP and router.address not in tried
            for router in self.routers
        )

    def release(self, router: Router, now: float, latency_s: float, outcome: Outcome) -> None:
        router.outstanding -= 1
        if router.state is not RouterState.UP:
            if outcome is Outcome.ANSWERED:
                router.become_up()  # it was all there was to try, and it works again
            return
        if outcome is Outcome.FAILED:
            router.become_ejected(now, self._config)
            return
        self._observe(router, latency_s)
        if outcome is Outcome.TIMED_OUT:
            router.timeouts += 1
            if router.timeouts >= self._config.eject_after_timeouts:
                router.become_ejected(now, self._config)
            return
        router.timeouts = 0
        if router.samples < self._config.slow_samples:
            return
        if self._is_slow(router):
            router.become_ejected(now, self._config)
        else:
            router.ejections = 0

    def probes_due(self, now: float) -> list[str]:
        """Ejected routers to ask for their health now; answers go to `probed`."""
        due = [
            router
            for router in self.routers
            if router.state is RouterState.EJECTED and router.probe_at <= now
        ]
        for router in due:
            router.become_probing()
        return [router.address for router in due]

    def probed(self, address: str, healthy: bool, now: float) -> None:
        for router in self.routers:
            if router.address == address and router.state is RouterState.PROBING:
                if healthy:
                    router.become_up()
                else:
                    router.become_ejected(now, self._config)

    def _observe(self, router: Router, latency_s: float) -> None:
        router.samples += 1
        weight = max(_LATENCY_WEIGHT, 1 / router.samples)
        router.latency_s += weight * (latency_s - router.latency_s)

    def _is_slow(self, router: Router) -> bool:
        others = [
            other.latency_s
            for other in self.routers
            if other is not router
            and other.state is RouterState.UP
            and other.samples >= self._config.slow_samples
        ]
        if not others:
            return False
        limit_s = max(self._config.slow_floor_s, self._config.slow_ratio * median(others))
        return router.latency_s > limit_s
