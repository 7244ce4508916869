"""The data plane under load: Keyplane on both transports, dynalite, and a bare echo.

Without a mode it compares: all systems run at the same time, and take turns under load, round by
round, so that whatever else the machine does meets all of them. Writes carry tokens, as those of
the SDK do. The load comes from the same machine; its own processor time is in the tables.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from bench import _curves as curves
from bench._compare import Comparison, compare, headline, rows
from bench._items import ITEM_BYTES, ITEMS_MAX
from bench._load import GeneratorFailed
from bench._plan import Plan, kind_named
from bench._plots import plot_comparison, plot_soak, plot_sweep
from bench._report import comparison_tables, growth_table, soak_table, sweep_table
from bench._systems import COMPARED, DESCRIPTIONS, Load
from keyplane import native
from keyplane.model.errors import KeyplaneError
from wire.transports import TransportKind

# Wide enough for a row where there is no terminal to ask.
people = Console(stderr=True, width=None if sys.stderr.isatty() else 170)

# Reads and updates as in the YCSB figure of the DynamoDB paper (USENIX ATC 2022): its A and B.
_SWEEP_KINDS = "50/50,95/5"
_SOAK_KIND = "90/10"
_GROWTH_KINDS = "get,put"
_COMPARED_KINDS = "get,put,90/10"

PARTITIONS_MAX = 1_000_000
# Each is a connection, over HTTP.
OUTSTANDING_MAX = 2_000


def run(
    seconds: Annotated[float, typer.Option(min=0.1, help="Seconds of one window.")] = 10.0,
    rounds: Annotated[int, typer.Option(min=1, help="Windows of each sort; medians.")] = 3,
    outstanding: Annotated[
        str, typer.Option(help="Requests in flight, comma-separated.")
    ] = "1,32,128,512",
    kinds: Annotated[
        str,
        typer.Option(help="get, put, or percent of reads/writes, comma-separated; else by mode."),
    ] = "",
    systems: Annotated[
        str,
        typer.Option(help=f"What to compare, comma-separated, out of {', '.join(DESCRIPTIONS)}."),
    ] = ",".join(COMPARED),
    items: Annotated[
        int, typer.Option(min=100, max=ITEMS_MAX, help="Items in each table.")
    ] = 100_000,
    partitions: Annotated[int, typer.Option(min=1, help="Of Keyplane's tables.")] = 8,
    client_transport: Annotated[
        TransportKind, typer.Option(help="gRPC engine of the load generator.")
    ] = TransportKind.HTTP2,
    sweep: Annotated[
        bool, typer.Option("--sweep", help="Instead: paced load in steps to 80 % of the maximum.")
    ] = False,
    growth: Annotated[
        bool, typer.Option("--growth", help="Instead: CPU per request with more partitions.")
    ] = False,
    growth_partitions: Annotated[
        str, typer.Option(help="The numbers of partitions of --growth.")
    ] = "10,10000",
    soak: Annotated[
        float, typer.Option(min=0, help="Instead: so many seconds at half of the maximum.")
    ] = 0.0,
    plots: Annotated[
        Path | None, typer.Option(help="Directory to draw what was measured into, as SVG.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="End with one JSON object on stdout.")
    ] = False,
) -> None:
    """Requests per second, latency and processor time of the data plane, side by side."""
    # As Ctrl-C: what was started is stopped on the way out.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        load = Load(items, partitions, client_transport)
        names = _names(systems)
        counts = _numbers(growth_partitions, "partitions", PARTITIONS_MAX)
        levels = _numbers(outstanding, "requests in flight", OUTSTANDING_MAX)

        def plan(usual: str) -> Plan:
            chosen = [kind_named(kind) for kind in (kinds or usual).split(",")]
            return Plan(seconds, rounds, levels, chosen)

        plan(_COMPARED_KINDS)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    results = Results(plots)
    try:
        if plots is not None:
            plots.mkdir(parents=True, exist_ok=True)
        if sweep:
            results.swept(curves.sweep(load, plan(_SWEEP_KINDS), _say))
        if growth:
            results.grown(curves.growth(load, plan(_GROWTH_KINDS), counts, _say))
        if soak:
            results.soaked(curves.soak(load, plan(_SOAK_KIND), soak, _say))
        if not (sweep or growth or soak):
            results.compared(compare(names, load, plan(_COMPARED_KINDS), _say))
    except (KeyplaneError, GeneratorFailed, RuntimeError, OSError) as error:
        people.print(f"{error}", style="red", markup=False)
        raise typer.Exit(1) from error
    if as_json:
        settings = {"seconds": seconds, "rounds": rounds, "items": items, "item_bytes": ITEM_BYTES}
        machine = {
            "python": platform.python_version(),
            "cpus": os.cpu_count(),
            "compiled": native.is_active(),
        }
        result = results.facts | {"settings": settings, "machine": machine}
        sys.stdout.write(json.dumps(result) + "\n")
    results.draw()
    if results.failed:
        where = "; ".join(f"{count:,} of {what}" for what, count in results.failed.items())
        people.print(f"requests failed, {where}: those figures are not to be used", markup=False)
        raise typer.Exit(1)


class Results:
    """What was measured: shown, drawn where asked for, and as one object.

    facts: the keys of `headline` in any case, None for what was not measured.
    failed: how many requests failed, by what they were part of.
    """

    def __init__(self, plots: Path | None) -> None:
        """plots: the directory to draw into, if any."""
        self._plots = plots
        self._drawings: list[Callable[[Path], Sequence[Path]]] = []
        self.facts: dict[str, Any] = headline(Comparison({}))
        self.failed: dict[str, int] = {}

    def compared(self, comparison: Comparison) -> None:
        for table in comparison_tables(comparison):
            people.print(table)
        for name, reason in comparison.skipped.items():
            people.print(f"{name} was skipped: {reason}", markup=False)
        table_rows = rows(comparison)
        skipped = dict(comparison.skipped)
        self._add(
            headline(comparison) | {"table": table_rows, "skipped": skipped},
            {
                f"{row['system']}, {row['kind']}, {row['outstanding']} in flight": count
                for row in table_rows
                if (count := sum(row["failures"].values()))
            },
        )
        self._drawings.append(partial(plot_comparison, comparison))

    def swept(self, sweep: curves.Sweep) -> None:
        people.print(sweep_table(sweep))
        self._add({"sweep": asdict(sweep)}, {"the sweep": curves.failures_of(sweep.steps)})
        self._drawings.append(partial(plot_sweep, sweep))

    def grown(self, found: list[curves.Growth]) -> None:
        people.print(growth_table(found))
        facts = {"growth": [asdict(each) for each in found]}
        self._add(facts, {"the growth": curves.failures_of(found)})

    def soaked(self, soak: curves.Soak) -> None:
        people.print(soak_table(soak))
        self._add({"soak": asdict(soak)}, {"the soak": curves.failures_of(soak.slices)})
        self._drawings.append(partial(plot_soak, soak))

    def draw(self) -> None:
        """Last of all: nothing that was measured is lost to a full disk."""
        if self._plots is not None:
            for drawing in self._drawings:
                for path in drawing(self._plots):
                    _say(f"drawn: {path}")

    def _add(self, facts: dict[str, Any], failed: Mapping[str, int]) -> None:
        self.facts |= facts
        self.failed |= {what: count for what, count in failed.items() if count}
        self.facts["failures"] = sum(self.failed.values())
        self.facts["failed"] = self.failed


def _names(text: str) -> list[str]:
    names = list(dict.fromkeys(text.split(",")))
    unknown = [name for name in names if name not in DESCRIPTIONS]
    if unknown:
        raise ValueError(f"{unknown[0]!r} is no system; there are: {', '.join(DESCRIPTIONS)}")
    return names


def _numbers(text: str, what: str, most: int) -> list[int]:
    parts = text.split(",")
    if not all(part.isdecimal() and 1 <= int(part) <= most for part in parts):
        raise ValueError(f"{text!r}: give numbers of {what}, 1 to {most:,}, with commas between")
    return list(dict.fromkeys(int(part) for part in parts))


def _say(line: str) -> None:
    people.print(line, style="dim", markup=False, highlight=False)


if __name__ == "__main__":
    typer.run(run)
