"""The items that the data-plane benchmark reads and writes, and what requests for them look like.

What an item holds follows from its number, so every answer can be checked in full. Requests are
encoded once, by the library that owns the encoding, and a number's key is put into the bytes.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from typing import Any, Final, Protocol, TypeAlias

from librt.strings import BytesWriter

from keyplane.client import core
from keyplane.client import requests as client_requests
from keyplane.data.v1 import data_pb2 as data
from keyplane.model.items import item_size, to_item
from wire.protobytes import delimited, tag, varint

# What one request does; a batch writes BATCH_ITEMS items, from its number on. No enumeration: to
# look up a member takes the interpreter longer than to draw a random number.
Op: TypeAlias = int
GET: Final = 0
PUT: Final = 1
BATCH: Final = 2

KEY_NAME = "id"
TEXT_NAME = "text"

ITEM_BYTES = 200
# As many as BatchWriteItem takes.
BATCH_ITEMS: Final = 25

BATCH_WRITE_METHOD = "/keyplane.data.v1.DataService/BatchWriteItem"
ECHO_METHOD = "/keyplane.bench.Echo/Echo"

_VARINT_SIZES: Final = range(11)

# Keys are of one length, so that one can stand for another in bytes that hold lengths.
_KEY = "item-{:08d}"
ITEMS_MAX = 10**8

_FILLER = "." * (ITEM_BYTES - len(KEY_NAME) - len(TEXT_NAME) - 2 * len(_KEY.format(0)))


class Requests(Protocol):
    """One encoding of the requests, and the check of their answers."""

    def encode(self, op: Op, number: int) -> bytes: ...

    def fault(self, op: Op, number: int, answer: bytes) -> str:
        """What is wrong with an answer; empty if nothing is."""


def key_of(number: int) -> str:
    return _KEY.format(number)


def item_of(number: int) -> dict[str, str]:
    """An item of ITEM_BYTES, by DynamoDB's way of counting."""
    return {KEY_NAME: key_of(number), TEXT_NAME: key_of(number) + _FILLER}


def size_of(number: int) -> int:
    return item_size(to_item(item_of(number)))


class KeyplaneRequests:
    """Messages of DataService. Every write has a token of its own, as those of the SDK have.

    methods: the full name of the method for each op.
    """

    def __init__(self, table: str, items: int) -> None:
        """table: its partition key is the string KEY_NAME. items: their numbers are below this."""
        self.methods: Sequence[str] = (core.GET.path, core.PUT.path, BATCH_WRITE_METHOD)
        self._table = table
        self._items = items
        self._keys = [key_of(number).encode() for number in range(items)]
        placeholder = self._keys[0]
        key = to_item({KEY_NAME: key_of(0)})
        get = data.GetItemRequest(table=table, key=key).SerializeToString()
        self._get_head, self._get_tail = get.split(placeholder)
        put = data.PutItemRequest(table=table, item=to_item(item_of(0))).SerializeToString()
        self._put_head, self._put_middle, self._put_tail = put.split(placeholder)
        self._client_id = secrets.token_bytes(core.CLIENT_ID_BYTES)
        self._sequence = 0
        # A token up to its sequence number, by the number's length. Encodings of one message may be
        # joined: what follows is merged in.
        self._token_heads = [_token_head(self._client_id, size) for size in _VARINT_SIZES]
        self._filler = _FILLER.encode()

    def encode(self, op: Op, number: int) -> bytes:
        if op == BATCH:
            return self._encode_batch(number)
        key = self._keys[number]
        out = BytesWriter()
        if op == GET:
            out.write(self._get_head)
            out.write(key)
            out.write(self._get_tail)
            return out.getvalue()
        self._sequence += 1
        sequence = varint(self._sequence)
        out.write(self._put_head)
        out.write(key)
        out.write(self._put_middle)
        out.write(key)
        out.write(self._put_tail)
        out.write(self._token_heads[len(sequence)])
        out.write(sequence)
        return out.getvalue()

    def fault(self, op: Op, number: int, answer: bytes) -> str:
        if op == GET:
            if self._keys[number] + self._filler in answer:
                return ""
            return "WRONG_ITEM" if answer else "MISSING_ITEM"
        if op == PUT:
            return "" if answer else "NO_VERSION"
        return "UNPROCESSED" if answer else ""

    def _encode_batch(self, number: int) -> bytes:
        numbers = range(number, min(number + BATCH_ITEMS, self._items))
        writes = [client_requests.Put(item_of(each)) for each in numbers]
        request = client_requests.batch_write({self._table: writes})
        first = self._sequence + 1
        request.token.client_id = self._client_id
        request.token.sequence = first
        self._sequence += client_requests.number_writes(request, first)
        return request.SerializeToString()


def _token_head(client_id: bytes, sequence_bytes: int) -> bytes:
    fields = data.WriteToken(client_id=client_id).SerializeToString()
    fields += tag(data.WriteToken.SEQUENCE_FIELD_NUMBER, 0)
    whole = delimited(
        tag(data.PutItemRequest.TOKEN_FIELD_NUMBER, 2), fields + bytes(sequence_bytes)
    )
    return whole[: len(whole) - sequence_bytes]


class EchoRequests:
    """Puts of KeyplaneRequests for a server that sends back what it gets."""

    def __init__(self, items: int) -> None:
        self.methods: Sequence[str] = [ECHO_METHOD for _ in (GET, PUT, BATCH)]
        self._requests = KeyplaneRequests("echo", items)
        self._filler = _FILLER.encode()

    def encode(self, op: Op, number: int) -> bytes:
        return self._requests.encode(PUT, number)

    def fault(self, op: Op, number: int, answer: bytes) -> str:
        return self._requests.fault(GET, number, answer)


class DynamoRequests:
    """HTTP/1.1 requests of DynamoDB's JSON API, whole, with headers.

    The signature has the right form and is not computed: who checks it has no use here.
    """

    def __init__(self, table: str, items: int, host: str) -> None:
        self._table = table
        self._items = items
        self._host = host
        self._keys = [key_of(number).encode() for number in range(items)]
        self._placeholder = self._keys[0]
        key = {KEY_NAME: {"S": key_of(0)}}
        get = self.request("GetItem", {"TableName": table, "Key": key})
        self._get_head, self._get_tail = get.split(self._placeholder)
        self._put = self.request("PutItem", {"TableName": table, "Item": _typed(0)})
        self._filler = _FILLER.encode()

    def encode(self, op: Op, number: int) -> bytes:
        if op == GET:
            return self._get_head + self._keys[number] + self._get_tail
        if op == PUT:
            return self._put.replace(self._placeholder, self._keys[number])
        numbers = range(number, min(number + BATCH_ITEMS, self._items))
        puts = [{"PutRequest": {"Item": _typed(each)}} for each in numbers]
        return self.request("BatchWriteItem", {"RequestItems": {self._table: puts}})

    def fault(self, op: Op, number: int, answer: bytes) -> str:
        """answer: the whole response."""
        if not answer.startswith(b"HTTP/1.1 200 "):
            return "HTTP_" + answer[9:12].decode("latin-1")
        if op == GET:
            right = self._keys[number] + self._filler in answer
            return "" if right else "WRONG_ITEM" if b'"Item"' in answer else "MISSING_ITEM"
        if op == PUT:
            return ""
        return "" if b'"UnprocessedItems":{}' in answer else "UNPROCESSED"

    def request(self, operation: str, body: dict[str, Any]) -> bytes:
        content = json.dumps(body, separators=(",", ":")).encode()
        lines = [
            "POST / HTTP/1.1",
            f"Host: {self._host}",
            "Content-Type: application/x-amz-json-1.0",
            f"X-Amz-Target: DynamoDB_20120810.{operation}",
            "X-Amz-Date: 20240101T000000Z",
            "Authorization: AWS4-HMAC-SHA256 "
            "Credential=bench/20240101/us-east-1/dynamodb/aws4_request, "
            f"SignedHeaders=host;x-amz-date;x-amz-target, Signature={'0' * 64}",
            f"Content-Length: {len(content)}",
        ]
        return "\r\n".join([*lines, "", ""]).encode() + content


def _typed(number: int) -> dict[str, dict[str, str]]:
    return {name: {"S": text} for name, text in item_of(number).items()}
