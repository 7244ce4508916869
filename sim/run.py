"""Runs plans: one alone, or with and without an outage of the control plane, to compare."""

from __future__ import annotations

import gc
from dataclasses import replace

from sim.plan import Plan
from sim.profiles import PROFILES
from sim.scenario import Result, Scenario
from sim.violation import Violation

# What an outage may change for clients (I6): the two runs draw other delays, so they are never
# quite equal. Share of requests, and of the latency that 99 % stay within.
_FAILED_MORE_MAX = 0.002
_SLOWER_MAX = 1.5
_SLOWER_S_MAX = 0.01


def run_seed(plan: Plan, full_trace: bool = False) -> Result:
    """As `run_plan`; of a profile that is compared, both runs, and what they differ in."""
    result = run_plan(plan, full_trace)
    if not PROFILES[plan.profile].compared or not result.held:
        return result
    well = run_plan(plan.without_control_plane_faults())
    if not well.held:
        return well
    return replace(
        result,
        violation=_difference(result, well),
        virtual_seconds=result.virtual_seconds + well.virtual_seconds,
        requests=result.requests + well.requests,
        failed=result.failed + well.failed,
        events=result.events + well.events,
        trace_hash=_joined(result.trace_hash, well.trace_hash),
        details=(
            f"with the outage {result.success_ratio:.3%} of requests succeeded, p99"
            f" {result.latency_s_p99 * 1e3:.1f} ms; without {well.success_ratio:.3%},"
            f" {well.latency_s_p99 * 1e3:.1f} ms"
        ),
    )


def run_plan(plan: Plan, full_trace: bool = False) -> Result:
    """Runs one plan from beginning to end."""
    return scenario_of(plan, full_trace).run(plan.faults_s, plan.least_s)


def scenario_of(plan: Plan, full_trace: bool = False) -> Scenario:
    """The scenario that a plan describes, ready to run."""
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
    return scenario


def without_collector(plan: Plan) -> Result:
    """As `run_seed`, with Python's cycle collector at rest while the seed runs.

    A world makes millions of objects that die at once and few cycles; looking for those takes a
    tenth of the time.
    """
    gc.disable()
    try:
        result = run_seed(plan)
    finally:
        gc.enable()
    return replace(result, trace=None)


def _difference(result: Result, well: Result) -> Violation | None:
    """What clients noticed of the outage; None if nothing."""
    if well.success_ratio - result.success_ratio > _FAILED_MORE_MAX:
        message = (
            f"{result.success_ratio:.3%} of requests succeeded while the control plane was away,"
            f" and {well.success_ratio:.3%} without the outage"
        )
    elif result.latency_s_p99 > well.latency_s_p99 * _SLOWER_MAX + _SLOWER_S_MAX:
        message = (
            f"99 % of requests took up to {result.latency_s_p99 * 1e3:.1f} ms while the control"
            f" plane was away, and {well.latency_s_p99 * 1e3:.1f} ms without the outage"
        )
    else:
        return None
    return Violation("I6", message, result.virtual_seconds)


def _joined(*hashes: str) -> str:
    """One fingerprint of several, as wide as each."""
    whole = 0
    for number, each in enumerate(hashes, 1):
        whole = (whole * 0x9E3779B97F4A7C15 + int(each, 16) * number) % (1 << 128)
    return f"{whole:032x}"


def joined_hash(hashes: list[str]) -> str:
    """One fingerprint of the runs of several seeds, in their order."""
    return _joined(*hashes)
