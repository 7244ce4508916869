"""Other systems stand still while one is measured, and go on whatever comes of it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

import psutil
import pytest

from bench._alone import stopped


@pytest.fixture
def others() -> Iterator[list[psutil.Process]]:
    """Two processes that count as fast as they can."""
    command = [sys.executable, "-c", "while True: pass"]
    running = [subprocess.Popen(command) for _ in range(2)]
    try:
        yield [psutil.Process(process.pid) for process in running]
    finally:
        for process in running:
            process.kill()
            process.wait()


def cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def wait_for_work(process: psutil.Process) -> None:
    before, end = cpu_s(process), time.monotonic() + 10
    while cpu_s(process) == before:
        assert time.monotonic() < end, "it does nothing"
        time.sleep(0.01)


def test_others_take_no_processor_time_meanwhile(others: list[psutil.Process]) -> None:
    with stopped([process.pid for process in others]):
        time.sleep(0.05)
        before = [cpu_s(process) for process in others]
        time.sleep(0.3)
        assert [cpu_s(process) for process in others] == before
    for process in others:
        wait_for_work(process)


def test_they_go_on_after_a_failure_and_the_dead_are_no_failure(
    others: list[psutil.Process],
) -> None:
    dead, alive = others
    dead.kill()
    dead.wait()
    with pytest.raises(KeyboardInterrupt), stopped([dead.pid, alive.pid]):
        raise KeyboardInterrupt
    wait_for_work(alive)
