"""`keyplane plan`: what is done about hot, large and cold partitions unasked, and why."""

from __future__ import annotations

import enum
from typing import Annotated, Any

import typer
from rich.markup import escape

from keyplane.cli.output import EXIT_OK
from keyplane.cli.render import enum_word
from keyplane.cli.session import Session, command
from keyplane.metadata.v1 import metadata_pb2 as pb


class Mode(enum.StrEnum):
    ON = "on"
    DRY_RUN = "dry-run"
    OFF = "off"


_EXAMPLES = """
    keyplane plan                                what is planned, under way, or declined
    keyplane plan --mode dry-run                 go on planning, and start nothing
    keyplane plan --mode off
"""


def register(app: typer.Typer) -> None:
    command(app, "plan", _EXAMPLES)(plan)


def plan(
    session: Session,
    mode: Annotated[
        Mode | None,
        typer.Option(
            help="What the planner does from here on.", show_default="as it is; at first on"
        ),
    ] = None,
) -> int:
    """Shows the planner: splits of hot and large partitions, merges of cold ones, moves that spread
    heat over nodes, each with its reason.

    Only tables with capacity limits (on-demand, provisioned) are split for heat and merged.
    """
    with session.admin() as admin:
        if mode is not None:
            value = pb.PlannerMode.Value(f"PLANNER_MODE_{mode.name}")
            admin.call(pb.SetPlannerRequest(mode=value), pb.SetPlannerResponse)
        found = admin.call(pb.GetPlanRequest(), pb.GetPlanResponse)
    facts = [_facts(change) for change in found.changes]
    out = session.out
    name = enum_word(pb.PlannerMode.Name(found.mode), words=2).replace("_", "-")
    out.say(
        f"the planner is [bold]{name}[/bold] and watches {found.partitions_watched:,} partitions"
        + ("" if facts or name == "off" else "; there is nothing to do")
    )
    for each in facts:
        out.say(
            f"[bold]{each['state']}[/bold] {_what(each)}: {escape(each['reason'])}"
            + (f"\n  {escape(each['detail'])}" if each["detail"] else "")
        )
    if found.change_count > len(facts):
        out.say(f"and {found.change_count - len(facts):,} more")
    out.result(
        {
            "mode": name,
            "partitions_watched": found.partitions_watched,
            "changes": facts,
            "change_count": found.change_count,
        }
    )
    return EXIT_OK


def _facts(change: pb.PlannedChange) -> dict[str, Any]:
    return {
        "state": enum_word(pb.PlannedState.Name(change.state), words=2),
        "kind": enum_word(pb.OperationKind.Name(change.kind), words=2),
        "table": change.table,
        "partition_ids": list(change.partition_ids),
        "node": change.node_id,
        "reason": change.reason,
        "detail": change.detail,
        "operation_id": change.operation_id,
    }


def _what(facts: dict[str, Any]) -> str:
    ids = " and ".join(map(str, facts["partition_ids"]))
    target = f" to {facts['node']}" if facts["node"] else ""
    return escape(f"{facts['kind']} {ids} of {facts['table']}{target}")
