"""Messages as rows for people and as objects for programs.

Hashes are written as 16 hexadecimal digits everywhere: as numbers they lose digits in many JSON
readers.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from keyplane.catalog.v1 import catalog_pb2 as catalog
from keyplane.metadata.v1 import metadata_pb2 as metadata

_SCALARS = {
    "string": catalog.SCALAR_TYPE_STRING,
    "number": catalog.SCALAR_TYPE_NUMBER,
    "binary": catalog.SCALAR_TYPE_BINARY,
}
_SCALAR_NAMES = {value: name for name, value in _SCALARS.items()}


def hash_text(key_hash: int) -> str:
    return f"{key_hash:016x}"


def table_facts(table: catalog.Table) -> dict[str, Any]:
    """read_units, write_units: a second, 0 unless the table is provisioned. max_, warm_: of an
    on-demand table, 0 unless it was given any.
    """
    return {
        "table": table.name,
        "table_id": table.table_id,
        "partition_key": table.partition_key.name,
        "partition_key_type": _SCALAR_NAMES.get(table.partition_key.type, ""),
        "sort_key": table.sort_key.name,
        "sort_key_type": _SCALAR_NAMES.get(table.sort_key.type, ""),
        "durability": enum_word(catalog.Durability.Name(table.durability)),
        "capacity": _capacity(table.capacity_mode),
        "read_units": table.provisioned.read_capacity_units,
        "write_units": table.provisioned.write_capacity_units,
        "max_read_units": table.on_demand.max_read_units,
        "max_write_units": table.on_demand.max_write_units,
        "warm_read_units": table.on_demand.warm_read_units,
        "warm_write_units": table.on_demand.warm_write_units,
        "state": enum_word(catalog.TableState.Name(table.state), words=2),
    }


def partition_facts(partition: catalog.Partition) -> dict[str, Any]:
    """end: ffffffffffffffff for the end of the keyspace, like every end the last hash inside."""
    return {
        "partition_id": partition.partition_id,
        "first_hash": hash_text(partition.start),
        "last_hash": hash_text((partition.end - 1) % (1 << 64)),
        "epoch": partition.epoch,
        "leader": partition.leader,
    }


def operation_facts(operation: metadata.Operation) -> dict[str, Any]:
    return {
        "operation_id": operation.operation_id,
        "kind": enum_word(metadata.OperationKind.Name(operation.kind), words=2),
        "state": enum_word(metadata.OperationState.Name(operation.state), words=2),
        "table": operation.table,
        "partition_ids": list(operation.partition_ids),
        "result_partition_ids": list(operation.result_partition_ids),
        "node": operation.node_id,
        "progress": operation.progress,
        "reason": operation.reason,
        "message": operation.message,
        "planned_because": operation.planned_because,
        "fence_ms": round(operation.fence_ms, 3),
        "resumed_count": operation.resumed_count,
        "created_at": _iso(operation.created_at),
        "updated_at": _iso(operation.updated_at),
    }


def tenant_facts(tenant: catalog.Tenant) -> dict[str, Any]:
    """limits: only those that are set."""
    limits = tenant.limits
    return {
        "tenant": tenant.tenant_id,
        "account": tenant.account,
        "state": enum_word(catalog.TenantState.Name(tenant.state), words=2),
        "limits": {field.name: value for field, value in limits.ListFields()},
        "created_at": _iso(tenant.created_at),
    }


def user_facts(user: metadata.UserInfo) -> dict[str, Any]:
    """keys: the newest first."""
    return {
        "user": user.name,
        "role": enum_word(catalog.Role.Name(user.role)),
        "keys": [
            {
                "key_id": key.key_id,
                "state": enum_word(metadata.KeyState.Name(key.state), words=2),
                "created_at": _iso(key.created_at),
            }
            for key in user.keys
        ],
        "created_at": _iso(user.created_at),
    }


def key_attribute(text: str) -> catalog.KeyAttribute:
    """`name` or `name:type`, the type being string, number or binary. Raises ValueError."""
    name, _, kind = text.partition(":")
    if not name or (kind or "string") not in _SCALARS:
        raise ValueError(f"{text!r} is not NAME or NAME:TYPE with a type of {', '.join(_SCALARS)}")
    return catalog.KeyAttribute(name=name, type=_SCALARS[kind or "string"])


def parse_item(text: str) -> dict[str, Any]:
    """A JSON object as an item; numbers keep every digit. Raises ValueError."""
    value = json.loads(text, parse_float=Decimal)
    if not isinstance(value, dict):
        raise ValueError(f"{text!r} is JSON, but no object")
    return value


def parse_key(text: str, sort: str | None, table: catalog.Table) -> dict[str, Any]:
    """A whole key as a JSON object, or the bare value of its partition key. Raises ValueError."""
    if text.startswith("{"):
        return parse_item(text)
    key = {table.partition_key.name: _scalar(text, table.partition_key)}
    if sort is not None:
        if not table.HasField("sort_key"):
            raise ValueError(f"table {table.name!r} has no sort key")
        key[table.sort_key.name] = _scalar(sort, table.sort_key)
    return key


def item_json(item: Mapping[str, Any]) -> str:
    """An item as one line of JSON: binary values in base64, sets as sorted lists."""
    return json.dumps(plain(item), ensure_ascii=False)


def plain(value: Any) -> Any:
    """A value of an item in the types that JSON has."""
    match value:
        case Decimal():
            return int(value) if value == value.to_integral_value() else float(value)
        case bytes():
            return base64.b64encode(value).decode()
        case Mapping():
            return {name: plain(inner) for name, inner in value.items()}
        case list() | tuple():
            return [plain(inner) for inner in value]
        case set() | frozenset():
            return [plain(inner) for inner in sorted(value)]
    return value


def _scalar(text: str, attribute: catalog.KeyAttribute) -> str | bytes | Decimal:
    match attribute.type:
        case catalog.SCALAR_TYPE_NUMBER:
            try:
                return Decimal(text)
            except ArithmeticError:
                raise ValueError(f"{attribute.name!r} is a number, and {text!r} is none") from None
        case catalog.SCALAR_TYPE_BINARY:
            return base64.b64decode(text, validate=True)
    return text


def enum_word(name: str, words: int = 1) -> str:
    """`OPERATION_STATE_SUCCEEDED` as `succeeded`: without the first words, which say the type."""
    return "_".join(name.split("_")[words:]).lower()


def _capacity(mode: catalog.CapacityMode.ValueType) -> str:
    """As the options of `keyplane table` name it."""
    name = catalog.CapacityMode.Name(mode or catalog.CAPACITY_MODE_UNLIMITED)
    return enum_word(name, words=2).replace("_", "-")


def _iso(when: Timestamp) -> str:
    return when.ToJsonString()
