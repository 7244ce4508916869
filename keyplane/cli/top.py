"""`keyplane top`: where the load is, over keys and time."""

from __future__ import annotations

import itertools
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from keyplane.catalog.v1 import catalog_pb2 as catalog
from keyplane.cli.output import EXIT_OK, Output
from keyplane.cli.render import enum_word, hash_text, partition_facts
from keyplane.cli.session import Session, command
from keyplane.client.admin import AdminClient
from keyplane.client.sync import Client
from keyplane.metadata.v1 import metadata_pb2 as pb
from keyplane.model.errors import KeyplaneError

# Ranges of key hashes, from the top of the map to its bottom, and beats, from left to right.
_ROWS = 16
_COLUMNS = 60

_TENANTS_SHOWN = 10

# From no load to the highest shown, in steps that each double it.
_SHADES = " ·:-=+*%#@"
_COLORS = (
    *("grey23", "grey35", "dodger_blue3", "dark_cyan", "sea_green3"),
    *("yellow3", "gold1", "orange1", "orange_red1", "red1"),
)

_EXAMPLES = """
    keyplane top                                 every second until Ctrl-C
    keyplane top --table orders --limit 5
    keyplane top --count 1 --json                one look, for a program
"""


def register(app: typer.Typer) -> None:
    command(app, "top", _EXAMPLES)(top)


def top(
    session: Session,
    table: Annotated[
        str, typer.Option("--table", "-t", help="Which table.", show_default="all of them")
    ] = "",
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Partitions shown.")] = 10,
    interval: Annotated[float, typer.Option(min=0.2, help="Seconds between two looks.")] = 1.0,
    count: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Looks until it ends.",
            show_default="until Ctrl-C; 1 if the output is no terminal",
        ),
    ] = None,
) -> int:
    """Shows the partitions with the most load, a map of the load over key hashes and time, nodes,
    and what is throttled.
    """
    out = session.out
    looks = count or (None if out.people.is_terminal and not session.as_json else 1)
    view = _View(table, limit)
    with ExitStack() as open_:
        admin, show = open_.enter_context(session.admin()), open_.enter_context(_screen(out))
        routers = [open_.enter_context(session.client([each])) for each in session.routers()]
        # Ctrl-C is the way to end it.
        open_.enter_context(suppress(KeyboardInterrupt))
        for at in itertools.count() if looks is None else range(looks):
            if at:
                time.sleep(interval)
            view.look(admin, routers)
            show(view.show())
    out.result(view.facts())
    return EXIT_OK


@contextmanager
def _screen(out: Output) -> Iterator[Callable[[RenderableType], None]]:
    """Shows one thing in the place of the last; on what is no terminal, one after the other."""
    if not out.people.is_terminal:
        yield out.people.print
        return
    with Live(console=out.people, auto_refresh=False) as live:
        yield lambda what: live.update(what, refresh=True)


class _View:
    """What has been seen so far."""

    def __init__(self, table: str, limit: int) -> None:
        self._request = pb.GetHeatRequest(table=table, bins=_ROWS, limit=limit)
        self._columns: deque[Sequence[float]] = deque(maxlen=_COLUMNS)
        self._heat = pb.GetHeatResponse()
        self._plan = pb.GetPlanResponse()
        self._nodes = pb.ListNodesResponse()
        # Of all routers together, since they started: (what, whose).
        self._counts: Counter[tuple[str, str]] = Counter()
        self._counted_at = 0.0
        # A second, since the last look.
        self._rates: dict[tuple[str, str], float] = {}

    def look(self, admin: AdminClient, routers: Sequence[Client]) -> None:
        self._heat = admin.call(self._request, pb.GetHeatResponse)
        self._plan = admin.call(pb.GetPlanRequest(), pb.GetPlanResponse)
        self._nodes = admin.call(pb.ListNodesRequest(), pb.ListNodesResponse)
        self._columns.append(list(self._heat.bins))
        self._look_at_routers(routers)

    def _look_at_routers(self, routers: Sequence[Client]) -> None:
        """Their counts so far, from which rates follow with the next look. One that does not answer
        is left out.
        """
        counts: Counter[tuple[str, str]] = Counter()
        for router in routers:
            try:
                view = router.describe_router(timeout_s=1.0)
            except KeyplaneError:
                continue
            for reason, count in view.throttled.items():
                counts["throttled", reason] += count
            for tenant in view.tenants:
                counts["requests", tenant.tenant_id] += tenant.requests
                counts["refused", tenant.tenant_id] += tenant.throttled
        now = time.monotonic()
        if self._counts:
            elapsed_s = now - self._counted_at
            # A router that has started anew counts from 0.
            self._rates = {
                key: max(0, count - self._counts[key]) / elapsed_s for key, count in counts.items()
            }
        self._counts, self._counted_at = counts, now

    def facts(self) -> dict[str, Any]:
        heat = self._heat
        return {
            "reads_per_second": round(heat.reads_per_second, 1),
            "writes_per_second": round(heat.writes_per_second, 1),
            "throttled_per_second": self._throttled(),
            "partition_count": heat.partition_count,
            "partitions": [_facts(each) for each in heat.hottest],
            "bins": [round(each, 1) for each in heat.bins],
            "nodes": [_node_facts(each) for each in self._nodes.nodes],
            "tenants": self._tenant_facts(),
        }

    def show(self) -> RenderableType:
        heat = self._heat
        refused = sum(self._throttled().values())
        totals = Text.from_markup(
            f"{time.strftime('%H:%M:%S')}  [bold]{heat.reads_per_second:,.0f}[/bold] reads/s"
            f"  [bold]{heat.writes_per_second:,.0f}[/bold] writes/s"
            f"  [{'bold red' if refused >= 1 else 'dim'}]{refused:,.0f} throttled/s[/]"
            f"  {heat.partition_count:,} partitions"
        )
        parts: list[RenderableType] = [totals, _map_of(self._columns), self._partitions()]
        parts += [self._nodes_table(), *self._tenants()]
        parts += [*self._throttles(), *self._changes()]
        return Group(*parts)

    def _throttled(self) -> dict[str, float]:
        """Requests a second by reason: as storage nodes report them of their partitions, and from
        the second look on as routers count all of them.
        """
        heat = self._heat
        reported = {
            "TableReadKeyRangeThroughputExceeded": round(heat.throttled_reads_per_second, 1),
            "TableWriteKeyRangeThroughputExceeded": round(heat.throttled_writes_per_second, 1),
        }
        counted = {
            reason: round(rate, 1)
            for (what, reason), rate in self._rates.items()
            if what == "throttled"
        }
        return {**reported, **counted}

    def _tenant_facts(self) -> list[dict[str, Any]]:
        """Those that call, the busiest first."""
        names = sorted({name for what, name in self._counts if what in ("requests", "refused")})
        facts = [
            {
                "tenant": name,
                "requests_per_second": round(self._rates.get(("requests", name), 0.0), 1),
                "throttled_per_second": round(self._rates.get(("refused", name), 0.0), 1),
            }
            for name in names
        ]
        return sorted(facts, key=lambda each: -float(each["requests_per_second"]))

    def _tenants(self) -> list[RenderableType]:
        facts = self._tenant_facts()
        if not facts:
            return []
        shown = _table(("tenant", "requests/s", "throttled/s"), left=(0,))
        for each in facts[:_TENANTS_SHOWN]:
            rates = each["requests_per_second"], each["throttled_per_second"]
            shown.add_row(escape(each["tenant"]), *(f"{rate:,.0f}" for rate in rates))
        return [shown]

    def _partitions(self) -> Table:
        columns = ("partition", "table", "node", "reads/s", "writes/s", "of its limits")
        shown = _table((*columns, "throttled/s", "items", "MB"), left=(1, 2))
        for each in map(_facts, self._heat.hottest):
            heat = f"{each['heat']:.0%}" if each["limited"] else ""
            style = "red" if each["throttled_per_second"] >= 1 else ""
            shown.add_row(
                str(each["partition_id"]),
                escape(each["table"]),
                escape(each["leader"]),
                f"{each['reads_per_second']:,.0f}",
                f"{each['writes_per_second']:,.0f}",
                heat,
                f"{each['throttled_per_second']:,.0f}",
                f"{each['item_count']:,}",
                f"{each['bytes'] / 1e6:,.1f}",
                style=style,
            )
        return shown

    def _nodes_table(self) -> Table:
        shown = _table(("node", "state", "partitions", "reads/s", "writes/s"), left=(0, 1))
        for each in map(_node_facts, self._nodes.nodes):
            shown.add_row(
                escape(each["node"]),
                each["state"],
                f"{each['partition_count']:,}",
                f"{each['reads_per_second']:,.0f}",
                f"{each['writes_per_second']:,.0f}",
            )
        return shown

    def _throttles(self) -> list[RenderableType]:
        return [
            Text(f"{per_s:,.0f} requests a second throttled: {reason}", style="red")
            for reason, per_s in self._throttled().items()
            if per_s >= 1
        ]

    def _changes(self) -> list[RenderableType]:
        """The first few of the plan."""
        return [
            Text(
                f"{enum_word(pb.PlannedState.Name(each.state), words=2)}"
                f" {enum_word(pb.OperationKind.Name(each.kind), words=2)}"
                f" {' and '.join(map(str, each.partition_ids))} of {each.table}: {each.reason}",
                style="dim",
                overflow="ellipsis",
                no_wrap=True,
            )
            for each in self._plan.changes[:3]
        ]


def _map_of(columns: Sequence[Sequence[float]]) -> Table:
    """Ranges of key hashes over time: each cell a shade and a colour for its requests a second."""
    highest = max((value for column in columns for value in column), default=0.0)
    shown = Table(box=None, pad_edge=False, show_header=False)
    shown.add_column(style="dim")
    shown.add_column(no_wrap=True)
    for row in range(_ROWS):
        cells = Text()
        for column in columns:
            level = _level(column[row], highest)
            cells.append(_SHADES[level], style=_COLORS[level])
        shown.add_row(hash_text(row * (1 << 64) // _ROWS)[:4] + "…", cells)
    shown.add_row("", Text(f"{_SHADES[-1]} is {highest:,.0f} requests a second", style="dim"))
    return shown


def _level(value: float, highest: float) -> int:
    """An index of _SHADES: each step down is half as much."""
    level = len(_SHADES) - 1
    if value <= 0.0 or highest < 0.5:
        return 0
    while level > 1 and value < highest / 1.5:
        highest /= 2
        level -= 1
    return level


def _table(columns: Sequence[str], left: Sequence[int]) -> Table:
    shown = Table(box=None, pad_edge=False, header_style="dim")
    for at, column in enumerate(columns):
        shown.add_column(column, justify="left" if at in left else "right", no_wrap=True)
    return shown


def _facts(hot: pb.HotPartition) -> dict[str, Any]:
    """heat: of what it may use, 0 without limits."""
    load = hot.load
    throttled = load.throttled_reads_per_second + load.throttled_writes_per_second
    return {
        "table": hot.table,
        **partition_facts(hot.partition),
        "reads_per_second": round(load.reads_per_second, 1),
        "writes_per_second": round(load.writes_per_second, 1),
        "read_units_per_second": round(load.read_units_per_second, 1),
        "write_units_per_second": round(load.write_units_per_second, 1),
        "throttled_per_second": round(throttled, 1),
        "limited": load.limited,
        "heat": round(hot.heat, 3),
        "item_count": load.item_count,
        "bytes": load.bytes,
    }


def _node_facts(status: pb.NodeStatus) -> dict[str, Any]:
    return {
        "node": status.node.node_id,
        "state": enum_word(catalog.NodeState.Name(status.node.state), words=2),
        "partition_count": status.partition_count,
        "reads_per_second": round(status.reads_per_second, 1),
        "writes_per_second": round(status.writes_per_second, 1),
    }
