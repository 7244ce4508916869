"""Constant work: the same requests on every beat, and what routers know meanwhile."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.cohort.beats import PAGES_PER_BEAT, READER, BeatRun, Beats, run_beats
from fleet.cohort.lookups import Flush
from fleet.outcome import Array
from keyplane.model.errors import KeyplaneError

STEP_S = 0.01


def beats(
    *,
    losses: tuple[Flush, ...] = (),
    emptied_at_s: tuple[float, ...] = (),
    capacity_per_s: float = 1e5,
    detours_per_s: float = 1e9,
    aligned: bool = False,
    covered: float = 1.0,
) -> Beats:
    return Beats(
        routers=[100.0],
        rate_per_s=1_000.0,
        pages=640.0,
        capacity_per_s=capacity_per_s,
        bound=1_000.0,
        memds_nodes=3,
        detours_per_s=detours_per_s,
        covered=[covered],
        aligned=aligned,
        losses=losses,
        emptied_at_s=emptied_at_s,
    )


def ran(of: Beats, seconds: float, **given_: Array) -> BeatRun:
    ones = np.ones(round(seconds / STEP_S))
    series = {"load": ones, "memds": ones, "control": ones, **given_}
    return run_beats(of, STEP_S, series["load"], series["memds"], series["control"])


@settings(max_examples=40, deadline=None)
@given(
    idle=st.booleans(),
    lost=st.floats(0, 1),
    emptied=st.booleans(),
    dark=st.tuples(st.integers(0, 900), st.integers(0, 900)),
    capacity=st.floats(1, 1e5),
    detours=st.floats(0, 2_000),
)
def test_nothing_changes_what_memds_is_asked(
    idle: bool,
    lost: float,
    emptied: bool,
    dark: tuple[int, int],
    capacity: float,
    detours: float,
) -> None:
    """I7; and each request is served, takes a detour or fails."""
    of = beats(
        losses=(Flush(2.0, [lost]),),
        emptied_at_s=(3.0,) if emptied else (),
        capacity_per_s=capacity,
        detours_per_s=detours,
    )
    health = np.ones(1_000)
    health[min(dark) : max(dark)] = 0.0
    run = ran(of, 10, load=np.zeros(1_000) if idle else np.ones(1_000), memds=health)
    assert run.rate(run.asked) == pytest.approx(of.memds_per_s)
    assert run.answered + run.lost == pytest.approx(run.asked)
    assert run.served + run.detoured + run.failed == pytest.approx(run.arrived)
    assert run.failed.min() >= -1e-9
    assert 0 <= run.coverage.min() <= run.coverage.max() <= 1


def test_an_empty_router_has_the_map_after_as_many_beats_as_it_has_pages() -> None:
    of = beats(covered=0.0)
    run = ran(of, 10)
    whole = np.flatnonzero(run.coverage > 1 - 1e-9)[0] * STEP_S
    assert of.load_s == 640 / PAGES_PER_BEAT * READER.beat_s
    assert whole == pytest.approx(of.load_s, abs=READER.beat_s)


def test_a_map_grows_old_while_the_publisher_is_gone_and_nothing_else_happens() -> None:
    control = np.ones(6_000)
    control[1_000:5_000] = 0.0
    run = ran(beats(), 60, control=control)
    assert run.failed.sum() == 0
    assert run.detoured.sum() == 0
    # Read right after a beat of the publisher at best, and a beat of the reader later at worst.
    assert run.age_s[4_999] == pytest.approx(40, abs=0.75)
    assert run.age_max_s[5_100:].max() <= 0.5 + 0.25 + 1e-9


def test_memds_emptied_takes_nothing_from_routers() -> None:
    run = ran(beats(emptied_at_s=(2.0,)), 10)
    assert run.memds_full.min() < 0.5 < run.memds_full[-1]
    assert run.coverage.min() == pytest.approx(1.0)


def test_routers_that_beat_together_ask_all_at_once() -> None:
    run = ran(beats(aligned=True), 1)
    assert run.asked.max() == 400
    assert run.asked.sum() == pytest.approx(beats().memds_per_s)


def test_requests_past_the_detours_fail() -> None:
    run = ran(beats(covered=0.0, detours_per_s=100), 0.5)
    assert run.detoured[0] == pytest.approx(100 * 100 * STEP_S)
    assert run.failed[0] == pytest.approx(run.arrived[0] - run.served[0] - run.detoured[0])


def test_a_step_that_does_not_divide_the_beat_is_refused() -> None:
    with pytest.raises(KeyplaneError, match="whole steps"):
        run_beats(beats(), 0.007, np.ones(1), np.ones(1), np.ones(1))
