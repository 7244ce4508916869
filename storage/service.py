"""The storage node's methods: bytes in, the part that handles them, bytes or an error out."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from keyplane.model.errors import KeyplaneError, Reason
from storage.answer import Answer
from wire.metrics import Counter, Metrics
from wire.ports import Handler, Reply, ReplyFn, Request, Server

STORAGE_SERVICE = "keyplane.storage.v1.StorageService"
OWNERSHIP_SERVICE = "keyplane.storage.v1.OwnershipService"
TRANSFER_SERVICE = "keyplane.storage.v1.TransferService"
SERVICES = (STORAGE_SERVICE, OWNERSHIP_SERVICE, TRANSFER_SERVICE)

_Req = TypeVar("_Req", bound=Message)
_Res = TypeVar("_Res", bound=Message)


class _Counted:
    """The answer to one call, counted if it is an error."""

    __slots__ = ("_errors", "_reply")

    def __init__(self, errors: Counter, reply: ReplyFn) -> None:
        self._errors = errors
        self._reply = reply

    def answer(self, answer: Reply) -> None:
        if answer.error is not None:
            self._errors.inc(answer.error.reason.name)
        self._reply(answer)


class Registrar:
    """Registers handlers on a server and counts the errors they answer with.

    While `refuse` returns an error, every call is answered with it.
    """

    def __init__(
        self, server: Server, metrics: Metrics, refuse: Callable[[], KeyplaneError | None]
    ) -> None:
        self._server = server
        self._refuse = refuse
        self._errors = metrics.counter("storage_errors", "Error answers by reason", "reason")

    def raw(self, method: str, handler: Handler) -> None:
        """A handler of undecoded requests, which may raise KeyplaneError to refuse one."""

        def handle(request: Request, reply: ReplyFn) -> None:
            counted = _Counted(self._errors, reply)
            refusal = self._refuse()
            if refusal is not None:
                counted.answer(Reply(error=refusal))
                return
            try:
                handler(request, counted.answer)
            except KeyplaneError as error:
                counted.answer(Reply(error=error))

        self._server.register(f"/{method}", handle)

    def answered(
        self,
        method: str,
        request_type: type[_Req],
        handler: Callable[[_Req, Answer[_Res]], None],
    ) -> None:
        """A handler that answers now or later."""

        def handle(request: Request, reply: ReplyFn) -> None:
            handler(_decode(request_type, request.payload), Answer(reply))

        self.raw(method, handle)

    def immediate(
        self, method: str, request_type: type[_Req], handler: Callable[[_Req], Message]
    ) -> None:
        """A handler that returns its answer."""

        def handle(request: Request, reply: ReplyFn) -> None:
            response = handler(_decode(request_type, request.payload))
            reply(Reply(response.SerializeToString()))

        self.raw(method, handle)


def _decode(request_type: type[_Req], payload: bytes) -> _Req:
    try:
        return request_type.FromString(payload)
    except DecodeError as error:
        name = request_type.DESCRIPTOR.name
        raise KeyplaneError(Reason.MALFORMED_REQUEST, f"not a {name}: {error}") from error
