"""A failing plan made short, and what is left of a run afterwards."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sim_world import SMALL

from sim.operator import Action
from sim.plan import Plan, TimedFault
from sim.report import describe_plan, describe_violation
from sim.run import run_plan, run_seed
from sim.scenario import Result
from sim.shrink import Progress, Shrinker
from sim.workload import WorkloadSpec
from wire.faults import Fault, FaultKind


def plan(profile: str = "lite") -> Plan:
    """Six faults and three operations, of which a bug in one kind of fault needs one."""
    kinds = (
        FaultKind.PARTITION,
        FaultKind.MEMDS_FLUSH,
        FaultKind.FULL_DISK,
        FaultKind.RESTART,
        FaultKind.SLOW_DISK,
        FaultKind.METADATA_DOWN,
    )
    targets = ("router-1", "memds-1", "storage-1", "router-2", "storage-2", "metadata")
    faults = [
        TimedFault(
            0.5 + 0.4 * number,
            1.0,
            Fault(
                f"fault-{number}",
                kind,
                target,
                parameters={"delay_s": 0.05} if kind is FaultKind.SLOW_DISK else {},
            ),
        )
        for number, (kind, target) in enumerate(zip(kinds, targets, strict=True))
    ]
    return Plan(
        seed=1,
        profile=profile,
        topology=SMALL,
        workload=WorkloadSpec(lanes=2, think_s=0.1, mix={"put": 1.0, "get": 1.0}),
        faults=tuple(faults),
        actions=tuple(Action(0.5 * number, "split", 0.3, 0.9) for number in range(1, 4)),
        faults_s=4.0,
        least_s=30.0,
    )


@pytest.fixture
def bug(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full says that it has stored what it has not."""
    from storage.memory import MemoryEngine

    commit = MemoryEngine.commit

    def forgetful(self: MemoryEngine, batch, sync, on_done) -> None:  # type: ignore[no-untyped-def]
        commit(self, batch, sync, lambda _: on_done(None))

    monkeypatch.setattr(MemoryEngine, "commit", forgetful)


@pytest.mark.usefixtures("bug")
def test_a_failing_plan_gets_short_and_fails_in_the_same_way() -> None:
    """What is left is the fault that matters, no operation, and a handful of requests."""
    said: list[Progress] = []
    shrinker = Shrinker(plan(), said.append, runs_max=120)
    invariant = shrinker.result.violation
    assert invariant is not None
    short = shrinker.shrink()
    assert [each.fault.kind for each in short.faults] == [FaultKind.FULL_DISK]
    assert short.actions == ()
    assert shrinker.runs == said[-1].runs + 1 <= 121
    assert {each.what for each in said} == {"faults", "operations", "lanes", "requests"}
    again = run_plan(short)
    assert again.violation is not None
    assert again.violation.invariant == invariant.invariant
    assert again.trace_hash == shrinker.result.trace_hash
    assert again.requests < run_plan(plan()).requests / 4


@pytest.mark.usefixtures("bug")
def test_shrinking_stops_at_its_bound_with_what_it_has() -> None:
    shrinker = Shrinker(plan(), runs_max=3)
    short = shrinker.shrink()
    assert run_plan(short).violation is not None
    assert len(short.faults) <= len(plan().faults)


def test_a_plan_that_holds_cannot_be_shrunk() -> None:
    with pytest.raises(ValueError, match="seed 1 of profile lite violates nothing"):
        Shrinker(plan())


# --- what people are shown ----------------------------------------------------------------------


@pytest.mark.usefixtures("bug")
def test_a_report_has_the_seed_the_hash_the_invariant_and_the_trace() -> None:
    result = run_plan(plan(), full_trace=True)
    violation = result.violation
    assert violation is not None
    lines = list(describe_violation(result))
    assert lines[0] == f"{violation.invariant} does not hold"
    text = "\n".join(lines)
    assert f"trace hash  {result.trace_hash}" in text
    assert violation.message in text
    assert "earlier lines; --everything shows all" in text
    everything = "\n".join(describe_violation(result, everything=True))
    assert "world       fault begins: full-disk storage-1" in everything
    assert lines[-1] in everything


def test_a_run_that_held_is_one_line() -> None:
    result = run_plan(replace(plan(), faults=(), actions=()))
    assert list(describe_violation(result)) == [str(result)]


def test_a_plan_is_told_in_the_order_of_time_with_what_is_left_out() -> None:
    short = replace(plan(), left_out=frozenset({"client-1/0", "client-1/1#4", "client-1/1#7"}))
    lines = list(describe_plan(short))
    times = [float(line.split()[0]) for line in lines[:-1]]
    assert times == sorted(times)
    assert len(times) == 9
    assert lines[-1] == "left out: lanes client-1/0; 2 requests of the others"


# --- with and without the control plane (I6) ----------------------------------------------------


def result_of(failed: int, latency_s_p99: float) -> Result:
    return Result(1, None, "", 60.0, 1000, failed, {}, latency_s_p99, f"{failed:032x}", 100)


@pytest.mark.parametrize(
    ("with_outage", "without", "message"),
    [
        ((0, 0.02), (0, 0.02), None),
        ((1, 0.02), (0, 0.02), None),
        ((9, 0.02), (0, 0.02), "99.100% of requests succeeded while the control plane was away"),
        ((0, 0.09), (0, 0.02), "99 % of requests took up to 90.0 ms"),
        ((0, 0.02), (9, 0.09), None),
    ],
)
def test_an_outage_of_the_control_plane_may_not_show(
    monkeypatch: pytest.MonkeyPatch,
    with_outage: tuple[int, float],
    without: tuple[int, float],
    message: str | None,
) -> None:
    """The same seed runs twice; more failures or slower answers than by chance are I6."""

    def run(ran: Plan, full_trace: bool = False) -> Result:
        down = any(each.fault.kind is FaultKind.METADATA_DOWN for each in ran.faults)
        return result_of(*(with_outage if down else without))

    monkeypatch.setattr("sim.run.run_plan", run)
    result = run_seed(plan("control-plane-outage"))
    assert result.requests == 2000
    if message is None:
        assert result.violation is None
    else:
        assert result.violation is not None
        assert result.violation.invariant == "I6"
        assert message in result.violation.message
