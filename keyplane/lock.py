"""One command at a time may change a cluster."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from keyplane.model.errors import KeyplaneError, Reason

_POLL_S = 0.1


@contextlib.contextmanager
def exclusive(path: Path, timeout_s: float) -> Iterator[None]:
    """Holds the lock file. The kernel lets go of it when the holder dies, however it dies.

    Raises KeyplaneError(CLUSTER_BUSY) when another process holds it for longer than `timeout_s`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not inherited by the processes that are started meanwhile: they would hold it for ever.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _acquire(descriptor, path, time.monotonic() + timeout_s)
        os.ftruncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())
        yield
    finally:
        os.close(descriptor)


def _acquire(descriptor: int, path: Path, give_up: float) -> None:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > give_up:
                holder = path.read_text(errors="replace") or "unknown"
                raise KeyplaneError(
                    Reason.CLUSTER_BUSY,
                    f"another command (process {holder}) is changing this cluster; wait for it, "
                    f"or end it: kill {holder}",
                ) from None
            time.sleep(_POLL_S)
