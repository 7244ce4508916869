"""What `keyplane fleet sweep` and `optimise` share: what is varied, where points are computed."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from keyplane.cli.fleet_options import calibration_of, parameters_given
from keyplane.cli.output import Output
from keyplane.cluster.cluster import default_home
from keyplane.model.errors import KeyplaneError, Reason

PointScenario = Annotated[
    str, typer.Argument(metavar="SCENARIO", help="A name, or a Python file of your own.")
]
Workers = Annotated[
    int, typer.Option(min=0, max=4096, help="Points at a time; 0: one for each processor.")
]
RayAddress = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="ADDRESS",
        help="Compute on the Ray cluster at this address; `local` starts one here for a while.",
    ),
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on with the newest one that asked the same.")
]


@dataclass(frozen=True)
class Asked:
    """What is varied in which scenario. parameters: of what is varied, by name."""

    scenario: Any
    task: Any
    varied: Sequence[Any]
    parameters: Mapping[str, Any]

    def facts(self, **more: Any) -> dict[str, Any]:
        """By which a run is known again."""
        return {**asdict(self.task), "varied": [asdict(each) for each in self.varied], **more}

    def units(self) -> dict[str, str]:
        return {name: each.unit for name, each in self.parameters.items()}

    def command(self, name: str, texts: Sequence[str], *more: str) -> str:
        words = ["keyplane", "fleet", name, self.task.scenario, "--seed", str(self.task.seed)]
        if self.task.calibration is not None:
            words += ["--preset", "measured"]
        for parameter, value in self.task.chosen.items():
            words += ["--set", f"{parameter}={value!r}"]
        for text in texts:
            words += ["--vary", text]
        return shlex.join([*words, *more])


def asked_of(
    scenario: str,
    rest: Sequence[str],
    given: Sequence[str],
    vary: Sequence[str],
    preset: str,
    seed: int,
    home: Path | None,
    *,
    needs_steps: bool,
) -> Asked:
    """Raises INVALID_ARGUMENT on whatever of it is wrong."""
    from fleet.catalogue import find
    from fleet.parameters import parameters_of
    from fleet.sweep.grid import check_varied, parse_vary
    from fleet.sweep.point import Task

    found = find(scenario)
    varied = [parse_vary(text, needs_steps=needs_steps) for text in vary]
    parameters = parameters_of(found.parameters)
    check_varied(varied, parameters)
    chosen = parameters_given(found.parameters, rest, given)
    both = sorted({each.name for each in varied} & set(chosen))
    if both:
        raise KeyplaneError(
            Reason.INVALID_ARGUMENT, f"{', '.join(both)} is varied, and cannot be fixed, too"
        )
    name = str(Path(scenario).resolve()) if scenario.endswith(".py") else scenario
    task = Task(name, seed, chosen, calibration_of(preset, home))
    by_name = {each.name: each for each in parameters}
    return Asked(found, task, varied, {each.name: by_name[each.name] for each in varied})


def directory_of(
    out: Output,
    context: typer.Context,
    kind: str,
    asked: Asked,
    home: Path | None,
    resume: bool,
    **more: Any,
) -> Path:
    """A new one, or the newest in which the same was asked. It is this command's until that ends.

    Raises RUN_BUSY.
    """
    from fleet.runs import begin_directory, latest, working_in

    facts = asked.facts(**more)
    where = home or default_home()
    found = latest(where, kind, facts) if resume else None
    if resume and found is None:
        out.note(f"no {kind} asked just this; beginning one")
    directory = found or begin_directory(where, f"{kind}-{asked.scenario.name}", kind, facts)
    context.with_resource(working_in(directory))
    return directory


def computing(asked: Asked, ray: str | None, workers: int) -> AbstractContextManager[Any]:
    """Where points are computed: see `fleet.sweep.point.Evaluate`."""
    if ray is None:
        from fleet.sweep.local import local

        return local(asked.task, workers)
    from fleet.sweep.on_ray import on_ray

    return on_ray(asked.task, ray, workers)


def check_figure(name: str, points: Sequence[Any]) -> None:
    """Raises INVALID_ARGUMENT if points have figures, but none of this name."""
    known = dict.fromkeys(name for point in points for name in point.figures)
    if known and name not in known:
        raise KeyplaneError(
            Reason.INVALID_ARGUMENT, f"no figure {name!r}; there are {', '.join(known)}"
        )
