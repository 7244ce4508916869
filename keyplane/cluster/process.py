"""Processes: started detached, recognised for certain, and stopped for certain."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import psutil

from keyplane.model.errors import KeyplaneError, Reason

# Every process of a cluster carries these in its environment: the cluster's id and its own name.
CLUSTER_ID = "KEYPLANE_CLUSTER_ID"
MEMBER = "KEYPLANE_MEMBER"

# Two readings of one process's start time may differ by a clock tick.
_START_TIME_SLACK_S = 0.5

# The kernel takes a killed process down at once, unless a device holds it up.
_KILL_WAIT_S = 30.0

_POLL_S = 0.02


def spawn(argv: Sequence[str], env: Mapping[str, str], cwd: Path, log: Path) -> psutil.Process:
    """Starts a process that outlives this one and writes its output to the end of `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        child = subprocess.Popen(
            argv,
            env=env,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            # Its own session: the terminal's Ctrl-C is for the launcher, not for the cluster.
            start_new_session=True,
        )
    # It is meant to outlive this object, which would complain about that when collected.
    child.returncode = 0
    return psutil.Process(child.pid)


def find(pid: int, started: float) -> psutil.Process | None:
    """The process with this number, if it lives and is the one that started then."""
    if pid <= 0:
        return None
    try:
        process = psutil.Process(pid)
        same = abs(process.create_time() - started) < _START_TIME_SLACK_S
        return process if same and is_alive(process) else None
    except psutil.Error:
        return None


def belonging_to(cluster_id: str) -> list[tuple[str, psutil.Process]]:
    """Every living process that carries the cluster's id, with the member name it carries."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            environ = process.environ()
            if environ.get(CLUSTER_ID) == cluster_id and is_alive(process):
                found.append((environ.get(MEMBER, ""), process))
    return found


def is_alive(process: psutil.Process) -> bool:
    """False also for a zombie: it has ended, and only its parent's `wait` is missing.

    Unless it has threads left. The first thread of a killed process may be a zombie while others
    are still on their way out, and the last of them closes its ports.
    """
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return process.num_threads() > 1
        return process.is_running()
    except psutil.NoSuchProcess:
        return False


def is_paused(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_STOPPED
    except psutil.NoSuchProcess:
        return False


def exit_code(process: psutil.Process) -> int | None:
    """Of an ended child of this process: its exit code, negative for a signal. None if unknown."""
    try:
        pid, status = os.waitpid(process.pid, os.WNOHANG)
    except ChildProcessError:
        return None
    return os.waitstatus_to_exitcode(status) if pid else None


def send(process: psutil.Process, number: signal.Signals) -> None:
    """A signal to a process that may be ending; psutil makes sure the number was not reused."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(number)


def stop(processes: Iterable[psutil.Process], grace_s: float) -> int:
    """SIGTERM, then SIGKILL to those that still live after `grace_s`. Returns how many it killed.

    Returns when none is alive. Raises KeyplaneError(INTERNAL) for one that cannot be killed.
    """
    alive = list(processes)
    for process in alive:
        send(process, signal.SIGTERM)
        # A paused process acts on SIGTERM only once it goes on.
        send(process, signal.SIGCONT)
    alive = _wait_gone(alive, grace_s)
    kill(alive)
    return len(alive)


def kill(processes: Iterable[psutil.Process]) -> None:
    """SIGKILL; returns when they are gone."""
    alive = list(processes)
    for process in alive:
        send(process, signal.SIGKILL)
    alive = _wait_gone(alive, _KILL_WAIT_S)
    if alive:
        raise KeyplaneError(
            Reason.INTERNAL,
            f"process {alive[0].pid} does not end after SIGKILL; `cat /proc/{alive[0].pid}/stack` "
            "may say what in the kernel holds it",
        )


def _wait_gone(processes: list[psutil.Process], timeout_s: float) -> list[psutil.Process]:
    """Waits until all are gone or time is up; returns the living. Reaps this process's children."""
    give_up = time.monotonic() + timeout_s
    alive = processes
    while True:
        for process in alive:
            exit_code(process)
        alive = [process for process in alive if is_alive(process)]
        if not alive or time.monotonic() > give_up:
            return alive
        time.sleep(_POLL_S)
