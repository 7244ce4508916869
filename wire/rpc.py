"""What every implementation of gRPC here has in common: its bounds, and how its calls fail."""

from __future__ import annotations

from functools import lru_cache
from typing import TypeVar

from google.protobuf.message import DecodeError, Message
from google.rpc.status_pb2 import Status

from keyplane.model.errors import Code, KeyplaneError, Reason
from keyplane.model.grpc_failures import own_failure
from wire.ports import Reply

# Room for a batch of DynamoDB's 16 MB and its framing.
MESSAGE_BYTES_MAX = 20 * 1024 * 1024

# Of the trailers of one reply; the largest typed detail is a RouteHint of some hundred partitions.
METADATA_BYTES_MAX = 64 * 1024
DETAILS_BYTES_MAX = METADATA_BYTES_MAX // 2

# Refusals of peers that are recognised by their details, of one process, and how long those are.
REFUSALS_MAX = 1024
REFUSAL_BYTES_MAX = 2048

# Open channels of one process, one per address. Past it the longest unused idle one is closed.
CHANNELS_MAX = 1000

# Calls of one process that have not ended. A stop against leaks: cores bound their own far lower.
CALLS_MAX = 20_000

# Calls that one server works on at once; more are refused with RESOURCE_EXHAUSTED.
SERVER_CALLS_MAX = 20_000

# A peer whose machine is gone says nothing: ask after 10 s, give up 5 s later.
KEEPALIVE_S = 10
KEEPALIVE_TIMEOUT_S = 5

# A restarted peer is reached again within about a second.
RECONNECT_S_MIN = 0.05
RECONNECT_S_MAX = 1.0


_M = TypeVar("_M", bound=Message)


def read_request(message_type: type[_M], payload: bytes) -> _M:
    """Raises KeyplaneError(MALFORMED_REQUEST)."""
    try:
        return message_type.FromString(payload)
    except DecodeError as error:
        name = message_type.DESCRIPTOR.full_name
        raise KeyplaneError(Reason.MALFORMED_REQUEST, f"the request is no {name}") from error


def wire_status(error: KeyplaneError) -> Status:
    """The `google.rpc.Status` of an error, without its typed details if those are too large.

    Trailers that are too long would lose the whole answer; the reason is worth more.
    """
    status = error.to_status()
    if status.ByteSize() > DETAILS_BYTES_MAX:
        status = KeyplaneError(
            error.reason, error.message, retry_after_s=error.retry_after_s
        ).to_status()
    return status


def failed_reply(
    address: str,
    code: int,
    text: str,
    details: bytes,
    detail_types: tuple[type[Message], ...],
) -> Reply:
    """The end of a call to `address` that came back with a gRPC status other than OK.

    text, details: `grpc-message`, and the bytes of `grpc-status-details-bin`, empty if there are
    none.
    """
    if not details:
        own = own_failure(text)
        text = f"{address}: {text}"
        if own is not None:
            return Reply(error=KeyplaneError(own.reason, text), sent=own.sent)
    if code == Code.RESOURCE_EXHAUSTED and len(details) <= REFUSAL_BYTES_MAX:
        return Reply(error=_refusal(code, text, details, detail_types))
    return Reply(error=KeyplaneError.from_status(code, text, details, detail_types))


@lru_cache(REFUSALS_MAX)
def _refusal(
    code: int, text: str, details: bytes, detail_types: tuple[type[Message], ...]
) -> KeyplaneError:
    """One object for all that say the same: a peer that is overloaded says it to most requests.
    Whoever passes it on has to encode it once (`KeyplaneError.sent_as`).
    """
    return KeyplaneError.from_status(code, text, details, detail_types)


def broken_handler(method: str) -> KeyplaneError:
    """What a caller is told of a bug; the rest stays in the log."""
    return KeyplaneError(Reason.INTERNAL, f"{method} failed; the server's log says why")


def unknown_method(served: object) -> KeyplaneError:
    return KeyplaneError(Reason.UNKNOWN_METHOD, f"no such method; served here: {served}")
