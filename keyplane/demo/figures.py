"""What the demo measured, and whether that is what was promised."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(slots=True)
class Figures:
    """Field names are those of the JSON result. Milliseconds and seconds as the names say.

    max_fence_ms: longest time for which requests waited while a partition changed nodes.
    operations_resumed: operations that the Metadata Store found unfinished when it came back, and
        finished.
    """

    acknowledged_writes: int = 0
    lost_writes: int = 0
    applied_twice: int = 0
    unread_keys: int = 0
    requests: int = 0
    failed_requests: int = 0
    requests_while_control_plane_down: int = 0
    failed_while_control_plane_down: int = 0
    control_plane_down_seconds: float = 0.0
    p99_ms_before: float = 0.0
    p99_ms_while_control_plane_down: float = 0.0
    splits: int = 0
    merges: int = 0
    moves: int = 0
    max_fence_ms: float = 0.0
    router_started_without_control_plane: bool = False
    router_start_seconds: float = 0.0
    operations_resumed: int = 0
    routers_killed: int = 0
    memcached_emptied: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Claim:
    text: str
    value: Callable[[Figures], object]
    # None: shown, not judged.
    holds: Callable[[Figures], bool] | None


CLAIMS = (
    Claim(
        "acknowledged writes, all read back",
        lambda f: f"{f.acknowledged_writes:,}",
        lambda f: f.acknowledged_writes > 0 and not f.unread_keys,
    ),
    Claim("of them lost", lambda f: f.lost_writes, lambda f: f.lost_writes == 0),
    Claim("of them applied twice", lambda f: f.applied_twice, lambda f: f.applied_twice == 0),
    Claim("requests", lambda f: f"{f.requests:,}", lambda f: f.requests > 0),
    Claim("of them failed", lambda f: f.failed_requests, lambda f: f.failed_requests == 0),
    Claim(
        "splits, merges, moves under load",
        lambda f: f"{f.splits}, {f.merges}, {f.moves}",
        lambda f: f.splits > 0 and f.merges > 0 and f.moves > 0,
    ),
    Claim("longest fence of a move, ms", lambda f: f"{f.max_fence_ms:.1f}", None),
    Claim(
        "seconds without a control plane",
        lambda f: f"{f.control_plane_down_seconds:.1f}",
        lambda f: f.control_plane_down_seconds >= 15,
    ),
    Claim(
        "requests meanwhile",
        lambda f: f"{f.requests_while_control_plane_down:,}",
        lambda f: f.requests_while_control_plane_down > 0,
    ),
    Claim(
        "of them failed",
        lambda f: f.failed_while_control_plane_down,
        lambda f: f.failed_while_control_plane_down == 0,
    ),
    Claim(
        "p99 before, and meanwhile, ms",
        lambda f: f"{f.p99_ms_before:.2f}, {f.p99_ms_while_control_plane_down:.2f}",
        None,
    ),
    Claim(
        "memcached nodes emptied meanwhile",
        lambda f: f.memcached_emptied,
        lambda f: f.memcached_emptied > 0,
    ),
    Claim(
        "router started from nothing meanwhile",
        lambda f: f"in {f.router_start_seconds:.1f} s",
        lambda f: f.router_started_without_control_plane,
    ),
    Claim(
        "operations taken up again and finished",
        lambda f: f.operations_resumed,
        lambda f: f.operations_resumed > 0,
    ),
    Claim("routers killed", lambda f: f.routers_killed, lambda f: f.routers_killed > 0),
)


def held(figures: Figures) -> bool:
    return all(claim.holds is None or claim.holds(figures) for claim in CLAIMS)
