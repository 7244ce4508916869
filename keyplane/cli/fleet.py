"""`keyplane fleet …`: models of fleets of any size, asked the questions this design answers."""

from __future__ import annotations

import time
import webbrowser
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from keyplane.cli import fleet_live, fleet_search, fleet_sweep
from keyplane.cli.fleet_options import (
    PARAMETERS,
    FleetDir,
    Preset,
    Seed,
    SetFlag,
    calibration_of,
    parameters_given,
    parameters_of_all,
    with_models,
)
from keyplane.cli.fleet_progress import Bar
from keyplane.cli.output import EXIT_NO, EXIT_OK, Output
from keyplane.cli.session import command_without_cluster
from keyplane.cluster.cluster import default_home
from keyplane.model.errors import KeyplaneError, Reason

# The models, and numba with them, are loaded by the commands that run them: they take longer to
# load than any other command takes to run.

ScenarioName = Annotated[
    str,
    typer.Argument(
        metavar="SCENARIO",
        help="A name of `keyplane fleet list`, or a file of your own: a scenario, or a design.",
    ),
]


def register(app: typer.Typer) -> None:
    fleet = typer.Typer(
        no_args_is_help=True,
        help="Models of fleets of routers, MemDS and Metadata Stores, of any size: figures, "
        "checks and plots.",
    )
    command_without_cluster(fleet, "list", _LIST_EXAMPLES)(list_)
    command_without_cluster(fleet, "show", _SHOW_EXAMPLES)(show)
    command_without_cluster(fleet, "run", _RUN_EXAMPLES, takes_any_option=True)(run)
    command_without_cluster(fleet, "report", _REPORT_EXAMPLES)(report)
    fleet_sweep.register(fleet)
    fleet_search.register(fleet)
    fleet_live.register(fleet)
    app.add_typer(fleet, name="fleet")


# --- list, show -----------------------------------------------------------------------------------

_LIST_EXAMPLES = """
    keyplane fleet list
"""


@with_models
def list_(out: Output) -> int:
    """Says which scenarios there are, and what each asks."""
    from fleet.catalogue import find, names

    found = [find(name) for name in names()]
    out.table(("scenario", "question"), [(each.name, each.question) for each in found])
    out.result(
        {
            "scenarios": [
                {"name": each.name, "title": each.title, "question": each.question}
                for each in found
            ]
        }
    )
    return EXIT_OK


_SHOW_EXAMPLES = """
    keyplane fleet show hedging
"""


@with_models
def show(out: Output, scenario: ScenarioName, home: FleetDir = None) -> int:
    """Says what a scenario asks, how it is modelled, and what it can be asked with."""
    from dataclasses import asdict

    from fleet.calibration import path_in
    from fleet.catalogue import find
    from fleet.format import number
    from fleet.parameters import parameters_of

    found = find(scenario)
    path = path_in(home or default_home())
    # Shown where there is one; `--preset measured` is what complains.
    measured = calibration_of("measured", home) if path.exists() else {}
    parameters = parameters_of(found.parameters)
    out.say(f"[bold]{escape(found.title)}[/bold]")
    out.say(escape(found.question))
    out.say()
    out.say(escape(found.explanation))
    out.say()
    calibrated = {
        each.name: (measured or {}).get(each.measured) for each in parameters if each.measured
    }
    rows = [
        (
            each.flag,
            number(each.default),
            _shown(calibrated.get(each.name), number) or each.measured or "",
            each.unit,
            f"{number(each.low)} to {number(each.high)}",
            each.help,
        )
        for each in parameters
    ]
    out.table(("parameter", "paper", "measured", "unit", "bounds", "what it is"), rows)
    out.say()
    for each in parameters:
        out.say(f"[dim]{each.flag} is[/dim] {escape(each.source)}")
    out.result(
        {
            "name": found.name,
            "title": found.title,
            "question": found.question,
            "explanation": found.explanation,
            "parameters": [
                {**asdict(each), "calibrated": calibrated.get(each.name)} for each in parameters
            ],
        }
    )
    return EXIT_OK


# --- run ------------------------------------------------------------------------------------------

_RUN_EXAMPLES = """
    keyplane fleet run hedging
    keyplane fleet run hedging --nodes 20 --slow-by-ms 50    parameters, as `fleet show` has them
    keyplane fleet run cold-start --preset measured --open
    keyplane fleet run all --set hedging.nodes=20           of one of them
    keyplane fleet run all --resume                         what an interrupted run left over
"""


@with_models
def run(
    out: Output,
    context: typer.Context,
    scenario: Annotated[
        str,
        typer.Argument(
            metavar="SCENARIO", help="A name of `fleet list`, a Python file of your own, or `all`."
        ),
    ],
    rest: PARAMETERS = None,
    preset: Preset = "paper",
    seed: Seed = 1,
    given: SetFlag = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the newest run that asked the same.")
    ] = False,
    show_it: Annotated[bool, typer.Option("--open", help="Open the report in a browser.")] = False,
    plots: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Also write each plot there, as SVG.")
    ] = None,
    home: FleetDir = None,
) -> int:
    """Asks a scenario, or all, and writes figures, checks and a report.

    Every parameter of the scenario is a flag, as in `--nodes 20`. What is found is kept in a
    directory of its own, and `latest` beside it points there. Exit code: 0 every check held; 1 one
    did not, or a scenario ended in an error.
    """
    from fleet import catalogue, runs
    from fleet.report.files import write_plots, write_report
    from fleet.report.page import section

    if scenario == catalogue.ALL:
        names = catalogue.names()
        chosen = parameters_of_all(rest or [], given or [], names)
    else:
        names = (str(Path(scenario).resolve()) if scenario.endswith(".py") else scenario,)
        kind = catalogue.find(scenario).parameters
        chosen = {names[0]: parameters_given(kind, rest or [], given or [])}
    request = runs.Request(names, seed, chosen, calibration_of(preset, home))
    began_at = time.monotonic()
    where = home or default_home()
    found = runs.resume(where, request) if resume else None
    if resume and found is None:
        out.note("no run asked just this; beginning one")
    begun = found or runs.begin(where, Path(scenario).stem, request)
    context.with_resource(runs.working_in(begun.path))
    answers, sections, failures = [], [], []
    try:
        with Bar(out, len(names)) as bar:
            for answer, was_there in runs.answers(begun, bar.of):
                bar.finish(_line(answer, was_there))
                if isinstance(answer, runs.Failure):
                    failures.append(answer)
                    continue
                answers.append(answer)
                sections.append(section(answer))
                if not was_there:
                    write_report(begun.directory_of(answer.scenario), sections[-1:])
                if plots is not None:
                    write_plots(plots, answer)
    except KeyboardInterrupt:
        out.note(f"{len(answers)} of {len(names)} are done; go on with the same and --resume")
        raise
    document = write_report(begun.path, sections) if sections else None
    for answer in answers:
        _tell(out, answer, alone=len(names) == 1)
    facts = _facts(answers, failures)
    facts["directory"] = str(begun.path)
    facts["report"] = None if document is None else str(document)
    facts["seconds"] = round(time.monotonic() - began_at, 3)
    if len(names) > 1:
        _tell_rows(out, facts["scenarios"])
    for failure in failures:
        out.say(f"[red]{escape(failure.scenario)}: {escape(str(failure))}[/red]")
    runs.write_json(begun.path / runs.SUMMARY, facts)
    out.say(f"[dim]report: {escape(str(document or begun.path))}[/dim]")
    out.result(facts)
    if show_it and document is not None:
        webbrowser.open(document.resolve().as_uri())
    return EXIT_NO if failures or not all(answer.holds for answer in answers) else EXIT_OK


def _line(answer: Any, was_there: bool) -> str:
    """What is said of one that has ended."""
    from fleet.runs import Failure

    if isinstance(answer, Failure):
        return f"{answer.scenario}: failed: {answer}"
    if was_there:
        return f"{answer.scenario}: was done before"
    broken = sum(not check.holds for check in answer.outcome.checks)
    held = f"{broken} checks do not hold" if broken else "all checks hold"
    return f"{answer.scenario}: {answer.seconds:.1f} s, {held}"


def _tell(out: Output, answer: Any, alone: bool) -> None:
    """Of one alone everything; of several the conclusion, and what did not hold."""
    from fleet.format import number, share

    outcome = answer.outcome
    if not alone:
        out.say(f"[bold]{escape(answer.title)}[/bold]")
        out.say(escape(outcome.conclusion))
        out.say()
        return
    out.table(
        ("figure", "value", "unit", "layer"),
        [
            (each.name, number(each.value, each.unit), each.unit, each.layer.value)
            for each in outcome.figures
        ],
    )
    if outcome.checks:
        out.say()
        out.table(
            ("check", "value", "reference", "error", "may be", "held"),
            [
                (
                    escape(each.what),
                    number(each.value),
                    number(each.reference),
                    share(each.error),
                    share(each.tolerance),
                    "yes" if each.holds else "[red]no[/red]",
                )
                for each in outcome.checks
            ],
        )
    out.say()
    if outcome.requests_simulated:
        out.say(f"{outcome.requests_simulated:,} requests simulated")
    if outcome.requests_represented:
        out.say(f"{number(outcome.requests_represented)} requests represented, not simulated")
    for note in outcome.notes:
        out.say(escape(note))
    out.say(f"[bold]{escape(outcome.conclusion)}[/bold]")


def _tell_rows(out: Output, rows: Iterable[Mapping[str, Any]]) -> None:
    from fleet.format import number, share

    out.table(
        ("scenario", "first check", "value", "reference", "error", "may be", "held"),
        [
            (
                row["scenario"],
                escape(row["check"] or ""),
                _shown(row["value"], number),
                _shown(row["reference"], number),
                _shown(row["error"], share),
                _shown(row["tolerance"], share),
                "yes" if row["held"] else "[red]no[/red]",
            )
            for row in rows
        ],
    )


def _shown(value: float | None, how: Callable[[float], str]) -> str:
    return "" if value is None else how(value)


def _facts(answers: Sequence[Any], failures: Sequence[Any]) -> dict[str, Any]:
    from fleet.store import check_facts, figure_facts, finite

    none = dict.fromkeys(("check", "value", "reference", "error", "tolerance"))
    rows, checks, figures = [], [], []
    for answer in answers:
        own = [check_facts(each) for each in answer.outcome.checks]
        first = own[0] if own else None
        row = {"scenario": answer.scenario, **none, "held": answer.holds}
        if first is not None:
            row |= {name: first[name] for name in none if name != "check"}
            row["check"] = first["what"]
        rows.append(row)
        checks += [{"scenario": answer.scenario, **each} for each in own]
        figures += [
            {"scenario": answer.scenario, **figure_facts(each)} for each in answer.outcome.figures
        ]
    rows += [{"scenario": each.scenario, **none, "held": False} for each in failures]
    facts: dict[str, Any] = finite(
        {
            "scenarios": rows,
            "checks": checks,
            "figures": figures,
            "conclusions": {each.scenario: each.outcome.conclusion for each in answers},
            "failures": {each.scenario: str(each) for each in failures},
            "requests_simulated": sum(each.outcome.requests_simulated for each in answers),
            "requests_represented": sum(each.outcome.requests_represented for each in answers),
            "notes": {each.scenario: list(each.outcome.notes) for each in answers},
        }
    )
    return facts


# --- report ---------------------------------------------------------------------------------------

_REPORT_EXAMPLES = """
    keyplane fleet report                     of the newest run
    keyplane fleet report --run .keyplane/fleet/latest --open
"""


@with_models
def report(
    out: Output,
    of: Annotated[
        Path | None, typer.Option("--run", metavar="DIR", help="Of this run, not the newest.")
    ] = None,
    show_it: Annotated[bool, typer.Option("--open", help="Open it in a browser.")] = False,
    home: FleetDir = None,
) -> int:
    """Writes all scenarios of a run into one document that needs nothing beside itself."""
    from fleet import runs
    from fleet.report.files import write_report
    from fleet.report.page import section

    where = of or runs.latest(home or default_home(), "run")
    if where is None:
        raise KeyplaneError(
            Reason.INVALID_ARGUMENT, "nothing was run here; begin with: keyplane fleet run all"
        )
    answers = runs.answers_of(where)
    document = write_report(where, [section(each) for each in answers])
    out.say(escape(str(document)))
    out.result({"report": str(document), "scenarios": [each.scenario for each in answers]})
    if show_it:
        webbrowser.open(document.resolve().as_uri())
    return EXIT_OK
