"""Partition maps: lookup, memory, encoding, publishing, loading, and the cost of a split.

The figures are of one process; `bench._partition_map` says what each of them is.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from bench._partition_map import MapFigures, measure

people = Console(stderr=True)


def run(
    sizes: Annotated[
        str, typer.Option(help="Numbers of partitions, with commas between.")
    ] = "10,10000,1000000",
    as_json: Annotated[
        bool, typer.Option("--json", help="End with one JSON object on stdout.")
    ] = False,
) -> None:
    """What partition maps cost, against a real memcached that is started for it."""
    rows = []
    for size in sizes.split(","):
        people.print(f"[dim]a map of {int(size):,} partitions …[/dim]")
        rows.append(measure(int(size)))
    people.print(_table(rows))
    people.print(
        "[dim]memory by tracemalloc, of a map read from memcached, before any lookup; published to "
        "and loaded from one real memcached with beats of 1 ms[/dim]"
    )
    if as_json:
        machine = {"python": platform.python_version(), "cpus": os.cpu_count()}
        result = {"machine": machine, "maps": [asdict(row) for row in rows]}
        sys.stdout.write(json.dumps(result) + "\n")


def _table(rows: list[MapFigures]) -> Table:
    table = Table(title="Partition maps", title_justify="left")
    table.add_column("")
    for row in rows:
        table.add_column(f"{row.partitions:,}", justify="right")
    lines = {
        "lookup": [f"{row.lookup_ns:,.0f} ns" for row in rows],
        "  first of a partition": [f"{row.first_lookup_ns:,.0f} ns" for row in rows],
        "  bisect on a plain list": [f"{row.bisect_list_ns:,.0f} ns" for row in rows],
        "memory": [_bytes(row.memory_bytes) for row in rows],
        "  per partition": [f"{row.memory_bytes / row.partitions:,.0f} B" for row in rows],
        "pages": [f"{row.pages:,}" for row in rows],
        "root": [_bytes(row.root_bytes) for row in rows],
        "encode": [f"{row.encode_s:.4f} s" for row in rows],
        "publish": [f"{row.publish_s:.3f} s" for row in rows],
        "load": [f"{row.load_s:.3f} s" for row in rows],
        "new map on a split": [f"{row.replace_us:,.0f} µs" for row in rows],
        "  pages rewritten": [f"{row.pages_per_split:.2f}" for row in rows],
    }
    for name, cells in lines.items():
        table.add_row(name, *cells)
    return table


def _bytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB" if count >= 1e5 else f"{count / 1e3:,.2f} kB"


if __name__ == "__main__":
    typer.run(run)
