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
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from bench import _curves as curves
from bench._compare import Comparison, compare, headline, rows
from bench._items import ITEM_BYTES, ITEMS_MAX
from bench._load import GeneratorFailed
from bench._plan import Kind, Plan, kind_named
from bench._plots import plot_comparison, plot_soak, plot_sweep
from bench._report import comparison_tables, growth_table, soak_table, sweep_table
from bench._systems import DESCRIPTIONS, KEYPLANE, Load
from bench._transports import HTTP2, check_name
from bench._windows import PACED_OUTSTANDING_MAX
from keyplane.model.errors import KeyplaneError

# Wide enough for a row where there is no terminal to ask.
people = Console(stderr=True, width=None if sys.stderr.isatty() else 150)

# Reads and updates as in the YCSB figure of the DynamoDB paper (USENIX ATC 2022): its A and B.
_SWEEP_KINDS = "50/50,95/5"
_SOAK_KIND = "90/10"
_GROWTH_KINDS = "get,put"
_COMPARED_KINDS = "get,put,90/10"

_GROWTH_PARTITIONS = "10,10000"


def run(
    seconds: Annotated[float, typer.Option(min=0.1, help="Seconds of one window.")] = 10.0,
    rounds: Annotated[int, typer.Option(min=1, help="Windows of each sort; medians.")] = 3,
    outstanding: Annotated[
        str, typer.Option(help="Requests in flight, comma-separated.")
    ] = "1,32,128,512",
    kinds: Annotated[
        str,
        typer.Option(help=f"get, put, or reads/writes in percent. Empty: {_COMPARED_KINDS}, or "
                     "what suits the mode."),
    ] = "",
    systems: Annotated[
        str, typer.Option(help="What to compare, comma-separated.")
    ] = ",".join(DESCRIPTIONS),
    items: Annotated[int, typer.Option(min=100, help="Items in each table.")] = 100_000,
    partitions: Annotated[int, typer.Option(min=1, help="Of Keyplane's tables.")] = 8,
    client_transport: Annotated[
        str, typer.Option(help="gRPC engine of the load generator: http2 or grpcio.")
    ] = HTTP2,
    sweep: Annotated[
        bool, typer.Option("--sweep", help="Instead: paced load in steps to 80 % of the maximum.")
    ] = False,
    growth: Annotated[
        bool, typer.Option("--growth", help="Instead: CPU per request with more partitions.")
    ] = False,
    growth_partitions: Annotated[
        str, typer.Option(help="The numbers of partitions of --growth.")
    ] = _GROWTH_PARTITIONS,
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
        check_name(client_transport)
        load = Load(_items(items), partitions, client_transport)
        names = _names(systems)
        levels = _levels(outstanding)
        counts = [int(each) for each in growth_partitions.split(",")]

        def plan(default_kinds: str) -> Plan:
            return Plan(seconds, rounds, levels, _kinds(kinds or default_kinds))

        for each in (_COMPARED_KINDS, _SWEEP_KINDS, _GROWTH_KINDS, _SOAK_KIND):
            plan(each)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    try:
        compared = None
        extra: dict[str, Any] = {}
        failures = 0
        if sweep:
            found = curves.sweep(load, plan(_SWEEP_KINDS), _say)
            people.print(sweep_table(found))
            extra["sweep"] = curves.as_json(found)
            failures += curves.failures_of(found)
            if plots is not None:
                plot_sweep(found, plots)
        if growth:
            grown = curves.growth(load, plan(_GROWTH_KINDS), counts, _say)
            people.print(growth_table(grown))
            extra["growth"] = [curves.as_json(each) for each in grown]
            failures += curves.failures_of(grown)
        if soak:
            soaked = curves.soak(load, plan(_SOAK_KIND), soak, _say)
            people.print(soak_table(soaked))
            extra["soak"] = curves.as_json(soaked)
            failures += curves.failures_of(soaked)
            if plots is not None:
                plot_soak(soaked, plots)
        if not (sweep or growth or soak):
            compared = compare(names, load, plan(_COMPARED_KINDS), _say)
            for table in comparison_tables(compared):
                people.print(table)
            if plots is not None:
                plot_comparison(compared, plots)
    except (KeyplaneError, GeneratorFailed, RuntimeError, OSError) as error:
        people.print(f"[red]{error}[/red]", highlight=False)
        raise typer.Exit(1) from error
