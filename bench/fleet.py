"""How fast the fleet models are: requests simulated by the exact layer, fleets by the cohort layer.

In processor time of one core. SimPy, which the exact layer is checked against, simulates the same
station in the same rounds: the ratio to it does not depend on how fast the machine is just then.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Annotated, Any

import numpy as np
import typer

from fleet.cohort.beats import run_beats
from fleet.cohort.lookups import Flush, run_lookups
from fleet.exact.station import Station, response_times
from fleet.exact.tandem import Process, Tandem, simulate
from fleet.exact.tenants import SharedFleet, run_tenants
from fleet.fleetwide import FleetParameters

# A station of each size at this load.
LOAD = 0.8
SERVERS = (1, 10, 256)
SIMPY = "SimPy, 10 servers"

FLEET = FleetParameters(routers=1_000, requests_per_s=100e6)
FLEET_S = 1_800.0

_TANDEM = Tandem(
    Process(0.03, 0.005), Process(0.04, 0.007), Process(0.03, 0.006), 0.003, 0.5, looking=0.4
)

# Simulates a number of requests.
Loop = Callable[[int], object]
Work = Callable[[], object]


def run(
    requests: Annotated[
        int, typer.Option(min=1_000, help="Simulated in one round by each event loop.")
    ] = 1_000_000,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of all, in turn.")] = 5,
    as_json: Annotated[
        bool, typer.Option("--json", help="End with one JSON object on stdout.")
    ] = False,
) -> None:
    """Requests a second and core that the exact layer simulates, and what a fleet costs."""
    loops: dict[str, Loop] = {
        f"station, {servers} server{'s' if servers > 1 else ''}": _station(servers)
        for servers in SERVERS
    }
    loops["tenants in fair queues"] = _tenants
    loops["closed loop, 64 under way"] = _closed_loop
    fleets: dict[str, Work] = {"TTL caches": _ttl_caches, "constant work": _constant_work}
    # Compiles them, or loads what was.
    for loop in loops.values():
        loop(1_000)
    for fleet in fleets.values():
        fleet()
    found: dict[str, list[float]] = {name: [] for name in (*loops, SIMPY, *fleets)}
    for number in range(rounds):
        sys.stderr.write(f"round {number + 1} of {rounds}\n")
        for name, loop in loops.items():
            found[name].append(requests / _cpu_s(partial(loop, requests)))
        few = max(1_000, requests // 50)
        found[SIMPY].append(few / _cpu_s(partial(_by_simpy, few)))
        for name, fleet in fleets.items():
            found[name].append(_cpu_s(fleet))
    _show(found, list(fleets))
    if as_json:
        results = {name: median(values) for name, values in found.items()}
        ratios = {name: _ratio(found, name) for name in loops}
        facts = {"requests": requests, "rounds": rounds, "results": results, "over_simpy": ratios}
        sys.stdout.write(json.dumps(facts) + "\n")


def _cpu_s(work: Work) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def _station(servers: int) -> Loop:
    station = Station(servers, LOAD * servers, 1.0)
    return lambda count: response_times(station, count, seed=1)


def _tenants(count: int) -> object:
    shared = SharedFleet(
        servers=4,
        service_s=0.001,
        tenants=20,
        noisy_per_s=4_000.0,
        quiet_per_s=140.0,
        queue_max=100,
        fair=True,
    )
    return run_tenants(shared, count, 1)


def _closed_loop(count: int) -> object:
    return simulate(_TANDEM, 64, count, seed=1)


def _by_simpy(count: int) -> object:
    import simpy

    draw = random.Random(1)
    world = simpy.Environment()
    servers = simpy.Resource(world, 10)

    def request() -> Any:
        with servers.request() as turn:
            yield turn
            yield world.timeout(draw.expovariate(1.0))

    def arrivals() -> Any:
        for _ in range(count):
            yield world.timeout(draw.expovariate(LOAD * 10))
            world.process(request())

    world.process(arrivals())
    world.run()
    return world.now


def _ttl_caches() -> object:
    ones = np.ones(round(FLEET_S / FLEET.step_s))
    lost = Flush(60.0, (1.0,))
    return run_lookups(FLEET.conventional([lost]), FLEET.step_s, ones, ones)


def _constant_work() -> object:
    ones = np.ones(round(FLEET_S / FLEET.step_s))
    return run_beats(FLEET.constant_work(), FLEET.step_s, ones, ones, ones)


def _ratio(found: dict[str, list[float]], name: str) -> float:
    """Median of the ratios to SimPy, round by round."""
    return median(a / b for a, b in zip(found[name], found[SIMPY], strict=True))


def _show(found: dict[str, list[float]], fleets: list[str]) -> None:
    sys.stderr.write("requests simulated in a second of one core\n")
    for name in (each for each in found if each not in fleets):
        rate = median(found[name])
        sys.stderr.write(f"  {name:<28}{rate:>14,.0f}{_ratio(found, name):>10,.1f}x\n")
    represented = FLEET.requests_per_s * FLEET_S
    sys.stderr.write(
        f"seconds of one core for {FLEET.routers:,} routers, {FLEET.requests_per_s:,.0f} requests"
        f" a second, {FLEET_S / 60:g} min ({represented:.3g} requests represented)\n"
    )
    for name in fleets:
        sys.stderr.write(f"  {name:<28}{median(found[name]):>14.2f}\n")


if __name__ == "__main__":
    typer.run(run)
