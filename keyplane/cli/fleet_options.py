"""What commands of `keyplane fleet` take: presets, seeds, and the parameters of scenarios."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from keyplane.cluster.cluster import default_home
from keyplane.model.errors import KeyplaneError, Reason

FleetDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        envvar="KEYPLANE_HOME",
        help="Where runs and the calibration are kept, under `fleet`.",
        show_default=".keyplane in the working directory",
    ),
]
Preset = Annotated[
    str,
    typer.Option(
        "--preset",
        metavar="paper|measured",
        help="Published figures, or those of `keyplane fleet calibrate` where there are.",
    ),
]
Seed = Annotated[int, typer.Option(min=0, help="Of all random numbers.")]
SetFlag = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="A parameter; may be given again."),
]
# Options that no command knows end up here, with their values.
PARAMETERS = Annotated[
    list[str] | None,
    typer.Argument(metavar="--PARAMETER VALUE", help="As `keyplane fleet show` has them."),
]

_MODELS = ("matplotlib", "numba", "numpy", "pyarrow")

_Command = TypeVar("_Command", bound=Callable[..., int])


def with_models(function: _Command) -> _Command:
    """Says what to install where a command needs a library that is not there."""

    @functools.wraps(function)
    def run(*args: Any, **given: Any) -> int:
        try:
            return function(*args, **given)
        except ModuleNotFoundError as error:
            name = (error.name or "").split(".")[0]
            if name not in _MODELS:
                raise
            raise KeyplaneError(
                Reason.INVALID_ARGUMENT,
                f"the fleet models need {name}: pip install 'keyplane[fleet]'",
            ) from error

    return run  # type: ignore[return-value]


def calibration_of(preset: str, home: Path | None) -> Mapping[str, float] | None:
    """Values of the preset `measured`, None of `paper`. Raises INVALID_ARGUMENT on another."""
    from fleet.answer import MEASURED, PAPER
    from fleet.calibration import load, path_in

    if preset == PAPER:
        return None
    if preset != MEASURED:
        raise KeyplaneError(
            Reason.INVALID_ARGUMENT, f"no preset {preset}; there are {PAPER}, {MEASURED}"
        )
    return dict(load(path_in(home or default_home())).values)


def parameters_given(kind: type, rest: Sequence[str], given: Sequence[str]) -> dict[str, float]:
    """Values by name. rest: `--nodes 20` or `--nodes=20`; given: `nodes=20`. kind: whose names.

    Raises INVALID_ARGUMENT on what is none, on an unknown name and on a value out of bounds.
    """
    from fleet.parameters import make_parameters

    found: dict[str, float] = {}
    for name, text in (*_flags(rest), *map(_assignment, given)):
        if name in found:
            raise _refusal(f"{name} is given twice")
        found[name] = value_of(name, text)
    make_parameters(kind, None, found)
    return found


def parameters_of_all(
    rest: Sequence[str], given: Sequence[str], scenarios: Iterable[str]
) -> dict[str, dict[str, float]]:
    """As `parameters_given`, by scenario. given: `hedging.nodes=20`."""
    from fleet.catalogue import find

    if rest:
        raise _refusal(
            f"{rest[0]} would be of one scenario, and all are run; say whose it is: "
            "--set SCENARIO.NAME=VALUE"
        )
    by_scenario: dict[str, list[str]] = {}
    known = list(scenarios)
    for text in given:
        name, equals, value = text.partition("=")
        scenario, _, parameter = name.rpartition(".")
        if not equals or scenario not in known:
            raise _refusal(
                f"--set {text} names no scenario; with all give --set SCENARIO.NAME=VALUE, of "
                f"{', '.join(known)}"
            )
        by_scenario.setdefault(scenario, []).append(f"{parameter}={value}")
    return {
        scenario: parameters_given(find(scenario).parameters, (), assignments)
        for scenario, assignments in by_scenario.items()
    }


def value_of(name: str, text: str) -> float:
    """A number, written as people write them. Raises INVALID_ARGUMENT."""
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        raise _refusal(f"{name} is {text!r}, not a number") from None


def _flags(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    left = iter(words)
    for word in left:
        if not word.startswith("--") or word == "--":
            raise _refusal(f"{word!r} is not expected here; parameters are given as --NAME VALUE")
        name, equals, text = word[2:].partition("=")
        if not equals:
            following = next(left, None)
            if following is None or following.startswith("--"):
                raise _refusal(f"{word} needs a value, or is no option of this command")
            text = following
        yield name.replace("-", "_"), text


def _assignment(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise _refusal(f"--set {text} is not NAME=VALUE")
    return name.strip().removeprefix("--").replace("-", "_"), value.strip()


def _refusal(message: str) -> KeyplaneError:
    return KeyplaneError(Reason.INVALID_ARGUMENT, message)
