"""Between the front door's messages and the storage nodes': keys, tokens, stored items."""

from __future__ import annotations

from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from keyplane.data.v1 import data_pb2 as data
from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.keys import encode_key, encode_partition_key
from keyplane.storage.v1 import storage_pb2 as storage
from router.context import CLIENT_ID_BYTES, RouterContext
from router.tables import KnownTable

_M = TypeVar("_M", bound=Message)


def place(known: KnownTable, item: data.Item, exact: bool = False) -> tuple[int, bytes]:
    """Hash and encoded key of an item; with `exact` the item must be nothing else than its key.

    Raises as `encode_key`.
    """
    hash_input, encoded = encode_key(known.schema, item.attributes, exact)
    return known.hash_of(hash_input), encoded


def item_key(known: KnownTable, item: data.Item, exact: bool = False) -> storage.ItemKey:
    """As `place`."""
    key_hash, encoded = place(known, item, exact)
    return storage.ItemKey(hash=key_hash, encoded=encoded)


def placing_hash(known: KnownTable, key: data.Item) -> int:
    """The hash that places a key, which may be the partition key alone. Raises as `encode_key`."""
    name = known.schema.partition
    if set(key.attributes) == {name}:
        return known.hash_of(encode_partition_key(known.schema, key.attributes[name]))
    return place(known, key, exact=True)[0]


def check_token(token: data.WriteToken) -> None:
    """Raises KeyplaneError(INVALID_ARGUMENT)."""
    if len(token.client_id) != CLIENT_ID_BYTES:
        raise KeyplaneError(
            Reason.INVALID_ARGUMENT,
            f"a write token's client_id has {CLIENT_ID_BYTES} bytes, not {len(token.client_id)};"
            " leave the token out to have the router make one",
        )


def write_token(
    context: RouterContext, request: data.PutItemRequest | data.DeleteItemRequest
) -> data.WriteToken:
    """The token of a write: its client's, or one of the router's own."""
    if not request.HasField("token"):
        return context.tokens.next()
    check_token(request.token)
    return request.token


def write_condition(
    request: data.PutItemRequest | data.DeleteItemRequest,
) -> data.Condition | None:
    return request.condition if request.HasField("condition") else None


def read_item(stored: bytes) -> data.Item:
    """Raises KeyplaneError(CORRUPT) on bytes that are no item."""
    try:
        return data.Item.FromString(stored)
    except DecodeError as error:
        raise KeyplaneError(Reason.CORRUPT, "a stored item cannot be read") from error
