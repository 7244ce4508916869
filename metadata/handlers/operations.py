"""GetOperation, ListOperations, CancelOperation."""

from __future__ import annotations

from itertools import islice

from keyplane.metadata.v1 import metadata_pb2 as pb
from keyplane.model.errors import KeyplaneError
from keyplane.model.tenants import Role
from metadata.access import sees
from metadata.catalog import operation_not_found
from metadata.handlers.checks import invalid, page_size
from metadata.handlers.dispatch import Answer, Handling, Parts
from metadata.handlers.page_tokens import make_token, read_token
from metadata.operations import Operation

_SEQUENCE_BYTES = 8


def _get(parts: Parts, request: pb.GetOperationRequest, answer: Answer) -> None:
    operation = _own(parts, request.operation_id)
    answer(pb.GetOperationResponse(operation=parts.operation_to_proto(operation)))


def _list(parts: Parts, request: pb.ListOperationsRequest, answer: Answer) -> None:
    """The caller's, the newest first. The token is the last sequence number shown."""
    size = page_size(request.page_size)
    position = read_token("operations", request.page_token)
    if position is not None and len(position) != _SEQUENCE_BYTES:
        raise invalid("this page token holds no position")
    catalog = parts.world.catalog
    before = int.from_bytes(position, "big") if position else catalog.counters.operation
    newest_first = reversed(
        (catalog.active if request.active_only else catalog.operations).values()
    )
    older = (each for each in newest_first if each.sequence < before)
    found = list(islice((each for each in older if sees(parts.caller, each.table)), size + 1))
    page = found[:size]
    token = ""
    if len(found) > size:
        token = make_token("operations", page[-1].sequence.to_bytes(_SEQUENCE_BYTES, "big"))
    answer(
        pb.ListOperationsResponse(
            operations=[parts.operation_to_proto(operation) for operation in page],
            next_page_token=token,
        )
    )


def _cancel(parts: Parts, request: pb.CancelOperationRequest, answer: Answer) -> None:
    def cancelled(outcome: Operation | KeyplaneError) -> None:
        if isinstance(outcome, KeyplaneError):
            answer(outcome)
        else:
            answer(pb.CancelOperationResponse(operation=parts.operation_to_proto(outcome)))

    parts.driver.cancel(_own(parts, request.operation_id).operation_id, cancelled)


def _own(parts: Parts, operation_id: str) -> Operation:
    """Raises KeyplaneError(OPERATION_NOT_FOUND), for what is another tenant's too."""
    operation = parts.world.catalog.operations.get(operation_id)
    if operation is not None and not sees(parts.caller, operation.table):
        raise operation_not_found(operation_id)
    return parts.world.catalog.operation(operation_id)


METHODS = {
    "GetOperation": Handling(pb.GetOperationRequest, _get, Role.READ),
    "ListOperations": Handling(pb.ListOperationsRequest, _list, Role.READ),
    "CancelOperation": Handling(pb.CancelOperationRequest, _cancel, Role.ADMIN),
}
