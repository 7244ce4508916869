"""One scenario asked and answered: with which parameters, from where, and what came out."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fleet.outcome import Outcome
from fleet.parameters import make_parameters, parameters_of
from fleet.scenario import Context, Scenario
from keyplane.model.errors import KeyplaneError, Reason

PAPER, MEASURED = PRESETS = ("paper", "measured")
CHOSEN = "chosen"

_NAME = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")

Progress = Callable[[float, str], None]


@dataclass(frozen=True, slots=True)
class Setting:
    """One parameter as it was. origin: what gave it its value: "paper", "measured" or "chosen"."""

    name: str
    value: float
    unit: str
    default: float
    help: str
    source: str
    origin: str


@dataclass(frozen=True, slots=True)
class Answer:
    """asked_as: the scenario's name, or the path of its file. seconds: of wall time, compilation
    among them.
    """

    asked_as: str
    scenario: str
    title: str
    question: str
    explanation: str
    preset: str
    seed: int
    settings: tuple[Setting, ...]
    outcome: Outcome
    seconds: float

    @property
    def holds(self) -> bool:
        return all(check.holds for check in self.outcome.checks)


def ask(
    asked_as: str,
    scenario: Scenario,
    calibration: Mapping[str, float] | None,
    chosen: Mapping[str, float],
    seed: int,
    progress: Progress,
) -> Answer:
    """calibration: values of the preset `measured`, None for `paper`. Raises INVALID_ARGUMENT on
    parameters that are none, and what the scenario raises.
    """
    parameters = make_parameters(scenario.parameters, calibration, chosen)
    began_at = time.perf_counter()
    outcome = scenario.run(parameters, Context(seed, progress))
    _check_names(scenario.name, outcome)
    return Answer(
        asked_as,
        scenario.name,
        scenario.title,
        scenario.question,
        scenario.explanation,
        PAPER if calibration is None else MEASURED,
        seed,
        _settings(scenario.parameters, parameters, calibration, chosen),
        outcome,
        time.perf_counter() - began_at,
    )


def _settings(
    kind: type, made: Any, calibration: Mapping[str, float] | None, chosen: Mapping[str, float]
) -> tuple[Setting, ...]:
    values = dataclasses.asdict(made)
    found = []
    for each in parameters_of(kind):
        origin = PAPER
        if each.name in chosen:
            origin = CHOSEN
        elif calibration is not None and each.measured in calibration:
            origin = MEASURED
        found.append(
            Setting(
                each.name,
                values[each.name],
                each.unit,
                each.default,
                each.help,
                each.source,
                origin,
            )
        )
    return tuple(found)


def _check_names(scenario: str, outcome: Outcome) -> None:
    """Names of plots are names of files."""
    names = [plot.name for plot in outcome.plots]
    for name in names:
        if not name or set(name) - _NAME:
            what = f"a plot is named {name!r}; use a-z, 0-9 and dashes"
        elif names.count(name) > 1:
            what = f"two plots are named {name!r}"
        else:
            continue
        raise KeyplaneError(Reason.INVALID_ARGUMENT, f"{scenario}: {what}")
