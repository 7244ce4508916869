"""Calls to the other end of a move, each with a deadline and a bounded number of tries."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.retry import Backoff
from storage.config import MoveConfig
from wire.ports import Clock, Reply, Rng, Transport

_SERVICE = "/keyplane.storage.v1.TransferService/"

_M = TypeVar("_M", bound=Message)


class Peer:
    """One node as the partner in one move.

    Every method of the transfer service may be repeated, so any failure that could go away is tried
    again, whether or not the call was carried out.
    """

    def __init__(
        self, config: MoveConfig, clock: Clock, transport: Transport, rng: Rng, address: str
    ) -> None:
        self._config = config
        self._clock = clock
        self._transport = transport
        self._rng = rng
        self._address = address
        self._backoff = Backoff(config.retry_s_min, config.retry_s_max)
        self._closed = False

    def close(self) -> None:
        """From now on no answer is passed on and nothing is tried again."""
        self._closed = True

    def call(
        self,
        method: str,
        request: Message,
        response: type[_M],
        on_ok: Callable[[_M], None],
        on_error: Callable[[KeyplaneError], None],
        attempts: int,
        patience_s: float = 0.0,
    ) -> None:
        """attempts: how often to try in all, or more often until `patience_s` have passed."""
        payload = request.SerializeToString()
        give_up = self._clock.now() + patience_s

        def attempt(number: int) -> None:
            if self._closed:
                return
            deadline = self._clock.now() + self._config.call_timeout_s
            self._transport.call(
                self._address, _SERVICE + method, payload, deadline, lambda r: ended(r, number)
            )

        def ended(reply: Reply, number: int) -> None:
            if self._closed:
                return
            error = reply.error
            if error is None:
                try:
                    message = response.FromString(reply.payload)
                except DecodeError as garbage:
                    error = KeyplaneError(Reason.INTERNAL, f"unreadable answer: {garbage}")
                else:
                    on_ok(message)
                    return
            # A digest that differs will differ again.
            passing = error.retryable and error.reason is not Reason.DIGEST_MISMATCH
            if passing and (number + 1 < attempts or self._clock.now() < give_up):
                delay_s = self._backoff.delay_s(number, self._rng.random())
                self._clock.call_later(delay_s, lambda: attempt(number + 1))
            else:
                on_error(error)

        attempt(0)
