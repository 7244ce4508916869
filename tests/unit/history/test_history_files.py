"""Histories in files, and recording them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from keyplane.client.errors import ConditionFailed, DeadlineExceeded, Overloaded
from keyplane.history.files import HistoryLog, machine_clock, read_history
from keyplane.history.operation import Kind, Operation, Outcome
from keyplane.history.problem import Initial
from keyplane.history.recorder import Recorder
from keyplane.model.errors import KeyplaneError, Reason

CLOCK = "a clock"

PUT = Operation("one", "k", Kind.PUT, 0.5, 1.25, Outcome.OK, value="a", version=3)
ALL = [
    PUT,
    Operation("two", "k", Kind.READ, 0.75, 1.5, Outcome.OK, value="a", version=3),
    Operation("two", "k", Kind.STALE_READ, 2.0, 3.0, Outcome.OK),
    Operation("one", "k", Kind.DELETE, 2.0, math.inf, Outcome.UNKNOWN, version_equals=3),
    Operation("three", "k", Kind.DELETE, 4.0, 5.0, Outcome.OK, existed=False),
    Operation("three", "k", Kind.PUT, 6.0, 7.0, Outcome.CONDITION_FAILED, value="b", exists=True),
    Operation("three", "k", Kind.READ, 8.0, 9.0, Outcome.FAILED, reason="OVERLOADED"),
]


def write(path: Path, operations: list[Operation], initial: Initial = Initial.ABSENT) -> str:
    with closing(HistoryLog(path, CLOCK, initial)) as log:
        for operation in operations:
            log.append(operation)
    return path.read_text()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "history.jsonl"


@pytest.mark.parametrize("initial", list(Initial))
def test_a_history_reads_back_as_it_was_written(path: Path, initial: Initial) -> None:
    write(path, ALL[:3], initial)
    write(path, ALL[3:], initial)
    history = read_history(path)
    assert history.operations == ALL
    assert (history.clock, history.initial) == (CLOCK, initial)


def test_a_line_is_in_the_file_before_the_log_is_closed(path: Path) -> None:
    log = HistoryLog(path, CLOCK)
    log.append(PUT)
    assert read_history(path).operations == [PUT]
    log.close()


def test_how_an_operation_ended_takes_the_place_of_how_it_began(path: Path) -> None:
    begun = Operation("one", "k", Kind.PUT, 0.5, math.inf, Outcome.UNKNOWN, value="a")
    write(path, [begun, ALL[1], PUT])
    assert read_history(path).operations == [PUT, ALL[1]]


def test_what_a_killed_writer_left_of_its_last_line_is_left_out_with_a_warning(path: Path) -> None:
    whole = write(path, ALL[:2])
    path.write_text(whole + '{"lane": "on')
    warnings: list[str] = []
    assert read_history(path, warnings.append).operations == ALL[:2]
    assert len(warnings) == 1
    assert "line 4 is cut off" in warnings[0]
    # And the next writer goes on from there.
    write(path, ALL[2:])
    assert read_history(path).operations == ALL


def test_a_file_cut_off_within_its_first_line_begins_anew(path: Path) -> None:
    path.write_text('{"keyplane_his')
    write(path, ALL)
    assert read_history(path).operations == ALL


def test_a_long_line_cut_off_is_found_too(path: Path) -> None:
    whole = write(path, ALL)
    path.write_text(whole + "x" * 200_000)
    assert write(path, []) == whole


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", "Expecting"),
        ("[]", "no JSON object"),
        ('{"lane": "a"}', "'key' is missing"),
        ({"colour": "red"}, "no field 'colour'"),
        ({"kind": "get"}, "'kind' is one of read, stale_read, put, delete"),
        ({"outcome": 1}, "'outcome' is one of ok"),
        ({"version": True}, "'version' cannot be True"),
        ({"exists": 1}, "'exists' cannot be 1"),
        ({"invoked_at": "now"}, "number of seconds"),
        ({"ended_at": 0.0}, "begins at 0.5 and ends at 0.0"),
        ({"value": None}, "a put needs a value"),
    ],
    ids=str,
)
def test_a_line_that_is_no_operation_is_refused_with_its_number_and_a_remedy(
    path: Path, line: str | dict[str, object], problem: str
) -> None:
    *before, last = write(path, [ALL[1], PUT]).splitlines()
    bad = line if isinstance(line, str) else json.dumps(json.loads(last) | line)
    path.write_text("\n".join([*before, bad, last, ""]))
    with pytest.raises(KeyplaneError) as caught:
        read_history(path)
    assert caught.value.reason is Reason.CORRUPT
    assert "line 3" in caught.value.message
    assert problem in caught.value.message
    assert "record the history again" in caught.value.message


@pytest.mark.parametrize(
    ("header", "remedy"),
    [
        ("", "workload run --history"),
        ('{"table": "t"}', "workload run --history"),
        ("\x00\xff", "workload run --history"),
        ('{"keyplane_history": 99, "clock": "c"}', "version that recorded it"),
    ],
)
def test_another_kind_of_file_is_refused(path: Path, header: str, remedy: str) -> None:
    path.write_bytes(header.encode("latin-1") + b"\n")
    for use in (lambda: read_history(path), lambda: HistoryLog(path, CLOCK)):
        with pytest.raises(KeyplaneError, match=remedy) as caught:
            use()
        assert caught.value.reason is Reason.FOREIGN_FORMAT


def test_a_history_by_another_clock_is_not_appended_to(path: Path) -> None:
    whole = write(path, ALL)
    for clock, initial in (("another", Initial.ABSENT), (CLOCK, Initial.ANYTHING)):
        with pytest.raises(KeyplaneError, match="name a new file"):
            HistoryLog(path, clock, initial)
    assert path.read_text() == whole
    assert machine_clock() == machine_clock()


# --- Recording -----------------------------------------------------------------------------------


def ticking() -> Iterator[float]:
    yield from map(float, range(100))


def test_a_recorder_notes_what_was_asked_and_what_was_answered() -> None:
    recorder = Recorder(ticking().__next__)
    with recorder.call("one", "k", Kind.PUT, value="a", exists=False) as answer:
        answer.version = 3
    with recorder.call("one", "k", Kind.READ) as answer:
        answer.value, answer.version = "a", 3
    with recorder.call("one", "k", Kind.DELETE, version_equals=3) as answer:
        answer.existed = True
    assert recorder.operations == [
        Operation("one", "k", Kind.PUT, 0, 1, Outcome.OK, "a", 3, exists=False),
        Operation("one", "k", Kind.READ, 2, 3, Outcome.OK, "a", 3),
        Operation("one", "k", Kind.DELETE, 4, 5, Outcome.OK, version_equals=3, existed=True),
    ]


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (ConditionFailed(Reason.CONDITION_FAILED, "no"), Outcome.CONDITION_FAILED),
        (Overloaded(Reason.OVERLOADED, "no"), Outcome.FAILED),
        (DeadlineExceeded(Reason.DEADLINE_EXCEEDED, "late"), Outcome.UNKNOWN),
        (KeyplaneError(Reason.RETRY_NOT_COVERED, "?"), Outcome.UNKNOWN),
    ],
    ids=lambda given: given.reason.name if isinstance(given, KeyplaneError) else given.value,
)
def test_a_failure_is_definite_or_not_as_the_error_table_says(
    error: KeyplaneError, outcome: Outcome
) -> None:
    recorder = Recorder(ticking().__next__)
    with (
        pytest.raises(KeyplaneError),
        recorder.call("one", "k", Kind.PUT, value="a", exists=True),
    ):
        raise error
    (operation,) = recorder.operations
    assert (operation.outcome, operation.reason) == (outcome, error.reason.name)
    assert operation.value == "a"


def test_a_call_that_was_abandoned_or_still_goes_on_has_an_unknown_outcome() -> None:
    recorder = Recorder(ticking().__next__)
    with pytest.raises(TimeoutError), recorder.call("one", "k", Kind.PUT, value="a"):
        raise TimeoutError
    recorder.begin("two", "k", Kind.PUT, value="b")
    abandoned, going_on = recorder.operations
    assert (abandoned.outcome, abandoned.ended_at) == (Outcome.UNKNOWN, 1)
    assert (going_on.outcome, going_on.ended_at) == (Outcome.UNKNOWN, math.inf)


def test_a_recorder_with_a_log_writes_down_writes_before_they_are_sent(path: Path) -> None:
    log = HistoryLog(path, CLOCK)
    recorder = Recorder(ticking().__next__, log)
    with recorder.call("one", "k", Kind.PUT, value="a") as answer:
        (begun,) = read_history(path).operations
        assert (begun.value, begun.outcome, begun.ended_at) == ("a", Outcome.UNKNOWN, math.inf)
        answer.version = 1
    with recorder.call("one", "k", Kind.READ):
        assert len(read_history(path).operations) == 1
    log.close()
    assert [o.outcome for o in read_history(path).operations] == [Outcome.OK, Outcome.OK]
    assert recorder.operations == []
