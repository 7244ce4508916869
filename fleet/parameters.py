"""What a scenario can be asked with: fields of a frozen dataclass, each with unit, bounds, source.

A field's default is its value in the preset `paper`. The preset `measured` takes from a calibration
of this machine's cluster what the field names in it, and leaves the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, TypeVar

from keyplane.model.errors import KeyplaneError, Reason

_KEY = "fleet.parameter"

P = TypeVar("P")


@dataclass(frozen=True, slots=True)
class Parameter:
    """unit: of the value, as in "ms", "1/s" or "fraction"; empty for a plain number.

    source: where the value of `paper` is from: who published it, or "chosen" with the reason.
    measured: the name in a calibration that replaces it in `measured`; None: stays.
    """

    name: str
    default: float
    whole: bool
    unit: str
    low: float
    high: float
    help: str
    source: str
    measured: str | None

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    def checked(self, value: float) -> float:
        """value within bounds, an int where the parameter is one. Raises INVALID_ARGUMENT."""
        # Also refuses NaN.
        if not self.low <= value <= self.high:
            raise self._refusal(value, f"from {self.low:g} to {self.high:g}")
        if self.whole and value != int(value):
            raise self._refusal(value, "a whole number")
        return int(value) if self.whole else float(value)

    def _refusal(self, value: float, wanted: str) -> KeyplaneError:
        unit = f" {self.unit}" if self.unit else ""
        return KeyplaneError(
            Reason.INVALID_ARGUMENT, f"{self.flag} is {value:g}; give {wanted}{unit}"
        )


def parameter(
    default: float,
    unit: str,
    help: str,
    *,
    low: float,
    high: float,
    source: str,
    measured: str | None = None,
) -> Any:
    """A dataclass field that is a parameter; its type is what its default is, int or float."""
    facts = (unit, low, high, help, source, measured)
    return field(default=default, metadata={_KEY: facts})


def parameters_of(kind: type) -> tuple[Parameter, ...]:
    """Those of a dataclass, in its order."""
    found = []
    for each in fields(kind):
        if _KEY not in each.metadata or each.default is MISSING:
            raise TypeError(f"{kind.__name__}.{each.name} is no parameter(...)")
        unit, low, high, help_, source, measured = each.metadata[_KEY]
        whole = isinstance(each.default, int)
        found.append(
            Parameter(each.name, each.default, whole, unit, low, high, help_, source, measured)
        )
    return tuple(found)


def make_parameters(
    kind: type[P], calibration: Mapping[str, float] | None, chosen: Mapping[str, float]
) -> P:
    """calibration: of `fleet calibrate` for the preset `measured`, None for `paper`.
    chosen: by name, over the preset. Raises INVALID_ARGUMENT on unknown names, bad values.
    """
    known = {each.name: each for each in parameters_of(kind)}
    unknown = sorted(set(chosen) - set(known))
    if unknown:
        raise KeyplaneError(
            Reason.INVALID_ARGUMENT,
            f"no parameter {', '.join(unknown)}; there are {', '.join(known)}",
        )
    calibrated = calibration or {}
    values = {}
    for name, each in known.items():
        if name in chosen:
            values[name] = each.checked(chosen[name])
        elif each.measured is not None and each.measured in calibrated:
            values[name] = _calibrated(each, calibrated[each.measured])
        else:
            values[name] = each.checked(each.default)
    return kind(**values)


def _calibrated(parameter: Parameter, value: float) -> float:
    try:
        return parameter.checked(value)
    except KeyplaneError as error:
        raise KeyplaneError(
            error.reason,
            f"measured, {error.message}; give the flag, or measure again: keyplane fleet calibrate",
        ) from None
