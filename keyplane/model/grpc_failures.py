"""How failures look on gRPC's wire, for everything that reads them off a finished call."""

from __future__ import annotations

from typing import NamedTuple

from keyplane.model.errors import Reason

# Trailer that carries a `google.rpc.Status`.
DETAILS_KEY = "grpc-status-details-bin"


class OwnFailure(NamedTuple):
    """A failure that grpcio makes and words itself.

    sent: False if the request never left this process.
    """

    reason: Reason
    sent: bool


# In the order tried. The prefixes tell the two ends apart: an answer that its server found too
# large says nothing about whether the call was carried out. Pinned by tests against grpcio.
_WORDINGS = (
    ("failed to connect to all addresses", OwnFailure(Reason.NODE_UNREACHABLE, False)),
    ("errors resolving", OwnFailure(Reason.NODE_UNREACHABLE, False)),
    ("DNS resolution failed", OwnFailure(Reason.NODE_UNREACHABLE, False)),
    ("CLIENT: Sent message larger than max", OwnFailure(Reason.INVALID_ARGUMENT, False)),
    ("SERVER: Received message larger than max", OwnFailure(Reason.INVALID_ARGUMENT, True)),
    # The call may well have been carried out; only its answer did not fit.
    ("CLIENT: Received message larger than max", OwnFailure(Reason.INTERNAL, True)),
)


def own_failure(text: str) -> OwnFailure | None:
    """What grpcio's own words stand for; None if they are not grpcio's."""
    return next((failure for wording, failure in _WORDINGS if wording in text), None)
