"""How often the capacity of a table may be changed, by the clock."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyplane.model.errors import KeyplaneError, Reason
from metadata.capacity_changes import DAY_S, HOUR_S, CapacityChanges

# Midnight, UTC.
MIDNIGHT = 20_000 * DAY_S


def decreased_at(*times: float) -> CapacityChanges:
    changes = CapacityChanges()
    for at in times:
        changes = changes.decreased("orders", at)
    return changes


def refusal(changes: CapacityChanges, now: float, what: str) -> KeyplaneError:
    with pytest.raises(KeyplaneError) as raised:
        getattr(changes, what)("orders", now)
    assert raised.value.reason is Reason.LIMIT_EXCEEDED
    return raised.value


def test_27_decreases_are_the_most_of_a_day() -> None:
    """Four at once, and one in each of the 23 hours that are left."""
    changes = CapacityChanges()
    done = 0
    for minute in range(24 * 60):
        try:
            changes = changes.decreased("orders", MIDNIGHT + 60 * minute)
            done += 1
        except KeyplaneError:
            pass
    assert done == len(changes.decreases) == 27
    # And the next day begins anew.
    changes = changes.decreased("orders", MIDNIGHT + DAY_S)
    assert len(changes.decreases) == 1


def test_the_first_four_have_to_be_within_an_hour() -> None:
    changes = decreased_at(MIDNIGHT, MIDNIGHT + HOUR_S)
    error = refusal(changes, MIDNIGHT + HOUR_S + 60, "decreased")
    assert error.retry_after_s == HOUR_S - 60
    assert "possible again at 2024-10-04T02:00:00Z" in error.message


def test_a_refused_decrease_waits_no_longer_than_till_midnight() -> None:
    changes = decreased_at(*(MIDNIGHT + DAY_S - 600 + each for each in range(4)))
    assert refusal(changes, MIDNIGHT + DAY_S - 60, "decreased").retry_after_s == 60
    assert changes.decreased("orders", MIDNIGHT + DAY_S).decreases == (MIDNIGHT + DAY_S,)


def test_a_clock_that_was_set_back_makes_nobody_wait_longer_than_a_day() -> None:
    changes = CapacityChanges(switches=(MIDNIGHT + 30 * DAY_S,) * 4)
    assert refusal(changes, MIDNIGHT, "switched").retry_after_s == DAY_S
    decreased = CapacityChanges(decreases=(MIDNIGHT + 30 * DAY_S,) * 4)
    assert refusal(decreased, MIDNIGHT, "decreased").retry_after_s == HOUR_S


def test_they_are_written_and_read_back() -> None:
    changes = CapacityChanges((1.5, 2.5), (3.5,))
    assert CapacityChanges.from_json(changes.to_json()) == changes
    assert CapacityChanges.from_json({}) == CapacityChanges()


@given(st.lists(st.floats(0, 2 * HOUR_S), max_size=60))
def test_there_are_never_more_than_four_switches_in_24_hours(waits: list[float]) -> None:
    """What is refused is possible when it says, and no record grows."""
    changes, now, made = CapacityChanges(), float(MIDNIGHT), []
    for wait_s in waits:
        now += wait_s
        try:
            changes = changes.switched("orders", now)
        except KeyplaneError as error:
            assert error.retry_after_s is not None
            assert changes.switched("orders", now + error.retry_after_s)
            continue
        made.append(now)
        assert len(changes.switches) <= 4
    for first, fifth in zip(made, made[4:], strict=False):
        assert fifth - first >= DAY_S
