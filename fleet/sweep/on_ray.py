"""Points on a Ray cluster: on one that runs, or one that is started here and ends with the sweep.

Ray is an extra (`keyplane[ray]`), imported when it is asked for.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from tempfile import TemporaryDirectory
from typing import Any

from fleet.sweep.point import Evaluate, Numbered, Point, Task, evaluate
from keyplane.model.errors import KeyplaneError, Reason
from keyplane.workers import processors

# In place of an address: a Ray of this machine, on loopback, for as long as the sweep takes.
LOCAL = "local"

_OBJECTS_BYTES = 100 * 1024 * 1024
_CONNECT_S = 5.0
# Points handed to a processor ahead of its needs.
_AHEAD = 2


@contextmanager
def on_ray(task: Task, address: str, workers: int) -> Iterator[Evaluate]:
    """address: of a cluster, whose machines have Keyplane installed, or LOCAL. workers: points at a
    time; 0: as many as the cluster has processors.

    Raises INVALID_ARGUMENT if Ray is not installed or nobody answers there.
    """
    ray = _import_ray(address)
    # Where one that is started here keeps its sockets and logs, which nobody needs afterwards.
    with TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as directory:
        _connect(ray, address, workers, directory)
        try:
            slots = workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
            remote = ray.remote(evaluate)
            yield lambda points: _completed(ray, remote, task, points, slots * _AHEAD)
        finally:
            ray.shutdown()


def _import_ray(address: str) -> Any:
    # Ray reads these when it is loaded. Nothing is reported to anybody, and one that is started
    # here listens on loopback alone, which Ray otherwise does on other systems only.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address == LOCAL:
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    try:
        import ray
    except ModuleNotFoundError as error:
        raise KeyplaneError(
            Reason.INVALID_ARGUMENT, "--ray needs Ray: pip install 'keyplane[ray]'"
        ) from error
    return ray


def _connect(ray: Any, address: str, workers: int, directory: str) -> None:
    quiet = {"log_to_driver": False, "logging_level": "error"}
    if address == LOCAL:
        ray.init(
            address="local",
            num_cpus=workers or processors(),
            include_dashboard=False,
            object_store_memory=_OBJECTS_BYTES,
            _temp_dir=directory,
            **quiet,
        )
        return
    try:
        _reach(address)
        ray.init(address=address, **quiet)
    except (OSError, RuntimeError, ValueError) as error:
        raise KeyplaneError(
            Reason.INVALID_ARGUMENT,
            f"no Ray cluster at {address}: {error}; `--ray {LOCAL}` starts one here",
        ) from error


def _reach(address: str) -> None:
    """Ray would try for minutes. Raises OSError if nobody listens there, ValueError on a port that
    is none.
    """
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon:
        socket.create_connection((host, int(port)), timeout=_CONNECT_S).close()


def _completed(
    ray: Any, remote: Any, task: Task, points: Iterable[Numbered], ahead: int
) -> Generator[Point]:
    left = iter(points)
    waiting: list[Any] = []
    # Told once, not with every point.
    shared = ray.put(task)
    try:
        while True:
            for number, values in islice(left, ahead - len(waiting)):
                waiting.append(remote.remote(shared, number, dict(values)))
            if not waiting:
                return
            done, waiting = ray.wait(waiting, num_returns=1)
            yield from ray.get(done)
    except ray.exceptions.RayError as error:
        raise KeyplaneError(
            Reason.INVALID_ARGUMENT,
            f"Ray gave up: {_last_line(error)}; every machine of the cluster needs Keyplane and "
            "keyplane[fleet]. What is finished is kept: go on with --resume",
        ) from error


def _last_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[-1].strip() if lines else type(error).__name__
