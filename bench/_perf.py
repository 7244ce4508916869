"""Where a compiled process spends its time: samples of `perf`, summed by stage.

A sample belongs to the innermost of its functions that belongs to a stage. So what the interpreter
or the allocator do counts for the stage that makes them do it.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

# A prime, so that no beat of the process is in step with it.
SAMPLES_PER_S = 1999

# Of a stack, copied with every sample: enough to find the way from RocksDB to the event loop.
_STACK_BYTES = 16_384

_START_S = 0.5
_STOP_S_MAX = 30.0
_READ_S_MAX = 300.0

# What is left: the event loop itself, and what cannot be told.
EVENT_LOOP = "event loop"

_KERNEL = (
    ("socket: send", r"__libc_send|__send|sock_send"),
    ("socket: receive", r"__libc_recv|__recv|sock_recv"),
    ("wait for events", r"epoll_wait|select_epoll_poll|__sched_yield|os_sched_yield"),
)
_ENGINE = ("HTTP/2 and gRPC", "connection client_connection server_connection client server frames "
           "metadata blocks tick outbound inbound expiry")  # fmt: skip
_METRICS = ("metrics", "metrics")

# Stages by the compiled modules that they are made of; `wire.protobytes` and the like belong to
# whoever calls them.
STAGES: Mapping[str, Sequence[tuple[str, str]]] = {
    "router": (
        ("request read, key hashed", "plain parse keys tables single"),
        ("route looked up", "routes partition nodes"),
        ("call to the storage node, and its answer", "operation partition_call"),
        ("admission, deadline, answer", "core exchange context retry"),
        _ENGINE,
        _METRICS,
    ),
    "storage": (
        ("RocksDB", "<rocksdb>"),
        ("request read", "request"),
        ("ownership, queue, answer", "executor service shard state partition heat"),
        ("item found", "reads rows stored layout keys"),
        ("write evaluated and committed", "writes evaluate group"),
        ("write tokens", "tokens token_log"),
        _ENGINE,
        _METRICS,
    ),
}


class PerfFailed(Exception):  # noqa: N818 - it is what happened
    """`perf` cannot be used here; the message says what to do."""


def check() -> None:
    """Raises PerfFailed."""
    if shutil.which("perf") is None:
        raise PerfFailed("`perf` is not installed; on Debian: apt-get install linux-perf")


@contextmanager
def recorded(pid: int, seconds: float, into: Path) -> Iterator[None]:
    """Samples a process for so long, while the block runs. Raises PerfFailed."""
    command = ["perf", "record", "--event", "cpu-clock", "--freq", str(SAMPLES_PER_S)]
    command += ["--call-graph", f"dwarf,{_STACK_BYTES}", "--pid", str(pid)]
    command += ["--output", str(into), "--", "sleep", str(seconds)]
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said)
        try:
            time.sleep(_START_S)
            yield
            process.wait(seconds + _STOP_S_MAX)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        if process.returncode != 0 or not into.exists():
            said.seek(0)
            why = " ".join(said.read().split())
            raise PerfFailed(
                f"perf cannot look into process {pid}: {why[:300]};"
                " as root, or with kernel.perf_event_paranoid at 1 or less, it can"
            )


def shares(file: Path, process: str) -> dict[str, float]:
    """The part of each stage in what `recorded` has sampled, largest first; together 1."""
    command = ["perf", "script", "--input", str(file), "--no-inline", "--fields", "ip,sym"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as script:
        assert script.stdout is not None
        counts = count(script.stdout, process)
        script.wait(_READ_S_MAX)
    everything = sum(counts.values())
    if not everything:
        raise PerfFailed("perf has sampled nothing: was there any load?")
    return {stage: number / everything for stage, number in counts.most_common()}


def count(lines: Iterable[str], process: str) -> Counter[str]:
    """Samples by stage. lines: of `perf script`, a sample's functions from the inside out and an
    empty line after each.
    """
    patterns = _patterns(process)
    known: dict[str, str] = {}
    counts: Counter[str] = Counter()
    found, under_way = "", False
    for line in lines:
        symbol = line.strip().partition(" ")[2]
        if not line.strip():
            if under_way:
                counts[found or EVENT_LOOP] += 1
            found, under_way = "", False
            continue
        under_way = True
        if not found:
            stage = known.get(symbol)
            if stage is None:
                stage = known[symbol] = next(
                    (stage for stage, pattern in patterns if pattern.match(symbol)), ""
                )
            found = stage
    if under_way:
        counts[found or EVENT_LOOP] += 1
    return counts


def _patterns(process: str) -> list[tuple[str, re.Pattern[str]]]:
    found = [(stage, re.compile(pattern)) for stage, pattern in _KERNEL]
    for stage, modules in STAGES[process]:
        if modules == "<rocksdb>":
            found.append((stage, re.compile(r"rocksdb|rocksdict|_?rocksdb_")))
        else:
            names = "|".join(modules.split())
            # mypyc: CPyDef_module___function, CPyPy_ for its wrappers, module___Class_dealloc.
            pattern = rf"(CPyDef_|CPyPy_)?({names})___"
            found.append((stage, re.compile(pattern)))
    return found
