"""How handlers of control calls answer: with a message or an error, once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from google.protobuf.message import Message

from keyplane.model.errors import KeyplaneError
from wire.ports import Reply, ReplyFn

_M = TypeVar("_M", bound=Message)


@dataclass(frozen=True, slots=True)
class Answer(Generic[_M]):
    """The way back to the caller of one method whose response is an `_M`."""

    reply: ReplyFn

    def ok(self, message: _M) -> None:
        self.reply(Reply(message.SerializeToString()))

    def fail(self, error: KeyplaneError) -> None:
        self.reply(Reply(error=error))
