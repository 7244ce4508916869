"""The standard health check (grpc.health.v1), as processes of the seeded world answer it."""

from __future__ import annotations

from collections.abc import Callable

from grpc_health.v1 import health_pb2

from wire.ports import Handler, Reply, ReplyFn, Request

HEALTH = "/grpc.health.v1.Health/Check"

_STATES = health_pb2.HealthCheckResponse


def health_handler(ready: Callable[[], bool]) -> Handler:
    """What a process answers to a health check."""

    def check(_: Request, reply: ReplyFn) -> None:
        status = _STATES.SERVING if ready() else _STATES.NOT_SERVING
        reply(Reply(_STATES(status=status).SerializeToString()))

    return check


def says_serving(payload: bytes) -> bool:
    return bool(_STATES.FromString(payload).status == _STATES.SERVING)
