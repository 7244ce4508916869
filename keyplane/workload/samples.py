"""A line for every request, for whoever wants to draw or compute over windows of time.

    start_s,latency_ms,operation,outcome
    1730000000.123456,1.204,read,ok

`start_s` is wall time in seconds: when the request was due, which with a given rate may be before
it was sent. `outcome` is `ok` or a reason of the error table.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

HEADER = "start_s,latency_ms,operation,outcome\n"


class Sample(NamedTuple):
    start_s: float
    latency_ms: float
    is_read: bool
    outcome: str


class SampleLog:
    """Writes a new file."""

    def __init__(self, path: Path) -> None:
        # Line buffered, so that others can watch it grow.
        self._file = path.open("w", buffering=1)
        self._file.write(HEADER)

    def append(self, start_s: float, latency_s: float, is_read: bool, outcome: str) -> None:
        operation = "read" if is_read else "write"
        self._file.write(f"{start_s:.6f},{latency_s * 1000:.3f},{operation},{outcome}\n")

    def close(self) -> None:
        self._file.close()


def read_samples(path: Path) -> Iterator[Sample]:
    """In the order in which the requests ended."""
    with path.open() as file:
        next(file, None)
        for line in file:
            yield parse_sample(line)


def parse_sample(line: str) -> Sample:
    start_s, latency_ms, operation, outcome = line.rstrip("\n").split(",")
    return Sample(float(start_s), float(latency_ms), operation == "read", outcome)
