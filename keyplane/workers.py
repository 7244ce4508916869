"""Processes that compute, none of which outlives who started them."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager


def processors() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0))


@contextmanager
def worker_processes(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Ends them, whatever they are at, when the block is left by an exception, as by Ctrl-C."""
    # Spawned, not forked: a worker starts without this process's threads and state.
    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(workers, mp_context=context, initializer=_ignore_interrupts)
    try:
        yield executor
    except BaseException:
        for process in list((executor._processes or {}).values()):
            process.terminate()
        raise
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _ignore_interrupts() -> None:
    """Ctrl-C goes to the whole group; the parent ends its workers itself."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
