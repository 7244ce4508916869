"""The same seed and the same code go the same way, whoever runs them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from itertools import chain, count, islice
from pathlib import Path

import pytest

from sim.batch import run_seeds
from sim.faults import FaultDriver
from sim.plan import Plan, draw_plan
from sim.profiles import PROFILES
from sim.run import run_plan
from sim.rundir import read_plan, write_plan
from sim.world import World
from wire.faults import FaultKind

# Short runs of each: seconds of faults, where the profile has a minute.
RUN = """
import json
from dataclasses import replace
from sim.plan import draw_plan
from sim.run import run_plan

hashes = {}
for profile, seed in (("lite", 3), ("lite", 4), ("swarm", 3), ("gray", 3), ("tenants", 3)):
    plan = draw_plan(seed, profile)
    faults = tuple(each for each in plan.faults if each.at < 8.0)
    plan = replace(plan, faults=faults, faults_s=8.0, least_s=0.0)
    hashes[f"{profile} {seed}"] = run_plan(plan).trace_hash
print(json.dumps(hashes))
"""

BATCH = [("lite", 4), ("lite", 0), ("lite", 1)]


@pytest.fixture(scope="module")
def runs() -> list[dict[str, str]]:
    """Hashes from two processes, whose sets and dictionaries of strings are ordered differently."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", RUN],
            env={**os.environ, "PYTHONHASHSEED": seed},
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in ("1", "2")
    ]
    outputs = [process.communicate(timeout=100)[0] for process in processes]
    return [json.loads(output) for output in outputs]


def test_a_seed_goes_the_same_way_in_every_process(runs: list[dict[str, str]]) -> None:
    assert runs[0] == runs[1]
    assert len(runs[0]) == 5


def test_another_seed_goes_another_way(runs: list[dict[str, str]]) -> None:
    assert len(set(runs[0].values())) == 5


def copied(plan: Plan, path: Path) -> Plan:
    """Through a file, twice: what is read is written in the same way again."""
    write_plan(path, plan)
    again = read_plan(path)
    before = path.read_bytes()
    write_plan(path, again)
    assert path.read_bytes() == before
    return again


def test_a_plan_goes_the_same_way_after_a_file(tmp_path: Path) -> None:
    """Everything that decides anything is written."""
    plan = replace(draw_plan(6, "lite"), left_out=frozenset({"client-1/0", "client-2/1#3"}))
    again = copied(plan, tmp_path / "plan.json")
    assert run_plan(again).trace_hash == run_plan(plan).trace_hash


@pytest.mark.parametrize("profile", PROFILES)
def test_every_plan_survives_a_file(profile: str, tmp_path: Path) -> None:
    for seed in range(5):
        plan = draw_plan(seed, profile)
        again = copied(plan, tmp_path / "plan.json")
        assert again.faults == plan.faults
        assert again.actions == plan.actions
        assert again.workload == plan.workload


@pytest.mark.parametrize("profile", PROFILES)
def test_every_fault_that_is_drawn_can_be_done(profile: str) -> None:
    """In the world that is drawn with it, and before the faults end."""
    kinds: set[FaultKind] = set()
    for seed in range(30):
        plan = draw_plan(seed, profile)
        with World(seed, plan.topology) as world:
            driver = FaultDriver(world)
            for each in plan.faults:
                driver.check(each.fault)
                kinds.add(each.fault.kind)
                assert 0.0 <= each.at <= plan.faults_s
    assert kinds >= set(PROFILES[profile].faults)


def test_a_plan_says_in_one_line_what_happens_when() -> None:
    fault = draw_plan(0, "control-plane-outage").faults[0]
    assert str(fault) == "   5.000 s  metadata-down metadata for 30.00 s"


@pytest.fixture(scope="module")
def alone() -> list[str]:
    """Hashes of the batch's seeds, each run by itself."""
    return [run_plan(draw_plan(seed, profile)).trace_hash for profile, seed in BATCH]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_batch_gives_results_in_order_whoever_ran_them(workers: int, alone: list[str]) -> None:
    """In the order of the pairs. A batch can be given up while its workers are busy."""
    batch = run_seeds(chain(BATCH, (("lite", seed) for seed in count())), workers)
    results = list(islice(batch, len(BATCH)))
    batch.close()
    assert [result.seed for result in results] == [seed for _, seed in BATCH]
    assert [result.trace_hash for result in results] == alone
    assert all(result.trace is None for result in results)
