"""What designs do when things go wrong, against closed forms and arithmetic."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from quiet import quiet

from fleet.closed.caches import KeyClasses, outage_availability
from fleet.cohort.lookups import Flush, Lookups, run_lookups
from fleet.design import (
    Cache,
    Design,
    Fault,
    FaultKind,
    Memds,
    Metadata,
    Policies,
    Routers,
    Traffic,
    as_scenario,
    check,
    run_design,
)
from fleet.design.evaluate import MEMDS, METADATA, evaluate
from fleet.outcome import Outcome
from fleet.parameters import make_parameters

EXAMPLES = sorted(
    path
    for path in (Path(__file__).resolve().parents[3] / "docs/designs").iterdir()
    if path.suffix in (".toml", ".py")
)

QUIET = quiet()

BASE = Design(
    name="base",
    duration_s=60.0,
    traffic=Traffic(rate_per_s=50_000.0, keys=1_000),
    routers=Routers(count=50),
    metadata=Metadata(replicas=3, capacity_per_s=20_000.0),
)


def of(cache: Cache, *faults: Fault, **parts: object) -> Design:
    routers = replace(BASE.routers, cache=cache)
    return check(replace(BASE, routers=routers, faults=faults, **parts))


def figure(outcome: Outcome, name: str) -> float:
    (found,) = (each.value for each in outcome.figures if each.name == name)
    return found


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_every_example_runs_and_its_checks_hold(path: Path) -> None:
    scenario = as_scenario(path)
    parameters = make_parameters(scenario.parameters, None, {})
    outcome = scenario.run(parameters, QUIET)
    assert outcome.checks
    assert all(each.holds for each in outcome.checks)
    assert outcome.requests_simulated == 0
    assert outcome.requests_represented > 0
    assert outcome.conclusion.endswith(".")
    assert scenario.question.endswith("?")
    for plot in outcome.plots:
        assert plot.marks
    again = scenario.run(parameters, QUIET)
    assert again.figures == outcome.figures


def test_there_are_examples_of_both_kinds_and_every_cache() -> None:
    assert {path.suffix for path in EXAMPLES} == {".toml", ".py"}


@pytest.mark.parametrize("outage_s", [5.0, 20.0, 40.0])
def test_an_outage_costs_a_ttl_cache_what_the_closed_form_says(outage_s: float) -> None:
    design = of(
        Cache.TTL,
        Fault(FaultKind.METADATA_DOWN, at_s=10.0, for_s=outage_s),
        policies=Policies(retries=0, queue=0),
    )
    design = replace(design, routers=replace(design.routers, ttl_s=20.0))
    run = evaluate(design)
    rate = design.traffic.rate_per_s
    keys = KeyClasses(np.array([1_000.0]), np.array([1 / 1_000]))
    expected = outage_availability(
        keys, rate / design.routers.count, 20.0, design.step_s / 2, outage_s
    )
    assert 1 - run.failed.sum() / (rate * outage_s) == pytest.approx(expected, rel=0.01)


def test_constant_work_is_constant_whatever_happens() -> None:
    design = of(
        Cache.MEMDS,
        Fault(FaultKind.METADATA_DOWN, at_s=10.0, for_s=40.0),
        Fault(FaultKind.MEMDS_DOWN, at_s=15.0, for_s=10.0),
        Fault(FaultKind.MEMDS_NODE_SLOW, at_s=30.0, for_s=10.0),
    )
    outcome = run_design(design, QUIET)
    assert figure(outcome, "worst amplification") == pytest.approx(1.0)
    assert figure(outcome, "load on MemDS before") == pytest.approx(50 * 4 / 0.25)
    assert figure(outcome, "requests failed") == 0
    assert "no request fails" in outcome.conclusion


def test_routers_that_lose_the_map_while_memds_is_down_have_to_wait_for_both() -> None:
    """MemDS is empty when it is back, and only the Metadata Store can fill it."""

    def failed(metadata_until_s: float) -> float:
        design = of(
            Cache.MEMDS,
            Fault(FaultKind.MEMDS_DOWN, at_s=10.0, for_s=5.0),
            Fault(FaultKind.METADATA_DOWN, at_s=10.0, for_s=metadata_until_s - 10.0),
            Fault(FaultKind.COLD_CACHES, at_s=11.0),
        )
        design = replace(design, routers=replace(design.routers, detours_per_s=1.0))
        return float(evaluate(design).failed.sum())

    short, long = failed(15.0), failed(35.0)
    assert long - short == pytest.approx(20.0 * (50_000 - 50), rel=0.05)


def test_without_a_cache_requests_fail_with_the_metadata_store() -> None:
    design = of(
        Cache.NONE,
        Fault(FaultKind.METADATA_DOWN, at_s=20.0, for_s=10.0),
        policies=Policies(retries=0, queue=0),
    )
    outcome = run_design(design, QUIET)
    assert figure(outcome, "requests failed") == pytest.approx(10 * 50_000, rel=0.01)
    assert figure(outcome, "lowest availability") == pytest.approx(0.0, abs=0.1)
    assert figure(outcome, "load on Metadata Store before") == pytest.approx(50_000, rel=1e-6)
    assert figure(outcome, "time to recover") < 0.5


def test_with_every_request_memds_has_the_same_load_warm_and_cold() -> None:
    warm = evaluate(of(Cache.MEMDS_PER_REQUEST))
    cold = evaluate(of(Cache.MEMDS_PER_REQUEST, Fault(FaultKind.COLD_CACHES, at_s=10.0)))
    assert warm.load[MEMDS].max() == pytest.approx(50_000, rel=1e-6)
    assert cold.load[MEMDS].max() == pytest.approx(50_000, rel=1e-6)
    assert cold.hits.min() < 0.2 * warm.hits.min()
    assert cold.failed.sum() == 0


def test_a_slow_node_fails_those_who_find_it_with_every_try_unless_hedged() -> None:
    slow = Fault(FaultKind.MEMDS_NODE_SLOW, at_s=10.0, for_s=10.0, nodes=2, by_s=0.5)
    cold = Fault(FaultKind.COLD_CACHES, at_s=12.0)
    memds = Memds(nodes=4)
    bare = evaluate(
        of(Cache.MEMDS_PER_REQUEST, slow, cold, memds=memds, policies=Policies(retries=1))
    )
    cold_only = evaluate(
        of(Cache.MEMDS_PER_REQUEST, cold, memds=memds, policies=Policies(retries=1))
    )
    misses = cold_only.well.sum() - cold_only.hits.sum()
    assert bare.failed.sum() == pytest.approx(misses / 4, rel=0.01)
    hedged = evaluate(
        of(Cache.MEMDS_PER_REQUEST, slow, cold, memds=memds, policies=Policies(hedge_s=0.01))
    )
    assert hedged.failed.sum() == 0
    assert hedged.load[MEMDS].max() == pytest.approx(1.5 * 50_000, rel=1e-6)


def test_what_memds_lost_is_written_anew_before_anybody_gets_it() -> None:
    design = of(
        Cache.MEMDS_PER_REQUEST,
        Fault(FaultKind.MEMDS_DOWN, at_s=10.0, for_s=5.0),
        Fault(FaultKind.METADATA_DOWN, at_s=10.0, for_s=20.0),
        Fault(FaultKind.COLD_CACHES, at_s=12.0),
        policies=Policies(retries=0),
    )
    run = evaluate(design)
    bad = run.time_s[run.failed > 1]
    assert bad[0] == pytest.approx(12.0, abs=0.2)
    # The Metadata Store is back at 30 s and writes all pages in one beat.
    assert bad[-1] == pytest.approx(30.0 + design.metadata.publish_s, abs=0.2)
    assert run.load[METADATA][1_500] == 0
    assert run.load[METADATA][4_000] > 0


def test_a_restart_wave_is_milder_than_all_at_once() -> None:
    tight = Metadata(replicas=1, capacity_per_s=20_000.0)
    wave = run_design(
        of(Cache.TTL, Fault(FaultKind.RESTART_WAVE, at_s=10.0, for_s=40.0), metadata=tight), QUIET
    )
    crash = run_design(
        of(Cache.TTL, Fault(FaultKind.COLD_CACHES, at_s=10.0), metadata=tight), QUIET
    )
    peak = "peak load on Metadata Store"
    assert figure(wave, peak) < 0.3 * figure(crash, peak)
    assert figure(wave, "requests failed") <= figure(crash, "requests failed")


def test_a_budget_bounds_retries() -> None:
    fleet = Lookups(
        routers=[50.0],
        keys=KeyClasses(np.array([1_000.0]), np.array([1e-3])),
        rate_per_s=1_000.0,
        ttl_s=60.0,
        capacity_per_s=500.0,
        bound=50.0,
        timeout_s=0.1,
        retries=3,
        backoff_s=0.05,
        hits=np.ones(1),
        flushes=[Flush(1.0, [1.0])],
    )
    ones = np.ones(1_000)
    free = run_lookups(fleet, 0.01, ones, ones)
    bounded = run_lookups(replace(fleet, retry_budget=0.1, retry_burst=20.0), 0.01, ones, ones)
    assert free.attempts.sum() > 2 * free.wanted.sum()
    retries = bounded.attempts.sum() - bounded.wanted.sum()
    assert retries <= 0.1 * bounded.wanted.sum() + 20.0 + 1e-6
    for run in (free, bounded):
        ended = run.hits.sum() + run.answered.sum() + run.failed.sum() + run.waiting[-1]
        assert ended == pytest.approx(run.arrived.sum(), rel=1e-9)
    # A budget so large that it never matters changes nothing.
    large = run_lookups(replace(fleet, retry_budget=1e6, retry_burst=1e9), 0.01, ones, ones)
    assert np.array_equal(large.attempts, free.attempts)


def test_a_design_that_never_recovers_says_so() -> None:
    design = of(
        Cache.TTL,
        Fault(FaultKind.COLD_CACHES, at_s=10.0),
        metadata=Metadata(replicas=1, capacity_per_s=100.0),
        policies=Policies(queue=100),
    )
    outcome = run_design(design, QUIET)
    assert "does not recover within the run" in outcome.conclusion
    assert "time to recover" not in {each.name for each in outcome.figures}
    assert all(math.isfinite(each.value) for each in outcome.figures)
