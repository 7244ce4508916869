"""From bytes to a checked request and back: what every method of the Metadata Store goes through.

Callers name tables as they know them, and inside they are `tenant/table`: a request's table is
checked and qualified here, before anything looks it up, and an error says the caller's own name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from google.protobuf.message import DecodeError, Message

from cache.callers import Caller
from keyplane.catalog.v1 import catalog_pb2 as catalog_pb
from keyplane.metadata.v1 import metadata_pb2 as pb
from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.tenants import Role, shown_to
from metadata.access import Access, qualified, shown
from metadata.driver import Driver
from metadata.kinds.script import World
from metadata.nodes import NodeRegistry
from metadata.operations import Operation
from metadata.planner.planner import Planner
from metadata.reconcile import Reconciler
from metadata.records import TableRecord
from metadata.writer import Decide, Writer
from wire.metrics import Metrics
from wire.ports import Clock, Reply, ReplyFn, Request, Server

SERVICE = "keyplane.metadata.v1.MetadataService"
TENANT_SERVICE = "keyplane.metadata.v1.TenantService"

_Q = TypeVar("_Q", bound=Message)

Answer = Callable[[Message | KeyplaneError], None]


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of the Metadata Store that methods use, and who calls."""

    world: World
    writer: Writer
    driver: Driver
    registry: NodeRegistry
    reconciler: Reconciler
    planner: Planner
    access: Access
    caller: Caller

    def begin(
        self,
        decide: Decide[Operation],
        answer: Answer,
        wrap: Callable[[pb.Operation], Message],
    ) -> None:
        """Starts an operation and answers with it once it is persisted."""

        def begun(outcome: Operation | KeyplaneError) -> None:
            if isinstance(outcome, KeyplaneError):
                answer(outcome)
                return
            self.driver.kick()
            answer(wrap(self.operation_to_proto(outcome)))

        self.writer.submit(decide, begun)

    def operation_to_proto(self, operation: Operation) -> pb.Operation:
        """As the caller sees it."""
        message = operation.to_proto(self.driver.progress(operation))
        message.table = shown(self.caller, operation.table)
        prefix = self.caller.tenant.prefix
        if prefix:
            message.message = message.message.replace(f"'{prefix}", "'")
            # It may say how much load which node has.
            message.planned_because = ""
        return message

    def table_to_proto(self, table: TableRecord) -> catalog_pb.Table:
        """As the caller sees it."""
        message = table.to_proto()
        message.name = shown(self.caller, table.name)
        return message


@dataclass(frozen=True, slots=True)
class Handling(Generic[_Q]):
    """One method: the message it takes, what answers it, and the role it takes to call it. `act`
    raises KeyplaneError to refuse and must not have changed anything then. all_tables: naming none
    stands for all.
    """

    request: type[_Q]
    act: Callable[[Parts, _Q, Answer], None]
    role: Role = Role.OPERATOR
    all_tables: bool = False


class Dispatcher:
    """gate: the error to answer everything with; None while the store is open."""

    def __init__(
        self,
        parts: Parts,
        clock: Clock,
        metrics: Metrics,
        gate: Callable[[], KeyplaneError | None],
    ) -> None:
        self._parts = parts
        self._clock = clock
        self._gate = gate
        self._refused = metrics.counter(
            "metadata_rejected", "Requests refused, by reason.", label="reason"
        )

    def register(self, server: Server, method: str, handling: Handling[Any]) -> None:
        """method: its full name."""

        def handle(request: Request, reply: ReplyFn) -> None:
            parts = self._parts

            def answer(outcome: Message | KeyplaneError) -> None:
                if isinstance(outcome, KeyplaneError):
                    self._refused.inc(outcome.reason.name)
                    tenant = parts.caller.tenant
                    reply(Reply(error=shown_to(outcome, tenant.prefix, tenant.account)))
                else:
                    reply(Reply(outcome.SerializeToString()))

            try:
                self._check_open()
                caller = parts.access.caller(request)
                parts = replace(parts, caller=caller)
                caller.require(handling.role, method.rpartition("/")[2])
                handling.act(parts, self._read(request, handling, caller), answer)
            except KeyplaneError as error:
                answer(error)

        server.register(method, handle)

    def _check_open(self) -> None:
        refusal = self._gate()
        if refusal is not None:
            raise refusal

    def _read(self, request: Request, handling: Handling[_Q], caller: Caller) -> _Q:
        if request.deadline <= self._clock.now():
            raise KeyplaneError(
                Reason.DEADLINE_BEFORE_START, "the deadline had passed before the request began"
            )
        try:
            message = handling.request.FromString(request.payload)
        except DecodeError as error:
            raise KeyplaneError(
                Reason.MALFORMED_REQUEST,
                f"this is not a {handling.request.DESCRIPTOR.full_name}",
            ) from error
        if "table" in handling.request.DESCRIPTOR.fields_by_name:
            table: str = message.table  # type: ignore[attr-defined]
            if table or not handling.all_tables:
                message.table = qualified(caller, table)  # type: ignore[attr-defined]
        return message
