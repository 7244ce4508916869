"""Quantities as people write them: "10 ms", "100k/s", "99.75 %"."""

from __future__ import annotations

import re
from enum import Enum


class Dimension(Enum):
    """What a field is measured in: examples of it, and the unit it is kept in."""

    TIME = ('"250 ms", "60 s", "5 min" or "2 h"', "s")
    RATE = ('"500/s", "100k/s" or "2.5M/s"', "1/s")
    SHARE = ('"99.75 %"', "")
    COUNT = ('1000, or "10k" or "1M"', "")

    @property
    def examples(self) -> str:
        return str(self.value[0])

    @property
    def unit(self) -> str:
        return str(self.value[1])


class QuantityError(ValueError):
    """The message says what is wrong and what to write."""


_NUMBER = re.compile(r"\s*([+-]?[0-9][0-9_]*(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)\s*(.*?)\s*")

_TIMES = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_PREFIXES = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9}
_RATES = {f"{prefix}/s": factor for prefix, factor in _PREFIXES.items()}
_UNITS = {
    Dimension.TIME: _TIMES,
    Dimension.RATE: _RATES,
    Dimension.SHARE: {"%": 0.01},
    Dimension.COUNT: _PREFIXES,
}


def quantity(given: object, dimension: Dimension) -> float:
    """In the unit of the dimension: seconds, 1/s, a share of 1, a number.

    Raises QuantityError on what is no quantity, lacks its unit, or has that of something else.
    """
    if isinstance(given, bool) or not isinstance(given, str | int | float):
        raise QuantityError(f"is {given!r}; write {dimension.examples}")
    if not isinstance(given, str):
        if dimension is Dimension.COUNT:
            return float(given)
        raise QuantityError(f"is {given:g} without a unit; write {dimension.examples}")
    match = _NUMBER.fullmatch(given)
    if match is None:
        raise QuantityError(f"is {given!r}, which is no number with a unit")
    number, unit = float(match[1].replace("_", "")), match[2]
    units = _UNITS[dimension]
    if unit in units:
        return number * units[unit]
    if not unit:
        raise QuantityError(f"is {given!r} without a unit; write {dimension.examples}")
    for other, known in _UNITS.items():
        if unit in known and other is not dimension:
            raise QuantityError(
                f"is {given!r}, a {other.name.lower()}; wanted is a {dimension.name.lower()}, as"
                f" {dimension.examples}"
            )
    raise QuantityError(
        f"is {given!r}, and {unit!r} is no unit of it; there are {', '.join(filter(None, units))}"
    )


def written(value: float, dimension: Dimension) -> str:
    """As a person would write it."""
    if dimension is Dimension.SHARE:
        return f"{100 * value:g} %"
    if dimension is Dimension.TIME:
        for unit, size in (("h", 3600.0), ("min", 60.0), ("s", 1.0), ("ms", 1e-3)):
            if value >= size:
                return f"{value / size:g} {unit}"
        return f"{value * 1e6:g} us" if value else "0 s"
    suffix = dimension.unit.replace("1/", "/")
    for prefix, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        # Whole numbers below a million are read more easily in full.
        if value >= size and (dimension is Dimension.RATE or value >= 1e6):
            return f"{value / size:g}{prefix}{suffix}"
    return f"{value:g}{suffix}"
