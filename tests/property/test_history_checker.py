"""The checker of histories against a register that is one, and against trying every order."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from hypothesis import event, given, settings
from hypothesis import strategies as st

from keyplane.history.linearizability import Verdict, check_history, check_key
from keyplane.history.operation import Kind, Operation, Outcome

RANDOMS = st.randoms(use_true_random=False)


# --- A register that does one thing at a time, seen by clients whose calls overlap ---------------


@dataclass(slots=True)
class Register:
    """One item. Each call is carried out at one instant, between its beginning and its end."""

    value: str | None = None
    version: int = 0
    highest: int = 0

    def carry_out(self, asked: Operation) -> Operation:
        """The operation with its answer."""
        present = self.value is not None
        if asked.kind is Kind.READ:
            return replace(asked, value=self.value, version=self.version or None)
        holds = asked.exists in (None, present) and asked.version_equals in (None, self.version)
        if not holds:
            return replace(asked, outcome=Outcome.CONDITION_FAILED)
        self.highest += 1
        if asked.kind is Kind.PUT:
            self.value, self.version = asked.value, self.highest
            return replace(asked, version=self.version)
        self.value, self.version = None, 0
        return replace(asked, existed=present)


def register_history(
    rng: random.Random, calls: int, lanes: int, unknown_share: float, losses: Sequence[float] = ()
) -> list[Operation]:
    """What clients of one register saw. Versions are seen by some of them.

    Some writes have no answer; of those some are not done, and some are done long after.
    losses: instants at which the register falls back to some earlier state of itself.
    """
    free = [0.0] * lanes
    asked: list[tuple[float, Operation, bool]] = []
    for n in range(calls):
        lane = rng.randrange(lanes)
        begin = free[lane] + rng.choice((0, 0, 1, 2))
        end = free[lane] = begin + rng.choice((0, 1, 2, 5))
        kind = rng.choice((Kind.READ, Kind.READ, Kind.PUT, Kind.PUT, Kind.DELETE))
        operation = Operation(f"lane-{lane}", "k", kind, begin, end, Outcome.OK, value=f"v{n}")
        lost = kind is not Kind.READ and rng.random() < unknown_share
        if kind is not Kind.READ and rng.random() < 0.4:
            condition = rng.choice(
                ({"exists": True}, {"exists": False}, {"version_equals": 1 + n // 3})
            )
            operation = replace(operation, **condition)
        at = begin + (end - begin) * rng.random()
        if lost:
            at = rng.choice((at, at + 20 * rng.random(), math.inf))
        asked.append((at, operation, lost))
    register, past, told = Register(), [Register()], []
    events: list[tuple[float, int, Operation | None, bool]] = [
        (at, n, operation, lost) for n, (at, operation, lost) in enumerate(asked) if at < math.inf
    ]
    events += [(at, -1, None, False) for at in losses]
    for _, _, operation, lost in sorted(events, key=lambda entry: entry[:2]):
        if operation is None:
            del past[rng.randrange(len(past)) + 1 :]
            register = replace(past[-1])
            continue
        answered = register.carry_out(operation)
        past.append(replace(register))
        if not lost:
            hidden = rng.random() < 0.3 and answered.version is not None
            told.append(replace(answered, version=None) if hidden else answered)
    for _, operation, lost in asked:
        if lost:
            value = operation.value if operation.kind is Kind.PUT else None
            told.append(replace(operation, outcome=Outcome.UNKNOWN, value=value))
    told = [replace(o, value=None) if o.kind is Kind.DELETE else o for o in told]
    # Not in the order in which it happened; of one lane in the order in which it called.
    return sorted(told, key=lambda operation: operation.lane)


@settings(max_examples=300, deadline=None)
@given(RANDOMS, st.integers(1, 60), st.integers(1, 8), st.sampled_from([0.0, 0.1, 0.5]))
def test_what_a_register_answered_is_held(
    rng: random.Random, calls: int, lanes: int, unknown_share: float
) -> None:
    history = register_history(rng, calls, lanes, unknown_share)
    finding = check_history(history)
    assert finding.verdict is Verdict.HELD, finding


@settings(max_examples=200, deadline=None)
@given(RANDOMS, st.integers(1, 25), st.integers(1, 4), st.lists(st.floats(0, 40), max_size=2))
def test_what_a_register_answered_that_lost_its_latest_states_is_held(
    rng: random.Random, calls: int, lanes: int, losses: list[float]
) -> None:
    history = register_history(rng, calls, lanes, 0.2, losses)
    finding = check_history(history, losses)
    assert finding.verdict is Verdict.HELD, finding


# --- Every order tried ---------------------------------------------------------------------------


def precedes(first: Operation, second: Operation, listed_before: bool) -> bool:
    if first.outcome is Outcome.UNKNOWN:
        return False
    if first.ended_at < second.invoked_at:
        return True
    same = first.lane == second.lane and second.outcome is not Outcome.UNKNOWN
    return same and listed_before and first.ended_at == second.invoked_at


def all_orders(history: list[Operation], order: tuple[int, ...] = ()) -> Iterator[tuple[int, ...]]:
    """Every order that the times allow, with and without each write of unknown outcome."""
    if all(n in order for n, o in enumerate(history) if o.outcome is not Outcome.UNKNOWN):
        yield order
    for n, operation in enumerate(history):
        if n not in order and not any(
            precedes(other, operation, m < n) and m not in order
            for m, other in enumerate(history)
            if m != n
        ):
            yield from all_orders(history, (*order, n))


def explains(order: Sequence[Operation], versions: dict[str, int]) -> bool:
    value: str | None = None
    # The lowest that the versions given out so far can be.
    highest = 0
    for operation in order:
        version = versions.get(value or "")
        if operation.kind is Kind.READ:
            if operation.value != value:
                return False
            continue
        wanted = operation.version_equals
        can_hold = operation.exists in (None, value is not None)
        can_fail = not can_hold
        if wanted is not None:
            can_hold &= value is not None and (
                wanted > highest if version is None else wanted == version
            )
            can_fail |= value is None or version is None or wanted != version
        if operation.outcome is Outcome.CONDITION_FAILED:
            if not can_fail:
                return False
            continue
        if not can_hold or operation.existed not in (None, value is not None):
            return False
        highest = max(highest, wanted or 0)
        value = operation.value
        made = versions.get(value or "")
        if made is not None:
            if made <= highest:
                return False
            highest = made
    return True


def brute_force(history: list[Operation]) -> Verdict:
    versions: dict[str, int] = {}
    given_to: dict[int, str] = {}
    puts = {o.value: o for o in history if o.kind is Kind.PUT}
    for operation in history:
        if operation.outcome is not Outcome.OK or operation.value is None:
            continue
        if operation.kind is not Kind.PUT:
            put = puts.get(operation.value)
            if put is None or put.outcome not in (Outcome.OK, Outcome.UNKNOWN):
                return Verdict.VIOLATED
            if put.invoked_at > operation.ended_at:
                return Verdict.VIOLATED
        if operation.version is not None:
            if versions.setdefault(operation.value, operation.version) != operation.version:
                return Verdict.VIOLATED
            if given_to.setdefault(operation.version, operation.value) != operation.value:
                return Verdict.VIOLATED
    listed = sorted(
        (
            o
            for o in history
            if o.kind is not Kind.STALE_READ
            and o.outcome is not Outcome.FAILED
            and not (o.kind is Kind.READ and o.outcome is Outcome.UNKNOWN)
        ),
        key=lambda o: (o.invoked_at, o.ended_at),
    )
    found = any(explains([listed[n] for n in order], versions) for order in all_orders(listed))
    return Verdict.HELD if found else Verdict.VIOLATED


def damaged(rng: random.Random, history: list[Operation]) -> list[Operation]:
    """The history with some answers changed at random."""
    values = [o.value for o in history if o.kind is Kind.PUT] + [None]
    changed = []
    for operation in history:
        if rng.random() < 0.3:
            if operation.kind is Kind.READ:
                version = rng.choice((None, None, 1, 2, 3))
                kind = rng.choice((Kind.READ, Kind.READ, Kind.STALE_READ))
                value = rng.choice(values)
                operation = replace(operation, kind=kind, value=value, version=version)
            else:
                outcome = rng.choice((*Outcome, Outcome.OK))
                existed = rng.choice((None, True, False))
                known = outcome is Outcome.OK
                operation = replace(
                    operation,
                    outcome=outcome,
                    exists=rng.choice((None, None, True, False)),
                    version_equals=rng.choice((None, None, 1, 2)),
                    existed=existed if known and operation.kind is Kind.DELETE else None,
                    version=operation.version if known else None,
                )
        changed.append(operation)
    return changed


def tiny_history(rng: random.Random) -> list[Operation]:
    calls, lanes = rng.randint(1, 6), rng.randint(1, 4)
    history = register_history(rng, calls, lanes, rng.choice((0.0, 0.3, 0.6)))
    return damaged(rng, history) if rng.random() < 0.8 else history


@settings(max_examples=500, deadline=None)
@given(RANDOMS)
def test_the_verdict_on_a_tiny_history_is_that_of_trying_every_order(rng: random.Random) -> None:
    history = tiny_history(rng)
    expected = brute_force(history)
    event(expected.name)
    assert check_key(history).verdict is expected


def test_tiny_histories_are_of_both_kinds() -> None:
    """A fixed sample, so that neither verdict can vanish from what the test above sees."""
    rng = random.Random(3)
    seen: Counter[Verdict] = Counter()
    for _ in range(2_000):
        history = tiny_history(rng)
        expected = brute_force(history)
        assert check_key(history).verdict is expected, history
        seen[expected] += 1
    assert min(seen[Verdict.HELD], seen[Verdict.VIOLATED]) > 400, seen


@settings(max_examples=100, deadline=None)
@given(RANDOMS)
def test_what_is_shown_of_a_violation_is_a_violation_by_itself(rng: random.Random) -> None:
    history = damaged(rng, register_history(rng, 40, 5, 0.1))
    finding = check_key(history)
    event(finding.verdict.name)
    if finding.verdict is Verdict.VIOLATED:
        assert set(finding.operations) <= set(history)
        assert check_key(finding.operations).verdict is Verdict.VIOLATED
