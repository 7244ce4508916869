"""Whether the process behind an address serves."""

from __future__ import annotations

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from pymemcache.client.base import Client as MemcacheClient
from pymemcache.exceptions import MemcacheError

from keyplane.cluster.ports import port_of
from keyplane.cluster.state import Kind, Member

# A proxy from the environment has no way to this machine's loopback interface.
CHANNEL_OPTIONS = (("grpc.enable_http_proxy", 0),)


def is_serving(member: Member, timeout_s: float) -> bool:
    """Asks once: the gRPC health check of a server, `version` of memcached."""
    if member.kind is Kind.MEMDS:
        return _memcached_answers(member.address, timeout_s)
    with grpc.insecure_channel(member.address, options=CHANNEL_OPTIONS) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            answer = stub.Check(
                health_pb2.HealthCheckRequest(), timeout=timeout_s, wait_for_ready=False
            )
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def _memcached_answers(address: str, timeout_s: float) -> bool:
    host = address.rpartition(":")[0]
    client = MemcacheClient((host, port_of(address)), connect_timeout=timeout_s, timeout=timeout_s)
    try:
        client.version()
    except (OSError, MemcacheError):
        return False
    finally:
        client.close()
    return True
