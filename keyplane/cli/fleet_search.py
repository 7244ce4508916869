"""`keyplane fleet optimise`: the values of a scenario's parameters at which a figure is best."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from functools import partial
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
from keyplane.model.errors import KeyplaneError, Reason

_EXAMPLES = """
    keyplane fleet optimise pool-size --figure "p99 with the pool" --minimise --vary pool_size=9:64
    keyplane fleet optimise cold-start --figure "requests failed" --minimise --vary queue_s=0:2
"""


def register(fleet: typer.Typer) -> None:
    command_without_cluster(fleet, "optimise", _EXAMPLES, takes_any_option=True)(optimise)


@with_models
def optimise(
    out: Output,
    context: typer.Context,
    scenario: PointScenario,
    rest: PARAMETERS = None,
    figure: Annotated[str, typer.Option(metavar="NAME", help="Which is to be best.")] = "",
    minimise: Annotated[bool, typer.Option("--minimise", help="Best is lowest.")] = False,
    maximise: Annotated[bool, typer.Option("--maximise", help="Best is highest.")] = False,
    vary: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=LOW:HIGH[:log]", help="A parameter; may be given again."),
    ] = None,
    points: Annotated[
        int, typer.Option(min=2, max=100_000, help="The scenario is asked at most this often.")
    ] = 100,
    workers: Workers = 0,
    ray: RayAddress = None,
    preset: Preset = "paper",
    seed: Seed = 1,
    given: SetFlag = None,
    resume: Resume = False,
    home: FleetDir = None,
) -> int:
    """Searches the values at which a figure is best, within a number of points.

    Half of the points are spread over the whole; the others close in on the best of them, so what
    is found is the best nearby and likely the best of all. Exit code: 0 found; 1 no point had the
    figure.
    """
    from fleet.sweep.kept import KeptPoints
    from fleet.sweep.search import VARIED_MAX, Search

    if minimise == maximise or not figure:
        raise KeyplaneError(
            Reason.INVALID_ARGUMENT, "say what is best: --figure NAME and --minimise or --maximise"
        )
    texts = vary or []
    asked = asked_of(
        scenario, rest or [], given or [], texts, preset, seed, home, needs_steps=False
    )
    if len(asked.varied) > VARIED_MAX:
        raise KeyplaneError(Reason.INVALID_ARGUMENT, f"{VARIED_MAX} can be varied at the most")
    began_at = time.monotonic()
    direction = "minimise" if minimise else "maximise"
    directory = directory_of(
        out, context, "optimise", asked, home, resume, figure=figure, direction=direction
    )
    kept = KeptPoints(directory)
    before = len(kept)
    try:
        with Bar(out, points) as bar, computing(asked, ray, workers) as evaluate:
            watched = partial(_watched, bar, figure, kept, evaluate)
            cost = partial(_cost, figure, 1.0 if minimise else -1.0)
            best = Search(asked.varied, asked.parameters, cost, points, watched).run()
    except KeyboardInterrupt:
        out.note(f"{len(kept)} points are kept; go on with the same and --resume")
        raise
    table = kept.write_table(None, asked.units())
    facts: dict[str, Any] = {
        "scenario": asked.scenario.name,
        "figure": figure,
        "direction": direction,
        "points": len(kept),
        "computed": len(kept) - before,
        "best": None,
        "value": None,
        "directory": str(directory),
        "table": str(table),
        "report": None,
        "seconds": round(time.monotonic() - began_at, 3),
    }
    if best is None:
        for error in list(dict.fromkeys(point.error for point in kept.all()))[:5]:
            out.say(f"[red]{escape(error)}[/red]")
        out.say(f"No point had a {escape(figure)}.")
        out.result(facts)
        return EXIT_NO
    more = ("--figure", figure, f"--{direction}", "--points", str(points))
    report, conclusion = _report(kept, asked, best, asked.command("optimise", texts, *more))
    facts |= {
        "best": dict(best.values),
        "value": best.figure(figure),
        "report": str(report),
        "conclusion": conclusion,
    }
    out.say(f"[bold]{escape(conclusion)}[/bold]")
    out.say(f"[dim]report: {escape(str(report))}[/dim]")
    out.result(facts)
    return EXIT_OK


def _cost(figure: str, sign: float, point: Any) -> float:
    value: float = sign * point.figure(figure)
    return math.inf if math.isnan(value) else value


def _watched(
    bar: Bar,
    figure: str,
    kept: Any,
    evaluate: Any,
    wanted: Sequence[dict[str, float]],
) -> Iterator[Any]:
    for point in kept.evaluated(wanted, evaluate):
        check_figure(figure, [point])
        bar.finish()
        bar.tell(f"{len(kept)} points")
        yield point


def _report(kept: Any, asked: Asked, best: Any, command: str) -> tuple[Path, str]:
    from fleet.report.sweep_page import sweep_page, told, where
    from fleet.report.sweep_plots import search_plot
    from fleet.runs import REPORT, read_about
    from wire.files import replace_file

    about = read_about(kept.directory)["asked"]
    figure = about["figure"]
    least = "lowest" if about["direction"] == "minimise" else "highest"
    points = kept.all()
    conclusion = (
        f"The {least} {figure} found in {len(points)} points is {told(best, figure)}, "
        f"at {where(best)}."
    )
    text = sweep_page(
        f"{asked.scenario.title}: a search",
        conclusion,
        asked.scenario,
        asked.task,
        [search_plot(figure, points, best)],
        [figure],
        asked.parameters,
        [best, *(each for each in points if each is not best)],
        command,
    )
    path = kept.directory / REPORT
    replace_file(path, text.encode())
    return path, conclusion
