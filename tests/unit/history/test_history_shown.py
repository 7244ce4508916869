"""What people see of a history: the sentence, the window, the command line."""

from __future__ import annotations

import json
import math
from contextlib import closing
from pathlib import Path

import pytest

from keyplane.cli.main import main
from keyplane.history.files import HistoryLog
from keyplane.history.linearizability import check_history
from keyplane.history.operation import Kind, Operation, Outcome
from keyplane.history.problem import Initial
from keyplane.history.render import render, render_operations
from keyplane.workload.items import WriteName, make_item, value_named, value_of

PUT, READ, DELETE = Kind.PUT, Kind.READ, Kind.DELETE
OK, UNKNOWN = Outcome.OK, Outcome.UNKNOWN

LOST_UPDATE = [
    Operation("one", "t/k", PUT, 10.0, 10.2, OK, "a", 1),
    Operation("two", "t/k", PUT, 10.1, 10.3, OK, "b", 2),
    Operation("one", "t/k", READ, 10.4, 10.5, OK, "a", 1),
]


def test_a_violation_names_the_item_says_what_is_wrong_and_draws_it() -> None:
    assert render(check_history(LOST_UPDATE)).splitlines() == [
        "t/k: one found 'a' has version 1, after 'b' had version 2",
        "one  0.000000 .. 0.200000  [=]      put 'a' -> done, version 1",
        "two  0.100000 .. 0.300000   [=]     put 'b' -> done, version 2",
        "one  0.400000 .. 0.500000      []   read -> 'a', version 1",
    ]


def test_what_is_shown_is_what_matters_among_much_else() -> None:
    """Two thousand operations around three that cannot all be right."""
    noise = []
    for n in range(1_000):
        noise.append(Operation("n", "t/k", PUT, n, n + 0.4, OK, f"v{n}", n + 1))
        noise.append(Operation("m", "t/k", READ, n + 0.5, n + 0.9, OK, f"v{n}", n + 1))
    late = Operation("one", "t/k", READ, 800.6, 800.7, OK, "v700", 701)
    finding = check_history([*noise, late])
    assert late in finding.operations
    assert 2 <= len(finding.operations) <= 4
    assert "one found 'v700'" in finding.message


def test_a_violation_that_needs_a_search_is_shown_by_what_no_order_explains() -> None:
    """Two writes at once, seen in one order and then in the other, among two thousand more."""
    noise = []
    for n in range(500):
        noise.append(Operation("n", "t/k", PUT, n, n + 0.4, OK, f"v{n}"))
        noise.append(Operation("m", "t/k", READ, n + 0.5, n + 0.9, OK, f"v{n}"))
    for n in range(510, 1_000):
        noise.append(Operation("n", "t/k", PUT, n, n + 0.4, OK, f"v{n}"))
    seen = [
        Operation("one", "t/k", PUT, 500, 509, OK, "a"),
        Operation("two", "t/k", PUT, 500, 509, OK, "b"),
        Operation("three", "t/k", READ, 501, 502, OK, "a"),
        Operation("three", "t/k", READ, 503, 504, OK, "b"),
        Operation("three", "t/k", READ, 505, 506, OK, "a"),
    ]
    finding = check_history([*noise, *seen])
    assert finding.operations == tuple(seen)
    assert finding.message == "t/k: three found 'a', which no order of these 5 operations explains"


def test_every_answer_has_words() -> None:
    shown = render_operations(
        [
            Operation("one", "k", PUT, 0, math.inf, UNKNOWN, "x" * 90, reason="CANCELLED"),
            Operation("one", "k", PUT, 1, 2, Outcome.FAILED, "b", reason="OVERLOADED"),
            Operation("one", "k", PUT, 3, 4, Outcome.CONDITION_FAILED, "c", version_equals=7),
            Operation("one", "k", DELETE, 5, 6, OK, exists=True, existed=True),
            Operation("one", "k", DELETE, 7, 8, OK, exists=False, existed=False),
            Operation("one", "k", Kind.STALE_READ, 9, 9, OK),
        ]
    ).splitlines()
    assert shown[0].endswith("xxx…' -> unknown (CANCELLED)")
    assert "never  [--------->  " in shown[0]
    assert "put 'b' -> not done (OVERLOADED)" in shown[1]
    assert "put 'c' if its version is 7 -> condition failed" in shown[2]
    assert "delete if there is an item -> done, there was an item" in shown[3]
    assert "delete if there is no item -> done, there was no item" in shown[4]
    assert "|   stale read -> no item" in shown[5]
    assert render_operations([]) == ""


def test_a_diagram_too_wide_to_read_is_left_out() -> None:
    many = [Operation("one", "k", READ, n, n + 0.5, OK) for n in range(100)]
    assert "[" not in render_operations(many)


@pytest.mark.parametrize(
    ("operation", "says"),
    [
        (Operation("one", "k", PUT, 0, 1, Outcome.CONDITION_FAILED, "a"), "which had none"),
        (
            Operation("one", "k", PUT, 0, 1, Outcome.CONDITION_FAILED, "a", exists=False),
            "failed because it is not true that there is no item, which nothing explains",
        ),
        (
            Operation("one", "k", DELETE, 0, 1, OK, version_equals=4, existed=True),
            "delete was done and that there was an item under the condition that the item has "
            "version 4",
        ),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence(operation: Operation, says: str) -> None:
    assert says in check_history([operation]).message


# --- The command line ----------------------------------------------------------------------------


def recorded(path: Path, operations: list[Operation]) -> str:
    with closing(HistoryLog(path, "a clock", Initial.ANYTHING)) as log:
        for operation in operations:
            log.append(operation)
    return str(path)


@pytest.mark.parametrize(
    ("operations", "options", "code", "verdict", "window"),
    [
        (LOST_UPDATE[:2], [], 0, "held", 0),
        (LOST_UPDATE, [], 1, "violated", 3),
        (LOST_UPDATE[:2], ["--steps", "1"], 2, "undecided", 2),
        ([], [], 0, "held", 0),
    ],
)
def test_check_exits_with_its_verdict(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    operations: list[Operation],
    options: list[str],
    code: int,
    verdict: str,
    window: int,
) -> None:
    file = recorded(tmp_path / "h.jsonl", operations)
    assert main(["history", "check", file, "--json", *options]) == code
    printed = capsys.readouterr()
    facts = json.loads(printed.out)
    assert (facts["verdict"], len(facts["window"])) == (verdict, window)
    assert facts["operations"] == len(operations)
    assert facts["outcomes"] == ({"ok": len(operations)} if operations else {})
    assert facts["message"] in printed.err


def test_check_shows_the_window_and_how_to_see_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = recorded(tmp_path / "h.jsonl", LOST_UPDATE)
    assert main(["history", "check", file]) == 1
    shown = capsys.readouterr().out
    assert "3 operations on 1 key: 3 ok" in shown
    assert "one found 'a' has version 1" in shown
    assert f"keyplane history show {file} --key t/k" in shown


def test_show_prints_the_operations_of_one_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = Operation("one", "t/other", READ, 0, 1, OK)
    file = recorded(tmp_path / "h.jsonl", [*LOST_UPDATE, other])
    assert main(["history", "show", file, "--key", "t/k", "--json"]) == 0
    printed = capsys.readouterr()
    assert len(json.loads(printed.out)["operations"]) == 3
    assert "put 'b' -> done, version 2" in printed.err
    assert main(["history", "show", file, "--key", "k"]) == 3
    assert "it has some on t/k, t/other" in capsys.readouterr().err


def test_a_torn_line_is_told_and_a_bad_one_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = recorded(tmp_path / "h.jsonl", LOST_UPDATE[:2])
    whole = Path(file).read_text()
    Path(file).write_text(whole + "{")
    assert main(["history", "check", file]) == 0
    assert "cut off" in capsys.readouterr().err
    Path(file).write_text(whole + "{\n")
    assert main(["history", "check", file, "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["error"]["reason"] == "CORRUPT"


# --- What a workload puts ------------------------------------------------------------------------


def test_an_item_of_a_workload_has_the_name_of_its_write_only_if_it_is_whole() -> None:
    name = WriteName("w", 7)
    item = make_item("id", "k", name, 50)
    assert value_of(item) == value_named(name) == "w:7"
    for damaged in (item | {"data": item["data"][1:]}, {"id": "k", "plan": "free"}):
        assert value_of(damaged).startswith("not of a workload")
