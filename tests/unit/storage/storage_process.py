"""A real storage node process, called over real gRPC."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import grpc
from storage_world import TABLE, item, item_key, value_of

from keyplane.model.errors import KeyplaneError
from keyplane.model.partition import KEYSPACE_END, Partition
from keyplane.storage.v1 import storage_pb2 as pb
from keyplane.storage.v1 import storage_pb2_grpc as rpc

_DETAILS = "grpc-status-details-bin"


class StorageProcess:
    """One process over one data directory; `start` again after it died."""

    def __init__(self, directory: Path) -> None:
        self.data_dir = directory / "data"
        self._run_file = directory / "run.json"
        self._log = directory / "log"
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: grpc.Channel | None = None

    def start(self, file_bytes_max: int | None = None, *flags: str) -> None:
        self._run_file.unlink(missing_ok=True)
        if self._channel is not None:
            self._channel.close()
        command = [sys.executable, "-m", "storage", "--node-id", "s1"]
        command += ["--data-dir", str(self.data_dir), "--run-file", str(self._run_file), *flags]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stderr=log, preexec_fn=_limiter(file_bytes_max)
            )
        for _ in range(1500):
            if self._run_file.exists() or self._process.poll() is not None:
                break
            _wait(self._process, 0.02)
        assert self._run_file.exists(), self._log.read_text()
        address = json.loads(self._run_file.read_text())["address"]
        self._channel = grpc.insecure_channel(address)
        grpc.channel_ready_future(self._channel).result(timeout=30)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        return self._end(signal.SIGTERM)

    def log(self) -> str:
        return self._log.read_text()

    def open(self) -> None:
        stub = rpc.OwnershipServiceStub(self._channel)
        partition = Partition(1, TABLE.table_id, 0, KEYSPACE_END, 1, "s1")
        stub.OpenPartitions(
            pb.OpenPartitionsRequest(
                operation_id="create", table=TABLE, partitions=[partition.to_proto()]
            ),
            timeout=10,
        )

    def put(self, name: str, value: str) -> None:
        """Raises KeyplaneError."""
        write = pb.WriteOp(key=item_key(name), put=item(name, value))
        self._execute(pb.ExecuteRequest(partition_id=1, epoch=1, write=write))

    def get(self, name: str) -> str | None:
        get = pb.GetOp(key=item_key(name))
        found = self._execute(pb.ExecuteRequest(partition_id=1, epoch=1, get=get)).get
        return value_of(found.item) if found.found else None

    def _execute(self, request: pb.ExecuteRequest) -> pb.ExecuteResponse:
        stub = rpc.StorageServiceStub(self._channel)
        try:
            return stub.Execute(request, timeout=10)
        except grpc.RpcError as error:
            details = dict(error.trailing_metadata() or ()).get(_DETAILS, b"")
            raise KeyplaneError.from_status(
                error.code().value[0], error.details(), details
            ) from error

    def _end(self, number: signal.Signals) -> int:
        assert self._process is not None
        self._process.send_signal(number)
        return self._process.wait(timeout=30)

    def clean_up(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._end(signal.SIGKILL)


def _wait(process: subprocess.Popen[bytes], seconds: float) -> None:
    """Waits for a process to end, but not for long."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return


def _limiter(file_bytes_max: int | None) -> Callable[[], None] | None:
    if file_bytes_max is None:
        return None
    return lambda: resource.setrlimit(
        resource.RLIMIT_FSIZE, (file_bytes_max, resource.RLIM_INFINITY)
    )
