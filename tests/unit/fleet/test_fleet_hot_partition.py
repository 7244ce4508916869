"""Hot partitions: what is throttled, by kind, before and after splits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from quiet import quiet

from fleet.exact.partitions import READ, WRITE, HeatRules, run_heat
from fleet.parameters import make_parameters
from fleet.scenario import load
from fleet.scenarios._hot_parameters import Parameters
from keyplane.model.errors import KeyplaneError

RULES = HeatRules(
    read_limit=300.0,
    write_limit=100.0,
    window_s=1.0,
    split_above=0.9,
    throttled_per_s=1.0,
    hot_for_s=5.0,
    settle_s=10.0,
    declined_s=300.0,
)


def test_checks_hold_and_the_same_seed_gives_the_same() -> None:
    scenario = load("hot-partition")
    asked = make_parameters(scenario.parameters, None, {})
    outcomes = [scenario.run(asked, quiet(seed)) for seed in (1, 1, 2, 20)]
    for outcome in outcomes:
        assert [check for check in outcome.checks if not check.holds] == []
    assert outcomes[0].figures == outcomes[1].figures
    assert outcomes[0].tables == outcomes[1].tables
    assert outcomes[0].figures != outcomes[2].figures


@pytest.mark.parametrize(
    "chosen",
    [
        {"reads_per_s": 2_000.0, "writes_per_s": 500.0},
        {"reads_per_s": 500.0, "writes_per_s": 4_000.0},
        {"hot_for_s": 1.0, "observe_s": 30.0},
        {"item_share": 1.0, "items": 10},
    ],
)
def test_other_questions_are_answered_too(chosen: dict[str, float]) -> None:
    scenario = load("hot-partition")
    outcome = scenario.run(make_parameters(scenario.parameters, None, chosen), quiet(1))
    assert [check for check in outcome.checks if not check.holds] == []
    assert "nan" not in outcome.conclusion


def test_out_of_bounds_is_refused() -> None:
    for name, value in (("reads_per_s", 0.0), ("item_share", 1.1), ("items", 20.5)):
        with pytest.raises(KeyplaneError, match=name.replace("_", "-")):
            make_parameters(Parameters, None, {name: value})


def test_a_split_comes_after_it_was_hot_for_so_long_and_ends_the_throttling() -> None:
    run = run_heat(500.0, 20.0, np.ones(200), RULES, 40.0, 3)
    assert run.splits_s[0] in (6.0, 7.0)
    assert run.refused(READ, 3, 6) == pytest.approx(200.0, rel=0.15)
    assert run.refused(WRITE, 0, 40) == 0.0
    assert run.refused(READ, 20, 40) == 0.0
    assert run.partitions[0] == 1
    assert run.partitions[-1] >= 2
    assert run.declined == 0


def test_one_item_is_not_split_and_looked_at_again_only_after_a_rest() -> None:
    run = run_heat(500.0, 20.0, np.array([0.0, 0.0, 1.0, 0.0]), RULES, 400.0, 3)
    assert run.splits_s == ()
    assert run.declined == 2
    assert run.refused(READ, 3, 400) == pytest.approx(200.0, rel=0.03)


def test_cold_partitions_are_left_alone() -> None:
    run = run_heat(200.0, 50.0, np.ones(200), RULES, 60.0, 3)
    assert run.splits_s == ()
    assert run.refused_per_s.sum() == 0.0


@settings(max_examples=25, deadline=None)
@given(
    st.floats(1.0, 1_500.0),
    st.floats(1.0, 800.0),
    st.lists(st.floats(0.0, 1.0), min_size=2, max_size=30).filter(lambda found: sum(found) > 0.01),
    st.integers(0, 2**64 - 1),
)
def test_no_more_is_served_than_the_limits_of_all_partitions(
    reads_per_s: float, writes_per_s: float, weights: list[float], seed: int
) -> None:
    run = run_heat(reads_per_s, writes_per_s, np.array(weights), RULES, 30.0, seed)
    served = run.asked_per_s - run.refused_per_s
    assert (served >= 0).all()
    for kind, limit in ((READ, RULES.read_limit), (WRITE, RULES.write_limit)):
        # Two seconds' units may be used in one: those saved up and those that come in.
        assert (served[:, kind] <= 2 * limit * run.partitions + 1).all()
    assert (np.diff(run.partitions) >= 0).all()
    assert run.partitions[-1] == 1 + len(run.splits_s) <= len(weights)
