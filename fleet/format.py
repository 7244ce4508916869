"""How numbers are written for people."""

from __future__ import annotations

import math

_DIGITS = 4


def number(value: float, unit: str = "") -> str:
    """Four significant digits, thousands apart; of a fraction near one, of what it lacks to one.

    0.000123456 -> 0.0001235, 1234567 -> 1,234,567, 0.99999123 as a fraction -> 0.99999123
    """
    if math.isnan(value):
        return "none"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value == 0:
        return "0"
    if unit == "fraction" and 0.9 < value < 1:
        decimals = _DIGITS - 2 - math.floor(math.log10(1 - value))
        return _trimmed(value, min(decimals, 12))
    size = math.floor(math.log10(abs(value)))
    if size >= 15 or size < -6:
        return f"{value:.{_DIGITS - 1}e}"
    return _trimmed(value, max(0, _DIGITS - 1 - size))


def _trimmed(value: float, decimals: int) -> str:
    text = f"{value:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def quantity(value: float, unit: str) -> str:
    """With its unit."""
    return f"{number(value, unit)} {unit}".rstrip()


def share(value: float) -> str:
    """A fraction as a percentage, as of errors and tolerances."""
    return "none" if math.isnan(value) else f"{_trimmed(value * 100, 3)} %"
