"""What is varied, from where to where."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fleet.parameters import Parameter
from keyplane.model.errors import KeyplaneError, Reason

# A point takes tens of milliseconds at the least, and a line in a file.
POINTS_MAX = 100_000

Values = dict[str, float]


@dataclass(frozen=True, slots=True)
class Vary:
    """steps: how many values, the ends among them; 0 where a search chooses its own."""

    name: str
    low: float
    high: float
    steps: int
    log: bool

    def at(self, share: float) -> float:
        """The value at this share of the way, 0 to 1, from low to high."""
        if self.log:
            value: float = self.low * (self.high / self.low) ** share
            return min(self.high, max(self.low, value))
        return self.low + (self.high - self.low) * share

    def values(self, parameter: Parameter) -> tuple[float, ...]:
        """Of a whole parameter whole, each once."""
        spaced = [self.at(float(share)) for share in np.linspace(0.0, 1.0, self.steps)]
        return tuple(dict.fromkeys(fitting(parameter, value) for value in spaced))


def fitting(parameter: Parameter, value: float) -> float:
    """The nearest value that the parameter may have: of a whole one whole."""
    return parameter.checked(round(value) if parameter.whole else value)


def parse_vary(text: str, *, needs_steps: bool) -> Vary:
    """Of `name=low:high:steps[:log]`; without steps `name=low:high[:log]`.

    Raises INVALID_ARGUMENT.
    """
    form = "NAME=LOW:HIGH:STEPS[:log]" if needs_steps else "NAME=LOW:HIGH[:log]"
    name, _, rest = text.partition("=")
    parts = rest.split(":")
    log = parts[-1] == "log"
    numbers = parts[:-1] if log else parts
    try:
        low, high = (float(part) for part in numbers[:2])
        (steps,) = (int(part) for part in numbers[2:]) if needs_steps else (0,)
        if not needs_steps and len(numbers) != 2:
            raise ValueError
    except ValueError:
        raise _refusal(text, f"give {form}") from None
    if not name or not (math.isfinite(low) and math.isfinite(high)) or low >= high:
        raise _refusal(text, f"give {form} with LOW below HIGH")
    if needs_steps and steps < 2:
        raise _refusal(text, "two steps are the fewest: both ends")
    if log and low <= 0:
        raise _refusal(text, "a logarithmic scale begins above zero")
    return Vary(name.strip().removeprefix("--").replace("-", "_"), low, high, steps, log)


def check_varied(varied: Sequence[Vary], parameters: Sequence[Parameter]) -> None:
    """Raises INVALID_ARGUMENT on unknown names, ends out of bounds and names given twice."""
    known = {each.name: each for each in parameters}
    names = [each.name for each in varied]
    if not names:
        raise KeyplaneError(Reason.INVALID_ARGUMENT, "nothing is varied; give --vary")
    for each in varied:
        if each.name not in known:
            raise KeyplaneError(
                Reason.INVALID_ARGUMENT,
                f"no parameter {each.name}; there are {', '.join(known)}",
            )
        if names.count(each.name) > 1:
            raise KeyplaneError(Reason.INVALID_ARGUMENT, f"{each.name} is varied twice")
        for end in (each.low, each.high):
            fitting(known[each.name], end)


def grid(varied: Sequence[Vary], parameters: Sequence[Parameter]) -> list[Values]:
    """Every combination, the last varied fastest. Raises INVALID_ARGUMENT as `check_varied`, and
    on too many.
    """
    check_varied(varied, parameters)
    known = {each.name: each for each in parameters}
    columns = [each.values(known[each.name]) for each in varied]
    count = math.prod(len(column) for column in columns)
    if count > POINTS_MAX:
        raise KeyplaneError(
            Reason.INVALID_ARGUMENT, f"{count:,} points; {POINTS_MAX:,} are the most: take fewer"
        )
    names = [each.name for each in varied]
    return [dict(zip(names, row, strict=True)) for row in itertools.product(*columns)]


def _refusal(text: str, why: str) -> KeyplaneError:
    return KeyplaneError(Reason.INVALID_ARGUMENT, f"--vary {text}: {why}")
