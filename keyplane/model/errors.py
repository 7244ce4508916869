"""The one error table, read in both directions.

Every error that leaves a Keyplane process has a `Reason` from this table. On the wire it is a gRPC
status whose `grpc-status-details-bin` trailer carries a `google.rpc.Status` with an `ErrorInfo`
(domain `keyplane`, the reason's name), a `RetryInfo` where waiting helps, and any typed detail.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError, Message
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

DOMAIN = "keyplane"

# Longer messages are cut: they travel in gRPC trailers, where too much loses the whole answer.
MESSAGE_CHARS_MAX = 1000

_M = TypeVar("_M", bound=Message)


class Code(enum.IntEnum):
    """gRPC status codes (https://grpc.io/docs/guides/status-codes/), without importing gRPC."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


@dataclass(frozen=True, slots=True)
class _Row:
    """What a reason means to every reader of it.

    code: gRPC status code.
    definite: nothing was done; an indefinite failure may have been carried out.
    retryable: the same request may succeed later, or elsewhere.
    http, dynamodb: status and exception name of the DynamoDB JSON protocol.
    """

    code: Code
    definite: bool
    retryable: bool
    http: int
    dynamodb: str


_VALIDATION = (400, "ValidationException")
_INTERNAL = (500, "InternalServerError")
_UNAVAILABLE = (503, "ServiceUnavailable")
_NOT_FOUND = (400, "ResourceNotFoundException")
_IN_USE = (400, "ResourceInUseException")
_BAD_SIGNATURE = (400, "InvalidSignatureException")
_DENIED = (400, "AccessDeniedException")


class Reason(enum.Enum):
    """Why a request was not carried out, or cannot be said to have been."""

    # The caller's request is wrong; repeating it will not help.
    MALFORMED_REQUEST = _Row(Code.INVALID_ARGUMENT, True, False, 400, "SerializationException")
    INVALID_ARGUMENT = _Row(Code.INVALID_ARGUMENT, True, False, *_VALIDATION)
    WRONG_KEY_TYPE = _Row(Code.INVALID_ARGUMENT, True, False, *_VALIDATION)
    MISSING_KEY = _Row(Code.INVALID_ARGUMENT, True, False, *_VALIDATION)
    ITEM_TOO_LARGE = _Row(Code.INVALID_ARGUMENT, True, False, *_VALIDATION)
    BATCH_TOO_LARGE = _Row(Code.INVALID_ARGUMENT, True, False, *_VALIDATION)
    SPLIT_KEY_OUTSIDE_RANGE = _Row(Code.INVALID_ARGUMENT, True, False, *_VALIDATION)
    NOT_NEIGHBOURS = _Row(Code.INVALID_ARGUMENT, True, False, *_VALIDATION)
    UNKNOWN_METHOD = _Row(Code.UNIMPLEMENTED, True, False, 400, "UnknownOperationException")
    FAULTS_DISABLED = _Row(Code.PERMISSION_DENIED, True, False, *_DENIED)
    CALLER_NOT_LOCAL = _Row(Code.PERMISSION_DENIED, True, False, *_DENIED)

    # Who calls, and what they may do.
    MISSING_CREDENTIALS = _Row(
        Code.UNAUTHENTICATED, True, False, 400, "MissingAuthenticationTokenException"
    )
    UNKNOWN_KEY = _Row(Code.UNAUTHENTICATED, True, False, 400, "UnrecognizedClientException")
    BAD_SIGNATURE = _Row(Code.UNAUTHENTICATED, True, False, *_BAD_SIGNATURE)
    SIGNATURE_EXPIRED = _Row(Code.UNAUTHENTICATED, True, False, *_BAD_SIGNATURE)
    # What it was seen as may have been carried out: something on the way can double a call.
    REPLAYED = _Row(Code.UNAUTHENTICATED, False, True, *_BAD_SIGNATURE)
    TENANT_SUSPENDED = _Row(Code.PERMISSION_DENIED, True, False, *_DENIED)
    ROLE_NOT_ALLOWED = _Row(Code.PERMISSION_DENIED, True, False, *_DENIED)

    # What it names is not there, or not in a state that allows it.
    TABLE_NOT_FOUND = _Row(Code.NOT_FOUND, True, False, *_NOT_FOUND)
    PARTITION_NOT_FOUND = _Row(Code.NOT_FOUND, True, False, *_NOT_FOUND)
    NODE_NOT_FOUND = _Row(Code.NOT_FOUND, True, False, *_NOT_FOUND)
    FAULT_NOT_FOUND = _Row(Code.NOT_FOUND, True, False, *_NOT_FOUND)
    OPERATION_NOT_FOUND = _Row(Code.NOT_FOUND, True, False, *_NOT_FOUND)
    TENANT_NOT_FOUND = _Row(Code.NOT_FOUND, True, False, *_NOT_FOUND)
    USER_NOT_FOUND = _Row(Code.NOT_FOUND, True, False, *_NOT_FOUND)
    TENANT_EXISTS = _Row(Code.ALREADY_EXISTS, True, False, *_IN_USE)
    USER_EXISTS = _Row(Code.ALREADY_EXISTS, True, False, *_IN_USE)
    TENANT_NOT_EMPTY = _Row(Code.FAILED_PRECONDITION, True, False, *_IN_USE)
    NO_CLUSTER_SECRET = _Row(Code.FAILED_PRECONDITION, True, False, *_IN_USE)
    TABLE_EXISTS = _Row(Code.ALREADY_EXISTS, True, False, *_IN_USE)
    OPERATION_EXISTS = _Row(Code.ALREADY_EXISTS, True, False, *_IN_USE)
    TABLE_BUSY = _Row(Code.FAILED_PRECONDITION, True, True, *_IN_USE)
    PARTITION_BUSY = _Row(Code.FAILED_PRECONDITION, True, True, *_IN_USE)
    NODE_UNAVAILABLE = _Row(Code.FAILED_PRECONDITION, True, True, *_IN_USE)
    NO_STORAGE_NODES = _Row(Code.FAILED_PRECONDITION, True, True, *_IN_USE)
    LOAD_UNKNOWN = _Row(Code.FAILED_PRECONDITION, True, True, *_IN_USE)
    SPLIT_WOULD_NOT_HELP = _Row(Code.FAILED_PRECONDITION, True, False, *_IN_USE)
    ILLEGAL_TRANSITION = _Row(Code.FAILED_PRECONDITION, True, False, *_IN_USE)
    CONDITION_FAILED = _Row(
        Code.FAILED_PRECONDITION, True, False, 400, "ConditionalCheckFailedException"
    )

    # Routing: the router heals these; a client sees them only when the deadline ran out first.
    STALE_ROUTE = _Row(Code.ABORTED, True, True, *_UNAVAILABLE)
    NOT_SERVING = _Row(Code.UNAVAILABLE, True, True, *_UNAVAILABLE)
    NO_ROUTE = _Row(Code.UNAVAILABLE, True, True, *_UNAVAILABLE)
    NODE_UNREACHABLE = _Row(Code.UNAVAILABLE, True, True, *_UNAVAILABLE)

    # Too much at once.
    THROTTLED = _Row(
        Code.RESOURCE_EXHAUSTED, True, True, 400, "ProvisionedThroughputExceededException"
    )
    OVERLOADED = _Row(Code.RESOURCE_EXHAUSTED, True, True, 503, "ServiceUnavailable")
    LIMIT_EXCEEDED = _Row(Code.RESOURCE_EXHAUSTED, True, True, 400, "LimitExceededException")
    RETRY_BUDGET_SPENT = _Row(Code.UNAVAILABLE, True, True, *_UNAVAILABLE)
    MEMDS_UNAVAILABLE = _Row(Code.UNAVAILABLE, True, True, *_UNAVAILABLE)
    SHUTTING_DOWN = _Row(Code.UNAVAILABLE, True, True, *_UNAVAILABLE)

    # Time.
    DEADLINE_BEFORE_START = _Row(Code.DEADLINE_EXCEEDED, True, True, 500, "InternalServerError")
    DEADLINE_EXCEEDED = _Row(Code.DEADLINE_EXCEEDED, False, True, 500, "InternalServerError")
    CANCELLED = _Row(Code.CANCELLED, False, True, 499, "RequestCanceled")

    # Nobody can say whether it was done.
    CONNECTION_LOST = _Row(Code.UNAVAILABLE, False, True, *_UNAVAILABLE)
    RETRY_NOT_COVERED = _Row(Code.UNKNOWN, False, False, *_INTERNAL)
    WRITE_ERROR = _Row(Code.UNAVAILABLE, False, True, *_UNAVAILABLE)
    DATABASE_ERROR = _Row(Code.UNAVAILABLE, False, True, *_UNAVAILABLE)
    INTERNAL = _Row(Code.INTERNAL, False, False, *_INTERNAL)

    # The processes of a cluster, and commands, on this machine.
    CLUSTER_NOT_FOUND = _Row(Code.NOT_FOUND, True, False, *_NOT_FOUND)
    CLUSTER_BUSY = _Row(Code.FAILED_PRECONDITION, True, True, *_IN_USE)
    RUN_BUSY = _Row(Code.FAILED_PRECONDITION, True, True, *_IN_USE)
    MEMCACHED_MISSING = _Row(Code.FAILED_PRECONDITION, True, False, *_IN_USE)
    PORT_TAKEN = _Row(Code.FAILED_PRECONDITION, True, True, *_IN_USE)
    START_FAILED = _Row(Code.UNAVAILABLE, True, True, *_UNAVAILABLE)

    # Stored bytes that are not what was written.
    CORRUPT = _Row(Code.DATA_LOSS, True, False, *_INTERNAL)
    FOREIGN_FORMAT = _Row(Code.DATA_LOSS, True, False, *_INTERNAL)
    MAP_INVALID = _Row(Code.DATA_LOSS, True, False, *_INTERNAL)
    DIGEST_MISMATCH = _Row(Code.DATA_LOSS, True, True, *_INTERNAL)

    def __new__(cls, row: _Row) -> Reason:
        # Rows may be equal; a value of its own keeps reasons from becoming aliases of each other.
        member = object.__new__(cls)
        member._value_ = (len(cls.__members__), row)
        return member

    @property
    def row(self) -> _Row:
        row: _Row = self._value_[1]
        return row

    @property
    def code(self) -> Code:
        return self.row.code

    @property
    def definite(self) -> bool:
        return self.row.definite

    @property
    def retryable(self) -> bool:
        return self.row.retryable

    @property
    def http_status(self) -> int:
        return self.row.http

    @property
    def dynamodb_name(self) -> str:
        return self.row.dynamodb


# For a status that carries no reason of ours (a proxy, another server, gRPC itself).
_BY_CODE: Mapping[int, Reason] = {
    Code.CANCELLED: Reason.CANCELLED,
    Code.INVALID_ARGUMENT: Reason.INVALID_ARGUMENT,
    Code.DEADLINE_EXCEEDED: Reason.DEADLINE_EXCEEDED,
    Code.RESOURCE_EXHAUSTED: Reason.OVERLOADED,
    Code.UNAVAILABLE: Reason.CONNECTION_LOST,
    Code.UNIMPLEMENTED: Reason.UNKNOWN_METHOD,
}


@dataclass(slots=True, eq=False)
class KeyplaneError(Exception):
    """A failure with a reason from the table.

    message: one sentence for people, naming the remedy where there is one.
    metadata: facts for programs, as strings; travels as ErrorInfo.metadata.
    retry_after_s: seconds after which a retry makes sense; travels as RetryInfo.
    details: typed protobuf messages for the receiver, such as a RouteHint.
    sent_as: what a transport has made of all this to send it, for when it is sent again. Nothing of
        an error is changed once it has been made.
    """

    reason: Reason
    message: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    retry_after_s: float | None = None
    details: tuple[Message, ...] = ()
    sent_as: object = field(default=None, init=False, repr=False)

    def __str__(self) -> str:
        return f"{self.reason.name}: {self.message}"

    @property
    def definite(self) -> bool:
        return self.reason.definite

    @property
    def retryable(self) -> bool:
        return self.reason.retryable

    def detail(self, kind: type[_M]) -> _M | None:
        """The first typed detail of the given message type."""
        for message in self.details:
            if isinstance(message, kind):
                return message
        return None

    def to_status(self) -> Status:
        """The `google.rpc.Status` that says all of this on the wire."""
        status = Status(code=self.reason.code, message=self.message[:MESSAGE_CHARS_MAX])
        info = ErrorInfo(reason=self.reason.name, domain=DOMAIN, metadata=dict(self.metadata))
        status.details.add().Pack(info)
        if self.retry_after_s is not None:
            delay = Duration()
            delay.FromNanoseconds(round(self.retry_after_s * 1e9))
            status.details.add().Pack(RetryInfo(retry_delay=delay))
        for message in self.details:
            status.details.add().Pack(message)
        return status

    @classmethod
    def from_status(
        cls,
        code: int,
        message: str,
        details: bytes = b"",
        detail_types: tuple[type[Message], ...] = (),
    ) -> KeyplaneError:
        """Reads a gRPC status back.

        details: the `grpc-status-details-bin` trailer, empty if there was none. Garbage in it, and
        reasons this build does not know, fall back to what the code alone says.
        detail_types: messages to unpack into `details`; others are dropped.
        """
        reason = _BY_CODE.get(code, Reason.INTERNAL)
        metadata: dict[str, str] = {}
        retry_after_s = None
        typed: list[Message] = []
        try:
            packed = Status.FromString(details).details if details else ()
            for any_ in packed:
                if any_.Is(ErrorInfo.DESCRIPTOR):
                    info = ErrorInfo.FromString(any_.value)
                    if info.domain == DOMAIN:
                        reason = Reason.__members__.get(info.reason, reason)
                        metadata = dict(info.metadata)
                elif any_.Is(RetryInfo.DESCRIPTOR):
                    delay = RetryInfo.FromString(any_.value).retry_delay
                    retry_after_s = max(0.0, delay.seconds + delay.nanos / 1e9)
                else:
                    for kind in detail_types:
                        if any_.Is(kind.DESCRIPTOR):
                            typed.append(kind.FromString(any_.value))
        except DecodeError:
            pass
        return cls(reason, message, metadata, retry_after_s, tuple(typed))
