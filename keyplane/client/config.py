"""What a client can be told."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ClientConfig:
    """Settings of one client object. The defaults suit routers in the same region."""

    # Seconds a call may take in all, retries included, where the call sets no `timeout_s`.
    timeout_s: float = 5.0

    # Seconds to wait for one router before the call is tried on another. Longer than a move's
    # fence may hold a request, so that only a router that hangs is given up.
    attempt_timeout_s: float = 2.5

    # Seconds to wait for the answer to a read before another router is asked as well, and the first
    # to answer counts; None: never. The p95 of a read is a good start: then one read in twenty is
    # sent twice. Hedges are paid for like retries, so they stop when all routers are slow.
    hedge_after_s: float | None = None

    # Attempts of one call at most, the first included. The deadline nearly always comes first.
    attempts_max: int = 20

    # Retries earned by each request: what retrying may add to the load for long.
    retry_ratio: float = 0.1
    # Retries per second that time alone earns: enough for a client with little traffic.
    retry_floor_per_s: float = 10.0
    # Retries that can be saved up, for a short burst of failures.
    retry_burst: float = 100.0

    # Attempts in a row that time out before a router is ejected. A lost or refused connection
    # ejects at once: it says the same of every request.
    eject_after_timeouts: int = 2
    # A router is slow when its mean latency is this many times the median of the others', and at
    # least `slow_floor_s` seconds: below that a difference is not worth a third of the capacity.
    slow_ratio: float = 5.0
    slow_floor_s: float = 0.05
    # Answers seen before a router's latency is judged.
    slow_samples: int = 20
    # Seconds of the first ejection; each further one in a row doubles it, up to the cap.
    eject_base_s: float = 0.2
    eject_cap_s: float = 5.0
    # Seconds an ejected router has to answer the health check that lets it back.
    probe_timeout_s: float = 1.0

    # Bytes of the largest message: a batch of 16 MB and room for its framing.
    message_bytes_max: int = 20 * 1024 * 1024
