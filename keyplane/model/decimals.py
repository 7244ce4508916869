"""DynamoDB numbers: decimals of up to 38 digits, and an encoding that sorts as they do."""

from __future__ import annotations

import re
from typing import NamedTuple

from keyplane.model.errors import KeyplaneError, Reason
from keyplane.model.limits import NUMBER_DIGITS_MAX, NUMBER_EXPONENT_MAX, NUMBER_EXPONENT_MIN

# The longest number worth writing, 38 digits at 1e-130, takes 170 characters.
TEXT_MAX = 256

_NUMBER = re.compile(r"([+-]?)([0-9]*)(?:\.([0-9]*))?(?:[eE]([+-]?[0-9]+))?")

_NEGATIVE, _ZERO, _POSITIVE = 1, 2, 3
_COMPLEMENT = bytes(255 - byte for byte in range(256))


class Number(NamedTuple):
    """A decimal in its one normal form: ±d.ddd × 10^exponent.

    digits: significant digits without leading or trailing zeros; "" is zero, which has no sign and
    exponent 0.
    """

    negative: bool
    digits: str
    exponent: int

    def __str__(self) -> str:
        """Plain notation, as DynamoDB returns numbers: never an exponent."""
        point = self.exponent + 1
        digits = self.digits.ljust(point, "0") or "0"
        if point <= 0:
            digits = "0." + "0" * -point + self.digits if self.digits else "0"
        elif len(digits) > point:
            digits = f"{digits[:point]}.{digits[point:]}"
        return "-" + digits if self.negative else digits


ZERO = Number(False, "", 0)


def parse_number(text: str) -> Number:
    """Reads a number as DynamoDB's N type writes it.

    Raises KeyplaneError(INVALID_ARGUMENT) on text that is no number, has more than 38 significant
    digits, or is out of range.
    """
    if len(text) > TEXT_MAX:
        raise _invalid(f"a number of {len(text)} characters; at most {TEXT_MAX} are read")
    match = _NUMBER.fullmatch(text)
    if match is None or not (match[2] or match[3]):
        raise _invalid(f"{text!r} is not a number")
    sign, whole, fraction, power = match[1], match[2], match[3] or "", int(match[4] or 0)
    significant = (whole + fraction).lstrip("0")
    digits = significant.rstrip("0")
    if not digits:
        return ZERO
    # `significant` has len(significant) digits of which len(fraction) stand after the point.
    exponent = len(significant) - len(fraction) - 1 + power
    if len(digits) > NUMBER_DIGITS_MAX:
        raise _invalid(
            f"number {text!r} has {len(digits)} significant digits;"
            f" at most {NUMBER_DIGITS_MAX} are kept exactly"
        )
    if not NUMBER_EXPONENT_MIN <= exponent <= NUMBER_EXPONENT_MAX:
        raise _invalid(
            f"number {text!r} is out of range: magnitudes are from 1e{NUMBER_EXPONENT_MIN}"
            f" to below 1e{NUMBER_EXPONENT_MAX + 1}"
        )
    return Number(sign == "-", digits, exponent)


def encode_number(number: Number) -> bytes:
    """Bytes that sort as the numbers do; no encoding is a prefix of another.

    A sign byte, the exponent plus 130 (exactly one byte), the digits in pairs as 1 to 100, and a
    zero. For negative numbers everything after the sign is complemented.
    """
    negative, digits, exponent = number
    if not digits:
        return bytes((_ZERO,))
    even = digits if len(digits) % 2 == 0 else digits + "0"
    pairs = (int(even[index : index + 2]) + 1 for index in range(0, len(even), 2))
    magnitude = bytes((exponent - NUMBER_EXPONENT_MIN, *pairs, 0))
    if negative:
        return bytes((_NEGATIVE,)) + magnitude.translate(_COMPLEMENT)
    return bytes((_POSITIVE,)) + magnitude


def decode_number(encoded: bytes, position: int) -> tuple[Number, int]:
    """The number encoded at `position`, and where it ends. Raises ValueError on anything else."""
    sign = encoded[position : position + 1]
    position += 1
    if sign == bytes((_ZERO,)):
        return ZERO, position
    negative = sign == bytes((_NEGATIVE,))
    if not negative and sign != bytes((_POSITIVE,)):
        raise ValueError("no number here")
    # The zero that ends the digits; the exponent before them may itself be a zero byte.
    end = encoded.index(b"\xff" if negative else b"\x00", position + 1)
    magnitude = encoded[position:end]
    if negative:
        magnitude = magnitude.translate(_COMPLEMENT)
    digits = "".join(f"{pair - 1:02d}" for pair in magnitude[1:]).rstrip("0")
    number = Number(negative, digits, magnitude[0] + NUMBER_EXPONENT_MIN)
    end += 1
    well_formed = digits[:1] != "0" and len(digits) <= NUMBER_DIGITS_MAX
    if not well_formed or encode_number(number) != encoded[position - 1 : end]:
        raise ValueError("a number that this encoding would write otherwise")
    return number, end


def _invalid(message: str) -> KeyplaneError:
    return KeyplaneError(Reason.INVALID_ARGUMENT, message)
