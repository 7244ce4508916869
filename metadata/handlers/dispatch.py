"""From bytes to a checked request and back: what every method of MetadataService goes through."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from google.protobuf.message import DecodeError, Message

from keyplane.metadata.v1 import metadata_pb2 as pb
from keyplane.model.errors import KeyplaneError, Reason
from metadata.driver import Driver
from metadata.kinds.script import World
from metadata.nodes import NodeRegistry
from metadata.operations import Operation
from metadata.planner.planner import Planner
from metadata.reconcile import Reconciler
from metadata.writer import Decide, Writer
from wire.metrics import Metrics
from wire.ports import Clock, Reply, ReplyFn, Request, Server

SERVICE = "keyplane.metadata.v1.MetadataService"

_Q = TypeVar("_Q", bound=Message)

Answer = Callable[[Message | KeyplaneError], None]


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of the Metadata Store that methods use."""

    world: World
    writer: Writer
    driver: Driver
    registry: NodeRegistry
    reconciler: Reconciler
    planner: Planner

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
        return operation.to_proto(self.driver.progress(operation))


@dataclass(frozen=True, slots=True)
class Handling(Generic[_Q]):
    """One method: the message it takes, and what answers it. `act` raises KeyplaneError to refuse
    and must not have changed anything then."""

    request: type[_Q]
    act: Callable[[Parts, _Q, Answer], None]


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

    def register(self, server: Server, name: str, handling: Handling[Any]) -> None:
        def handle(request: Request, reply: ReplyFn) -> None:
            def answer(outcome: Message | KeyplaneError) -> None:
                if isinstance(outcome, KeyplaneError):
                    self._refused.inc(outcome.reason.name)
                    reply(Reply(error=outcome))
                else:
                    reply(Reply(outcome.SerializeToString()))

            try:
                handling.act(self._parts, self._read(request, handling), answer)
            except KeyplaneError as error:
                answer(error)

        server.register(f"/{SERVICE}/{name}", handle)

    def _read(self, request: Request, handling: Handling[_Q]) -> _Q:
        refusal = self._gate()
        if refusal is not None:
            raise refusal
        if request.deadline <= self._clock.now():
            raise KeyplaneError(
                Reason.DEADLINE_BEFORE_START, "the deadline had passed before the request began"
            )
        try:
            return handling.request.FromString(request.payload)
        except DecodeError as error:
            raise KeyplaneError(
                Reason.MALFORMED_REQUEST,
                f"this is not a {handling.request.DESCRIPTOR.full_name}",
            ) from error
