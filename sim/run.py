"""Runs plans."""

from __future__ import annotations

from sim.plan import Plan
from sim.scenario import Result, Scenario


def run_plan(plan: Plan, full_trace: bool = False) -> Result:
    """Runs one plan from beginning to end."""
    scenario = Scenario(
        plan.seed,
        plan.topology,
        plan.workload,
        left_out=plan.left_out,
        full_trace=full_trace,
    )
    for each in plan.faults:
        scenario.plan_fault(each.at, each.seconds, each.fault)
    for action in plan.actions:
        scenario.plan_action(action)
    return scenario.run(plan.faults_s, plan.least_s)
