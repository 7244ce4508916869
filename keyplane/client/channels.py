"""What the sync and the asyncio client share of gRPC: channel options, and reading errors."""

from __future__ import annotations

import time
from typing import Any

from google.protobuf.message import Message
from grpc_health.v1 import health_pb2

from keyplane.client.call import Method
from keyplane.client.config import ClientConfig
from keyplane.client.errors import typed
from keyplane.model.credentials import Credentials
from keyplane.model.errors import KeyplaneError
from keyplane.model.grpc_failures import DETAILS_KEY, own_failure
from keyplane.model.signature import HEADER, Signer

HEALTH = Method("/grpc.health.v1.Health/Check", health_pb2.HealthCheckResponse)


def channel_options(config: ClientConfig) -> list[tuple[str, Any]]:
    return [
        ("grpc.max_receive_message_length", config.message_bytes_max),
        ("grpc.max_send_message_length", config.message_bytes_max),
        # A router whose machine is gone says nothing: ask after 10 s, give up 5 s later.
        ("grpc.keepalive_time_ms", 10_000),
        ("grpc.keepalive_timeout_ms", 5_000),
        # A restarted router is reached again within about a second.
        ("grpc.initial_reconnect_backoff_ms", 50),
        ("grpc.min_reconnect_backoff_ms", 1_000),
        ("grpc.max_reconnect_backoff_ms", 1_000),
        # Retries are decided in `keyplane.client.call` alone.
        ("grpc.enable_retries", 0),
        ("grpc.service_config_disable_resolution", 1),
    ]


def is_healthy(response: Any) -> bool:
    return bool(response.status == health_pb2.HealthCheckResponse.SERVING)


def read_error(address: str, failure: Any) -> KeyplaneError:
    """A `grpc.RpcError` of either API as an error of the table."""
    text = failure.details() or ""
    for key, value in failure.trailing_metadata() or ():
        if key == DETAILS_KEY:
            return KeyplaneError.from_status(failure.code().value[0], text, bytes(value))
    message = f"{address}: {text}"
    own = own_failure(text)
    if own is not None:
        return KeyplaneError(own.reason, message)
    return KeyplaneError.from_status(failure.code().value[0], message)


def serialize(message: Message | bytes) -> bytes:
    """A message that is to be signed is serialized already."""
    return message if isinstance(message, bytes) else message.SerializeToString()


class CallSigner:
    """Signs the calls of one client, each attempt anew, if it has credentials."""

    def __init__(self, credentials: Credentials | None) -> None:
        """credentials: None: those of the environment, if it has any. Raises InvalidRequest."""
        try:
            credentials = credentials or Credentials.from_env()
        except KeyplaneError as error:
            raise typed(error) from None
        self._signer: Signer | None = None
        if credentials is not None:
            self._signer = Signer(credentials.key_id, credentials.secret_bytes, time.time)

    def sign(
        self, path: str, request: Message
    ) -> tuple[Message | bytes, tuple[tuple[str, str], ...] | None]:
        """What to send, and the metadata to send with it."""
        if self._signer is None:
            return request, None
        payload = request.SerializeToString()
        return payload, ((HEADER, self._signer.value(path, payload)),)
