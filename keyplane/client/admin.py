"""Clients of the Metadata Store: tables, partitions, nodes, operations and tenants, for tools and
tests.

One attempt per call, on one connection, and a typed error. Applications that read and write items
need none of this, and go on without it.
"""

from __future__ import annotations

import asyncio
import time
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message

from keyplane.client.channels import CallSigner, channel_options, read_error, serialize
from keyplane.client.config import ClientConfig
from keyplane.client.errors import DeadlineExceeded, typed
from keyplane.metadata.v1 import metadata_pb2 as pb
from keyplane.model.credentials import Credentials
from keyplane.model.errors import KeyplaneError, Reason

_R = TypeVar("_R", bound=Message)

_SERVICES = tuple(pb.DESCRIPTOR.services_by_name.values())

# Seconds a call may take; long work is an operation, whose call only starts it.
TIMEOUT_S = 10.0

# Seconds between two looks at an operation that is waited for.
POLL_S = 0.05

_ENDED = (pb.OPERATION_STATE_SUCCEEDED, pb.OPERATION_STATE_FAILED)


def _path(request: Message) -> str:
    """Of the method that takes this request: `XRequest` is taken by `X` and gives `XResponse`."""
    method = request.DESCRIPTOR.name.removesuffix("Request")
    (service,) = (each for each in _SERVICES if method in each.methods_by_name)
    return f"/{service.full_name}/{method}"


def _response_type(request: Message) -> Any:
    return getattr(pb, f"{request.DESCRIPTOR.name.removesuffix('Request')}Response")


def has_ended(operation: pb.Operation) -> bool:
    return operation.state in _ENDED


def check_succeeded(operation: pb.Operation) -> pb.Operation:
    """The operation itself, or its failure as the error it failed with."""
    if operation.state != pb.OPERATION_STATE_FAILED:
        return operation
    reason = Reason.__members__.get(operation.reason, Reason.INTERNAL)
    raise typed(KeyplaneError(reason, f"{operation.operation_id}: {operation.message}"))


def _failure(address: str, failure: Any) -> KeyplaneError:
    error = read_error(address, failure)
    if error.reason is Reason.NODE_UNREACHABLE:
        message = (
            f"the Metadata Store does not answer at {address}; items are served without it, but "
            "tables and partitions wait for it (`keyplane restart metadata`)"
        )
        error = KeyplaneError(error.reason, message)
    return typed(error)


def _still_running(operation_id: str, timeout_s: float) -> KeyplaneError:
    return DeadlineExceeded(
        Reason.DEADLINE_EXCEEDED,
        f"operation {operation_id} has not ended after {timeout_s:g} s; it goes on by itself",
    )


class AdminClient:
    """Blocking client of the Metadata Store.

    `call` sends any request of MetadataService or TenantService, and is typed by the response one
    asks for:

        admin.call(pb.ListNodesRequest(), pb.ListNodesResponse).nodes
    """

    def __init__(
        self,
        address: str,
        config: ClientConfig | None = None,
        credentials: Credentials | None = None,
    ) -> None:
        """credentials: as of `Client`."""
        self._address = address
        self._signer = CallSigner(credentials)
        options = channel_options(config or ClientConfig())
        self._channel = grpc.insecure_channel(address, options=options)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._channel.close()

    def call(self, request: Message, response_type: type[_R], timeout_s: float = TIMEOUT_S) -> _R:
        """Raises KeyplaneError, typed as in `keyplane.client.errors`."""
        path = _path(request)
        method: Any = self._channel.unary_unary(path, serialize, response_type.FromString)
        message, metadata = self._signer.sign(path, request)
        try:
            response: _R = method(message, timeout=timeout_s, metadata=metadata)
        except grpc.RpcError as failure:
            error = _failure(self._address, failure)
        else:
            return response
        raise error

    def run(self, request: Message, timeout_s: float = 60.0) -> pb.Operation:
        """Starts an operation and waits until it has succeeded. Errors as `wait_operation`."""
        operation = self.call(request, _response_type(request)).operation
        return self.wait_operation(operation.operation_id, timeout_s)

    def wait_operation(self, operation_id: str, timeout_s: float = 60.0) -> pb.Operation:
        """Waits until an operation has succeeded, through restarts of the Metadata Store.

        Raises the operation's own error if it failed, DeadlineExceeded if it takes longer.
        """
        deadline = time.monotonic() + timeout_s
        request = pb.GetOperationRequest(operation_id=operation_id)
        while time.monotonic() < deadline:
            try:
                operation = self.call(request, pb.GetOperationResponse).operation
            except KeyplaneError as error:
                if not error.retryable:
                    raise
            else:
                if has_ended(operation):
                    return check_succeeded(operation)
            time.sleep(POLL_S)
        raise _still_running(operation_id, timeout_s)


class AsyncAdminClient:
    """`AdminClient` for asyncio."""

    def __init__(
        self,
        address: str,
        config: ClientConfig | None = None,
        credentials: Credentials | None = None,
    ) -> None:
        """credentials: as of `Client`."""
        self._address = address
        self._signer = CallSigner(credentials)
        options = channel_options(config or ClientConfig())
        self._channel = grpc.aio.insecure_channel(address, options=options)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._channel.close()

    async def call(
        self, request: Message, response_type: type[_R], timeout_s: float = TIMEOUT_S
    ) -> _R:
        """As `AdminClient.call`."""
        path = _path(request)
        method: Any = self._channel.unary_unary(path, serialize, response_type.FromString)
        message, metadata = self._signer.sign(path, request)
        try:
            response: _R = await method(message, timeout=timeout_s, metadata=metadata)
        except grpc.aio.AioRpcError as failure:
            error = _failure(self._address, failure)
        else:
            return response
        raise error

    async def run(self, request: Message, timeout_s: float = 60.0) -> pb.Operation:
        """As `AdminClient.run`."""
        operation = (await self.call(request, _response_type(request))).operation
        return await self.wait_operation(operation.operation_id, timeout_s)

    async def wait_operation(self, operation_id: str, timeout_s: float = 60.0) -> pb.Operation:
        """As `AdminClient.wait_operation`."""
        deadline = time.monotonic() + timeout_s
        request = pb.GetOperationRequest(operation_id=operation_id)
        while time.monotonic() < deadline:
            try:
                operation = (await self.call(request, pb.GetOperationResponse)).operation
            except KeyplaneError as error:
                if not error.retryable:
                    raise
            else:
                if has_ended(operation):
                    return check_succeeded(operation)
            await asyncio.sleep(POLL_S)
        raise _still_running(operation_id, timeout_s)
