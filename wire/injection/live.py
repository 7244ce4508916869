"""The faults that a real process does to itself through its operating system."""

from __future__ import annotations

import os
import resource
import signal
from functools import partial

from keyplane.model.errors import KeyplaneError, Reason
from wire import crashpoints
from wire.faults import Fault, FaultKind
from wire.injection.table import FaultTable


def allow_full_disk(table: FaultTable) -> None:
    """While full-disk is on, no file of this process can grow: the kernel refuses with EFBIG, to
    every library as to a log. (The signal that goes with it is one that Python ignores.)
    """

    def begin(_: Fault) -> None:
        _limit_files(0)

    def end(_: Fault) -> None:
        if not table.of(FaultKind.FULL_DISK):
            _limit_files(None)

    table.allow(FaultKind.FULL_DISK, begin, end)


def allow_crash_points(table: FaultTable) -> None:
    def begin(fault: Fault) -> None:
        try:
            crashpoints.arm(fault.point, partial(os.kill, os.getpid(), signal.SIGKILL))
        except ValueError as error:
            raise KeyplaneError(Reason.INVALID_ARGUMENT, str(error)) from error

    table.allow(FaultKind.CRASH_POINT, begin, lambda fault: crashpoints.disarm(fault.point))


def _limit_files(bytes_max: int | None) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard if bytes_max is None else bytes_max, hard))
