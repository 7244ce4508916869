"""The ports: how code that decides anything touches the world.

Router, cache, storage node and Metadata Store are plain synchronous code with callbacks over these
protocols. Each has a live implementation for real processes and one in memory (`wire.memory`,
`cache.memory`, `storage.memory`) that is deterministic, for tests and for the seeded world.

Rules that every implementation keeps:

* A callback runs exactly once, on the owner's one thread of control, and never inside the call that
  took it: a caller finishes its own step before it sees the answer.
* Times are seconds on `Clock.now()`'s axis. Deadlines are points on it, not durations.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping, MutableSequence, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol, TypeVar

from mypy_extensions import mypyc_attr

from keyplane.model.errors import KeyplaneError

_T = TypeVar("_T")


class Timer(Protocol):
    def cancel(self) -> None: ...


class Clock(Protocol):
    def now(self) -> float:
        """Monotonic seconds. Comparable only inside one process."""

    def wall(self) -> float:
        """Seconds since 1970, for display and records; nothing is decided by it."""

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer: ...

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Runs after the events now being handled, before any later ones: the end of a tick."""


class Rng(Protocol):
    """The part of `random.Random` that cores may use."""

    def random(self) -> float: ...
    def getrandbits(self, k: int, /) -> int: ...
    def randrange(self, stop: int, /) -> int: ...
    def shuffle(self, x: MutableSequence[_T], /) -> None: ...


# --- Calls between processes -------------------------------------------------------------------


# Replies and requests are never changed. They are written out because a dataclass takes longer to
# make, a frozen one three times as long, which at several a request is felt.


@mypyc_attr(free_list_len=1)
class Reply:
    """The end of a call: a payload, or an error.

    sent: False when the transport knows that the request never left this process, which makes the
    failure definite whatever its code says.
    """

    __slots__ = ("error", "payload", "sent")

    def __init__(
        self, payload: bytes = b"", error: KeyplaneError | None = None, sent: bool = True
    ) -> None:
        self.payload = payload
        self.error = error
        self.sent = sent

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Reply)
            and self.payload == other.payload
            and self.error == other.error
            and self.sent == other.sent
        )

    def __hash__(self) -> int:
        return hash((self.payload, self.error, self.sent))

    def __repr__(self) -> str:
        return f"Reply({self.payload!r}, {self.error!r}, sent={self.sent})"


@mypyc_attr(acyclic=True, free_list_len=1)
class Request:
    """A call as its server sees it. `method` is the full name, `/package.Service/Method`.

    authorization: who signed it (`keyplane.model.signature`), where the transport has read that
        apart from `metadata`.
    sealed_by: whose connection it came on, as its `SealKeys` said; None for nobody's.
    """

    __slots__ = (
        *("authorization", "deadline", "metadata", "method", "payload", "peer", "sealed_by"),
    )

    def __init__(
        self,
        method: str,
        payload: bytes,
        deadline: float,
        peer: str = "",
        metadata: Mapping[str, str] = MappingProxyType({}),
        authorization: bytes = b"",
        sealed_by: object = None,
    ) -> None:
        self.method = method
        self.payload = payload
        self.deadline = deadline
        self.peer = peer
        self.metadata = metadata
        self.authorization = authorization
        self.sealed_by = sealed_by


ReplyFn = Callable[[Reply], None]
Handler = Callable[[Request, ReplyFn], None]


class Call(Protocol):
    def cancel(self) -> None:
        """Gives the call up. `on_reply` still runs, with CANCELLED unless an answer was first."""


class Transport(Protocol):
    """Unary calls to other processes."""

    def call(
        self,
        address: str,
        method: str,
        payload: bytes,
        deadline: float,
        on_reply: ReplyFn,
        metadata: Sequence[tuple[str, str]] = (),
    ) -> Call:
        """Sends one request. Past the deadline `on_reply` gets DEADLINE_EXCEEDED."""


class SealKeys(Protocol):
    """Whoever may seal connections to a server (`wire.http2.seal`)."""

    def seal_key(self, key_id: bytes) -> tuple[object, bytes] | None:
        """Who has this key, and its secret; None if nobody has."""


class Server(Protocol):
    """Where a core registers what it serves."""

    def register(self, method: str, handler: Handler) -> None: ...

    def take_seals(self, keys: SealKeys) -> None:
        """Lets callers seal their connections, if the transport has that; they can always sign."""


# --- MemDS -------------------------------------------------------------------------------------


class MemdsOutcome(enum.Enum):
    """How a memcached node answered. Only OK says anything about keys, and none deletes a route."""

    OK = "ok"
    # It answered, but the marker that publishers keep on every node is gone: it was flushed or
    # restarted, so its misses mean nothing.
    EMPTY = "empty"
    TIMEOUT = "timeout"
    # Connection refused or broken.
    DOWN = "down"
    # It answered with an error: value too large, out of memory, garbage.
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class MemdsGet:
    """values: the keys that were found. tokens: their CAS tokens, only of `gets_many`."""

    outcome: MemdsOutcome
    values: Mapping[str, bytes] = field(default_factory=dict)
    tokens: Mapping[str, bytes] = field(default_factory=dict)


class MemdsStore(enum.Enum):
    """How one conditional store ended."""

    STORED = "stored"
    # Somebody else stored first (cas), or the key is there already (add).
    CONFLICT = "conflict"
    # The key of a cas has vanished.
    MISSING = "missing"
    # No usable answer; see the outcome.
    FAILED = "failed"


class MemdsNode(Protocol):
    """One memcached node. Each call is one request to it, bounded in time by the node's timeout."""

    @property
    def name(self) -> str: ...

    def get_many(self, keys: Sequence[str], on_done: Callable[[MemdsGet], None]) -> None: ...

    def gets_many(self, keys: Sequence[str], on_done: Callable[[MemdsGet], None]) -> None:
        """As get_many, with CAS tokens."""

    def set_many(
        self, values: Mapping[str, bytes], on_done: Callable[[MemdsOutcome], None]
    ) -> None: ...

    def cas(
        self,
        key: str,
        value: bytes,
        token: bytes,
        on_done: Callable[[MemdsStore, MemdsOutcome], None],
    ) -> None: ...

    def add(
        self, key: str, value: bytes, on_done: Callable[[MemdsStore, MemdsOutcome], None]
    ) -> None:
        """Stores only if the key is not there."""


# --- Storage -----------------------------------------------------------------------------------


class EngineError(Exception):
    """A read or write that the device or the engine refused; the message says which and why."""


@dataclass(slots=True)
class Batch:
    """Changes that become visible and durable together.

    Applied in this order: delete_ranges (half-open), then writes (None deletes the key).
    """

    writes: dict[bytes, bytes | None] = field(default_factory=dict)
    delete_ranges: list[tuple[bytes, bytes]] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.writes or self.delete_ranges)


class Snapshot(Protocol):
    """A frozen view of an engine. Must be closed."""

    def get(self, key: bytes) -> bytes | None: ...

    def scan(
        self, start: bytes, end: bytes, backward: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """Entries with start <= key < end in key order, or in reverse."""

    def close(self) -> None: ...


class Engine(Protocol):
    """An ordered key-value store."""

    def get(self, key: bytes) -> bytes | None:
        """Sees committed batches only. Raises EngineError."""

    def scan(
        self, start: bytes, end: bytes, backward: bool = False
    ) -> Iterator[tuple[bytes, bytes]]: ...

    def commit(
        self, batch: Batch, sync: bool, on_done: Callable[[EngineError | None], None]
    ) -> None:
        """Makes a batch durable: against the death of the process, or with `sync` of the machine.

        Batches commit in the order of their calls. After an error it is open whether the batch
        will be there after a restart.
        """

    def snapshot(self) -> Snapshot: ...

    def close(self) -> None: ...


class Disk(Protocol):
    """Small files replaced whole."""

    def read(self, name: str) -> bytes | None:
        """Contents, or None if there is no such file. Raises OSError for anything else."""

    def write_atomic(
        self, name: str, content: bytes, on_done: Callable[[OSError | None], None]
    ) -> None:
        """Replaces the file durably: after a crash it holds the old content or the new, whole."""
