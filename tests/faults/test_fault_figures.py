"""The figures of a fault scenario, on histories made by hand."""

from __future__ import annotations

import pytest
from fault_figures import availability, p99_ms, recovery_s

from keyplane.history.operation import Kind, Operation, Outcome

HEALED_AT = 100.0


def request(at: float, outcome: Outcome = Outcome.OK, took: float = 0.01) -> Operation:
    return Operation("lane", "key", Kind.READ, at, at + took, outcome)


def every(interval: float, since: float, until: float) -> list[Operation]:
    count = round((until - since) / interval)
    return [request(since + number * interval) for number in range(count)]


def test_a_condition_that_does_not_hold_is_an_answer() -> None:
    answered = Operation("a", "k", Kind.PUT, 0.0, 0.1, Outcome.CONDITION_FAILED, "v")
    refused = [request(0.0, Outcome.FAILED), request(0.0, Outcome.UNKNOWN)]
    assert availability([answered, request(0.0), *refused]) == 0.5
    assert availability([]) == 1.0


def test_p99_counts_failures_too() -> None:
    fast = [request(0.0, took=0.01) for _ in range(99)]
    slow = [request(0.0, Outcome.FAILED, took=2.0) for _ in range(2)]
    assert p99_ms(fast + slow[:1]) == pytest.approx(10.0)
    assert p99_ms(fast + slow) == pytest.approx(2000.0)
    assert p99_ms([]) == 0.0


def test_service_that_never_failed_is_back_at_once_and_known_to_be_after_the_calm() -> None:
    steady = every(0.05, HEALED_AT - 1, HEALED_AT + 2)
    assert recovery_s(steady, [], HEALED_AT, HEALED_AT + 0.9) is None
    assert recovery_s(steady, [], HEALED_AT, HEALED_AT + 1.0) == 0.0


def test_recovery_is_the_end_of_the_last_window_with_a_failure() -> None:
    operations = [*every(0.05, HEALED_AT, HEALED_AT + 3), request(HEALED_AT + 0.6, Outcome.UNKNOWN)]
    assert recovery_s(operations, [], HEALED_AT, HEALED_AT + 1.7) is None
    assert recovery_s(operations, [], HEALED_AT, HEALED_AT + 1.8) == 0.75


def test_windows_without_answers_are_no_service() -> None:
    later = every(0.05, HEALED_AT + 1.0, HEALED_AT + 3)
    assert recovery_s(later, [], HEALED_AT, HEALED_AT + 3) == 1.0


def test_a_request_that_has_not_ended_leaves_its_window_open() -> None:
    steady = every(0.05, HEALED_AT, HEALED_AT + 3)
    assert recovery_s(steady, [HEALED_AT + 0.3], HEALED_AT, HEALED_AT + 3) == 0.5
    assert recovery_s(steady, [HEALED_AT + 2.9], HEALED_AT, HEALED_AT + 3) == 0.0
