"""What a request costs at each stage of router and storage node, by `perf`.

Both are loaded as in the data-plane benchmark. A first window without `perf` says what processor
time a request takes; further ones, a process at a time, say what it is spent on.
"""

from __future__ import annotations

import json
import signal
import sys
import tempfile
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from bench import _perf as perf
from bench._items import ITEMS_MAX
from bench._load import GeneratorFailed
from bench._plan import Kind, Plan, kind_named
from bench._plots import plot_stages
from bench._systems import Load, System, keyplane_tables
from keyplane import native
from keyplane.model.errors import KeyplaneError

people = Console(stderr=True, width=None if sys.stderr.isatty() else 120)

PROCESSES = tuple(perf.STAGES)


@dataclass(frozen=True, slots=True)
class Stages:
    """Microseconds of processor time for each request. stages_us: by stage; together cpu_us."""

    kind: str
    process: str
    cpu_us: float
    stages_us: dict[str, float]


def run(
    seconds: Annotated[float, typer.Option(min=0.5, help="Seconds of one window.")] = 5.0,
    outstanding: Annotated[int, typer.Option(min=1, help="Requests in flight.")] = 128,
    kinds: Annotated[str, typer.Option(help="get, put, or reads/writes in percent.")] = "get,put",
    items: Annotated[int, typer.Option(min=1, max=ITEMS_MAX)] = 100_000,
    plots: Annotated[Path | None, typer.Option(help="Draw into this directory.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="End with one JSON object on stdout.")
    ] = False,
) -> None:
    """Processor time of a request by stage, in router and storage node."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        chosen = [kind_named(name.strip()) for name in kinds.split(",")]
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--kinds") from error
    plan = Plan(seconds, 1, [outstanding], chosen)
    try:
        if not native.is_active():
            raise perf.PerfFailed("the modules are not compiled; run scripts/compile")
        perf.check()
        found = _measure(plan, items)
    except (perf.PerfFailed, GeneratorFailed, KeyplaneError, RuntimeError) as error:
        people.print(f"failed: {error}", markup=False)
        raise typer.Exit(1) from error
    except KeyboardInterrupt as error:
        people.print("stopped")
        raise typer.Exit(130) from error
    for kind in plan.kinds:
        people.print(_table(kind.name, found))
    if plots is not None:
        for path in plot_stages(
            {(each.kind, each.process): each.stages_us for each in found}, plots
        ):
            people.print(f"drew {path}")
    if as_json:
        sys.stdout.write(
            json.dumps(
                {"outstanding": outstanding, "items": items, "stages": [asdict(x) for x in found]}
            )
            + "\n"
        )


def _measure(plan: Plan, items: int) -> list[Stages]:
    say = partial(people.print, markup=False, highlight=False)
    found = []
    with keyplane_tables([1], Load(items, 1), say) as (system,):
        for kind in plan.kinds:
            sample = system.generator.run(plan.closed(kind, plan.outstanding[0]))
            if sample.failures:
                raise RuntimeError(f"requests failed: {dict(sample.failures)}")
            say(f"{kind.name}: {sample}")
            cpu_us = sample.cpu_us()
            for process in PROCESSES:
                say(f"{kind.name}: looking into the {process}")
                shares = _shares(system, plan, kind, process)
                spent = {stage: share * cpu_us[process] for stage, share in shares.items()}
                found.append(Stages(kind.name, process, cpu_us[process], spent))
    return found


def _shares(system: System, plan: Plan, kind: Kind, process: str) -> dict[str, float]:
    order = plan.closed(kind, plan.outstanding[0])
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "perf.data"
        # All of it under load: from the end of the warm-up on.
        with perf.recorded(system.processes[process][0], plan.seconds * 0.8, file):
            system.generator.run(order)
        return perf.shares(file, process)


def _table(kind: str, found: list[Stages]) -> Table:
    table = Table(title=f"{kind}: CPU µs per request")
    table.add_column("process")
    table.add_column("stage")
    table.add_column("µs", justify="right")
    table.add_column("share", justify="right")
    for each in found:
        if each.kind == kind:
            table.add_row(each.process, "all", f"{each.cpu_us:.1f}", "", style="bold")
            for stage, us in each.stages_us.items():
                table.add_row("", stage, f"{us:.2f}", f"{us / each.cpu_us:.0%}")
    return table


if __name__ == "__main__":
    typer.run(run)
