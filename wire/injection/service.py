"""FaultService: how a process is told to misbehave."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from keyplane.fault.v1 import fault_pb2 as pb
from keyplane.model.errors import KeyplaneError, Reason
from wire.injection.check import check_duration
from wire.injection.convert import fault_from_proto, fault_to_proto
from wire.injection.table import FaultTable
from wire.metrics import Metrics
from wire.ports import Clock, Reply, ReplyFn, Request, Server

FAULT_SERVICE = "keyplane.fault.v1.FaultService"

_M = TypeVar("_M", bound=Message)


class FaultService:
    """table: None if the process was started without --enable-faults; everything is refused then.

    Must be registered on the server itself, not on one that faults touch, or nothing could heal
    them any more.
    """

    def __init__(
        self, server: Server, table: FaultTable | None, clock: Clock, metrics: Metrics
    ) -> None:
        self._table = table
        self._clock = clock
        self._refused = metrics.counter(
            "fault_requests_refused", "Requests of FaultService refused, by reason.", "reason"
        )
        if table is not None:
            metrics.gauge("faults_on", "Faults done to this process", lambda: len(table.faults()))
        self._register(server, "InjectFault", pb.InjectFaultRequest, self._inject)
        self._register(server, "ListFaults", pb.ListFaultsRequest, self._list)
        self._register(server, "HealFaults", pb.HealFaultsRequest, self._heal)

    def _register(
        self,
        server: Server,
        name: str,
        request_type: type[_M],
        handle: Callable[[FaultTable, _M], Message],
    ) -> None:
        def serve(request: Request, reply: ReplyFn) -> None:
            try:
                table = self._allowed(request.peer)
                answer = handle(table, _parse(request_type, request.payload))
            except KeyplaneError as error:
                self._refused.inc(error.reason.name)
                reply(Reply(error=error))
            else:
                reply(Reply(answer.SerializeToString()))

        server.register(f"/{FAULT_SERVICE}/{name}", serve)

    def _allowed(self, peer: str) -> FaultTable:
        if self._table is None:
            raise KeyplaneError(
                Reason.FAULTS_DISABLED,
                "this process takes no faults; start it with --enable-faults, a cluster with "
                "`keyplane up --enable-faults`",
            )
        if not is_local(peer):
            raise KeyplaneError(
                Reason.CALLER_NOT_LOCAL,
                f"faults are taken from this machine only, and {peer or 'the caller'} is not on "
                "it; run `keyplane fault` there, and connect to a loopback address",
            )
        return self._table

    def _inject(self, table: FaultTable, request: pb.InjectFaultRequest) -> Message:
        if request.fault.remaining_ms:
            check_duration(request.fault.remaining_ms / 1000)
        table.add(fault_from_proto(request.fault, self._clock.now()), request.addresses)
        return pb.InjectFaultResponse()

    def _list(self, table: FaultTable, _: pb.ListFaultsRequest) -> Message:
        now = self._clock.now()
        return pb.ListFaultsResponse(
            faults=[fault_to_proto(fault, now) for fault in table.faults()]
        )

    def _heal(self, table: FaultTable, request: pb.HealFaultsRequest) -> Message:
        if request.all == bool(request.ids):
            raise KeyplaneError(
                Reason.INVALID_ARGUMENT, "name the ids of faults to heal, or say `all`, not both"
            )
        healed = table.heal_all() if request.all else table.heal(request.ids)
        return pb.HealFaultsResponse(healed_ids=healed)


def is_local(peer: str) -> bool:
    """Whether a caller, as gRPC names it, is on this machine: `ipv4:127.0.0.1:5000`, `unix:...`."""
    scheme, _, rest = peer.partition(":")
    if scheme == "unix":
        return True
    host = rest.rpartition(":")[0].strip("[]")
    # As gRPC writes the brackets of IPv6 addresses.
    host = host.removeprefix("%5B").removesuffix("%5D")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def _parse(message_type: type[_M], payload: bytes) -> _M:
    try:
        return message_type.FromString(payload)
    except DecodeError as error:
        raise KeyplaneError(
            Reason.MALFORMED_REQUEST,
            f"the payload is no {message_type.DESCRIPTOR.full_name}",
        ) from error
