"""Writes every message of a run down, in words, for the trace that explains a violation."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import Message

from keyplane.data.v1 import data_pb2 as data
from keyplane.metadata.v1 import metadata_pb2 as metadata
from keyplane.model.items import from_item
from keyplane.model.keys import KeySchema, encode_key, key_hash
from keyplane.route.v1 import route_pb2 as route
from keyplane.storage.v1 import storage_pb2 as storage
from sim.network import SimCall, Tap
from sim.process import SimProcess, name_of
from sim.workload import Key
from sim.world import World
from wire.ports import Reply

_MODULES: dict[str, Any] = {
    "keyplane.data.v1": data,
    "keyplane.metadata.v1": metadata,
    "keyplane.route.v1": route,
    "keyplane.storage.v1": storage,
}

# Messages that say nothing about keys or partitions, and would drown those that do.
_DULL = frozenset({"Heartbeat", "RegisterNode", "Check"})


class Scribe(Tap):
    """Describes requests and answers, and what each is about."""

    def __init__(self, world: World, keys: list[Key]) -> None:
        self._world = world
        self._keys = keys
        # (key hash, encoded key) to the item's name; made once the tables are there.
        self._names: dict[tuple[int, bytes], str] = {}

    def on_send(self, call: SimCall) -> None:
        name = _short(call.method)
        if name in _DULL:
            return
        what, about = self._request(call)
        call.lamport = self._world.trace.note(
            self._world.now, call.source.name, f"-> {name_of(call.address)}: {what}", about
        )

    def on_request(self, call: SimCall, server: SimProcess) -> None:
        if _short(call.method) in _DULL:
            return
        what, about = self._request(call)
        call.lamport = self._world.trace.note(
            self._world.now, server.name, f"<- {call.source.name}: {what}", about, call.lamport
        )

    def on_answer(self, call: SimCall, server: SimProcess, reply: Reply) -> None:
        if _short(call.method) in _DULL:
            return
        _, about = self._request(call)
        what = f"=> {call.source.name}: {_short(call.method)} {self._answer(call, reply)}"
        call.lamport = self._world.trace.note(
            self._world.now, server.name, what, about, call.lamport
        )

    def on_reply(self, call: SimCall, reply: Reply) -> None:
        if _short(call.method) in _DULL:
            return
        _, about = self._request(call)
        what = f"<= {name_of(call.address)}: {_short(call.method)} {self._answer(call, reply)}"
        call.lamport = self._world.trace.note(
            self._world.now, call.source.name, what, about, call.lamport
        )

    # --- in words -------------------------------------------------------------------------------

    def _request(self, call: SimCall) -> tuple[str, frozenset[str]]:
        message = _parse(call.method, "Request", call.payload)
        if isinstance(message, storage.ExecuteRequest):
            return self._execute(message)
        about = set(_partitions(message))
        words = [_short(call.method)]
        tenant = self._world.topology.tenant_of(call.source.name)
        for table, item in _items(message):
            inside = f"{tenant}/{table}" if tenant else table
            name = _item_name(inside, from_item(item), self._keys)
            about.add(name)
            words.append(_item_words(name, item))
        token = getattr(message, "token", None)
        if token is not None and token.client_id:
            words.append(_token(token))
        words += [f"p{number}" for number in sorted(_numbers(message))]
        for attribute in (
            "operation_id",
            "request_id",
            "node_id",
            "target_node_id",
            "table",
            "run",
        ):
            value = getattr(message, attribute, "")
            if value and isinstance(value, str | int):
                words.append(f"{attribute}={value}")
        return " ".join(words), frozenset(about)

    def _execute(self, request: storage.ExecuteRequest) -> tuple[str, frozenset[str]]:
        about = {f"p{request.partition_id}"}
        words = ["Execute", f"p{request.partition_id}@{request.epoch}"]
        kind = str(request.WhichOneof("op"))
        words.append(kind)
        writes: list[storage.WriteOp] = []
        keys: list[storage.ItemKey] = []
        match kind:
            case "get":
                keys = [request.get.key]
            case "write":
                writes = [request.write]
            case "batch_get":
                keys = list(request.batch_get.keys)
            case "batch_write":
                writes = list(request.batch_write.writes)
        for key in keys:
            name = self._name(key)
            about.add(name)
            words.append(name)
        for write in writes:
            name = self._name(write.key)
            about.add(name)
            if write.WhichOneof("action") == "put":
                words.append(_item_words(name, data.Item.FromString(write.put)))
            else:
                words.append(f"delete {name}")
            words.append(_token(write.token))
        return " ".join(words), frozenset(about)

    def _answer(self, call: SimCall, reply: Reply) -> str:
        if reply.error is not None:
            hint = reply.error.detail(route.RouteHint)
            to = "".join(
                f" p{each.partition_id}@{each.epoch} at {each.leader};"
                for each in (hint.partitions if hint is not None else ())
            )
            sent = "" if reply.sent else ", not sent"
            return f"{reply.error.reason.name}{to}{sent}"
        message = _parse(call.method, "Response", reply.payload)
        if isinstance(message, storage.ExecuteResponse) and message.WhichOneof("result") == "get":
            if not message.get.found:
                return "ok: no item"
            item = data.Item.FromString(message.get.item)
            return f"ok: {item.attributes['v'].s!r} v{message.get.version}"
        if isinstance(message, data.GetItemResponse):
            return (
                f"ok: {message.item.attributes['v'].s!r} v{message.version}"
                if message.HasField("item")
                else "ok: no item"
            )
        text = " ".join(str(message).split())
        return f"ok: {text[:120]}" if text else "ok"

    def _name(self, key: storage.ItemKey) -> str:
        if not self._names:
            self._learn_names()
        return self._names.get((key.hash, key.encoded), key.encoded.hex())

    def _learn_names(self) -> None:
        catalog = self._world.metadata.core.catalog
        for key in self._keys:
            record = catalog.by_name.get(key.table.name)
            if record is None:
                continue
            table = record.to_proto()
            attributes = data.Item()
            for name, value in key.attributes.items():
                if isinstance(value, str):
                    attributes.attributes[name].s = value
                else:
                    attributes.attributes[name].n = str(value)
            encoded = encode_key(KeySchema.from_table(table), attributes.attributes)
            place = key_hash(table.hash_seed, encoded.hash_input), encoded.encoded
            self._names[place] = key.name


def _short(method: str) -> str:
    return method.rpartition("/")[2]


def _parse(method: str, what: str, payload: bytes) -> Message:
    service, _, name = method.removeprefix("/").partition("/")
    package = service.rpartition(".")[0]
    return getattr(_MODULES[package], name + what).FromString(payload)  # type: ignore[no-any-return]


def _numbers(message: Message) -> set[int]:
    """Partition ids that a message names."""
    found: set[int] = set()
    for field, value in message.ListFields():
        if field.name in ("partition_id", "left_id", "right_id", "merged_id"):
            found.add(value)
        elif field.name == "partition":
            found.add(value.partition_id)
        elif field.name == "partitions" and field.message_type is not None:
            found.update(each.partition_id for each in value)
    return found


def _partitions(message: Message) -> set[str]:
    return {f"p{number}" for number in _numbers(message)}


def _items(message: Message) -> list[tuple[str, data.Item]]:
    """Items and keys that a request of a client names, with their tables."""
    if isinstance(message, data.PutItemRequest):
        return [(message.table, message.item)]
    if isinstance(message, data.GetItemRequest | data.DeleteItemRequest):
        return [(message.table, message.key)]
    if isinstance(message, data.BatchGetItemRequest):
        return [(table, key) for table, keys in message.requests.items() for key in keys.keys]
    if isinstance(message, data.BatchWriteItemRequest):
        return [
            (table, write.put if write.HasField("put") else write.delete)
            for table, writes in message.requests.items()
            for write in writes.writes
        ]
    return []


def _item_name(table: str, item: dict[str, Any], keys: list[Key]) -> str:
    for key in keys:
        if key.table.name == table and all(
            item.get(name) == value for name, value in key.attributes.items()
        ):
            return key.name
    return table


def _item_words(name: str, item: data.Item) -> str:
    value = item.attributes["v"].s if "v" in item.attributes else ""
    return f"{name}={value!r}" if value else name


def _token(token: data.WriteToken) -> str:
    age = f" age {token.age_ms} ms" if token.age_ms else ""
    return f"[{token.client_id.hex()[:6]}:{token.sequence} try {token.attempt}{age}]"
