"""One command at a time: locks that are files."""

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
def exclusive(
    path: Path,
    timeout_s: float,
    reason: Reason = Reason.CLUSTER_BUSY,
    doing: str = "changing this cluster",
) -> Iterator[None]:
    """Holds the lock file. The kernel lets go of it when the holder dies, however it dies.

    doing: what whoever holds it does, for the message. Raises KeyplaneError, for `reason`, when
    another process holds it for longer than `timeout_s`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    give_up = time.monotonic() + timeout_s
    # Not inherited by the processes that are started meanwhile: they would hold it for ever.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while not _acquired(descriptor):
            if time.monotonic() > give_up:
                holder = path.read_text(errors="replace") or "unknown"
                raise KeyplaneError(
                    reason,
                    f"another command (process {holder}) is {doing}; wait for it, or end it: "
                    f"kill {holder}",
                )
            time.sleep(_POLL_S)
        os.ftruncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())
        yield
    finally:
        os.close(descriptor)


def _acquired(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
