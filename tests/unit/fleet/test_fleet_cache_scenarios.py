"""Scenarios of caches, MemDS and the Metadata Store: right, and the same again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from math import isfinite

import numpy as np
import pytest

from fleet.outcome import Bars, HeatMap, Line, Outcome
from fleet.parameters import make_parameters, parameters_of
from fleet.scenario import Context, load
from keyplane.model.errors import KeyplaneError, Reason

NAMES = (
    "cold-start",
    "constant-work",
    "why-not-scale-metadata",
    "control-plane-outage",
    "split-storm",
)


def asked(name: str, seed: int, **chosen: float) -> Outcome:
    scenario = load(name)
    parameters = make_parameters(scenario.parameters, None, chosen)
    done: list[float] = []
    outcome = scenario.run(parameters, Context(seed, lambda share, what: done.append(share)))
    assert done == sorted(done)
    assert done[-1] <= 1
    return outcome


@cache
def outcome_of(name: str, seed: int) -> Outcome:
    return asked(name, seed)


def plain(value: object) -> object:
    """To compare: arrays as bytes."""
    if isinstance(value, np.ndarray):
        return value.shape, value.tobytes()
    if is_dataclass(value):
        return tuple(plain(getattr(value, each.name)) for each in fields(value))
    if isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(map(plain, value))
    return value


def figure(outcome: Outcome, name: str) -> float:
    return next(each.value for each in outcome.figures if each.name == name)


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("name", NAMES)
def test_every_check_holds(name: str, seed: int) -> None:
    outcome = outcome_of(name, seed)
    assert [each for each in outcome.checks if not each.holds] == []
    # One that nothing could fail says nothing.
    assert all(each.tolerance < 0.2 for each in outcome.checks)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_outcome(name: str) -> None:
    assert plain(asked(name, 1)) == plain(outcome_of(name, 1))
    assert plain(outcome_of(name, 2)) != plain(outcome_of(name, 1))


@pytest.mark.parametrize("name", NAMES)
def test_what_is_shown_has_data_units_and_words(name: str) -> None:
    outcome = outcome_of(name, 1)
    assert all(isfinite(each.value) for each in outcome.figures)
    names = [each.name for each in outcome.figures]
    assert len(set(names)) == len(names)
    assert len(outcome.plots) >= 2
    assert len({plot.name for plot in outcome.plots}) == len(outcome.plots)
    for plot in outcome.plots:
        assert plot.x.label
        assert plot.y.label
        drawn = [mark for mark in plot.marks if isinstance(mark, Line | Bars | HeatMap)]
        assert drawn
        for mark in drawn:
            values = mark.z if isinstance(mark, HeatMap) else mark.y
            assert values.size > 0
            assert np.isfinite(values).all()
            if plot.y.log and not isinstance(mark, HeatMap):
                assert values.min() > 0, (plot.name, mark.label)
            if isinstance(mark, Line):
                assert len(mark.x) == len(mark.y) <= 2_000
    for table in outcome.tables:
        assert table.rows
        assert all(len(row) == len(table.columns) for row in table.rows)
    assert outcome.conclusion.endswith(".")
    assert outcome.requests_simulated > 0
    assert outcome.requests_represented > outcome.requests_simulated


@pytest.mark.parametrize("name", NAMES)
def test_parameters_out_of_bounds_are_refused(name: str) -> None:
    kind = load(name).parameters
    for each in parameters_of(kind):
        assert each.low <= each.default <= each.high
        assert each.help
        assert each.source
        for value in (each.low - 1, each.high + 1, float("nan")):
            with pytest.raises((KeyplaneError, ValueError)) as refused:
                make_parameters(kind, None, {each.name: value})
            if isinstance(refused.value, KeyplaneError):
                assert refused.value.reason is Reason.INVALID_ARGUMENT


def test_the_peak_of_a_cold_start_is_four_hundredfold() -> None:
    headline = outcome_of("cold-start", 1).checks[0]
    assert 380 <= headline.value <= 420
    assert headline.reference == pytest.approx(400)


@pytest.mark.parametrize(("hit_ratio", "times"), [(0.9, 10), (0.99, 100), (0.999, 1_000)])
def test_the_peak_follows_the_hit_ratio(hit_ratio: float, times: float) -> None:
    outcome = asked("cold-start", 1, hit_ratio=hit_ratio, observe_s=10)
    assert outcome.checks[0].value == pytest.approx(times, rel=0.05)


def test_part_of_the_caches_lost_is_part_of_the_peak() -> None:
    outcome = asked("cold-start", 1, cold_share=0.1, observe_s=10)
    assert outcome.checks[0].value == pytest.approx(1 + 0.1 * 399, rel=0.05)
    assert outcome.checks[0].holds


def test_a_queue_longer_than_patience_never_recovers() -> None:
    """The metastable failure: work goes on, none of it wanted any more."""
    outcome = asked("cold-start", 1, queue_s=2.0)
    back = outcome.tables[0].rows[0][-1]
    assert back == "not in the time looked at"
    assert "is not back within 300 s" in outcome.conclusion


def test_a_store_sized_for_everything_fails_nothing() -> None:
    outcome = asked("cold-start", 1, headroom=500, observe_s=60)
    assert figure(outcome, "requests failed") == 0


@pytest.mark.parametrize("minutes", [0.5, 5, 60])
def test_an_outage_of_any_length_is_as_available_as_the_closed_form_says(minutes: float) -> None:
    outcome = asked("control-plane-outage", 1, outage_min=minutes)
    headline = outcome.checks[0]
    assert headline.value == pytest.approx(headline.reference, rel=0.01)
    assert [each for each in outcome.checks if not each.holds] == []


@pytest.mark.parametrize(
    "chosen",
    [
        {"splits": 500, "split_tables": 500},
        {"splits": 15_000, "split_tables": 15_000, "heat": 1},
        {"publish_roots": 500, "root_slots": 15_000},
        {"heat": 0},
    ],
)
def test_storms_of_other_sizes_are_as_the_closed_form_says(chosen: dict[str, float]) -> None:
    outcome = asked("split-storm", 1, **chosen)
    assert [each for each in outcome.checks if not each.holds] == []


def test_more_splits_than_a_router_remembers_are_met_again() -> None:
    few = {"tables": 10, "split_tables": 1, "heat": 1, "requests_per_s": 1e9}
    fits = asked("split-storm", 1, splits=1_500, **few)
    assert figure(fits, "redirected again, as forgotten") == 0
    over = asked("split-storm", 1, splits=5_000, **few)
    assert figure(over, "redirected again, as forgotten") > 0
    assert figure(over, "requests redirected") > 1_000 * 5_000
    assert [each for each in over.checks if not each.holds] == []


def test_more_splits_than_partitions_are_refused() -> None:
    with pytest.raises(KeyplaneError, match="give no more splits"):
        asked("split-storm", 1, splits=1_000_000, split_tables=100, heat=0)
    with pytest.raises(KeyplaneError, match="less heat"):
        asked("split-storm", 1, heat=100)


def test_fewer_replicas_slow_more_batches() -> None:
    """The closed form and each lookup simulated agree at another size, too."""
    outcome = asked("why-not-scale-metadata", 1, replicas=50, batch=20)
    assert outcome.checks[0].reference == pytest.approx(1 - (1 - 1 / 50) ** 20)
    assert outcome.checks[0].holds


def test_replicas_that_cannot_answer_all_fail_requests_before_any_election() -> None:
    outcome = asked("why-not-scale-metadata", 1, replica_per_s=44_600.0)
    assert "fail 50% of requests on a quiet day" in outcome.conclusion
    # Of a second's requests, no more can fail for the election than came.
    assert 0 < figure(outcome, "of these failed") < 89.2e6
