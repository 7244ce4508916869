"""The demo's load: a workload in a process of its own, watched through the files it writes."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from keyplane.cluster import Cluster
from keyplane.cluster.process import CLUSTER_ID, MEMBER
from keyplane.model.errors import KeyplaneError, Reason
from keyplane.workload.recorder import OK
from keyplane.workload.samples import HEADER, Sample, parse_sample

# Seconds for the first request to be answered, and for a stopped workload to end.
_START_S = 30.0
_STOP_S = 20.0
_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class LoadConfig:
    """clients: requests in flight at most. rate_per_s: well under what two cores can do, so that
    latencies show the cluster and not the queue in front of it. keys: few enough that most are
    written many times.
    """

    table: str
    clients: int = 8
    rate_per_s: float = 400.0
    keys: int = 2_000
    read_share: float = 0.5
    # Ends by itself if nobody stops it.
    duration_s: float = 300.0


class Load:
    """Runs until `stop`. Times are wall seconds, as in the samples."""

    def __init__(self, cluster: Cluster, config: LoadConfig, directory: Path) -> None:
        self.ack_log = directory / "acks.jsonl"
        self._directory = directory
        self._cluster = cluster
        self._samples_path = directory / "samples.csv"
        self.samples: list[Sample] = []
        self.failed = 0
        self._reader: TextIO | None = None
        self._process = _spawn(cluster, config, directory, self.ack_log, self._samples_path)

    def wait_started(self) -> None:
        """Returns when requests are being answered."""
        give_up = time.monotonic() + _START_S
        while not self.poll():
            if self._process.poll() is not None or time.monotonic() > give_up:
                raise KeyplaneError(
                    Reason.START_FAILED, f"the workload did not start: {self._last_words()}"
                )
            time.sleep(_POLL_S)

    def poll(self) -> int:
        """Reads what has been sampled since, and returns how many requests have ended in all."""
        if self._reader is None:
            if not self._samples_path.exists():
                return 0
            self._reader = self._samples_path.open()
        while line := self._reader.readline():
            if not line.endswith("\n"):
                # Half written: the rest comes with the next poll.
                self._reader.seek(self._reader.tell() - len(line))
                break
            if line != HEADER:
                sample = parse_sample(line)
                self.samples.append(sample)
                self.failed += sample.outcome != OK
        return len(self.samples)

    def stop(self) -> dict[str, Any]:
        """Lets requests under way end, and returns the workload's own summary."""
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise KeyplaneError(Reason.INTERNAL, "the workload did not stop") from None
        self.poll()
        lines = (self._directory / "workload.json").read_text().splitlines()
        if not lines:
            raise KeyplaneError(Reason.INTERNAL, f"the workload failed: {self._last_words()}")
        summary: dict[str, Any] = json.loads(lines[-1])
        return summary

    def kill(self) -> None:
        """For an early end; does nothing after `stop`."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def _last_words(self) -> str:
        return (self._directory / "workload.log").read_text()[-500:].strip() or "no output"


def _spawn(
    cluster: Cluster, config: LoadConfig, directory: Path, ack_log: Path, samples: Path
) -> subprocess.Popen[bytes]:
    options = {
        "--cluster": cluster.name,
        "--data-dir": cluster.paths.root.parent,
        "--table": config.table,
        "--distribution": "zipf",
        "--clients": config.clients,
        "--rate": config.rate_per_s,
        "--keys": config.keys,
        "--reads": config.read_share,
        "--duration": config.duration_s,
        "--ack-log": ack_log,
        "--samples": samples,
    }
    with (
        (directory / "workload.json").open("wb") as result,
        (directory / "workload.log").open("wb") as log,
    ):
        return subprocess.Popen(
            keyplane_command("workload", "run", "--json", options=options),
            stdin=subprocess.DEVNULL,
            stdout=result,
            stderr=log,
            # `keyplane down` ends it too, should the demo itself be killed.
            env=os.environ | {CLUSTER_ID: cluster.paths.cluster_id, MEMBER: "workload"},
            start_new_session=True,
        )


def keyplane_command(*words: str, options: dict[str, Any]) -> list[str]:
    pairs = [text for name, value in options.items() for text in (name, str(value))]
    return [sys.executable, "-m", "keyplane", *words, *pairs]


def within(samples: Sequence[Sample], start_s: float, end_s: float) -> list[Sample]:
    """Requests that were due in [start_s, end_s)."""
    return [sample for sample in samples if start_s <= sample.start_s < end_s]


def p99_ms(samples: Sequence[Sample]) -> float:
    """Of those that succeeded; 0 if none did."""
    latencies = sorted(sample.latency_ms for sample in samples if sample.outcome == OK)
    if not latencies:
        return 0.0
    return round(latencies[math.ceil(len(latencies) * 0.99) - 1], 2)
