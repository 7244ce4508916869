"""Capacity units, by the examples of DynamoDB's documentation and at the edges."""

from __future__ import annotations

import pytest

from keyplane.model.capacity import read_units, write_units


@pytest.mark.parametrize(
    ("item_bytes", "units"),
    [(0, 1), (1, 1), (3_584, 1), (4_096, 1), (4_097, 2), (8 << 10, 2), (400 << 10, 100)],
)
def test_a_read_takes_a_unit_for_each_4_kb_or_half_of_one(item_bytes: int, units: int) -> None:
    assert read_units(item_bytes, consistent=True) == units
    assert read_units(item_bytes, consistent=False) == units / 2


@pytest.mark.parametrize(
    ("before", "after", "units"),
    [
        (0, 0, 1),
        (0, 512, 1),
        (0, 1_024, 1),
        (0, 1_025, 2),
        (1_025, 0, 2),
        (2_048, 1, 2),
        (1, 2_048, 2),
        (0, 400 << 10, 400),
    ],
)
def test_a_write_takes_a_unit_for_each_1_kb_of_the_larger_side(
    before: int, after: int, units: int
) -> None:
    assert write_units(before, after) == units
