"""Scenarios: what a run is, how it ends, and what it says."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from sim_world import SMALL

from keyplane.history.linearizability import Finding, Verdict
from keyplane.history.operation import Kind, Operation
from keyplane.model.errors import KeyplaneError, Reason
from sim import INVARIANTS, Observer, Scenario, Topology, WorkloadSpec
from sim.history import History
from sim.load import Load, Window
from sim.operator import Action
from sim.process import SimProcess
from sim.world import World
from wire.faults import FaultKind

DOWN = KeyplaneError(Reason.DATABASE_ERROR, "as a test has it", retry_after_s=0.5)
SINGLE = WorkloadSpec(lanes=2, think_s=0.1, mix={"put": 3.0, "get": 2.0, "delete": 1.0})


# --- a run that holds ---------------------------------------------------------------------------


def test_the_scenario_of_the_documentation_holds() -> None:
    """One router is cut off from one storage node, and a partition is split meanwhile."""
    scenario = Scenario(seed=1, topology=Topology(routers=2, storage=3))
    scenario.fault("partition", "router-1", "storage-2", at=2.0, seconds=3.0)
    scenario.at(4.0, lambda: scenario.operator.split("orders"))
    result = scenario.run(seconds=10.0)
    assert result.held, result
    assert scenario.operator.asked == 3, "the table, the split, and one when all is calm"
    assert scenario.load.window(2.0, 5.0).requests > 0
    assert str(result).startswith("seed 1: held, ")


def test_faults_without_an_end_last_until_all_faults_end() -> None:
    """And then everything must recover, which it does."""
    scenario = Scenario(1, SMALL)
    for kind, target in (
        ("kill", "storage-1"),
        ("pause", "router-1"),
        ("memds-down", "memds-1"),
        ("metadata-down", "metadata"),
    ):
        scenario.fault(kind, target, at=1.0)
    ended: list[int] = []
    scenario.at(4.99, lambda: ended.append(len(scenario.faults.active)))
    result = scenario.run(5.0)
    assert result.held, result
    assert ended == [4]
    assert scenario.faults.active == []


def test_a_run_takes_at_least_as_long_as_is_asked_for() -> None:
    result = Scenario(1, SMALL).run(2.0, least_s=30.0)
    assert 30.0 <= result.virtual_seconds < 32.0


def test_what_is_planned_happens_when_it_is_planned_for() -> None:
    """In order of time, counted from the beginning of the load."""
    scenario = Scenario(1, SMALL)
    times: list[float] = []

    def note() -> None:
        times.append(scenario.world.now - scenario.load.began_at)

    scenario.at(2.0, note)
    scenario.at(0.5, note)
    scenario.run(3.0)
    assert times == pytest.approx([0.5, 2.0])


@pytest.mark.parametrize(
    ("plan", "remedy"),
    [
        (
            lambda scenario: scenario.fault("kill", "storage-1", at=12.0),
            "kill storage-1 is planned to begin at 12 s, and faults go on for 5 s",
        ),
        (
            lambda scenario: scenario.plan_action(Action(1.0, "juggle", 0.0, 0.0)),
            "knows no 'juggle'; it knows: split, merge",
        ),
    ],
)
def test_what_cannot_happen_is_refused(plan: object, remedy: str) -> None:
    scenario = Scenario(1, SMALL)
    with pytest.raises(KeyplaneError, match=remedy) as raised:
        plan(scenario)  # type: ignore[operator]
        scenario.run(5.0)
    assert raised.value.reason is Reason.INVALID_ARGUMENT


@pytest.mark.parametrize("mix", [{}, {"put": 0.0}, {"put": 1.0, "steal": 1.0}])
def test_a_mix_of_requests_that_there_are_not_is_refused(mix: dict[str, float]) -> None:
    with pytest.raises(KeyplaneError, match="kinds of request: put, get"):
        Scenario(1, SMALL, WorkloadSpec(mix=mix))


# --- a run that does not ------------------------------------------------------------------------


class Alarm(Observer):
    """Somebody's own invariant: nobody asks for anything after the first second of the load."""

    def on_request(self, call: object, server: SimProcess) -> None:
        if self.world.now > 5.0:
            self.world.violate("no-noise", f"{server.name} was asked", server.name)


def test_a_violation_found_by_a_watcher_of_ones_own_ends_the_run() -> None:
    result = Scenario(1, SMALL, watchers=[*INVARIANTS, Alarm]).run(20.0)
    violation = result.violation
    assert violation is not None
    assert violation.invariant == "no-noise"
    assert violation.message.endswith("was asked")
    assert result.virtual_seconds == violation.at < 6.0
    assert not result.held
    assert str(result) == f"seed 1: VIOLATED {violation}"


def test_an_exception_in_the_code_is_a_finding_with_its_traceback() -> None:
    """And with the process in whose code it was."""
    scenario = Scenario(1, SMALL)

    def stumble() -> None:
        raise RuntimeError("a bug in the product")

    def plant() -> None:
        process = scenario.world.process("storage-2")
        assert process is not None
        process.clock.call_later(0.5, stumble)

    scenario.at(1.0, plant)
    result = scenario.run(5.0)
    violation = result.violation
    assert violation is not None
    assert violation.invariant == "no-crash"
    assert violation.message == "RuntimeError: a bug in the product"
    assert violation.about == {"storage-2"}
    assert "Traceback" in result.details
    assert "in stumble" in result.details


def test_a_check_of_ones_own_that_fails_is_a_finding_too() -> None:
    scenario = Scenario(1, SMALL)

    def check() -> None:
        assert scenario.load.requests == 0, "nobody was to ask for anything"

    scenario.at(1.0, check)
    violation = scenario.run(5.0).violation
    assert violation is not None
    assert violation.message.startswith("AssertionError: nobody was to ask")
    assert violation.about == frozenset()


def test_a_world_that_does_not_settle_is_not_live() -> None:
    """A storage node is stopped by no fault, so no end of faults sets it going again."""
    scenario = Scenario(1, SMALL)

    def stop() -> None:
        process = scenario.world.process("storage-1")
        assert process is not None
        process.stop()
        for at in (0.2, 0.7):
            scenario.operator.split("orders", at)

    scenario.at(1.0, stop)
    violation = scenario.run(2.0).violation
    assert violation is not None
    assert violation.invariant == "liveness"
    assert violation.message.startswith("not within 40 s: all operations end")


def test_a_request_that_fails_when_all_is_well_again_is_not_forgiven() -> None:
    class Saboteur(Observer):
        def calm(self) -> None:
            process = self.world.process("router-1")
            assert process is not None
            process.stop()

    workload = WorkloadSpec(timeout_s=1.0)
    scenario = Scenario(1, replace(SMALL, routers=1), workload, watchers=[Saboteur])
    violation = scenario.run(2.0).violation
    assert violation is not None
    assert violation.invariant == "liveness"
    assert "when nothing was wrong any more" in violation.message


def test_a_history_that_is_too_tangled_is_undecided(monkeypatch: pytest.MonkeyPatch) -> None:
    finding = Finding(Verdict.UNDECIDED, "orders/k1", "too many at once", ())
    monkeypatch.setattr("sim.scenario.check_history", lambda *_: finding)
    result = Scenario(1, SMALL).run(1.0)
    assert result.violation is None
    assert not result.held
    assert str(result) == "seed 1: could not tell: too many at once"


# --- load ---------------------------------------------------------------------------------------


def asked(left_out: frozenset[str]) -> dict[str, list[tuple[Kind, str]]]:
    """What each lane asked for, in order."""
    scenario = Scenario(1, SMALL, SINGLE, left_out=left_out)
    assert scenario.run(3.0).held
    lanes: dict[str, list[tuple[Kind, str]]] = {}
    for operation in scenario.history.operations:
        lanes.setdefault(operation.lane, []).append((operation.kind, operation.key))
    return lanes


def test_a_request_left_out_leaves_all_others_as_they_were() -> None:
    """The n-th request of a lane depends on nothing but the lane and n."""
    everything = asked(frozenset())["client-1/0"]
    without = asked(frozenset({"client-1/0#3", "client-1/0#5"}))["client-1/0"]
    expected = [*everything[:2], everything[3], *everything[5:]]
    common = min(len(expected), len(without))
    assert common > 15
    assert without[:common] == expected[:common]


def test_a_lane_left_out_leaves_all_others_as_they_were() -> None:
    everything, without = asked(frozenset()), asked(frozenset({"client-1/0"}))
    assert "client-1/0" not in without
    one, other = everything["client-1/1"], without["client-1/1"]
    common = min(len(one), len(other))
    assert common > 15
    assert one[:common] == other[:common]


def test_a_window_counts_requests_by_when_they_began() -> None:
    """Its beginning is in it, its end is not; the latency is of those that succeeded."""
    with World(1, SMALL) as world:
        load = Load(world, History(), SINGLE)
        load.began_at = 100.0
        load.latencies = [(100.0 + n, 0.01 * (n + 1)) for n in range(10)]
        error = KeyplaneError(Reason.DEADLINE_EXCEEDED, "late")
        load.failures = [(109.0, 102.0, error), (120.0, 110.0, error)]
        assert load.window(2.0, 5.0) == Window(4, 1, pytest.approx(0.05))
        assert load.window(2.0, 5.0).success_ratio == 0.75
        assert load.window(0.0, math.inf) == Window(12, 2, pytest.approx(0.10))
        assert load.window(50.0, 60.0) == Window(0, 0, 0.0)
        assert load.window(50.0, 60.0).success_ratio == 1.0


def test_an_outage_shows_in_its_window_and_not_before() -> None:
    scenario = Scenario(1, SMALL, WorkloadSpec(lanes=4, think_s=0.1, timeout_s=1.0))
    scenario.fault(FaultKind.PARTITION, "client-1", at=2.0, seconds=3.0)
    result = scenario.run(8.0)
    assert result.held, result
    assert scenario.load.window(0.0, 1.0).success_ratio == 1.0
    assert scenario.load.window(2.1, 3.9).success_ratio == 0.0
    assert scenario.load.window(5.0, 8.0).success_ratio == 1.0
    assert result.failed == sum(result.failures.values()) > 0
    assert result.success_ratio == 1.0 - result.failed / result.requests


# --- a full trace -------------------------------------------------------------------------------


def test_a_full_trace_has_every_message_in_the_order_of_cause_and_effect() -> None:
    """Lamport times rise at each process, and a message is received later than it was sent."""
    scenario = Scenario(1, SMALL, full_trace=True)
    scenario.fault("restart", "storage-1", at=1.0)
    result = scenario.run(2.0)
    assert result.held, result
    assert result.trace is not None
    last: dict[str, int] = {}
    for line in result.trace.lines:
        assert line.lamport > last.get(line.process, 0)
        last[line.process] = line.lamport
    text = "\n".join(map(str, result.trace.lines))
    for what in ("-> router-1: PutItem orders/k", "is killed", "starts, life 2", "all faults end"):
        assert what in text
    puts = [line for line in result.trace.lines if "PutItem" in line.what][:4]
    assert [line.what[:2] for line in puts] == ["->", "<-", "=>", "<="]
    assert [line.process for line in puts] == ["client-1", "router-1", "router-1", "client-1"]
    assert puts[0].about == puts[3].about != frozenset()


def test_a_full_trace_changes_nothing() -> None:
    quick, full = (Scenario(1, SMALL, full_trace=full).run(2.0) for full in (False, True))
    assert quick.trace_hash == full.trace_hash
    assert quick.trace is not None
    assert quick.trace.lines == []


def test_a_lost_write_is_explained_by_the_operations_on_its_item(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """I2 names the item, and the result the operations that no order explains."""
    monkeypatch.setattr("storage.memory._View.apply", lambda view, batch: None)
    result = Scenario(1, SMALL, SINGLE).run(3.0)
    violation = result.violation
    assert violation is not None
    assert violation.invariant == "I2"
    (key,) = violation.about
    assert key.startswith("orders/k")
    assert violation.message.startswith(f"{key}: ")
    assert "put 'client-1/" in result.details


def test_a_metadata_store_that_begins_nothing_any_more_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Even if all that was asked of it before is done."""
    scenario = Scenario(1, SMALL)

    def refuse() -> None:
        monkeypatch.setattr("metadata.writer.Writer._refusal", lambda self: DOWN)

    scenario.at(1.0, refuse)
    violation = scenario.run(2.0).violation
    assert violation is not None
    assert violation.invariant == "liveness"
    assert "when nothing is wrong any more succeeds" in violation.message


def test_operations_are_recorded_as_they_went() -> None:
    scenario = Scenario(1, SMALL)
    result = scenario.run(3.0)
    operations: list[Operation] = scenario.history.operations
    assert all(each.ended_at < math.inf for each in operations)
    assert {each.lane.split("/")[0] for each in operations} == {"client-1"}
    assert sum(each.kind is Kind.PUT for each in operations) > 0
    last = [each for each in operations if each.lane == "client-1/last"]
    assert [each.key for each in last] == [key.name for key in scenario.load.keys]
    assert result.requests == len(scenario.load.made)
