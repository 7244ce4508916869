"""`keyplane fleet calibrate` and `validate`, on a live cluster, and `fleet design check`."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from keyplane.cli.fleet_options import FleetDir, with_models
from keyplane.cli.output import EXIT_NO, EXIT_OK, Output
from keyplane.cli.session import command_without_cluster
from keyplane.cluster.cluster import default_home
from keyplane.model.errors import KeyplaneError, Reason

# Models and load generator are imported by the commands that run them: numba takes a second.
if TYPE_CHECKING:
    from fleet.calibrate import Calibrated
    from fleet.live_measure import Plan

Quick = Annotated[
    bool, typer.Option("--quick", help="One short round: half a minute, and rough figures.")
]
Rounds = Annotated[
    int, typer.Option(min=1, max=1000, help="Windows of each sort, of which medians are taken.")
]
Seconds = Annotated[float, typer.Option(min=0.2, max=600, help="Of one window.")]

_ROUNDS = 21
_SECONDS = 0.6


def register(fleet: typer.Typer) -> None:
    """On the group of `keyplane fleet`."""
    command_without_cluster(fleet, "calibrate", _CALIBRATE_EXAMPLES)(calibrate)
    command_without_cluster(fleet, "validate", _VALIDATE_EXAMPLES)(validate)
    design = typer.Typer(no_args_is_help=True, help="Fleets of your own, described in a file.")
    command_without_cluster(design, "check", _CHECK_EXAMPLES)(design_check)
    fleet.add_typer(design, name="design")


# --- calibrate -----------------------------------------------------------------------------------

_CALIBRATE_EXAMPLES = """
    keyplane fleet calibrate              minutes; wants the machine for itself
    keyplane fleet calibrate --quick      rough figures in half a minute
"""


@with_models
def calibrate(
    out: Output,
    quick: Quick = False,
    rounds: Rounds = _ROUNDS,
    seconds: Seconds = _SECONDS,
    file: Annotated[
        Path | None, typer.Option("--file", help="Where to, instead of the data directory.")
    ] = None,
    home: FleetDir = None,
) -> int:
    """Runs a cluster of its own on this machine and fits the parameters of the preset `measured`.

    Ctrl-C ends every process it has started.
    """
    from fleet.calibrate import calibrate as run

    plan = _plan(quick, rounds, seconds)
    with _measuring(out, plan, validate=False) as (say, advance):
        found = run(plan, say, advance)
    path = _save(found, file, home)
    _show_values(out, found)
    out.say(f"[dim]written to {escape(str(path))}[/dim]")
    out.result(_facts(found) | {"file": str(path)})
    return EXIT_OK


# --- validate ------------------------------------------------------------------------------------

_VALIDATE_EXAMPLES = """
    keyplane fleet validate               calibrates, predicts other sizes, and measures those
    keyplane fleet validate --rounds 50   steadier medians
"""


@with_models
def validate(
    out: Output,
    quick: Quick = False,
    rounds: Rounds = _ROUNDS,
    seconds: Seconds = _SECONDS,
    file: Annotated[
        Path | None, typer.Option("--file", help="Where the calibration goes to, if anywhere.")
    ] = None,
) -> int:
    """Predicts throughput, p50, p99 and MemDS rate at three sizes, and measures them.

    What the prediction is fitted to is measured in the same rounds, at other sizes. Exit code: 0
    all predictions are within 15 %; 1 some are not.
    """
    from fleet.validate import TARGET
    from fleet.validate import validate as run

    plan = _plan(quick, rounds, seconds)
    with _measuring(out, plan, validate=True) as (say, advance):
        found = run(plan, say, advance)
    if file is not None:
        _save(found.calibrated, file, None)
    out.table(
        ("what", "size", "unit", "predicted", "measured", "error %", "between rounds %", "within"),
        [
            (
                *(row.what, row.size, row.unit, _short(row.predicted), _short(row.measured)),
                *(100 * row.error, 100 * row.between_rounds, "yes" if row.error <= TARGET else ""),
            )
            for row in found.rows
        ],
    )
    out.say(escape(found.sentence))
    out.result(
        {
            "target": TARGET,
            "within": found.within,
            "processors_used_by_others": found.others,
            "disturbed": found.disturbed,
            "predictions": [
                {
                    "what": row.what,
                    "size": row.size,
                    "unit": row.unit,
                    "predicted": row.predicted,
                    "measured": row.measured,
                    "error": row.error,
                    "between_rounds": row.between_rounds,
                }
                for row in found.rows
            ],
            "requests_simulated": found.requests_simulated,
            "conclusion": found.sentence,
            "calibration": _facts(found.calibrated),
        }
    )
    return EXIT_OK if found.within == len(found.rows) else EXIT_NO


# --- design --------------------------------------------------------------------------------------

_CHECK_EXAMPLES = """
    keyplane fleet design check docs/designs/ttl-cache.toml
"""


@with_models
def design_check(
    out: Output,
    file: Annotated[Path, typer.Argument(help="A design, in TOML or Python.")],
) -> int:
    """Says what a design describes, or what is wrong with it and where."""
    from fleet.design import describe, load_design

    design = load_design(file)
    out.table(("part", "what", "value"), describe(design))
    out.result({"file": str(file), "name": design.name, "valid": True})
    return EXIT_OK


# --- what they share -----------------------------------------------------------------------------


def _plan(quick: bool, rounds: int, seconds: float) -> Plan:
    from fleet.live_measure import QUICK, Plan

    return QUICK if quick else Plan(rounds, seconds)


@contextmanager
def _measuring(
    out: Output, plan: Plan, validate: bool
) -> Iterator[tuple[Callable[[str], None], Callable[[float], None]]]:
    """Progress on a terminal, lines elsewhere. What can go wrong on a live cluster is told as an
    error of this command."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from bench._load import GeneratorFailed

    # As Ctrl-C: what was started is stopped on the way out.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    out.note(f"windows take about {plan.windows_s(validate):,.0f} s, after starting a cluster")
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    bar = Progress(*columns, console=out.progress, disable=not out.progress.is_terminal)
    task = bar.add_task("starting", total=1.0)

    def say(line: str) -> None:
        bar.update(task, description=escape(line))
        if bar.disable:
            out.note(line)

    try:
        with bar:
            yield say, lambda done: bar.update(task, completed=done)
    except (GeneratorFailed, RuntimeError, OSError) as error:
        raise KeyplaneError(Reason.NODE_UNAVAILABLE, f"could not be measured: {error}") from error
    finally:
        signal.signal(signal.SIGTERM, before)


def _save(found: Calibrated, file: Path | None, home: Path | None) -> Path:
    from fleet.calibration import path_in, save

    path = file or path_in(home or default_home())
    save(path, found.calibration)
    return path


def _show_values(out: Output, found: Calibrated) -> None:
    from fleet.measured import MEASURED

    values = found.calibration.values
    out.table(
        ("name", "value", "unit", "meaning"),
        [(each.name, _short(values[each.name]), each.unit, each.meaning) for each in MEASURED],
    )
    for name, value in found.calibration.quality.items():
        out.say(f"[dim]{escape(name)}: {escape(str(value))}[/dim]")


def _facts(found: Calibrated) -> dict[str, Any]:
    calibration = found.calibration
    return {
        "measured_at": calibration.measured_at.isoformat(),
        "machine": dict(calibration.machine),
        "values": dict(calibration.values),
        "quality": dict(calibration.quality),
    }


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
