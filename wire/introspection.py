"""Health, reflection and channelz: what every gRPC tool expects of a server, served by grpcio."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

import grpc.aio
from grpc_channelz.v1 import channelz, channelz_pb2
from grpc_health.v1 import health, health_pb2
from grpc_health.v1 import health_pb2_grpc as health_grpc
from grpc_reflection.v1alpha import reflection

CHANNELZ_SERVICE: str = channelz_pb2.DESCRIPTOR.services_by_name["Channelz"].full_name


class Introspection:
    """The services that say what a process is and how it is.

    service_names: full names of what the process serves. Services of the package
    `keyplane.<area>.v1` are described by its module `<area>_pb2`.
    """

    def __init__(self, service_names: Sequence[str]) -> None:
        self._service_names = service_names
        self._health = health.aio.HealthServicer()
        self._serving = False

    def names(self, loopback: bool) -> tuple[str, ...]:
        """Full names of the services that `add_to` adds."""
        names = (health.SERVICE_NAME, reflection.SERVICE_NAME)
        return (*names, CHANNELZ_SERVICE) if loopback else names

    def add_to(self, server: grpc.aio.Server, loopback: bool) -> None:
        """Channelz shows who calls whom, so it is served on loopback addresses only."""
        health_grpc.add_HealthServicer_to_server(self._health, server)
        for name in self._service_names:
            _import_descriptors(name)
        if loopback:
            channelz.add_channelz_servicer(server)
        reflection.enable_server_reflection((*self._service_names, *self.names(loopback)), server)

    async def set_serving(self, serving: bool) -> None:
        if serving != self._serving:
            self._serving = serving
            await self.announce()

    async def announce(self) -> None:
        status = (
            health_pb2.HealthCheckResponse.SERVING
            if self._serving
            else health_pb2.HealthCheckResponse.NOT_SERVING
        )
        for name in ("", *self._service_names):
            await self._health.set(name, status)


def _import_descriptors(service_name: str) -> None:
    """Registers a service's messages in the descriptor pool that reflection reads."""
    package, _, _ = service_name.rpartition(".")
    area = package.split(".")[-2]
    importlib.import_module(f"{package}.{area}_pb2")
