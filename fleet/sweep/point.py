"""One point: the scenario asked once, with these values."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass

from fleet.answer import ask
from fleet.catalogue import find
from fleet.outcome import Outcome


@dataclass(frozen=True, slots=True)
class Task:
    """What is the same at every point. scenario: its name, or the path of its file. seed: also the
    same, so that points differ by what is varied and not by chance.
    """

    scenario: str
    seed: int
    chosen: Mapping[str, float]
    calibration: Mapping[str, float] | None


@dataclass(frozen=True, slots=True)
class Point:
    """values: of what is varied. figures, units: by name; none where error says why. held: whether
    its checks did.
    """

    number: int
    values: Mapping[str, float]
    figures: Mapping[str, float]
    units: Mapping[str, str]
    held: bool
    seconds: float
    error: str = ""

    def figure(self, name: str) -> float:
        """NaN where there is none."""
        return self.figures.get(name, math.nan)


Numbered = tuple[int, Mapping[str, float]]

# Points of a task, each as soon as it is there, in any order; closed when no more are wanted.
Evaluate = Callable[[Iterable[Numbered]], Generator[Point]]


def evaluate(task: Task, number: int, values: Mapping[str, float]) -> Point:
    """An error in the scenario is the point's, and not raised; one in what is installed is."""
    began_at = time.perf_counter()
    figures: Mapping[str, float] = {}
    units: Mapping[str, str] = {}
    held, error = False, ""
    try:
        scenario = find(task.scenario)
        answer = ask(
            task.scenario, scenario, task.calibration, {**task.chosen, **values}, task.seed, _silent
        )
    except ModuleNotFoundError:
        raise
    except Exception as failure:  # noqa: BLE001 - the other points are wanted all the same
        error = f"{type(failure).__name__}: {failure}"
    else:
        figures, units, held = *figures_of(answer.outcome), answer.holds
    seconds = time.perf_counter() - began_at
    return Point(number, dict(values), figures, units, held, seconds, error)


def figures_of(outcome: Outcome) -> tuple[dict[str, float], dict[str, str]]:
    """Values and units, by name; of two with one name, the later says its layer."""
    values: dict[str, float] = {}
    units: dict[str, str] = {}
    for each in outcome.figures:
        name = f"{each.name} ({each.layer.value})" if each.name in values else each.name
        values[name], units[name] = float(each.value), each.unit
    return values, units


def _silent(done: float, what: str) -> None:
    pass
