"""`keyplane fleet sweep`: one scenario over a grid of its parameters."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from keyplane.cli.fleet_options import PARAMETERS, FleetDir, Preset, Seed, SetFlag, with_models
from keyplane.cli.fleet_points import (
    Asked,
    PointScenario,
    RayAddress,
    Resume,
    Workers,
    asked_of,
    check_figure,
    computing,
    directory_of,
)
from keyplane.cli.fleet_progress import Bar
from keyplane.cli.output import EXIT_NO, EXIT_OK, Output
from keyplane.cli.session import command_without_cluster

_EXAMPLES = """
    keyplane fleet sweep hedging --vary slow_by_ms=10:200:20
    keyplane fleet sweep retry-storm --vary load=0.1:0.9:17 --vary retries=0:4:5
    keyplane fleet sweep pool-size --vary pool_size=9:64:9:log --ray local
    keyplane fleet sweep hedging --vary slow_by_ms=10:200:20 --resume   after an interruption
"""


def register(fleet: typer.Typer) -> None:
    command_without_cluster(fleet, "sweep", _EXAMPLES, takes_any_option=True)(sweep)


@with_models
def sweep(
    out: Output,
    context: typer.Context,
    scenario: PointScenario,
    rest: PARAMETERS = None,
    vary: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=LOW:HIGH:STEPS[:log]", help="A parameter; may be given again: a grid."
        ),
    ] = None,
    figure: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="To be drawn; the first one, if none is named."),
    ] = None,
    workers: Workers = 0,
    ray: RayAddress = None,
    preset: Preset = "paper",
    seed: Seed = 1,
    given: SetFlag = None,
    resume: Resume = False,
    home: FleetDir = None,
) -> int:
    """Asks a scenario at every point of a grid, several at a time, and draws its figures over it.

    Parameters that are not varied are given as with `keyplane fleet run`. Every point is kept as
    soon as it is there. Exit code: 0 done; 1 some points ended in an error.
    """
    from fleet.sweep.grid import grid
    from fleet.sweep.kept import KeptPoints

    texts = vary or []
    asked = asked_of(scenario, rest or [], given or [], texts, preset, seed, home, needs_steps=True)
    wanted = grid(asked.varied, list(asked.parameters.values()))
    began_at = time.monotonic()
    kept = KeptPoints(directory_of(out, context, "sweep", asked, home, resume))
    done = [values for values in wanted if kept.has(values)]
    try:
        with (
            Bar(out, len(wanted), len(done)) as bar,
            computing(asked, ray, workers) as evaluate,
        ):
            missing = [values for values in wanted if not kept.has(values)]
            for number, point in enumerate(kept.evaluated(missing, evaluate), 1):
                for name in figure or []:
                    check_figure(name, [point])
                bar.finish()
                bar.tell(f"{asked.scenario.name}: {len(done) + number} of {len(wanted)} points")
    except KeyboardInterrupt:
        out.note(f"{len(kept)} of {len(wanted)} points are kept; go on with the same and --resume")
        raise
    points = kept.at(wanted)
    for name in figure or []:
        check_figure(name, points)
    failed = [point for point in points if point.error]
    shown = figure or list(next((point.figures for point in points if point.figures), {}))[:1]
    table = kept.write_table(wanted, asked.units())
    report = _report(kept.directory, asked, shown, points, texts)
    facts: dict[str, Any] = {
        "scenario": asked.scenario.name,
        "points": len(points),
        "computed": len(points) - len(done),
        "failed": len(failed),
        "figures": shown,
        "conclusion": _conclusion(shown, points),
        "directory": str(kept.directory),
        "table": str(table),
        "report": str(report),
        "seconds": round(time.monotonic() - began_at, 3),
    }
    out.table(
        ("scenario", "points", "computed now", "failed", "seconds"),
        [[facts[name] for name in ("scenario", "points", "computed", "failed", "seconds")]],
    )
    for error in list(dict.fromkeys(point.error for point in failed))[:5]:
        out.say(f"[red]{escape(error)}[/red]")
    out.say(f"[bold]{escape(facts['conclusion'])}[/bold]")
    out.say(f"[dim]report: {escape(str(report))}[/dim]")
    out.result(facts)
    return EXIT_NO if failed else EXIT_OK


def _conclusion(shown: list[str], points: list[Any]) -> str:
    from fleet.report.sweep_page import extremes

    return extremes(shown[0], points) if shown else "No point could be computed."


def _report(
    directory: Path, asked: Asked, shown: list[str], points: list[Any], texts: list[str]
) -> Path:
    from fleet.report.sweep_page import sweep_page
    from fleet.report.sweep_plots import plots_of
    from fleet.runs import REPORT
    from wire.files import replace_file

    plots = [
        plot for name in shown for plot in plots_of(name, asked.varied, asked.parameters, points)
    ]
    more = [word for name in shown for word in ("--figure", name)]
    text = sweep_page(
        f"{asked.scenario.title}: a sweep",
        _conclusion(shown, points),
        asked.scenario,
        asked.task,
        plots,
        shown,
        asked.parameters,
        points,
        asked.command("sweep", texts, *more),
    )
    path = directory / REPORT
    replace_file(path, text.encode())
    return path
