"""Calls to storage nodes, by node id and with messages instead of bytes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from google.protobuf.message import DecodeError, Message

from keyplane.model.errors import KeyplaneError, Reason
from keyplane.storage.v1 import storage_pb2 as storage
from metadata.catalog import Catalog
from metadata.config import MetadataConfig
from wire.ports import Clock, Reply, Transport

_M = TypeVar("_M", bound=Message)

_OWNERSHIP = "/keyplane.storage.v1.OwnershipService/"


@dataclass(frozen=True, slots=True)
class Method(Generic[_M]):
    """A method of a storage node, with the message it answers."""

    name: str
    answer: type[_M]


OPEN_PARTITIONS = Method(f"{_OWNERSHIP}OpenPartitions", storage.OpenPartitionsResponse)
SPLIT_PARTITION = Method(f"{_OWNERSHIP}SplitPartition", storage.SplitPartitionResponse)
MERGE_PARTITIONS = Method(f"{_OWNERSHIP}MergePartitions", storage.MergePartitionsResponse)
MOVE_PARTITION = Method(f"{_OWNERSHIP}MovePartition", storage.MovePartitionResponse)
CANCEL_MOVE = Method(f"{_OWNERSHIP}CancelMove", storage.CancelMoveResponse)
RELEASE_MOVED = Method(f"{_OWNERSHIP}ReleaseMoved", storage.ReleaseMovedResponse)
UPDATE_TABLE = Method(f"{_OWNERSHIP}UpdateTable", storage.UpdateTableResponse)
DROP_TABLE = Method(f"{_OWNERSHIP}DropTable", storage.DropTableResponse)
SUGGEST_SPLIT = Method(f"{_OWNERSHIP}SuggestSplit", storage.SuggestSplitResponse)


@dataclass(frozen=True, slots=True)
class Question:
    """One call to be made: which node, which method, with what."""

    node_id: str
    method: Method[Any]
    request: Message


class Peers:
    """The storage nodes as the catalog knows them."""

    def __init__(self, config: MetadataConfig, clock: Clock, transport: Transport) -> None:
        self._config = config
        self._clock = clock
        self._transport = transport
        self._catalog = Catalog()

    def open(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def ask(
        self,
        node_id: str,
        method: Method[_M],
        request: Message,
        on_answer: Callable[[_M | KeyplaneError], None],
    ) -> None:
        """Calls a node. An error is definite only if it is certain that the call did nothing."""

        def answered(reply: Reply) -> None:
            if reply.error is not None:
                on_answer(_refine(reply.error, reply.sent, node_id))
                return
            try:
                answer = method.answer.FromString(reply.payload)
            except DecodeError:
                on_answer(
                    KeyplaneError(Reason.INTERNAL, f"{node_id} answered something unreadable")
                )
                return
            on_answer(answer)

        address = self._catalog.node(node_id).address
        deadline = self._clock.now() + self._config.call_timeout_s
        self._transport.call(address, method.name, request.SerializeToString(), deadline, answered)

    def ask_all(
        self,
        questions: Iterable[Question],
        on_done: Callable[[KeyplaneError | None], None],
        tolerated: Collection[Reason] = (),
    ) -> None:
        """Asks all, a bounded number at once, and stops asking at the first error.

        on_done: None when all have answered, else that error, once nothing is under way any more.
        tolerated: reasons that count as an answer.
        """
        round_ = _Round(self, questions, self._config.fan_out_max, tolerated, on_done)
        self._clock.call_soon(round_.go_on)


class _Round:
    """One `ask_all` under way."""

    def __init__(
        self,
        peers: Peers,
        questions: Iterable[Question],
        width: int,
        tolerated: Collection[Reason],
        on_done: Callable[[KeyplaneError | None], None],
    ) -> None:
        self._peers = peers
        self._questions = iter(questions)
        self._width = width
        self._tolerated = tolerated
        self._on_done = on_done
        self._under_way = 0
        self._error: KeyplaneError | None = None

    def go_on(self) -> None:
        while self._under_way < self._width and self._error is None:
            question = next(self._questions, None)
            if question is None:
                break
            self._under_way += 1
            self._peers.ask(question.node_id, question.method, question.request, self._answered)
        if self._under_way == 0:
            self._on_done(self._error)

    def _answered(self, answer: Message | KeyplaneError) -> None:
        self._under_way -= 1
        if isinstance(answer, KeyplaneError) and answer.reason not in self._tolerated:
            self._failed(answer)
        self.go_on()

    def _failed(self, error: KeyplaneError) -> None:
        # An indefinite error outweighs a definite one: something may have been done.
        if self._error is None or self._error.definite:
            self._error = error


def _refine(error: KeyplaneError, sent: bool, node_id: str) -> KeyplaneError:
    if not sent and not error.definite:
        return KeyplaneError(
            Reason.NODE_UNREACHABLE, f"the call never left for {node_id}: {error.message}"
        )
    return error
