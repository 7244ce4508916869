"""Crash points: known by name, armed on purpose, acting once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from wire import crashpoints


@pytest.fixture(autouse=True)
def _disarmed() -> Iterator[None]:
    crashpoints.declare("test.here", "test.there")
    yield
    crashpoints.disarm()
    crashpoints.POINTS.difference_update(("test.here", "test.there"))


def test_an_armed_point_acts_once_and_the_others_never() -> None:
    acted: list[str] = []
    crashpoints.arm("test.here", lambda: acted.append("here"))
    for name in ("test.there", "test.here", "test.here"):
        crashpoints.crashpoint(name)
    assert acted == ["here"]


def test_disarming_takes_the_danger_away() -> None:
    crashpoints.arm("test.here", lambda: pytest.fail("armed"))
    crashpoints.disarm()
    crashpoints.crashpoint("test.here")


def test_a_misspelt_point_is_an_error_that_lists_the_right_ones() -> None:
    with pytest.raises(ValueError, match=r"'test\.hree'.*test\.here, test\.there"):
        crashpoints.arm("test.hree", lambda: None)
