"""Exception classes for callers: one for each thing a caller can do about a failure.

Every one is a `KeyplaneError`; its `reason` says exactly what happened.
"""

from __future__ import annotations

from collections.abc import Mapping

from keyplane.data.v1 import data_pb2 as data
from keyplane.model.errors import Code, KeyplaneError, Reason


class InvalidRequest(KeyplaneError):
    """The request is wrong. Repeating it will not help."""

    __slots__ = ()


class NotFound(KeyplaneError):
    """What the request names does not exist."""

    __slots__ = ()


class TableNotFound(NotFound):
    """There is no such table, or it has been deleted."""

    __slots__ = ()


class AlreadyExists(KeyplaneError):
    """Something of that name exists already."""

    __slots__ = ()


class ConditionFailed(KeyplaneError):
    """The item is not as the write's condition demands. Nothing was done."""

    __slots__ = ()


class WrongState(KeyplaneError):
    """What the request names is busy, or not in a state that allows it. Nothing was done."""

    __slots__ = ()


class AccessDenied(KeyplaneError):
    """The call is not signed by anybody who may make it. Nothing was done."""

    __slots__ = ()


class Unavailable(KeyplaneError):
    """Nothing was done, and the same request may succeed later."""

    __slots__ = ()


class Overloaded(Unavailable):
    """Too many requests at once. Send fewer, and wait `retry_after_s` if it is set."""

    __slots__ = ()


class Throttled(Unavailable):
    """A table or partition has used what it may for the moment. Send less, or wait `retry_after_s`.

    `metadata["reason"]` is DynamoDB's name for the limit, `metadata["resource"]` what has it.
    """

    __slots__ = ()


class OutcomeUnknown(KeyplaneError):
    """Nobody can say whether it was done. Read the item before you decide what to do."""

    __slots__ = ()


class DeadlineExceeded(OutcomeUnknown):
    """No answer in time. A write may have been done."""

    __slots__ = ()


class BatchIncomplete(KeyplaneError):
    """Part of a batch was left when the time ran out; the rest of it was done.

    unprocessed_keys, unprocessed_writes: what was left, by table; one of the two is empty. Whether
    a write may have been done all the same is in its `indefinite`.
    """

    __slots__ = ("unprocessed_keys", "unprocessed_writes")

    def __init__(
        self,
        reason: Reason,
        message: str,
        unprocessed_keys: Mapping[str, data.TableKeys] | None = None,
        unprocessed_writes: Mapping[str, data.TableWrites] | None = None,
    ) -> None:
        super().__init__(reason, message)
        self.unprocessed_keys = dict(unprocessed_keys or {})
        self.unprocessed_writes = dict(unprocessed_writes or {})


_BY_REASON: Mapping[Reason, type[KeyplaneError]] = {
    Reason.CONDITION_FAILED: ConditionFailed,
    Reason.TABLE_NOT_FOUND: TableNotFound,
    Reason.DEADLINE_EXCEEDED: DeadlineExceeded,
    Reason.THROTTLED: Throttled,
    Reason.OVERLOADED: Overloaded,
    Reason.UNKNOWN_METHOD: InvalidRequest,
    Reason.REPLAYED: OutcomeUnknown,
}

_BY_CODE: Mapping[Code, type[KeyplaneError]] = {
    Code.INVALID_ARGUMENT: InvalidRequest,
    Code.NOT_FOUND: NotFound,
    Code.ALREADY_EXISTS: AlreadyExists,
    Code.FAILED_PRECONDITION: WrongState,
    Code.UNAUTHENTICATED: AccessDenied,
    Code.PERMISSION_DENIED: AccessDenied,
}


def error_class(reason: Reason) -> type[KeyplaneError]:
    """The class in which a reason is raised; KeyplaneError itself where no other says more."""
    found = _BY_REASON.get(reason) or _BY_CODE.get(reason.code)
    if found is not None:
        return found
    if not reason.definite:
        return OutcomeUnknown
    return Unavailable if reason.retryable else KeyplaneError


def typed(error: KeyplaneError) -> KeyplaneError:
    """The same error as an instance of its class."""
    kind = error_class(error.reason)
    if isinstance(error, kind):
        return error
    return kind(error.reason, error.message, error.metadata, error.retry_after_s, error.details)
