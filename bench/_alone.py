"""One system at a time has the machine.

Systems that only wait still work: they look for news, report, clean up. On two processors that is
seen in the slowest of a hundred requests of the one that is measured, so the others are stopped
meanwhile, and go on afterwards as if no time had passed.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import psutil

from keyplane.cluster.process import send


@contextmanager
def stopped(pids: Iterable[int]) -> Iterator[None]:
    """Stops these processes, of which some may be gone, for as long as it is open."""
    found = []
    try:
        for pid in pids:
            with contextlib.suppress(psutil.NoSuchProcess):
                found.append(psutil.Process(pid))
                send(found[-1], signal.SIGSTOP)
        yield
    finally:
        for process in found:
            send(process, signal.SIGCONT)
