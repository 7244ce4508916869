"""Planted bugs are found by the seeds that every check runs, and leave no trace behind."""

from __future__ import annotations

import pytest

from sim.mutants.hunt import Kill, Survivor, holds, hunt, run_with
from sim.mutants.kills import KILLED_BY
from sim.mutants.mutant import Mutant
from sim.mutants.patch import Edit
from sim.mutants.registry import MUTANTS
from sim.plan import draw_plan
from sim.run import without_collector
from storage.executor import Executor
from storage.writes import WriteQueue

CHEAP = ("lite", 0)


def mutant(*edits: Edit) -> Mutant:
    return Mutant("of this test", "Nothing that anybody wrote.", (), edits)


# One of three is killed by every check, and all of them by `scripts/test --long`.
ON_RECORD = [
    pytest.param(name, marks=[pytest.mark.long] if number % 3 else [])
    for number, name in enumerate(KILLED_BY)
]


@pytest.mark.parametrize("name", ON_RECORD)
def test_every_mutant_on_record_is_killed(name: str) -> None:
    """By the seed that is on record for it; where that has come to mean something else, by any."""
    one = MUTANTS[name]
    seed = KILLED_BY[name]
    if run_with(one, *seed).violation is not None:
        assert holds(*seed)
        return
    outcome = hunt(one)
    assert isinstance(outcome, Kill), f"{outcome}: {one.what}"


def test_a_mutant_is_gone_when_its_context_ends() -> None:
    """The same seed goes the same way before and after all of them."""
    profile, seed = CHEAP
    before = without_collector(draw_plan(seed, profile)).trace_hash
    for each in MUTANTS.values():
        codes = [edit.function.__code__ for edit in each.edits]
        with each.apply():
            assert all(
                edit.function.__code__ is not code
                for edit, code in zip(each.edits, codes, strict=True)
            )
        assert [edit.function.__code__ for edit in each.edits] == codes
    killed = MUTANTS["split-keeps-epoch"]
    assert run_with(killed, *CHEAP).trace_hash != before or killed.killed_by != CHEAP
    assert without_collector(draw_plan(seed, profile)).trace_hash == before


def test_every_mutant_says_what_it_is() -> None:
    for each in MUTANTS.values():
        assert each.what.endswith(".")
        assert each.invariants
        assert each.edits


def test_a_mutant_that_no_longer_fits_the_code_says_so() -> None:
    """And changes nothing, not even by its edits that do fit."""
    fits = Edit(WriteQueue._evaluate, "if group.now >= write.deadline:", "if False:")
    code = WriteQueue._evaluate.__code__
    gone = Edit(Executor._execute, "what was never written", "pass")
    with (
        pytest.raises(ValueError, match=r"Executor\._execute.*0 times"),
        mutant(fits, gone).apply(),
    ):
        pass
    unknown = Edit(Executor._execute, "if shard is None", "if shard is nobody_knows")
    with pytest.raises(ValueError, match="nobody_knows"), mutant(fits, unknown).apply():
        pass
    assert WriteQueue._evaluate.__code__ is code


def test_a_change_that_is_no_bug_survives() -> None:
    harmless = mutant(
        Edit(
            WriteQueue._evaluate,
            "if group.now >= write.deadline:",
            "if group.now > write.deadline:",
        )
    )
    outcome = hunt(harmless, [CHEAP])
    assert outcome == Survivor("of this test", 1, outcome.wall_seconds)


def test_a_seed_that_is_violated_without_the_mutant_kills_nothing() -> None:
    """What it shows is a bug of the code, not of the mutant."""
    bug = MUTANTS["tail-forgotten"]
    pair = bug.killed_by
    assert pair is not None
    harmless = mutant(
        Edit(
            WriteQueue._evaluate,
            "if group.now >= write.deadline:",
            "if group.now > write.deadline:",
        )
    )
    holds.cache_clear()
    try:
        with bug.apply():
            assert not hunt(harmless, [pair]).killed
    finally:
        holds.cache_clear()
