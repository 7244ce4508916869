"""Points in processes of this machine."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice

from fleet.sweep.point import Evaluate, Numbered, Point, Task, evaluate
from keyplane.model.errors import KeyplaneError, Reason
from keyplane.workers import processors, worker_processes

# Points handed to a worker ahead of its needs.
_AHEAD = 2


@contextmanager
def local(task: Task, workers: int) -> Iterator[Evaluate]:
    """workers: 0: as many as there are processors. One is this process. They end with the block."""
    workers = workers or processors()
    if workers == 1:
        yield lambda points: (evaluate(task, number, values) for number, values in points)
        return
    with worker_processes(workers) as executor:
        yield lambda points: _completed(executor, task, points, workers * _AHEAD)


def _completed(
    executor: ProcessPoolExecutor, task: Task, points: Iterable[Numbered], ahead: int
) -> Generator[Point]:
    left = iter(points)
    waiting: set[Future[Point]] = set()
    try:
        while True:
            for number, values in islice(left, ahead - len(waiting)):
                waiting.add(executor.submit(evaluate, task, number, values))
            if not waiting:
                return
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for each in done:
                yield each.result()
    except BrokenProcessPool as error:
        raise KeyplaneError(
            Reason.INVALID_ARGUMENT,
            "a worker process died, perhaps for want of memory; what is finished is kept: try "
            "again with --resume and fewer --workers",
        ) from error
