"""Numbers as people read them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.format import number, quantity, share


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.0, "", "0"),
        (20.0, "ms", "20"),
        (1_234_567.0, "", "1,234,567"),
        (0.000123456, "", "0.0001235"),
        (-46.0517, "ms", "-46.05"),
        (1.5e18, "", "1.500e+18"),
        (0.9975, "fraction", "0.9975"),
        (0.99999123, "fraction", "0.99999123"),
        (0.99999123, "", "1"),
        (1.0, "fraction", "1"),
        (math.nan, "", "none"),
        (math.inf, "s", "∞"),
    ],
)
def test_a_number_is_written_so(value: float, unit: str, text: str) -> None:
    assert number(value, unit) == text


def test_a_quantity_has_its_unit_and_a_share_is_a_percentage() -> None:
    assert quantity(20.0, "ms") == "20 ms"
    assert quantity(3, "") == "3"
    assert share(0.01234) == "1.234 %"


@given(st.floats(1e-5, 1e12))
def test_what_is_written_is_within_four_digits_of_the_number(value: float) -> None:
    assert float(number(value).replace(",", "")) == pytest.approx(value, rel=6e-4)


@given(st.floats(0.9, 1.0, exclude_min=True, exclude_max=True))
def test_an_availability_is_never_rounded_to_one(value: float) -> None:
    """Nor is what it lacks to one, as far as a double has it."""
    if 1 - value > 1e-9:
        assert 1 - float(number(value, "fraction")) == pytest.approx(1 - value, rel=6e-3)
