"""Lanes: each carries one request at a time from the load generator to what it measures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from bench._items import GET, Op, Requests
from keyplane.model.signature import HEADER, Signer
from wire.ports import Reply, Transport

# Seconds a request may take. What takes longer is a failure.
DEADLINE_S: Final = 5.0


class Lane(Protocol):
    """done: called with what went wrong, empty if nothing did, once for each `send`."""

    done: Callable[[str], None]

    def send(self, op: Op, number: int) -> None:
        """Only while nothing is under way. May call `done` only after it has returned."""

    def close(self) -> None: ...


def unset(_failure: str) -> None:
    raise AssertionError("set `done` before the first request")


class GrpcLane:
    """Over any `Transport`: all lanes to an address share its connection."""

    __slots__ = (
        *("_address", "_encode", "_fault", "_methods", "_now", "_number", "_op", "_transport"),
        *("_reply", "_signer", "done"),
    )

    def __init__(
        self,
        transport: Transport,
        address: str,
        requests: Requests,
        methods: Sequence[str],
        now: Callable[[], float],
        signer: Signer | None = None,
    ) -> None:
        """signer: signs each call, where the server asks for that."""
        self.done: Callable[[str], None] = unset
        self._transport = transport
        self._address = address
        self._encode = requests.encode
        self._fault = requests.fault
        self._methods = methods
        self._now = now
        self._signer = signer
        self._op = GET
        self._number = 0
        self._reply = self._on_reply

    def send(self, op: Op, number: int) -> None:
        self._op = op
        self._number = number
        method = self._methods[op]
        payload = self._encode(op, number)
        fields: Sequence[tuple[str, str]] = ()
        if self._signer is not None:
            fields = ((HEADER, self._signer.value(method, payload)),)
        self._transport.call(
            self._address, method, payload, self._now() + DEADLINE_S, self._reply, fields
        )

    def close(self) -> None:
        pass

    def _on_reply(self, reply: Reply) -> None:
        error = reply.error
        if error is None:
            self.done(self._fault(self._op, self._number, reply.payload))
        else:
            self.done(error.reason.name)
