"""A scenario: a row of a table, and how every row is run and judged."""

from __future__ import annotations

import enum
import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from fault_figures import availability, p99_ms, recovery_s, succeeded
from fault_scene import Scene, wait_until

from keyplane.cluster import Cluster
from keyplane.history.linearizability import Verdict, check_history
from keyplane.history.operation import Operation, Outcome

# Answers before anything is broken, so that the load is under way.
WARM_UP = 60


class Spares(enum.Enum):
    """Whose requests must all succeed, whatever is broken."""

    EVERYBODY = enum.auto()
    # Those for keys of storage nodes other than the victim.
    OTHER_NODES = enum.auto()
    # Some of any may fail.
    NOBODY = enum.auto()


@dataclass(frozen=True)
class Scenario:
    """name: as in reports. claim: what holds, in a sentence.

    act: breaks things, and heals them or leaves that to the runner. Whatever it asserts, it does so
    under load.
    """

    name: str
    claim: str
    act: Callable[[Scene], None]
    spares: Spares = Spares.NOBODY
    long_only: bool = False

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Report:
    """availability: share of the requests that succeeded, from the breaking until service was back.
    recovery_s: from the healing until then, in steps of a window.
    """

    scenario: str
    seed: int
    requests: int
    ok: int
    failed: int
    unknown: int
    availability: float
    p99_ms: float
    recovery_s: float
    seconds: float
    reasons: dict[str, int]
    notes: list[str]

    def line(self) -> str:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(self.reasons.items()))
        more = "; ".join(filter(None, (reasons, *self.notes)))
        return (
            f"{self.scenario:<34} {100 * self.availability:7.2f} % {self.p99_ms:8.0f} ms "
            f"{self.recovery_s:7.2f} s {self.requests:7,} {more}"
        )

    def to_json(self) -> str:
        return json.dumps(asdict(self))


def run(scenario: Scenario, cluster: Cluster, long: bool, seed: int, directory: Path) -> Report:
    """Runs it, and checks what must hold after every scenario and what must after this one.

    directory: where the history of a run goes that failed.
    """
    scene = Scene(cluster, f"{scenario.name}-{seed}", seed, long)
    operations = scene.load.operations
    assert scene.owners
    scene.load.start()
    try:
        wait_until(lambda: len(operations) >= WARM_UP, "the load runs")
        began_at = time.monotonic()
        scenario.act(scene)
        scene.healed_at = scene.healed_at or time.monotonic()
        scene.faults.heal_all()
        scene.revive()
        recovered_s = _until_recovered(scene)
        ended_at = time.monotonic()
        scene.settle()
    finally:
        scene.faults.heal_all()
        scene.load.stop()
    during = [each for each in operations if began_at <= each.invoked_at <= ended_at]
    report = _report(scenario, scene, during, recovered_s, ended_at - began_at)
    print(report.line())
    print(report.to_json())
    try:
        _judge(scenario, scene, during)
    except AssertionError:
        _keep(operations, directory / f"{scenario.name}-{seed}.jsonl")
        raise
    return report


def _until_recovered(scene: Scene) -> float:
    found: list[float] = []

    def recovered() -> bool:
        load = scene.load
        since = recovery_s(
            list(load.operations), list(load.in_flight.values()), scene.healed_at, time.monotonic()
        )
        found.extend(() if since is None else (since,))
        return since is not None

    wait_until(recovered, "requests succeed again")
    return found[0]


def _judge(scenario: Scenario, scene: Scene, during: list[Operation]) -> None:
    finding = check_history(scene.load.operations)
    assert finding.verdict is Verdict.HELD, f"{finding.message}\n{_lines(finding.operations)}"
    hurt = [each for each in during if not succeeded(each) and _is_spared(scenario, scene, each)]
    assert not hurt, f"{len(hurt)} requests failed that had to succeed:\n{_lines(hurt[:10])}"


def _is_spared(scenario: Scenario, scene: Scene, operation: Operation) -> bool:
    if scenario.spares is Spares.OTHER_NODES:
        return scene.owners[operation.key] != scene.victim
    return scenario.spares is Spares.EVERYBODY


def _report(
    scenario: Scenario, scene: Scene, during: list[Operation], recovered_s: float, seconds: float
) -> Report:
    outcomes = Counter(each.outcome for each in during)
    return Report(
        scenario=scenario.name,
        seed=scene.seed,
        requests=len(during),
        ok=outcomes[Outcome.OK] + outcomes[Outcome.CONDITION_FAILED],
        failed=outcomes[Outcome.FAILED],
        unknown=outcomes[Outcome.UNKNOWN],
        availability=round(availability(during), 5),
        p99_ms=round(p99_ms(during), 1),
        recovery_s=recovered_s,
        seconds=round(seconds, 1),
        reasons=dict(Counter(each.reason for each in during if not succeeded(each))),
        notes=scene.notes,
    )


def _lines(operations: object) -> str:
    return "\n".join(f"  {each}" for each in operations)  # type: ignore[attr-defined]


def _keep(operations: list[Operation], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(map(repr, operations)))
