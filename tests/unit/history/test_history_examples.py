"""Small histories whose verdict is known.

Each bad one shows a way to break the promise, each good one something odd that is allowed.
"""

from __future__ import annotations

import math
from typing import Any

import pytest

from keyplane.history.linearizability import Verdict, check_history, check_key
from keyplane.history.operation import Kind, Operation, Outcome
from keyplane.history.problem import Initial
from keyplane.model.errors import KeyplaneError, Reason

NEVER = math.inf


def op(kind: Kind, begin: float, end: float, **given: Any) -> Operation:
    """By a lane of its own, unless one is named, and OK, unless something else is said."""
    lane = given.pop("lane", f"{kind.value}@{begin:g}")
    outcome = given.pop("outcome", Outcome.OK)
    return Operation(lane, "k", kind, begin, end, outcome, **given)


def put(
    value: str, begin: float, end: float, version: int | None = None, **given: Any
) -> Operation:
    return op(Kind.PUT, begin, end, value=value, version=version, **given)


def read(value: str | None, begin: float, end: float, version: int | None = None) -> Operation:
    return op(Kind.READ, begin, end, value=value, version=version)


def stale(value: str | None, begin: float, end: float) -> Operation:
    return op(Kind.STALE_READ, begin, end, value=value)


def delete(begin: float, end: float, existed: bool | None = None, **given: Any) -> Operation:
    return op(Kind.DELETE, begin, end, existed=existed, **given)


REFUSED = {"outcome": Outcome.CONDITION_FAILED}
UNKNOWN = {"outcome": Outcome.UNKNOWN}
FAILED = {"outcome": Outcome.FAILED}

BAD: dict[str, list[Operation]] = {
    "a lost update": [put("a", 0, 1), put("b", 2, 3), read("a", 4, 5)],
    "an acknowledged write that vanished": [put("a", 0, 1), read(None, 2, 3)],
    "a stale read": [put("a", 0, 1), put("b", 2, 5), read("b", 3, 4), read("a", 6, 7)],
    "new, then old, while the write goes on": [
        put("a", 0, 1),
        put("b", 2, 9),
        read("b", 3, 4),
        read("a", 5, 6),
    ],
    "a deleted item that came back": [
        put("a", 0, 1),
        delete(2, 3, existed=True),
        read(None, 4, 5),
        read("a", 6, 7),
    ],
    "a delete that found nothing where there was an item": [
        put("a", 0, 1),
        delete(2, 3, existed=False),
    ],
    "a delete that found an item that nobody put": [delete(0, 1, existed=True)],
    "one item deleted twice": [
        put("a", 0, 1),
        delete(2, 5, existed=True),
        delete(3, 6, existed=True),
    ],
    "an indefinite write applied twice": [
        put("a", 0, NEVER, **UNKNOWN),
        read("a", 1, 2),
        put("b", 3, 4),
        read("a", 5, 6),
    ],
    "a write applied twice, told by its versions": [
        put("a", 0, 9, version=3),
        read("a", 1, 2, version=1),
    ],
    "a condition judged on a stale state": [
        put("a", 0, 1, version=1),
        put("b", 2, 3, version=2),
        put("c", 4, 5, version=3, version_equals=1),
    ],
    "two that both saw the same version": [
        put("a", 0, 1, version=1),
        put("b", 2, 5, version=2, version_equals=1),
        put("c", 3, 6, version=3, version_equals=1),
    ],
    "two that both made the item": [
        put("a", 0, 5, exists=False),
        put("b", 1, 6, exists=False),
    ],
    "a condition refused that held": [
        put("a", 0, 1, version=1),
        put("b", 2, 3, version_equals=1, **REFUSED),
    ],
    "a refusal of a write without a condition": [put("a", 0, 1, **REFUSED)],
    "a version that went back": [put("a", 0, 1, version=2), put("b", 2, 3, version=1)],
    "a version that went back over a delete": [
        put("a", 0, 1, version=5),
        delete(2, 3, existed=True),
        put("b", 4, 5, version=2),
    ],
    "one version for two values": [put("a", 0, 5, version=1), put("b", 1, 6, version=1)],
    "a dirty read of a failed write": [put("a", 0, 3, **FAILED), read("a", 1, 2)],
    "a dirty read of a refused write": [put("a", 0, 3, exists=True, **REFUSED), read("a", 1, 2)],
    "a value from nowhere": [put("a", 0, 1), read("b", 2, 3)],
    "a read of the future": [read("a", 0, 1), put("a", 2, 3)],
    "an indefinite write seen, then unseen": [
        put("a", 0, 1),
        put("b", 2, NEVER, **UNKNOWN),
        read("b", 3, 4),
        read("a", 5, 6),
    ],
    "two readers who saw two writes in two orders": [
        put("a", 0, 9),
        put("b", 0, 9),
        read("a", 1, 2),
        read("b", 3, 4),
        read("a", 5, 6),
    ],
    "a late read of a write from before it was asked for": [
        stale("a", 0, 1),
        put("a", 2, 3),
    ],
    "one indefinite delete for two disappearances": [
        put("a", 0, 1),
        delete(2, NEVER, **UNKNOWN),
        read(None, 3, 4),
        put("b", 5, 6),
        read(None, 7, 8),
    ],
    "a lane that missed its own write, told at the same instant": [
        put("a", 0, 1, lane="one"),
        op(Kind.READ, 1, 1, value=None, lane="one"),
    ],
}

GOOD: dict[str, list[Operation]] = {
    "nothing": [],
    "one thing after another": [
        read(None, 0, 1),
        put("a", 2, 3, version=1),
        read("a", 4, 5, version=1),
        delete(6, 7, existed=True),
        read(None, 8, 9),
        put("b", 10, 11, version=3),
    ],
    "a write seen before it was answered": [put("a", 0, 9), read("a", 1, 2)],
    "a write not seen before it was answered": [put("a", 0, 9), read(None, 1, 2)],
    "two writes at once, in either order": [
        put("a", 0, 9),
        put("b", 0, 9),
        read("b", 1, 2),
        read("a", 3, 4),
    ],
    "versions that tell the order of writes at once": [
        put("a", 0, 9, version=2),
        put("b", 0, 9, version=1),
        read("a", 10, 11, version=2),
    ],
    "an indefinite write that was never done": [
        put("a", 0, 1),
        put("b", 2, NEVER, **UNKNOWN),
        read("a", 3, 4),
        read("a", 5, 6),
    ],
    "an indefinite write done long after it was given up": [
        put("a", 0, 1),
        put("b", 2, 3, **UNKNOWN),
        read("a", 4, 5),
        put("c", 6, 7),
        read("b", 8, 9),
    ],
    "an indefinite delete that explains a missing item": [
        put("a", 0, 1),
        delete(2, 3, **UNKNOWN),
        read("a", 4, 5),
        read(None, 6, 7),
    ],
    "a failed write that nobody saw": [put("a", 0, 1), put("b", 2, 3, **FAILED), read("a", 4, 5)],
    "a condition refused because a write at once came first": [
        put("a", 0, 1, version=1),
        put("b", 2, 5, version=2),
        put("c", 3, 6, version_equals=1, **REFUSED),
    ],
    "a condition that an indefinite write made true": [
        put("a", 0, NEVER, **UNKNOWN),
        put("b", 1, 2, exists=True),
    ],
    "a condition that an indefinite delete made true": [
        put("a", 0, 1),
        delete(2, NEVER, **UNKNOWN),
        put("b", 3, 4, exists=False),
    ],
    "a condition on a version nobody saw, either way": [
        put("a", 0, 1),
        put("b", 2, 3, version_equals=7, **REFUSED),
        put("c", 4, 5, version_equals=4),
    ],
    "a chain of indefinite writes, each of which needs the one before": [
        put("a", 0, NEVER, **UNKNOWN),
        put("b", 0, NEVER, exists=True, **UNKNOWN),
        read("b", 1, 2),
    ],
    "a refused write may be asked for again": [
        put("a", 0, 1, exists=True, **REFUSED),
        put("a", 2, 3),
        read("a", 4, 5),
    ],
    "a read that ended without an answer": [
        put("a", 0, 1),
        op(Kind.READ, 2, 3, outcome=Outcome.UNKNOWN),
        op(Kind.READ, 2, 3, outcome=Outcome.FAILED),
    ],
    "a stale read where that is allowed": [
        put("a", 0, 1),
        put("b", 2, 3),
        stale("a", 4, 5),
        stale(None, 6, 7),
    ],
    "operations that touch at an instant, in either order": [put("a", 0, 1), read(None, 1, 2)],
}


@pytest.mark.parametrize("name", BAD)
def test_violated(name: str) -> None:
    finding = check_history(BAD[name])
    assert finding.verdict is Verdict.VIOLATED
    assert finding.message.startswith("k: ")
    # Of such a short history all is needed, or it would be shorter.
    assert set(finding.operations) <= set(BAD[name])
    assert check_key(finding.operations).verdict is Verdict.VIOLATED


@pytest.mark.parametrize("name", GOOD)
def test_held(name: str) -> None:
    assert check_history(GOOD[name]).verdict is Verdict.HELD


@pytest.mark.parametrize("name", GOOD)
def test_what_held_still_holds_when_it_is_all_that_is_known(name: str) -> None:
    assert check_history(GOOD[name], initial=Initial.ANYTHING).verdict is Verdict.HELD


def test_what_was_lost_may_be_gone_and_what_came_after_may_not() -> None:
    before = [put("a", 0, 1, version=1), put("b", 2, 3, version=2)]
    fell_back = [*before, read("a", 5, 6, version=1)]
    assert check_key(fell_back).verdict is Verdict.VIOLATED
    assert check_key(fell_back, losses=[4]).verdict is Verdict.HELD
    assert check_key([*before, read(None, 5, 6)], losses=[4]).verdict is Verdict.HELD
    # Versions begin again from what is left.
    again = [*fell_back, put("c", 7, 8, version=2), read("c", 9, 10, version=2)]
    assert check_key(again, losses=[4]).verdict is Verdict.HELD
    assert check_key([*again, read("b", 11, 12)], losses=[4]).verdict is Verdict.VIOLATED
    # A loss before both were written explains nothing.
    assert check_key(fell_back, losses=[1.5]).verdict is Verdict.VIOLATED


def test_a_loss_may_keep_an_indefinite_write_that_nobody_had_seen() -> None:
    history = [
        put("a", 0, 1),
        put("b", 2, NEVER, **UNKNOWN),
        put("c", 3, 4),
        read("c", 5, 6),
        read("b", 8, 9),
        read("b", 10, 11),
    ]
    assert check_key(history, losses=[7]).verdict is Verdict.HELD


def test_losses_are_of_all_items_or_of_one() -> None:
    history = [put("a", 0, 1), read(None, 3, 4)]
    assert check_history(history, [2]).verdict is Verdict.HELD
    assert check_history(history, {"k": [2]}).verdict is Verdict.HELD
    assert check_history(history, {"other": [2]}).verdict is Verdict.VIOLATED


def test_an_item_may_have_been_there_before_but_only_one() -> None:
    old = [read("old", 0, 1, version=7), put("a", 2, 3, version=8)]
    assert check_key(old).verdict is Verdict.VIOLATED
    assert check_key(old, Initial.ANYTHING).verdict is Verdict.HELD
    lower = [old[0], put("a", 2, 3, version=6)]
    assert check_key(lower, Initial.ANYTHING).verdict is Verdict.VIOLATED
    two = [*old, read("older", 0, 1)]
    finding = check_key(two, Initial.ANYTHING)
    assert finding.verdict is Verdict.VIOLATED
    assert "only one of them" in finding.message
    unseen = [delete(0, 1, existed=True), read(None, 2, 3)]
    assert check_key(unseen, Initial.ANYTHING).verdict is Verdict.HELD


def test_items_are_judged_apart_and_the_first_violated_one_is_named() -> None:
    def of(key: str, operations: list[Operation]) -> list[Operation]:
        return [
            Operation(o.lane, key, o.kind, o.invoked_at, o.ended_at, o.outcome, o.value)
            for o in operations
        ]

    good = of("good", [put("a", 0, 1), read("a", 2, 3)])
    bad = [put("a", 0, 1), read(None, 2, 3)]
    assert check_history(good).verdict is Verdict.HELD
    finding = check_history([*of("z", bad), *good, *of("m", bad)])
    assert (finding.verdict, finding.key) == (Verdict.VIOLATED, "m")


def test_a_search_that_is_given_up_says_so() -> None:
    history = [put("a", 0, 1), put("b", 2, 3), read("b", 4, 5)]
    finding = check_history(history, steps_max=1)
    assert finding.verdict is Verdict.UNDECIDED
    assert "gave up" in finding.message
    assert check_history(history).verdict is Verdict.HELD


def test_a_violation_outranks_what_is_undecided() -> None:
    hard = [
        Operation(o.lane, "a", o.kind, o.invoked_at, o.ended_at, o.outcome, o.value)
        for o in (put("a", 0, 1), put("b", 2, 3), read("b", 4, 5))
    ]
    bad = [put("a", 0, 3, **FAILED), read("a", 1, 2)]
    assert check_history([*hard, *bad], steps_max=1).verdict is Verdict.VIOLATED


def test_puts_that_cannot_be_told_apart_are_refused() -> None:
    with pytest.raises(KeyplaneError, match="a value of its own") as caught:
        check_history([put("a", 0, 1), put("a", 2, 3)])
    assert caught.value.reason is Reason.INVALID_ARGUMENT


@pytest.mark.parametrize(
    "impossible",
    [
        lambda: put("a", 2, 1),
        lambda: put("a", 0, NEVER),
        lambda: op(Kind.PUT, 0, 1),
        lambda: op(Kind.READ, 0, 1, outcome=Outcome.CONDITION_FAILED),
        lambda: put("a", math.nan, 1),
    ],
)
def test_an_operation_that_cannot_be_is_refused(impossible: Any) -> None:
    with pytest.raises(KeyplaneError) as caught:
        impossible()
    assert caught.value.reason is Reason.INVALID_ARGUMENT


def test_thirty_indefinite_writes_of_one_item_do_not_multiply() -> None:
    """Counted in configurations, of which there would be 2**30."""
    unknown = [put(f"u{n}", n / 100, NEVER, **UNKNOWN) for n in range(30)]
    unknown += [delete(n / 100, NEVER, lane=f"d{n}", **UNKNOWN) for n in range(30)]
    seen = [read(f"u{n}", 10 + n, 10.5 + n) for n in range(0, 30, 3)]
    gone = [read(None, 50 + n, 50.5 + n) for n in range(5)]
    assert check_key(unknown + seen + gone, steps_max=100).verdict is Verdict.HELD
    again = read("u0", 60, 61)
    assert check_key([*unknown, *seen, *gone, again], steps_max=1_000).verdict is Verdict.VIOLATED
