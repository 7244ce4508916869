"""Drives calls of a client core in virtual time against routers that answer as they are told."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from google.protobuf.message import Message

from keyplane.client.call import Call, Send, Wait
from keyplane.client.config import ClientConfig
from keyplane.client.core import ClientCore
from keyplane.model.errors import KeyplaneError, Reason

T = TypeVar("T")

# Takes a request and gives an answer, or raises what the attempt ends with.
Answer = Callable[[Any], Message]

CLIENT = bytes(range(16))
HANGS = KeyplaneError(Reason.DEADLINE_EXCEEDED, "no answer in time")
LOST = KeyplaneError(Reason.CONNECTION_LOST, "went away")
REFUSED = KeyplaneError(Reason.NODE_UNREACHABLE, "nothing listens")


@dataclass(frozen=True)
class Sent:
    at: float
    router: str
    request: Any
    timeout_s: float


@dataclass
class ClientWorld:
    """answers: what the next attempts get, in order; the last one stays.

    sent: every attempt, with a copy of the request as it was then.
    """

    routers: int = 3
    config: ClientConfig = field(default_factory=ClientConfig)
    seed: int = 1
    latency_s: float = 0.001
    answers: list[Answer | KeyplaneError | Message] = field(default_factory=list)
    sent: list[Sent] = field(default_factory=list)
    now: float = 100.0

    def __post_init__(self) -> None:
        addresses = [f"router-{n}" for n in range(1, self.routers + 1)]
        rng = random.Random(self.seed)
        self.core = ClientCore(addresses, self.config, rng, CLIENT, self.now)

    def run(self, call: Call[T]) -> T:
        while True:
            step = call.next(self.now)
            if isinstance(step, Wait):
                self.now += step.seconds
                continue
            answer = self._attempt(call, step)
            if isinstance(answer, KeyplaneError):
                call.failed(self.now, answer)
            elif call.answered(self.now, answer):
                return call.result

    def error(self, call: Call[T]) -> KeyplaneError:
        try:
            self.run(call)
        except KeyplaneError as error:
            return error
        raise AssertionError("it succeeded")

    def _attempt(self, call: Call[T], step: Send) -> Message | KeyplaneError:
        request = type(call.request)()
        request.CopyFrom(call.request)
        self.sent.append(Sent(self.now, step.router, request, step.timeout_s))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer is HANGS:
            self.now += step.timeout_s
            return answer
        self.now += self.latency_s
        if isinstance(answer, KeyplaneError | Message):
            return answer
        try:
            return answer(request)
        except KeyplaneError as error:
            return error
