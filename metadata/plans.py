"""What an operation has decided to do: one frozen value per kind, persisted with the operation.

Everything a step needs to be repeated exactly after a crash is in here: ids, nodes and hashes are
chosen once, before the first storage node is asked.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from keyplane.catalog.v1 import catalog_pb2 as pb
from metadata.capacity_changes import CapacityChanges
from metadata.records import OnDemand, Throughput


class Kind(enum.StrEnum):
    CREATE_TABLE = "create_table"
    DELETE_TABLE = "delete_table"
    UPDATE_TABLE = "update_table"
    SPLIT = "split"
    MERGE = "merge"
    MOVE = "move"
    DRAIN = "drain"


@dataclass(frozen=True, slots=True)
class CreatePlan:
    """Range i of `count` even ranges is partition first_partition_id + i on node i mod n.

    undo_reason, undo_message: why it is being taken back; empty while it is not.
    """

    first_partition_id: int
    count: int
    node_ids: tuple[str, ...]
    undo_reason: str = ""
    undo_message: str = ""


@dataclass(frozen=True, slots=True)
class DeletePlan:
    """Nothing to decide: the table is named by the operation."""


@dataclass(frozen=True, slots=True)
class UpdatePlan:
    """What is unspecified stays as it is."""

    durability: pb.Durability.ValueType
    capacity_mode: pb.CapacityMode.ValueType = pb.CAPACITY_MODE_UNSPECIFIED
    provisioned: Throughput | None = None
    on_demand: OnDemand | None = None
    changes: CapacityChanges | None = None


class SplitPurpose(enum.StrEnum):
    """What a split is to divide."""

    ASKED = "asked"
    HEAT = "heat"
    SIZE = "size"


@dataclass(frozen=True, slots=True)
class SplitPlan:
    """split_hash: first hash of the right child; None until the storage node has suggested one.

    why: the planner's reason; empty if somebody asked for it, and so below.
    """

    split_hash: int | None
    left_id: int
    right_id: int
    purpose: SplitPurpose = SplitPurpose.ASKED
    why: str = ""


class MergeStage(enum.StrEnum):
    """Steps of a merge while it is RUNNING. Neighbours on one node start at MERGE."""

    MOVE = "move"
    MERGE = "merge"


@dataclass(frozen=True, slots=True)
class MergePlan:
    """right_from: the node the right partition was on at first."""

    merged_id: int
    stage: MergeStage
    right_from: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class MovePlan:
    """parent: operation id of the drain it is part of; empty otherwise."""

    source: str
    parent: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True)
class DrainPlan:
    """total: partitions the node led when the drain began."""

    total: int


Plan = CreatePlan | DeletePlan | UpdatePlan | SplitPlan | MergePlan | MovePlan | DrainPlan

_TYPES: Mapping[Kind, Callable[..., Plan]] = {
    Kind.CREATE_TABLE: CreatePlan,
    Kind.DELETE_TABLE: DeletePlan,
    Kind.UPDATE_TABLE: UpdatePlan,
    Kind.SPLIT: SplitPlan,
    Kind.MERGE: MergePlan,
    Kind.MOVE: MovePlan,
    Kind.DRAIN: DrainPlan,
}


def plan_to_json(plan: Plan) -> dict[str, Any]:
    return dataclasses.asdict(plan)


def plan_from_json(kind: Kind, fields: Mapping[str, Any]) -> Plan:
    """Reads back what `plan_to_json` wrote for an operation of this kind."""
    values: dict[str, Any] = dict(fields)
    if kind is Kind.CREATE_TABLE:
        values["node_ids"] = tuple(values["node_ids"])
    elif kind is Kind.SPLIT:
        values["purpose"] = SplitPurpose(values.get("purpose", SplitPurpose.ASKED))
    elif kind is Kind.UPDATE_TABLE:
        if values.get("provisioned") is not None:
            values["provisioned"] = Throughput(**values["provisioned"])
        if values.get("on_demand") is not None:
            values["on_demand"] = OnDemand(**values["on_demand"])
        if values.get("changes") is not None:
            values["changes"] = CapacityChanges.from_json(values["changes"])
    elif kind is Kind.MERGE:
        values["stage"] = MergeStage(values["stage"])
    return _TYPES[kind](**values)
