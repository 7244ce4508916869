"""Runs many seeds, over several processes of the operating system."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import islice

from keyplane.workers import processors, worker_processes
from sim.plan import draw_plan
from sim.run import without_collector
from sim.scenario import Result

# Seeds handed to a worker ahead of its needs.
_AHEAD = 2


def run_seeds(seeds: Iterable[tuple[str, int]], workers: int = 0) -> Iterator[Result]:
    """Results of (profile, seed) pairs, in the order of the pairs, each as soon as it is there.

    workers: processes; 0: as many as there are processors. One runs in this process. Ends all of
    them when the iteration is given up.
    """
    workers = workers or processors()
    if workers == 1:
        for profile, seed in seeds:
            yield without_collector(draw_plan(seed, profile))
        return
    with worker_processes(workers) as executor:
        yield from _in_order(executor, iter(seeds), workers * _AHEAD)


def _in_order(
    executor: ProcessPoolExecutor, seeds: Iterator[tuple[str, int]], ahead: int
) -> Iterator[Result]:
    waiting = deque(executor.submit(_run, *pair) for pair in islice(seeds, ahead))
    while waiting:
        result = waiting.popleft().result()
        waiting.extend(executor.submit(_run, *pair) for pair in islice(seeds, 1))
        yield result


def _run(profile: str, seed: int) -> Result:
    return without_collector(draw_plan(seed, profile))
